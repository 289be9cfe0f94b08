"""What Ray Serve's HTTP proxy does and says by itself, in the limits and the words of the API.

When a replica dies with a request in work, or when none has room, the proxy answers alone: with nothing, which becomes
a plain 500, or with a line of text. All of it passes with another try, so it becomes a 503 with Retry-After. An answer
that has begun is cut off, and the client sees that it is not whole.

A body is read here, within its limits, before the proxy takes the request, and goes to the replica with it: the proxy
itself keeps whatever comes in a queue without limits, from which the replica fetches it piece by piece. Of several
tokens none may take up more than half of the room. A stranger's body is not kept: the request goes on without it, and
the replica refuses it by its headers. Headers by which any client could change the proxy's own deadline are taken away.

Ray Serve loads this by the environment variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, which `avere-ray serve`
sets, as it sets AVERE_RAY_MAX_BODY_MB to serve.max_body_mb and AVERE_RAY_TOKENS_FILE to serve.tokens_file (empty where
there is none); on a cluster the pods must. Without the last of them no one is taken for a stranger here.
"""

import collections
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.serving.errors import ApiError, json_reply
from actors.serving.guard import BODY, NOBODY, find_asker, read_body
from actors.serving.tokens import TOKENS_FILE_VARIABLE, Token, known_tokens
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
    file = os.environ.get(TOKENS_FILE_VARIABLE)
    tokens = None if file is None else known_tokens(Path(file) if file else None)
    return [Middleware(ProxyWords, limit=limit * 2**20, tokens=tokens)]


class ProxyWords:
    """ASGI middleware that reads bodies within `limit` bytes, and replaces the proxy's own error replies."""

    def __init__(
        self, app: ASGIApp, limit: int = ServeConfig().max_body_mb * 2**20, tokens: Sequence[Token] | None = None
    ) -> None:
        """`tokens`: those of the server; None where they are not known here."""
        self.app = app
        self.limit = limit
        self.tokens = tokens
        self.most = BODIES_AT_ONCE * limit
        self.share = self.most // 2 if len(tokens or ()) > 1 else self.most
        """Bytes that one token may hold."""
        self.held: collections.Counter[str] = collections.Counter()
        """Bytes of the bodies that are here, by token."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http" or scope["path"].startswith(_OWN):
            await self.app(scope, receive, send)
            return
        scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() not in _HINTS]
        headers = Headers(scope=scope)
        who = NOBODY if self.tokens is None else find_asker(scope, headers, self.tokens)
        if "content-length" not in headers and "transfer-encoding" not in headers:
            await self._answered(scope, receive, send)
        elif who is None:
            scope[BODY] = None
            await self._answered(scope, _without_body(receive), send)
        else:
            await self._with_body(scope, receive, send, who)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, who: Token) -> None:
        mine = 0

        def taken(count: int) -> None:
            nonlocal mine
            if self.held.total() + count > self.most:
                raise ApiError(503, "as much is being sent as there may be; try again later", code="overloaded")
            if self.held[who.name] + count > self.share:
                what = "this token has as much on its way as it may; try again later"
                raise ApiError(429, what, code="concurrency_limit_exceeded", retry_after_s=1)
            self.held[who.name] += count
            mine += count

        try:
            scope[BODY] = await read_body(Headers(scope=scope), receive, self.limit, taken)
            await self._answered(scope, receive, send)
        except ApiError as error:
            await json_reply(error)(scope, receive, send)
        finally:
            self.held[who.name] -= mine

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


def _without_body(receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A `receive` that gives an empty body, then drops what comes until the client goes away."""
    parts: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def emptied() -> Message:
        if parts:
            return parts.pop()
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return emptied


def _by_proxy(message: Message) -> bool:
    """Whether an error is the proxy's own: replicas answer with JSON."""
    kind = Headers(raw=message.get("headers", [])).get("content-type", "")
    return message["status"] in (404, 408, 429, 500, 503) and not kind.startswith("application/json")
