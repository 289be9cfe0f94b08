"""Refuses, before a route is reached, who may not ask, what is too large, and what is too much at once.

Without a token only this machine is answered, and only under a loopback name: a page in a browser must not reach the
server through a domain name that points here. Such a page may also not ask as a stranger (Origin): CORS is off unless
`serve.cors_origins` says otherwise.
"""

import asyncio
import ipaddress
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.serving.errors import ApiError, json_reply
from actors.serving.metrics import Metrics
from actors.serving.tokens import TOKEN_VARIABLE, Quota, Token, find_token
from avere_ray.config import ServeConfig

BODY_TIMEOUT_S = 60.0
"""Seconds a client may take to send its request."""
_JSON = ("application/json",)
_NOBODY = Token(name="local", sha256="")
_UNKNOWN = "other"


class Guard:
    """ASGI middleware; one for each replica."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        serve: ServeConfig,
        tokens: Sequence[Token],
        metrics: Metrics,
        routes: frozenset[str],
        bodies: Mapping[str, tuple[str, ...]],
    ) -> None:
        """`routes`: paths that metrics name; `bodies`: content types by path, where they are not JSON alone."""
        self.app = app
        self.serve = serve
        self.tokens = tokens
        self.metrics = metrics
        self.routes = routes
        self.bodies = bodies
        self.in_work = 0
        self._quotas = {
            token.name: Quota(serve.requests_per_minute, serve.requests_per_token) for token in (*tokens, _NOBODY)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._watched(scope, receive, send)

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 499

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _safe_headers(message)
            await send(message)

        try:
            await self._checked(scope, receive, told)
        except ApiError as error:
            await json_reply(error)(scope, receive, told)
        finally:
            route = scope["path"] if scope["path"] in self.routes else _UNKNOWN
            self.metrics.request(route, status, time.perf_counter() - began)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if origin and not self._own_page(origin, headers):
            if origin not in self.serve.cors_origins:
                raise ApiError(403, "pages of other hosts may not ask; see serve.cors_origins", code="forbidden")
            if scope["method"] == "OPTIONS":
                await Response(status_code=204, headers=_cors(origin))(scope, receive, send)
                return
            send = _with_cors(origin, send)
        try:
            who = self._who(scope, headers)
            scope.setdefault("state", {})["token"] = who
            await self._limited(scope, receive, send, who)
        except ApiError as error:
            await json_reply(error)(scope, receive, send)

    def _own_page(self, origin: str, headers: Headers) -> bool:
        return urllib.parse.urlsplit(origin).netloc == headers.get("host", "")

    def _who(self, scope: Scope, headers: Headers) -> Token:
        if not self.tokens:
            client = (scope.get("client") or ("",))[0]
            if not (is_loopback(client) and is_loopback(_host_name(headers.get("host", "")))):
                raise ApiError(
                    403, f"this server answers its own machine alone; set {TOKEN_VARIABLE} to open it", code="forbidden"
                )
            return _NOBODY
        if not scope["path"].startswith(("/v1", "/metrics")):
            return _NOBODY
        token = find_token(self.tokens, headers.get("authorization", ""))
        if token is None:
            raise ApiError(401, "a valid token is needed: 'Authorization: Bearer TOKEN'", code="invalid_api_key")
        return token

    async def _limited(self, scope: Scope, receive: Receive, send: Send, who: Token) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        quota = self._quotas[who.name]
        quota.enter()
        try:
            if self.in_work >= self.serve.max_requests:
                raise ApiError(503, f"{self.in_work} requests are in work; try again later", code="overloaded")
            self.in_work += 1
            try:
                kinds = self.bodies.get(scope["path"], _JSON)
                body = await read_body(Headers(scope=scope), receive, self.serve.max_body_mb * 2**20, kinds)
                await self.app(scope, _replay(body, receive), send)
            finally:
                self.in_work -= 1
        finally:
            quota.leave()


async def read_body(headers: Headers, receive: Receive, limit: int, kinds: Sequence[str] = _JSON) -> bytes:
    """The whole body of a request, of one of these content types and within `limit` bytes.

    Raises:
        ApiError: it is something else, too large, too slow, or the client went away.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() not in kinds:
        what = f"the body must be sent as Content-Type: {' or '.join(kinds)}"
        raise ApiError(415, what, code="unsupported_media_type")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ApiError(400, "the client went away while sending", code="disconnected")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(limit)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise ApiError(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s", code="timeout") from error
    return bytes(body)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that gives the body in one piece, then what else the client says."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return parts.pop() if parts else await receive()

    return again


def _safe_headers(message: Message) -> None:
    """A browser takes a reply for what it says it is, and keeps none of it."""
    names = {name.lower() for name, _ in message.setdefault("headers", [])}
    added = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
    message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in names)]


def _cors(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Vary": "Origin",
    }


def _with_cors(origin: str, send: Send) -> Send:
    pairs = [(name.lower().encode(), value.encode()) for name, value in _cors(origin).items()]

    async def opened(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *pairs]
        await send(message)

    return opened


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request is larger than {limit // 2**20} MiB", code="too_large")
