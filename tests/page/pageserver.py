"""A small HTTP server with the page and the API it talks to, behind which a stand-in answers."""

import asyncio
import base64
import functools
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from actors.emotion import EmotionRequest, emotion_route
from actors.page import page_routes
from avere_ray.config import DecodeConfig
from avere_ray.fakes import FakeFace
from avere_ray.insight import Probe, Reference, analyse, to_json
from avere_ray.media import decode_clip
from avere_ray.records import Clip
from avere_ray.synthetic.samples import default_references

BASE, TUNED = "tiny_base", "tiny_base:adapter-2"
ANSWERS = {
    BASE: "🙂 The person looks happy. I see a wide smile, clapping hands and a blue shirt. "
    "The person sounds happy. I hear laughter and rain.",
    TUNED: "The person looks happy. I see a wide smile. The person sounds happy. I hear a lively voice and laughter; "
    "the blue shirt says nothing about the emotion.",
}
_SPEC = DecodeConfig(frames=2, height=28, width=28)
_SURE = {"clapping": 0.31, "smile": 0.96, "rain": 0.88}


@dataclass
class Stand:
    """What the server answers, and what it was asked."""

    folder: Path
    token: str = ""
    refuse: Callable[[str], Response | None] = lambda path: None
    pause_s: float = 0.0
    """Between two words of an answer."""
    break_off: bool = False
    reason: str = "stop"
    """Why an answer ends."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """Models whose stream was left before its end."""

    def gate(self, request: Request) -> Response | None:
        """A refusal, or None."""
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return refusal(401, "a valid token is needed")
        return self.refuse(request.url.path)

    async def models(self, request: Request) -> Response:
        """GET /v1/models"""
        return JSONResponse({"data": [{"id": BASE}, {"id": TUNED}]})

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions, streamed."""
        body = await request.json()
        video, text = body["messages"][0]["content"]
        media = base64.b64decode(video["video_url"]["url"].removeprefix("data:video/mp4;base64,"))
        self.asked.append({"model": body["model"], "question": text["text"], "media": media, "body": body})
        return StreamingResponse(self._words(body["model"]), media_type="text/event-stream")

    async def _words(self, model: str) -> AsyncIterator[bytes]:
        done = False
        try:
            for word in ANSWERS[model].split(" "):
                text = word if word == "🙂" else f" {word}"
                delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
                data = f"data: {json.dumps(delta, ensure_ascii=False)}\n\n".encode()
                yield data[:25]  # pieces end where they like, even inside a letter
                await asyncio.sleep(self.pause_s)
                yield data[25:]
            if not self.break_off:
                last = {"choices": [{"index": 0, "delta": {}, "finish_reason": self.reason}]}
                yield f"data: {json.dumps(last)}\n\n".encode()
                usage = {"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 120}}
                yield f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode()
            done = True
        finally:
            if not done:
                self.ended.append(model)

    async def explain(self, wanted: EmotionRequest) -> dict[str, Any]:
        """What `emotion_route` asks for."""
        assert wanted.clip is not None and wanted.answer is not None and wanted.grounding
        self.asked.append({"model": wanted.model, "question": wanted.question, "media": wanted.clip})
        (path := self.folder / "asked.mp4").write_bytes(wanted.clip)
        clip = decode_clip(Clip(clip_id="asked", uri=str(path)), path, _SPEC)
        listens = 4.0 if wanted.model == TUNED else 0.0
        face = FakeFace(lambda question: "", lambda probe, option: _logp(probe, option, listens))
        return to_json(analyse(face, clip, wanted.question, _references(), answer=wanted.answer))


class Gate:
    """Asks for the token and refuses what the stand wants refused, before the route is reached."""

    def __init__(self, app: ASGIApp, stand: Stand) -> None:
        self.app, self.stand = app, stand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        no = self.stand.gate(Request(scope)) if scope["path"].startswith("/v1") else None
        await (no or self.app)(scope, receive, send)


@functools.cache
def _references() -> list[Reference]:
    return default_references(_SPEC)


def refusal(status: int, message: str, *, code: str = "x", **headers: str) -> JSONResponse:
    """An error as the API words it."""
    return JSONResponse({"error": {"message": message, "code": code}}, status_code=status,
                        headers={name.replace("_", "-"): value for name, value in headers.items()})  # fmt: skip


def _logp(probe: Probe, option: str, listens: float) -> float:
    if probe.about[0] == "cue":
        sure = next((share for word, share in _SURE.items() if word in probe.prompt), 0.8)
        return float(np.log(sure if option == "Yes" else 1 - sure))
    if probe.about[0] in ("face", "voice"):
        return 0.0 if "happy" in option else -5.0
    lost = {"plain": 0.0, "text_only": 9.5}.get(str(probe.about[0]))
    return -2.0 - (lost if lost is not None else listens if probe.about[1] == "audio" else 6.0)


@contextmanager
def serving(stand: Stand) -> Iterator[str]:
    """The address of the running server."""
    app = Starlette(routes=[
        Route("/v1/models", stand.models),
        Route("/v1/chat/completions", stand.chat, methods=["POST"]),
        emotion_route(stand.explain),
        *page_routes(),
    ])  # fmt: skip
    app.add_middleware(Gate, stand=stand)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)
