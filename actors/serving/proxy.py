"""What Ray Serve's HTTP proxy does and says by itself, in the limits and the words of the API.

When a replica dies with a request in work, or when none has room, the proxy answers alone: with nothing, which becomes
a plain 500, or with a line of text. All of it passes with another try, so it becomes a 503 with Retry-After. An answer
that has begun is cut off, and the client sees that it is not whole.

A body is read here, within its limits, before the proxy takes the request, and goes to the replica with it: the proxy
itself keeps whatever comes in a queue without limits, from which the replica fetches it piece by piece. Headers by
which any client could change the proxy's own deadline are taken away.

Ray Serve loads this by the environment variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, which `avere-ray serve`
sets, as it sets AVERE_RAY_MAX_BODY_MB to serve.max_body_mb; on a cluster the pods must.
"""

import os

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.serving.errors import ApiError, json_reply
from actors.serving.guard import BODY, read_body
from avere_ray.config import ServeConfig

MAX_BODY_VARIABLE = "AVERE_RAY_MAX_BODY_MB"
"""Environment variable with the largest request, MiB; without it that of the default config."""
BODIES_AT_ONCE = 8
"""How many of the largest bodies the proxy holds at once; past their size it refuses more, to be asked again."""
_LOST = ApiError(503, "no replica could answer; send the request again", code="unavailable")
_OWN = ("/-/",)
"""Paths that Ray Serve keeps for itself."""
_HINTS = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
"""Headers that Ray Serve's proxy obeys."""


def middlewares() -> list[Middleware]:
    """For Ray Serve's proxy."""
    megabytes = os.environ.get(MAX_BODY_VARIABLE, "")
    limit = int(megabytes) if megabytes.isdecimal() else ServeConfig().max_body_mb
    return [Middleware(ProxyWords, limit=limit * 2**20)]


class ProxyWords:
    """ASGI middleware that reads bodies within `limit` bytes, and replaces the proxy's own error replies."""

    def __init__(self, app: ASGIApp, limit: int = ServeConfig().max_body_mb * 2**20) -> None:
        self.app = app
        self.limit = limit
        self.held = 0
        """Bytes of all bodies that are here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN):
            await self.app(scope, receive, send)
            return
        scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() not in _HINTS]
        mine = 0

        def taken(count: int) -> None:
            nonlocal mine
            if self.held + count > BODIES_AT_ONCE * self.limit:
                raise ApiError(503, "as much is being sent as there may be; try again later", code="overloaded")
            self.held += count
            mine += count

        try:
            headers = Headers(scope=scope)
            if "content-length" in headers or "transfer-encoding" in headers:
                scope[BODY] = await read_body(headers, receive, self.limit, taken)
            await self._answered(scope, receive, send)
        except ApiError as error:
            await json_reply(error)(scope, receive, send)
        finally:
            self.held -= mine

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Has the proxy answer; what it says by itself is worded anew."""
        begun = replaced = False

        async def heard(message: Message) -> None:
            nonlocal begun, replaced
            if message["type"] == "http.response.start" and not begun:
                begun, replaced = True, _by_proxy(message)
                if replaced:
                    await json_reply(_LOST)(scope, receive, send)
            if not replaced:
                await send(message)

        await self.app(scope, receive, heard)
        if not begun:
            await json_reply(_LOST)(scope, receive, send)


def _by_proxy(message: Message) -> bool:
    """Whether an error is the proxy's own: replicas answer with JSON."""
    kind = Headers(raw=message.get("headers", [])).get("content-type", "")
    return message["status"] in (404, 408, 429, 500, 503) and not kind.startswith("application/json")
