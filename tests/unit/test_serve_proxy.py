"""What the proxy says by itself becomes a 503 that another try cures; what replicas say passes unchanged."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from actors.serving.proxy import ProxyWords


def ask(app: Any, path: str = "/v1/models") -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(ProxyWords(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.get(path)

    return asyncio.run(once())


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """A proxy whose replica died."""


@pytest.mark.parametrize(
    "app", [nothing, *(PlainTextResponse("no replica", status_code=s) for s in (404, 408, 500, 503))]
)
def test_words_of_the_proxy(app: Any) -> None:
    reply = ask(app)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "unavailable")
    assert int(reply.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 503])
def test_words_of_replicas(status: int) -> None:
    reply = ask(JSONResponse({"said": status}, status_code=status))
    assert (reply.status_code, reply.json()) == (status, {"said": status})


def test_streams_and_the_proxys_own_paths_pass() -> None:
    assert ask(StreamingResponse(iter(["a", "b"]), media_type="text/event-stream")).text == "ab"
    assert ask(PlainTextResponse("success", status_code=503), "/-/healthz").text == "success"
