"""POST /v1/emotion without an engine: what is read from a form or JSON, and what is refused."""

import asyncio
import errno
import json
import os
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from actors.emotion import DOCUMENT, FORM, JSON, MAX_TEXT, PATH, QUESTION, EmotionRequest, emotion_route
from actors.serving.errors import ApiError, json_reply

CLIP = {"clip": ("clip.mp4", b"media", "video/mp4")}


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return json_reply(error)


def post(asked: list[EmotionRequest] | None = None, **request: Any) -> httpx.Response:
    async def explain(wanted: EmotionRequest) -> dict[str, Any]:
        if asked is not None:
            asked.append(wanted)
        return {"answer": "Sad."}

    async def once() -> httpx.Response:
        app = Starlette(routes=[emotion_route(explain)], exception_handlers={ApiError: refused})
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            return await http.post(PATH, **request)

    return asyncio.run(once())


def test_a_form_is_read() -> None:
    asked: list[EmotionRequest] = []
    fields = {"model": "base", "question": " Why? ", "answer": "Tears.", "grounding": "False"}
    assert post(asked, files=CLIP, data=fields).json() == {"answer": "Sad."}
    post(asked, files=CLIP)
    assert asked == [
        EmotionRequest(model="base", question="Why?", answer="Tears.", grounding=False, clip=b"media", url=None),
        EmotionRequest(model="", question=QUESTION, answer=None, grounding=True, clip=b"media", url=None),
    ]


def test_a_large_file_and_its_bytes_survive_a_form() -> None:
    asked: list[EmotionRequest] = []
    media = bytes(range(256)) * 8192  # 2 MiB: a form keeps it in a file meanwhile
    post(asked, files={"clip": ("a.mp4", media)})
    assert asked[0].clip == media


def test_json_is_read() -> None:
    asked: list[EmotionRequest] = []
    post(asked, json={"model": "base", "url": "https://host/clip.mp4", "grounding": False})
    assert asked == [EmotionRequest(model="base", question=QUESTION, answer=None, grounding=False, clip=None,
                                    url="https://host/clip.mp4")]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b"x"}, 415, "multipart/form-data or application/json"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        ({"json": []}, 400, "a JSON object"),
        ({"json": {}}, 400, "exactly one clip"),
        ({"json": {"url": ""}}, 400, "empty"),
        ({"json": {"url": 3}}, 400, "empty"),
        ({"json": {"url": "u", "clip": "x"}}, 400, "'clip' is not offered"),
        ({"json": {"url": "u", "n": 1}}, 400, "'n' is not offered; fields are"),
        ({"json": {"url": "u", "question": 3}}, 400, "question must be text"),
        ({"json": {"url": "u", "question": "why\ud800"}}, 400, "question holds half a character"),
        ({"json": {"url": "u", "answer": "\udfff"}}, 400, "answer holds half a character"),
        ({"json": {"url": "u", "model": "a\udc00b"}}, 400, "model holds half a character"),
        ({"json": {"url": "u", "grounding": "maybe"}}, 400, "true or false"),
        ({"json": {"url": "u", "grounding": 7}}, 400, "true or false"),
        ({"json": {"url": "u", "answer": "x" * (MAX_TEXT + 1)}}, 400, "characters"),
        ({"files": CLIP, "data": {"url": "u"}}, 400, "exactly one clip"),
        ({"files": {"clip": ("a.mp4", b"")}}, 400, "empty"),
        ({"files": {"other": ("a.mp4", b"x")}}, 400, "'other' is not offered"),
        ({"files": {"clip": (None, b"text")}}, 400, "must be a file"),
        ({"files": [("clip", ("a", b"x")), ("clip", ("b", b"y"))]}, 400, "Too many files"),
        ({"files": CLIP, "data": {"question": "x" * 80_000}}, 400, "Part exceeded"),
        ({"content": b"--x\r\nbroken", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_what_cannot_be_read_is_refused(request_: dict[str, Any], status: int, words: str) -> None:
    if "json" in request_:  # half characters too
        content = json.dumps(request_["json"]).encode()
        request_ = {"content": content, "headers": {"Content-Type": "application/json"}}
    reply = post(**request_)
    assert (reply.status_code, words in reply.text) == (status, True), reply.text


@pytest.mark.parametrize(
    ("charset", "status"),
    [("", 200), ("; charset=utf-8", 200), ('; charset="UTF-8"', 200), ("; charset=utf8", 200)]
    + [(f"; charset={name}", 415) for name in ("undefined", "unicode_escape", "punycode", "latin-1", "none", '""')],
)
def test_a_form_is_in_utf_8(charset: str, status: int) -> None:
    asked: list[EmotionRequest] = []
    fields = {"question": "Für wen? \\ud800"}
    form = httpx.Request("POST", "http://x", files=CLIP, data=fields)
    headers = {"Content-Type": form.headers["content-type"] + charset}
    reply = post(asked, content=form.read(), headers=headers)
    assert (reply.status_code, [request.question for request in asked]) == (
        status,
        [fields["question"]] if status == 200 else [],
    )


def test_a_disk_without_room_for_the_file_is_to_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    reply = post(files={"clip": ("a.mp4", bytes(2**21))})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
    assert int(reply.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_origins_may_not_ask(headers: dict[str, str], status: int) -> None:
    asked: list[EmotionRequest] = []
    assert post(asked, files=CLIP, headers=headers).status_code == status
    assert len(asked) == (status == 200)


def test_the_document_names_what_is_read() -> None:
    operation = DOCUMENT[PATH]["post"]
    assert "31 passes" in operation["description"]
    for kind, place in ((FORM, "clip"), (JSON, "url")):
        shape = operation["requestBody"]["content"][kind]["schema"]
        assert shape["required"] == [place]
        for name in shape["properties"].keys() - {"clip", "url", "grounding"}:
            sent = {"files": CLIP, "data": {name: "x"}} if kind == FORM else {"json": {"url": "https://h/c", name: "x"}}
            assert post(**sent).status_code == 200
