"""The chat API without Ray and engine: what is read, what is refused and how, who may ask and how much."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from actors import api
from actors.api import is_loopback, make_api, token_digest
from actors.chat import ApiError, ChatRequest, chat_reply, explain, question_and_video
from avere_ray.records import Rollout

TEXT = {"type": "text", "text": "What does the person feel?"}
VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + base64.b64encode(b"clip").decode()}}
TOKEN = "a-long-random-text"


def chat(*content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "base", "messages": [{"role": "user", "content": list(content)}], **fields}


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def refusal(body: Any) -> ApiError:
    """How a body is refused."""
    with pytest.raises(ApiError) as caught:
        try:
            question_and_video(ChatRequest.model_validate(body))
        except ValidationError as error:
            raise explain(error.errors()) from error
    return caught.value


def test_question_and_clip_are_read() -> None:
    second = {"type": "text", "text": "And why?"}
    request = ChatRequest.model_validate(chat(TEXT, VIDEO, second, n=2, temperature=1, max_tokens=7, seed=-3))
    assert question_and_video(request) == ("What does the person feel?\nAnd why?", b"clip")
    assert (request.n, request.temperature, request.max_tokens, request.seed) == (2, 1.0, 7, -3)


@pytest.mark.parametrize(
    ("body", "code", "param", "words"),
    [
        (chat(TEXT), "missing_video", "messages.0.content", "exactly one clip"),
        (chat(TEXT, VIDEO, VIDEO), "several_videos", "messages.0.content", "2 parts"),
        (chat(VIDEO), "invalid_value", "messages.0.content", "no question"),
        (chat(VIDEO, {"type": "text", "text": " \n"}), "invalid_value", "messages.0.content", "no question"),
        (chat(VIDEO, TEXT, {"type": "image_url"}), "unsupported_type", "messages.0.content.2", "'image_url'"),
        (chat(TEXT, video("http://a/b.mp4")), "unsupported_url", "messages.0.content.1.video_url.url", "'http'"),
        (chat(TEXT, video("https://a/b.mp4")), "unsupported_url", "messages.0.content.1.video_url.url", "'https'"),
        (chat(TEXT, video("file:///etc/passwd")), "unsupported_url", "messages.0.content.1.video_url.url", "'file'"),
        (chat(TEXT, video("/etc/passwd")), "unsupported_url", "messages.0.content.1.video_url.url", "no scheme"),
        (chat(TEXT, video("data:image/png;base64,AA==")), "unsupported_url", None, "data:video/mp4"),
        (chat(TEXT, video("data:video/mp4;base64,!!!!")), "invalid_base64", None, "not valid base64"),
        (chat(TEXT, video("data:video/mp4;base64,äää")), "invalid_base64", None, "not valid base64"),
        (chat(TEXT, video("data:video/mp4;base64,")), "empty_file", None, "0 bytes"),
        (chat(TEXT, {"type": "video_url", "video_url": {}}), "invalid_value", "messages.0.content.1.video_url.url", ""),
        (chat({"type": "text", "text": 3}, VIDEO), "invalid_value", "messages.0.content.0.text", "string"),
        (chat({"type": "text", "text": "x" * 20_000}, VIDEO), "invalid_value", "messages.0.content.0.text", "16384"),
        (chat(*[{"type": "text", "text": "x" * 16_000}] * 2, VIDEO), "invalid_value", None, "32001 characters"),
        (chat(TEXT, VIDEO, stream=True), "unsupported_parameter", "stream", "streaming"),
        (chat(TEXT, VIDEO, top_p=0.5), "unsupported_parameter", "top_p", "not offered"),
        (chat(TEXT, VIDEO, n=0), "invalid_value", "n", "greater than or equal to 1"),
        (chat(TEXT, VIDEO, n=9), "invalid_value", "n", "less than or equal to 8"),
        (chat(TEXT, VIDEO, n="2"), "invalid_value", "n", "integer"),
        (chat(TEXT, VIDEO, n=2, temperature=0.0), "invalid_value", "n", "greedy"),
        (chat(TEXT, VIDEO, temperature=float("nan")), "invalid_value", "temperature", ""),
        (chat(TEXT, VIDEO, max_tokens=0), "invalid_value", "max_tokens", ""),
        (chat(TEXT, VIDEO, seed=2**70), "invalid_value", "seed", ""),
        ({**chat(TEXT, VIDEO), "messages": []}, "invalid_value", "messages", ""),
        ({**chat(), "messages": chat(TEXT)["messages"] * 2}, "unsupported_value", "messages", "exactly one"),
        ({"model": "base", "messages": [{"role": "system", "content": [TEXT]}]}, "invalid_value", None, "user"),
        ({"model": "base", "messages": [{"role": "user", "content": "text"}]}, "invalid_value", None, "list"),
        ([], "invalid_value", None, "the body"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(body: Any, code: str, param: str | None, words: str) -> None:
    error = refusal(body)
    assert (error.status, error.code) == (400, code)
    assert words in error.message
    if param is not None:
        assert error.param == param


def test_an_error_never_repeats_what_was_sent() -> None:
    assert "SECRET" not in json.dumps(refusal(chat(TEXT, {**VIDEO, "video_url": {"url": ["SECRET"]}})).body())
    assert len(refusal(chat(TEXT, video("x" * 100_000))).message) < 300
    assert len(refusal(chat(TEXT, {"type": "x" * 100_000})).message) < 300


def test_the_reply_counts_its_tokens() -> None:
    shared: dict[str, Any] = {"query_id": "q", "clip_id": "c", "adapter_version": 1, "seed": 0}
    rollouts = [
        Rollout(rollout_id="q#0", index=0, text="Sad.", token_ids=(1, 2), finish_reason="stop", **shared),
        Rollout(rollout_id="q#1", index=1, text="Happy", token_ids=(3, 4, 5), finish_reason="length", **shared),
    ]
    reply = chat_reply("base:adapter-1", rollouts, 10)
    assert reply["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in reply["choices"]] == [
        (0, "Sad.", "stop"),
        (1, "Happy", "length"),
    ]


class Worker:
    """Answers at once, fails on demand, or waits until it is let go."""

    def __init__(self) -> None:
        self.models = ["base", "base:adapter-1"]
        self.error: Exception | None = None
        self.trouble: str | None = None
        self.go = asyncio.Event()
        self.go.set()

    def problem(self) -> str | None:
        return self.trouble

    async def answer(self, request: ChatRequest) -> dict[str, Any]:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {"model": request.model}


def client(worker: Worker, token: str | None = None, address: str = "127.0.0.1") -> httpx.AsyncClient:
    app = make_api(worker, token_digest(token) if token else None)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def call(worker: Worker, method: str, path: str, token: str | None = None, **request: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with client(worker, token, request.pop("address", "127.0.0.1")) as http:
            return await http.request(method, path, **request)

    return asyncio.run(once())


CHAT = "/v1/chat/completions"


def test_routes() -> None:
    assert call(Worker(), "GET", "/healthz").json() == {"status": "ok"}
    models = call(Worker(), "GET", "/v1/models").json()
    assert [m["id"] for m in models["data"]] == ["base", "base:adapter-1"]
    assert call(Worker(), "POST", CHAT, json=chat(TEXT, VIDEO)).json() == {"model": "base"}


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
        ({"json": chat(TEXT, VIDEO, n=9)}, 400, "invalid_value"),
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
def test_a_large_body_is_refused(declared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_BODY_BYTES", 1000)
    body = json.dumps(chat({"type": "text", "text": "x" * 2000}, VIDEO)).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    sent = body if declared else pieces()
    reply = call(Worker(), "POST", CHAT, content=sent, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


def test_a_token_is_needed_where_one_is_set() -> None:
    worker, good = Worker(), {"Authorization": f"Bearer {TOKEN}"}
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
        for method, path in (("GET", "/v1/models"), ("POST", CHAT), ("GET", "/v1/nothing")):
            reply = call(worker, method, path, TOKEN, headers=wrong, address="10.0.0.9")
            assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert TOKEN not in reply.text
    assert call(worker, "GET", "/v1/models", TOKEN, headers=good, address="10.0.0.9").status_code == 200
    assert call(worker, "GET", "/healthz", TOKEN, address="10.0.0.9").status_code == 200


def test_without_a_token_only_this_machine_is_answered() -> None:
    assert call(Worker(), "GET", "/v1/models", address="10.0.0.9").status_code == 403
    assert call(Worker(), "GET", "/v1/models", headers={"Host": "evil.example"}).status_code == 403
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert call(Worker(), "GET", "/v1/models", headers={"Host": host}).status_code == 200


def test_too_much_at_once_is_refused_and_the_rest_answered() -> None:
    async def crowd() -> tuple[list[int], httpx.Response, int]:
        worker = Worker()
        worker.go.clear()
        async with client(worker) as http:
            waiting = [asyncio.create_task(http.post(CHAT, json=chat(TEXT, VIDEO))) for _ in range(api.MAX_REQUESTS)]
            await asyncio.sleep(0.1)
            refused = await http.post(CHAT, json=chat(TEXT, VIDEO))
            health = (await http.get("/healthz")).status_code
            worker.go.set()
            codes = [(await task).status_code for task in waiting]
            codes.append((await http.post(CHAT, json=chat(TEXT, VIDEO))).status_code)
            return codes, refused, health

    codes, refused, health = asyncio.run(crowd())
    assert codes == [200] * (api.MAX_REQUESTS + 1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert refused.headers["Retry-After"]
    assert health == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)]
    + [(h, False) for h in ("0.0.0.0", "::", "", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example")],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
