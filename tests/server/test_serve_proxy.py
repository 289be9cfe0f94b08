"""What the proxy says by itself becomes a 503 that another try cures; what replicas say passes unchanged.

Bodies are read within their limits and handed on with the request; strangers' are not.
"""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from test_chat_api import ADMIN, TEXT, TOKEN, WORD, Worker, bearer, chat

from actors.api import CHAT, make_api
from actors.serving import guard
from actors.serving.guard import BODY
from actors.serving.proxy import BODIES_AT_ONCE, MAX_BODY_VARIABLE, ProxyWords, middlewares
from actors.serving.tokens import ADMIN_VARIABLE, TOKEN_VARIABLE, TOKENS_FILE_VARIABLE, Token
from avere_ray.config import ServeConfig


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
    assert words.held.total() == 0


async def crowd(words: ProxyWords, *askers: str) -> list[httpx.Response]:
    """The replies to one more body of each asker when the first holds all that it may, to these, and to one after."""
    go, here = asyncio.Event(), 0

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        nonlocal here
        here += 1
        await go.wait()
        await JSONResponse({})(scope, receive, send)

    words.app, most = waits, words.share // words.limit
    async with httpx.AsyncClient(transport=httpx.ASGITransport(words), base_url="http://x") as http:

        def asking(who: str, size: int = 1000) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(http.post("/", content=b"x" * size, headers=bearer(who)))

        waiting = [asking(askers[0]) for _ in range(most)]
        while here < most:
            await asyncio.sleep(0)
        then = [asking(who, 1) for who in askers]
        while here + sum(task.done() for task in then) < most + len(then):
            await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*then, *waiting, asking(askers[0]))


@pytest.mark.parametrize("tokens", [None, (TOKEN,)])
def test_so_many_bodies_are_held_at_once_and_no_more(tokens: tuple[Token, ...] | None) -> None:
    words = ProxyWords(nothing, limit=1000, tokens=tokens)
    assert words.share == BODIES_AT_ONCE * 1000
    refused, *rest = asyncio.run(crowd(words, WORD))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert {reply.status_code for reply in rest} == {200}


def test_one_token_does_not_hold_what_another_may() -> None:
    words = ProxyWords(nothing, limit=1000, tokens=(TOKEN, ADMIN))
    refused, *rest = asyncio.run(crowd(words, WORD, WORD + "!"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert {reply.status_code for reply in rest} == {200}
    assert words.held.total() == 0


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> Any:
        yield b"x"
        await asyncio.sleep(60)

    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.05)
    reply = ask(tells, method="POST", content=never())
    assert (reply.status_code, reply.json()["error"]["code"]) == (408, "timeout")


@pytest.mark.parametrize(
    ("tokens", "headers", "status"),
    [
        ((TOKEN,), {}, 401),
        ((TOKEN,), bearer("another-long-random-text"), 401),
        ((TOKEN,), {"Origin": "https://good.example"}, 401),
        ((TOKEN,), {"Origin": "https://evil.example"}, 403),
        ((), {"Host": "evil.example"}, 403),
    ],
)
def test_of_strangers_no_body_is_held(tokens: tuple[Token, ...], headers: dict[str, str], status: int) -> None:
    async def asked_for() -> Any:
        raise AssertionError("the body was asked for")
        yield b""

    served = make_api(Worker(), ServeConfig(cors_origins=("https://good.example",)), tokens)
    words = ProxyWords(served, limit=1000, tokens=tokens)
    for path, expected in ((CHAT, status), ("/healthz", 405 if status == 401 else status)):
        reply = ask(words, path, "POST", content=asked_for(), headers=headers)
        assert reply.status_code == expected, reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        allowed = headers.get("Origin") == "https://good.example"
        assert reply.headers.get("access-control-allow-origin") == (headers["Origin"] if allowed else None)
    assert words.held.total() == 0
    assert ask(words, "/healthz", headers=bearer(WORD) if tokens else {"Host": "localhost"}).status_code == 200


def test_what_a_stranger_sends_is_dropped_as_it_comes() -> None:
    heard: list[Any] = []

    async def hears(scope: Any, receive: Any, send: Any) -> None:
        heard.append(await receive())
        heard.append(words.held.total())
        await JSONResponse({})(scope, receive, send)
        heard.append(await receive())

    words = ProxyWords(hears, limit=2000, tokens=(TOKEN,))
    assert ask(words, method="POST", content=pieces(1000)).status_code == 200
    assert heard == [{"type": "http.request", "body": b"", "more_body": False}, 0, {"type": "http.disconnect"}]


def test_a_proxy_that_was_told_other_tokens_is_named() -> None:
    words = ProxyWords(make_api(Worker(), ServeConfig(), (TOKEN,)), tokens=(ADMIN,))
    reply = ask(words, CHAT, "POST", json=chat(TEXT), headers=bearer(WORD))
    assert reply.status_code == 401
    assert TOKENS_FILE_VARIABLE in reply.json()["error"]["message"]


def test_limit_and_tokens_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (TOKEN_VARIABLE, ADMIN_VARIABLE, TOKENS_FILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for value, megabytes in (("3", 3), ("", 64), ("x", 64)):
        monkeypatch.setenv(MAX_BODY_VARIABLE, value)
        [made] = middlewares()
        assert made.kwargs == {"limit": megabytes * 2**20, "tokens": None}
    monkeypatch.setenv(TOKENS_FILE_VARIABLE, "")
    assert middlewares()[0].kwargs["tokens"] == ()
    monkeypatch.setenv(TOKEN_VARIABLE, WORD)
    (file := tmp_path / "tokens").write_text(f"boss {ADMIN.sha256} admin\n")
    monkeypatch.setenv(TOKENS_FILE_VARIABLE, str(file))
    assert [token.sha256 for token in middlewares()[0].kwargs["tokens"]] == [TOKEN.sha256, ADMIN.sha256]
