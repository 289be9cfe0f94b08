"""The HTTP side of serving: who may ask, how much at once, and the routes; no Ray, no engine.

    GET /v1/models    POST /v1/chat/completions    GET /healthz

Without a token only this machine is answered, and only under a loopback name: a page in a browser must not reach the
server through a domain name that points here. Bodies must be declared as JSON, which such a page cannot do unasked.
"""

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import avere_ray
from actors.chat import ApiError, ChatRequest, explain, model_list

MAX_BODY_BYTES = 64 * 2**20
"""Larger requests are refused."""
MAX_REQUESTS = 8
"""Requests that may be in work or waiting at once; more are refused with 503."""
BODY_TIMEOUT_S = 60.0
"""Seconds a client may take to send its request."""
TOKEN_VARIABLE = "AVERE_RAY_API_TOKEN"
"""Environment variable with the bearer token."""

_RETRY_AFTER_S = 2
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class Answerer(Protocol):
    """What the routes ask of the worker behind them."""

    @property
    def models(self) -> list[str]:
        """Ids of what is served."""

    def problem(self) -> str | None:
        """Why nothing can be answered, or None."""

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        """The reply; raises ApiError."""


def make_api(worker: Answerer, token_sha256: str | None) -> ASGIApp:
    """The application of one replica; `token_sha256` is what `token_digest` gives, None without a token."""
    api = FastAPI(title="avere_ray", version=avere_ray.__version__, docs_url=None, redoc_url=None)

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        if problem := worker.problem():
            raise ApiError(503, problem, code="unhealthy")
        return {"status": "ok"}

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        return model_list(worker.models)

    @api.post("/v1/chat/completions")
    async def chat_completions(request: ChatRequest) -> dict[str, Any]:
        return await worker.answer(request)

    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, _error_reply)
    api.add_middleware(Guard, token_sha256=token_sha256)
    return api


async def _error_reply(request: Request, error: Exception) -> JSONResponse:
    return _json(_as_api_error(error))


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return explain(error.errors())
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), code=_HTTP_CODES.get(error.status_code, "bad_request"))
    return ApiError(500, "the server failed on this request; its log says why", code="internal_error")


class Guard:
    """Refuses, before a route is reached, who may not ask, what is too large, and what is too much at once."""

    def __init__(self, app: ASGIApp, *, token_sha256: str | None) -> None:
        self.app = app
        self.token_sha256 = token_sha256
        self.in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                self._check_client(scope)
                await self._limited(scope, receive, send)
            except ApiError as error:
                await _json(error)(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        if self.in_work >= MAX_REQUESTS:
            raise ApiError(503, f"{self.in_work} requests are in work; try again later", code="overloaded")
        self.in_work += 1
        try:
            body = await read_body(Headers(scope=scope), receive)
            await self.app(scope, _replay(body, receive), send)
        finally:
            self.in_work -= 1

    def _check_client(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.token_sha256 is None:
            client = (scope.get("client") or ("",))[0]
            if not (is_loopback(client) and is_loopback(_host_name(headers.get("host", "")))):
                raise ApiError(
                    403, f"this server answers its own machine alone; set {TOKEN_VARIABLE} to open it", code="forbidden"
                )
        elif scope["path"].startswith("/v1"):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(token_digest(token.strip()), self.token_sha256):
                raise ApiError(401, "a valid token is needed: 'Authorization: Bearer TOKEN'", code="invalid_api_key")


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """The whole body of a request that is declared as JSON and within MAX_BODY_BYTES.

    Raises:
        ApiError: it is something else, too large, too slow, or the client went away.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "the body must be sent as Content-Type: application/json", code="unsupported_media_type")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ApiError(400, "the client went away while sending", code="disconnected")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise _too_large()
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise ApiError(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s", code="timeout") from error
    return bytes(body)


def token_digest(token: str) -> str:
    """SHA-256 (hex) of a token, so that the token itself is kept nowhere."""
    return hashlib.sha256(token.encode()).hexdigest()


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


def _too_large() -> ApiError:
    return ApiError(413, f"the request is larger than {MAX_BODY_BYTES // 2**20} MiB", code="too_large")


def _json(error: ApiError) -> JSONResponse:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(_RETRY_AFTER_S)}}.get(error.status)
    return JSONResponse(error.body(), status_code=error.status, headers=headers)
