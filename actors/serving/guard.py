"""Refuses, before a route is reached, who may not ask, what is too large, and what is too much at once.

Without a token only this machine is answered, and only under a loopback name: a page in a browser must not reach the
server through a domain name that points here. Such a page may also not ask as a stranger (Origin): CORS is off unless
`serve.cors_origins` says otherwise.

With tokens, every path needs one but the page's, health and the API's document, which can only be read. Paths are the
application's own: what Ray Serve mounts it under (route_prefix) stands before them.
"""

import asyncio
import ipaddress
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.serving.errors import ApiError, bad, json_reply
from actors.serving.metrics import Metrics
from actors.serving.tokens import TOKEN_VARIABLE, TOKENS_FILE_VARIABLE, Quota, Token, find_token
from avere_ray.config import ServeConfig

BODY_TIMEOUT_S = 60.0
"""Seconds a client may take to send its request."""
BODY = "avere_ray.body"
"""Key of an ASGI scope under which `ProxyWords` hands over the body that it has read; None where it read none, since it
took the request for a stranger's."""
ORIGIN_ALLOWED = "origin_allowed"
"""Set in the state of a request that comes from a page of `serve.cors_origins`."""
_OPEN = frozenset({"", "/", "/healthz", "/readyz", "/openapi.json"})
_OPEN_FOLDER = "/page/"
_JSON = ("application/json",)
_MARKS = 65_536
"""Commas and opening brackets that JSON may have besides those of the words: each may become an object of Python's."""
NOBODY = Token(name="local", sha256="")
"""Who asks where no token is needed."""
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
        bodies: Mapping[str, tuple[str, ...]],
    ) -> None:
        """`bodies`: content types by path, where they are not JSON alone."""
        self.app = app
        self.serve = serve
        self.tokens = tokens
        self.metrics = metrics
        self.routes: frozenset[str] = frozenset()
        """Paths that metrics name."""
        self.bodies = bodies
        self.in_work = 0
        self._quotas = {
            token.name: Quota(serve.requests_per_minute, serve.requests_per_token) for token in (*tokens, NOBODY)
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
            path = get_route_path(scope)
            self.metrics.request(path if path in self.routes else _UNKNOWN, status, time.perf_counter() - began)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin", "")
        if origin and not is_own_page(origin, headers.get("host", "")):
            if origin not in self.serve.cors_origins:
                raise ApiError(403, "pages of other hosts may not ask; see serve.cors_origins", code="forbidden")
            if scope["method"] == "OPTIONS":
                await Response(status_code=204, headers=_cors(origin))(scope, receive, send)
                return
            send = _with_cors(origin, send)
            scope.setdefault("state", {})[ORIGIN_ALLOWED] = True
        try:
            who = self._who(scope, headers)
            scope.setdefault("state", {})["token"] = who
            await self._limited(scope, receive, send, who)
        except ApiError as error:
            await json_reply(error)(scope, receive, send)

    def _who(self, scope: Scope, headers: Headers) -> Token:
        """The token of a request; nobody's, where none is needed.

        Raises:
            ApiError: it has none, or comes from elsewhere.
        """
        if self.tokens and is_open(get_route_path(scope)):
            return NOBODY
        if (found := find_asker(scope, headers, self.tokens)) is not None:
            return found
        if self.tokens:
            raise ApiError(401, "a valid token is needed: 'Authorization: Bearer TOKEN'", code="invalid_api_key")
        what = f"this server answers its own machine alone; set {TOKEN_VARIABLE} to open it"
        raise ApiError(403, what, code="forbidden")

    async def _limited(self, scope: Scope, receive: Receive, send: Send, who: Token) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        if is_open(path := get_route_path(scope)):
            raise ApiError(405, "this can only be read, with GET", code="method_not_allowed")
        quota = self._quotas[who.name]
        quota.enter()
        try:
            if self.in_work >= self.serve.max_requests:
                raise ApiError(503, f"{self.in_work} requests are in work; try again later", code="overloaded")
            self.in_work += 1
            try:
                body = await self._body(scope, receive, self.bodies.get(path, _JSON))
                await self.app(scope, _replay(body, receive), send)
            finally:
                self.in_work -= 1
        finally:
            quota.leave()

    async def _body(self, scope: Scope, receive: Receive, kinds: Sequence[str]) -> bytes:
        """The body, of one of these content types.

        Raises:
            ApiError: it is something else, or holds too many values; or see `_whole` and `read_body`.
        """
        kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        if kind not in kinds:
            what = f"the body must be sent as Content-Type: {' or '.join(kinds)}"
            raise ApiError(415, what, code="unsupported_media_type")
        body, most = await self._whole(scope, receive), _MARKS + self.serve.max_text
        if kind in _JSON and has_more_marks(body, most):
            raise bad(f"the body has more than {most} commas and opening brackets; send fewer values", None)
        return body

    async def _whole(self, scope: Scope, receive: Receive) -> bytes:
        """The body, which the proxy may have read already.

        Raises:
            ApiError: it is too large, or the proxy knows other tokens than this server.
        """
        limit = self.serve.max_body_mb * 2**20
        if BODY not in scope:
            return await read_body(Headers(scope=scope), receive, limit)
        body: bytes | None = scope.pop(BODY)
        if body is None:
            what = "the server's proxy was told other tokens than the server; it needs the same variables, and "
            raise ApiError(401, f"{what}serve.tokens_file in {TOKENS_FILE_VARIABLE}", code="invalid_api_key")
        if len(body) > limit:
            raise _too_large(limit)
        return body


def find_asker(scope: Scope, headers: Headers, tokens: Sequence[Token]) -> Token | None:
    """Whose token a request has, or None; where there are no tokens, `NOBODY`, if it comes from this machine."""
    if tokens:
        return find_token(tokens, headers.get("authorization", ""))
    client = (scope.get("client") or ("",))[0]
    return NOBODY if is_loopback(client) and is_loopback(_host_name(headers.get("host", ""))) else None


def is_own_page(origin: str, host: str | None) -> bool:
    """Whether a request comes from a page of the host that it asks; no page has an origin that cannot be read."""
    try:
        return urllib.parse.urlsplit(origin).netloc == host
    except ValueError:
        return False


def is_open(path: str) -> bool:
    """Whether a path of the application is read without a token: the page, health, and what the server offers."""
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def has_more_marks(body: bytes, most: int) -> bool:
    """Whether JSON has more than so many commas and opening brackets, in its texts or between them."""
    found = 0
    for mark in (b",", b"[", b"{"):
        at = body.find(mark)
        while at >= 0:
            found += 1
            if found > most:
                return True
            at = body.find(mark, at + 1)
    return False


async def read_body(
    headers: Headers, receive: Receive, limit: int, taken: Callable[[int], None] = lambda count: None
) -> bytes:
    """The whole body of a request, within `limit` bytes; `taken` hears how many bytes came, and may refuse them.

    Raises:
        ApiError: it is too large, too slow, or the client went away.
    """
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
                piece = message.get("body", b"")
                if len(body) + len(piece) > limit:
                    raise _too_large(limit)
                taken(len(piece))
                body += piece
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
