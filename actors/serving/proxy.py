"""What Ray Serve's HTTP proxy says by itself, in the words of the API.

When a replica dies with a request in work, or when none has room, the proxy answers alone: with nothing, which becomes
a plain 500, or with a line of text. All of it passes with another try, so it becomes a 503 with Retry-After. An answer
that has begun is cut off, and the client sees that it is not whole. Ray Serve loads this by the environment variable
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, which `avere-ray serve` sets; on a cluster the pods must.
"""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.serving.errors import ApiError, json_reply

_LOST = ApiError(503, "no replica could answer; send the request again", code="unavailable")
_OWN = ("/-/",)
"""Paths that Ray Serve keeps for itself."""


def middlewares() -> list[Middleware]:
    """For Ray Serve's proxy."""
    return [Middleware(ProxyWords)]


class ProxyWords:
    """ASGI middleware that replaces the proxy's own error replies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN):
            await self.app(scope, receive, send)
            return
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
