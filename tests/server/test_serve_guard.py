"""The Guard's doors: which paths are open, under which prefix, what they take, and where a body may come from."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from test_chat_api import ADMIN, TEXT, TOKEN, WORD, Worker, bearer, chat, client

from actors.api import CHAT, make_api
from actors.emotion import BODIES, PATH, EmotionRequest, emotion_route
from actors.page import page_routes
from actors.serving.guard import BODY, Guard, has_more_marks
from avere_ray.config import ServeConfig

OPEN = ("/", "/page/page.js", "/healthz", "/readyz", "/openapi.json")


def routes() -> list[Route]:
    async def explain(request: EmotionRequest) -> dict[str, Any]:
        return {"answer": "Sad."}

    return [*page_routes(samples=[]), emotion_route(explain)]


def ask(method: str, path: str, *, root: str = "", tokens: bool = True, **request: Any) -> httpx.Response:
    serve = ServeConfig(cors_origins=("https://good.example",))

    async def once() -> httpx.Response:
        app = make_api(Worker(), serve, (TOKEN, ADMIN) if tokens else (), routes=routes(), bodies=BODIES)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return await http.request(method, root + path, **request)

    return asyncio.run(once())


@pytest.mark.parametrize("root", ["", "/x", "/a/b"])
def test_a_token_is_needed_under_every_prefix(root: str) -> None:
    for path in ("/v1/models", "/metrics", "/v1/nothing", "/nothing", "/docs", "/page", "/-/routes"):
        assert ask("GET", path, root=root).status_code == 401, path
    assert ask("POST", CHAT, root=root, json=chat(TEXT)).status_code == 401
    assert ask("POST", CHAT, root=root, json=chat(TEXT), headers=bearer(WORD)).status_code == 200
    assert [ask("GET", path, root=root).status_code for path in OPEN] == [200] * len(OPEN)


@pytest.mark.parametrize("root", ["", "/x"])
def test_a_form_is_taken_under_every_prefix(root: str) -> None:
    form = {"clip": ("clip.mp4", b"media", "video/mp4")}
    assert ask("POST", PATH, root=root, files=form, headers=bearer(WORD)).json() == {"answer": "Sad."}


@pytest.mark.parametrize("tokens", [True, False])
def test_what_is_open_can_only_be_read_and_takes_no_place(tokens: bool) -> None:
    async def endless() -> Any:
        raise AssertionError("the body was asked for")
        yield b""

    for path in (*OPEN, "/page/nothing"):
        reply = ask("POST", path, tokens=tokens, content=endless(), headers={"Content-Type": "application/json"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
    assert ask("HEAD", "/", tokens=tokens).status_code == 200


def test_a_page_that_is_allowed_may_send_a_clip() -> None:
    form = {"clip": ("clip.mp4", b"media", "video/mp4")}
    for origin, status in (("https://good.example", 200), ("https://evil.example", 403), ("null", 403)):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", **bearer(WORD)}
        assert ask("POST", PATH, files=form, headers=headers).status_code == status


@pytest.mark.parametrize("path", [CHAT, PATH, "/v1/models", "/healthz", "/"])
@pytest.mark.parametrize("tokens", [True, False])
def test_an_origin_that_cannot_be_read_is_refused(path: str, tokens: bool) -> None:
    for origin in ("http://[", "http://[::1", "https://good.example[", "//]"):
        for method in ("GET", "POST"):
            reply = ask(method, path, tokens=tokens, headers={"Origin": origin, **bearer(WORD)})
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")


@pytest.mark.parametrize("path", [CHAT, PATH, "/v1/admin/champion"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[],[]," * 900_000 + b"[]]",
        b"{" + b",".join(b'"k%d":1' % i for i in range(450_000)) + b"}",
        b'{"model":"base","messages":[' + b"{}," * 90_000 + b"{}]}",
        ("[" + "0," * 90_000 + "0]").encode("utf-16"),
    ],
    ids=["lists", "names", "messages", "utf-16"],
)
def test_a_body_of_countless_values_is_not_even_read(path: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(text: Any) -> Any:
        raise AssertionError("it was read")

    monkeypatch.setattr("json.loads", loads)
    headers = {"Content-Type": "application/json", **bearer(WORD + "!")}
    reply = ask("POST", path, content=body, headers=headers)
    monkeypatch.undo()
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")
    assert "more than 81920 commas and opening brackets" in reply.json()["error"]["message"]


def test_many_words_and_a_large_clip_are_no_countless_values() -> None:
    assert not has_more_marks(b'{"a":"' + b"," * 80_000 + b"A" * 2**20 + b'"}', 80_001)
    assert has_more_marks(b'{"a":"' + b"," * 80_000 + b"A" * 2**20 + b'"}', 80_000)
    form = {"clip": ("clip.mp4", b"[{," * 100_000, "video/mp4")}
    assert ask("POST", PATH, files=form, headers=bearer(WORD)).json() == {"answer": "Sad."}


def test_health_is_counted_by_its_path() -> None:
    async def some() -> str:
        async with client(Worker()) as http:
            for path in ("/healthz", "/readyz", "/metrics"):
                await http.get(path)
            return (await http.get("/metrics")).text

    text = asyncio.run(some())
    for path in ("/healthz", "/readyz", "/metrics"):
        assert f'avere_ray_requests_total{{replica="0",route="{path}",status="200"}} 1.0' in text


def test_a_body_that_the_proxy_has_read_is_taken_from_it() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for again")

    async def send(message: Any) -> None:
        sent.append(message)

    def scope(body: bytes) -> dict[str, Any]:
        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        return {"type": "http", "method": "POST", "path": CHAT, "query_string": b"", "headers": headers,
                "client": ("127.0.0.1", 1), BODY: body}  # fmt: skip

    guard = make_api(Worker(), ServeConfig(max_body_mb=1))
    assert isinstance(guard, Guard)
    for body in (b'{"model": "base", "messages": [{"role": "user", "content": "Why?"}]}', b" " * (2**20 + 1)):
        asyncio.run(guard(scope(body), receive, send))
    assert [m["status"] for m in sent if "status" in m] == [200, 413]
