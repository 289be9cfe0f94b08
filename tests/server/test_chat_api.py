"""The chat API without Ray and engine: replies, streams, who may ask and how much."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chatmaker import TEXT, VIDEO, chat, steps

from actors.api import CHAT, make_api
from actors.chat import ChatRequest
from actors.serving.errors import ApiError
from actors.serving.guard import is_loopback
from actors.serving.replies import Answer
from actors.serving.tokens import Token, token_digest
from avere_ray.config import ServeConfig

WORD = "a-long-random-text"
TOKEN = Token(name="one", sha256=token_digest(WORD))
ADMIN = Token(name="boss", sha256=token_digest(WORD + "!"), admin=True)
LIMITS = ServeConfig()


def test_unknown_fields_are_refused_over_http() -> None:
    reply = call(Worker(), "POST", CHAT, json=chat(TEXT, **{f"x{i}": 1 for i in range(60_000)}))
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "x0")


def test_the_reply_counts_its_tokens() -> None:
    answer = Answer("base:adapter-1", 2, logprobs=1)
    for step in steps():
        answer.add(step)
    reply = answer.body()
    assert reply["usage"] == {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in reply["choices"]] == [
        (0, "Sad.", "stop"),
        (1, "Happy", "length"),
    ]
    [first] = reply["choices"][0]["logprobs"]["content"]
    assert first == {"token": "Sad", "logprob": -0.5, "bytes": [83, 97, 100],
                     "top_logprobs": [{"token": "Sad", "logprob": -0.5, "bytes": [83, 97, 100]}]}  # fmt: skip


def test_a_stream_adds_up_to_the_reply() -> None:
    answer = Answer("base", 2, logprobs=2, usage=True)
    sent = [event for step in steps() for event in answer.events(step)]
    assert sent[-1] == "data: [DONE]\n\n"
    chunks = [json.loads(event.removeprefix("data: ")) for event in sent[:-1]]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 14
    texts, reasons = ["", ""], {}
    for chunk in chunks[:-1]:
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        reasons |= {choice["index"]: choice["finish_reason"]} if choice["finish_reason"] else {}
    assert (texts, reasons) == (["Sad.", "Happy"], {0: "stop", 1: "length"})
    others = next(c for c in chunks if c["choices"][0]["logprobs"])["choices"][0]["logprobs"]["content"][0]
    assert others["top_logprobs"][1]["logprob"] == -9999.0  # JSON has no minus infinity


class Worker:
    """Answers at once, fails on demand, or waits until it is let go."""

    def __init__(self) -> None:
        self.models = ["base", "base:adapter-1"]
        self.in_engine = 0
        self.error: Exception | None = None
        self.trouble: str | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.left = False

    def problem(self) -> str | None:
        return self.trouble

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {"model": request.model}

    async def stream(self, request: ChatRequest) -> AsyncGenerator[str, None]:
        if isinstance(self.error, ApiError) and self.error.status == 400:
            raise self.error
        try:
            yield "data: 1\n\n"
            if self.error is not None:
                raise self.error
            yield "data: [DONE]\n\n"
        finally:
            self.left = True

    async def move_champion(self, folder: Path | None) -> dict[str, Any]:
        return {"folder": str(folder)}


def client(
    worker: Worker, tokens: tuple[Token, ...] = (), address: str = "127.0.0.1", **limits: Any
) -> httpx.AsyncClient:
    app = make_api(worker, ServeConfig(**limits), tokens)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def call(worker: Worker, method: str, path: str, token: bool = False, **request: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        tokens = (TOKEN, ADMIN) if token else ()
        limits = request.pop("limits", {})
        async with client(worker, tokens, request.pop("address", "127.0.0.1"), **limits) as http:
            return await http.request(method, path, **request)

    return asyncio.run(once())


def bearer(word: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {word}"}


def test_routes() -> None:
    assert call(Worker(), "GET", "/healthz").json() == {"status": "ok"}
    models = call(Worker(), "GET", "/v1/models").json()
    assert [m["id"] for m in models["data"]] == ["base", "base:adapter-1"]
    assert call(Worker(), "GET", "/v1/models/base:adapter-1").json()["id"] == "base:adapter-1"
    assert call(Worker(), "GET", "/v1/models/other").status_code == 404
    assert call(Worker(), "POST", CHAT, json=chat(TEXT, VIDEO)).json() == {"model": "base"}
    assert call(Worker(), "GET", "/readyz").json() == {"status": "ready"}


def test_figures_for_prometheus() -> None:
    async def some() -> str:
        async with client(Worker()) as http:
            await http.post(CHAT, json=chat(TEXT))
            await http.post(CHAT, content=b"{}")
            await http.get("/x" * 50)
            return (await http.get("/metrics")).text

    text = asyncio.run(some())
    assert f'avere_ray_requests_total{{replica="0",route="{CHAT}",status="200"}} 1.0' in text
    assert f'avere_ray_requests_total{{replica="0",route="{CHAT}",status="415"}} 1.0' in text
    assert 'route="other",status="404"' in text  # a path of a client's own making is no label
    assert 'avere_ray_healthy{replica="0"} 1.0' in text


def test_a_stream_is_sent_as_it_comes() -> None:
    worker = Worker()
    reply = call(worker, "POST", CHAT, json=chat(TEXT, stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text == "data: 1\n\ndata: [DONE]\n\n"
    assert worker.left


def test_a_stream_that_fails_says_so_and_is_not_done() -> None:
    worker = Worker()
    worker.error = ApiError(503, "lost", code="engine_failed")
    reply = call(worker, "POST", CHAT, json=chat(TEXT, stream=True))
    assert (reply.status_code, reply.text.count("data: ")) == (200, 2)
    assert json.loads(reply.text.split("data: ")[2])["error"]["code"] == "engine_failed"
    worker.error = ApiError(400, "no", code="invalid_value")
    assert call(worker, "POST", CHAT, json=chat(TEXT, stream=True)).status_code == 400


def test_a_lost_engine_is_unhealthy() -> None:
    worker = Worker()
    worker.trouble = "the engine failed"
    reply = call(worker, "GET", "/healthz")
    assert (reply.status_code, reply.json()["error"]["message"]) == (503, "the engine failed")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_json"),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400, "bad_request"),
        ({"content": b"[" * 50_000, "headers": {"Content-Type": "application/json"}}, 400, None),
        ({"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"content": b"{}"}, 415, "unsupported_media_type"),
        ({"content": b'{"\\ud8e1": 1}', "headers": {"Content-Type": "application/json"}}, 400, None),
        ({"content": b'{"model": "\\ud8e1"}', "headers": {"Content-Type": "application/json"}}, 400, None),
        ({"json": chat(TEXT, VIDEO, n=0)}, 400, "invalid_value"),
    ],
)
def test_bodies_that_cannot_be_read(request_: dict[str, Any], status: int, code: str | None) -> None:
    reply = call(Worker(), "POST", CHAT, **request_)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert code is None or reply.json()["error"]["code"] == code


def test_unknown_paths_and_methods_have_the_same_shape() -> None:
    assert call(Worker(), "GET", "/v1/nothing").json()["error"]["code"] == "not_found"
    assert call(Worker(), "GET", CHAT).json()["error"]["code"] == "method_not_allowed"


def test_a_bug_shows_no_trace() -> None:
    worker = Worker()
    worker.error = KeyError("inner detail")
    reply = call(worker, "POST", CHAT, json=chat(TEXT, VIDEO))
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "inner detail" not in reply.text
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_refused(declared: bool) -> None:
    body = json.dumps(chat({"type": "text", "text": "x" * 2**20}, VIDEO)).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    sent = body if declared else pieces()
    headers = {"Content-Type": "application/json"}
    reply = call(Worker(), "POST", CHAT, content=sent, headers=headers, limits={"max_body_mb": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


def test_a_token_is_needed_where_one_is_set() -> None:
    async def ask() -> None:
        async with client(Worker(), (TOKEN, ADMIN), "10.0.0.9") as http:
            for wrong in ({}, bearer("x"), {"Authorization": f"Basic {WORD}"}, {"Authorization": WORD}, bearer("ä")):
                sent = {name: value.encode() for name, value in wrong.items()}
                for method, path in (
                    ("GET", "/v1/models"),
                    ("POST", CHAT),
                    ("GET", "/v1/nothing"),
                    ("GET", "/metrics"),
                ):
                    reply = await http.request(method, path, headers=sent)
                    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
                    assert reply.json()["error"]["type"] == "authentication_error"
                    assert WORD not in reply.text
            for good in (WORD, WORD + "!"):
                assert (await http.get("/v1/models", headers=bearer(good))).status_code == 200
            assert (await http.get("/healthz")).status_code == 200

    asyncio.run(ask())


def test_only_an_administrator_moves_the_champion() -> None:
    path = "/v1/admin/champion"
    assert call(Worker(), "POST", path, json={"path": "/x"}).status_code == 403
    assert call(Worker(), "POST", path, True, json={"path": "/x"}, headers=bearer(WORD)).status_code == 403
    moved = call(Worker(), "POST", path, True, json={"path": "/x"}, headers=bearer(WORD + "!"))
    assert moved.json() == {"folder": "/x"}
    assert call(Worker(), "POST", path, True, json={}, headers=bearer(WORD + "!")).json() == {"folder": "None"}


def test_pages_of_other_hosts_may_not_ask() -> None:
    evil, own_page = {"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:8000"}
    for origin in (evil, {"Origin": "null"}):
        assert call(Worker(), "POST", CHAT, json=chat(TEXT), headers=origin).status_code == 403
        assert call(Worker(), "OPTIONS", CHAT, headers=origin).status_code == 403
    reply = call(Worker(), "POST", CHAT, json=chat(TEXT), headers=own_page)
    assert reply.status_code == 200
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_pages_that_are_allowed_may_ask() -> None:
    page, limits = {"Origin": "https://good.example"}, {"cors_origins": ("https://good.example",)}
    before = call(Worker(), "OPTIONS", CHAT, True, headers=page, limits=limits)
    assert (before.status_code, before.headers["access-control-allow-origin"]) == (204, "https://good.example")
    for headers, status in ((page, 401), ({**page, **bearer(WORD)}, 200)):
        reply = call(Worker(), "POST", CHAT, True, json=chat(TEXT), headers=headers, limits=limits)
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, "https://good.example")


def test_without_a_token_only_this_machine_is_answered() -> None:
    assert call(Worker(), "GET", "/v1/models", address="10.0.0.9").status_code == 403
    assert call(Worker(), "GET", "/v1/models", headers={"Host": "evil.example"}).status_code == 403
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert call(Worker(), "GET", "/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        ({"max_requests": 3, "requests_per_token": 9}, 503, "overloaded"),
        ({"max_requests": 9, "requests_per_token": 3}, 429, "concurrency_limit_exceeded"),
        ({"requests_per_minute": 3}, 429, "rate_limit_exceeded"),
    ],
)
def test_too_much_is_refused_and_the_rest_answered(limits: dict[str, int], status: int, code: str) -> None:
    async def crowd() -> tuple[list[int], httpx.Response, int]:
        worker = Worker()
        worker.go.clear()
        async with client(worker, **limits) as http:
            waiting = [asyncio.create_task(http.post(CHAT, json=chat(TEXT, VIDEO))) for _ in range(3)]
            await asyncio.sleep(0.05)
            refused = await http.post(CHAT, json=chat(TEXT, VIDEO))
            health = (await http.get("/healthz")).status_code
            worker.go.set()
            return [(await task).status_code for task in waiting], refused, health

    codes, refused, health = asyncio.run(crowd())
    assert codes == [200] * 3
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert int(refused.headers["Retry-After"]) >= 1
    assert health == 200


def test_one_token_does_not_use_up_what_another_may() -> None:
    async def two() -> list[int]:
        async with client(Worker(), (TOKEN, ADMIN), requests_per_minute=1) as http:
            words = (WORD, WORD, WORD + "!")
            return [(await http.post(CHAT, json=chat(TEXT), headers=bearer(word))).status_code for word in words]

    assert asyncio.run(two()) == [200, 429, 200]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(h, False) for h in ("0.0.0.0", "::", "", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example")],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
