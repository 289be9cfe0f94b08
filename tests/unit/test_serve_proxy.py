"""What the proxy says by itself becomes a 503 that another try cures; what replicas say passes unchanged.

Bodies are read within their limits and handed on with the request.
"""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from actors.serving import guard
from actors.serving.guard import BODY
from actors.serving.proxy import BODIES_AT_ONCE, MAX_BODY_VARIABLE, ProxyWords, middlewares


def ask(app: Any, path: str = "/v1/models", method: str = "GET", **request: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        words = app if isinstance(app, ProxyWords) else ProxyWords(app)
        transport = httpx.ASGITransport(words, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.request(method, path, **request)

    return asyncio.run(once())


async def tells(scope: Any, receive: Any, send: Any) -> None:
    """Says what came with the request."""
    body, names = scope.get(BODY), [name.decode() for name, _ in scope["headers"]]
    await JSONResponse({"body": None if body is None else len(body), "names": names})(scope, receive, send)


async def pieces(count: int) -> Any:
    for _ in range(count):
        yield b"x" * 1000


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


def test_a_body_goes_with_the_request_and_hints_to_the_proxy_do_not() -> None:
    hints = {"X-Request-Timeout-Seconds": "0", "X-Request-Disconnect-Disabled": "?1", "X-Kept": "1"}
    said = ask(tells, method="POST", content=b"x" * 5000, headers=hints).json()
    assert said["body"] == 5000
    assert "x-kept" in said["names"]
    assert not {name.lower() for name in hints if name != "X-Kept"} & set(said["names"])
    assert ask(tells, method="POST", content=pieces(3)).json()["body"] == 3000
    assert ask(tells).json()["body"] is None


@pytest.mark.parametrize("content", [b"x" * 2001, None])
def test_a_body_that_is_too_large_does_not_reach_the_proxy(content: bytes | None) -> None:
    words = ProxyWords(nothing, limit=2000)
    reply = ask(words, method="POST", content=content or pieces(3))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert words.held == 0


def test_so_many_bodies_are_held_at_once_and_no_more() -> None:
    async def crowd() -> list[httpx.Response]:
        go, here = asyncio.Event(), 0

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            nonlocal here
            here += 1
            await go.wait()
            await JSONResponse({})(scope, receive, send)

        words = ProxyWords(waits, limit=1000)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(words), base_url="http://x") as http:
            waiting = [asyncio.create_task(http.post("/", content=b"x" * 1000)) for _ in range(BODIES_AT_ONCE)]
            while here < BODIES_AT_ONCE:
                await asyncio.sleep(0)
            refused = await http.post("/", content=b"x")
            go.set()
            rest = await asyncio.gather(*waiting)
            return [refused, *rest, await http.post("/", content=b"x")]

    refused, *rest = asyncio.run(crowd())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert {reply.status_code for reply in rest} == {200}


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> Any:
        yield b"x"
        await asyncio.sleep(60)

    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.05)
    reply = ask(tells, method="POST", content=never())
    assert (reply.status_code, reply.json()["error"]["code"]) == (408, "timeout")


def test_the_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, megabytes in (("3", 3), ("", 64), ("x", 64)):
        monkeypatch.setenv(MAX_BODY_VARIABLE, value)
        [made] = middlewares()
        assert made.kwargs == {"limit": megabytes * 2**20}
