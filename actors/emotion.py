"""POST /v1/emotion: a clip and a question in, what the answer rests on out; no Ray, no engine.

The body is a form (multipart/form-data) with the clip as a file named "clip", or JSON with its "url"; see
`EmotionRequest` for the other fields and `avere_ray.insight.report` for the reply. Cost: some 31 passes of the engine,
in two batches, of which one generates; without "grounding" eight fewer.

A form is what any page in a browser can send unasked, so one that comes from another origin is refused, unless the
`Guard` has found it in `serve.cors_origins`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actors.serving.errors import ApiError
from actors.serving.guard import ORIGIN_ALLOWED, is_own_page

PATH = "/v1/emotion"
FORM, JSON = "multipart/form-data", "application/json"
BODIES = {PATH: (FORM, JSON)}
"""Content types a guard must let through, by path."""
QUESTION = "How does the person feel, and how can you tell?"
"""Asked where the request asks nothing."""
MAX_TEXT = 16_384
"""Longest question or answer that is read, characters; how long both may be in all, whoever answers decides."""
_FIELDS = ("model", "question", "answer", "grounding", "url")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_TEXT = {"type": "string", "maxLength": MAX_TEXT}
_ASKED: dict[str, Any] = {
    "model": {**_TEXT, "description": "One of GET /v1/models; without it the server chooses."},
    "question": {**_TEXT, "default": QUESTION},
    "answer": {**_TEXT, "description": "An answer given already; without it the model is asked."},
    "grounding": {"type": "boolean", "default": True, "description": "Whether to score the answer with media removed "
                  "and swapped: eight more passes."},
}  # fmt: skip
_WAYS: dict[str, Any] = {
    FORM: ("clip", {"type": "string", "format": "binary", "description": "The media file."}),
    JSON: (
        "url",
        {"type": "string", "minLength": 1, "description": "data: with base64, or https: on an allowed host."},
    ),
}


def _body(name: str, place: dict[str, Any]) -> dict[str, Any]:
    shape = {"type": "object", "properties": {name: place, **_ASKED}, "required": [name], "additionalProperties": False}
    return {"schema": shape}


DOCUMENT: dict[str, Any] = {
    PATH: {
        "post": {
            "summary": "What an answer about a clip rests on",
            "description": "The emotion, the cues that the answer names with the model's confidence in each, whether "
            "face and voice agree, and by how many nats the answer gets less likely when a medium is removed or "
            "swapped. Costs some 31 passes of the engine in two batches, of which one generates; without grounding "
            "eight fewer.",
            "operationId": "emotion_v1_emotion_post",
            "requestBody": {"required": True, "content": {kind: _body(*way) for kind, way in _WAYS.items()}},
            "responses": {
                "200": {"description": "The analysis", "content": {JSON: {"schema": {"type": "object"}}}},
                "default": {
                    "description": "A refusal",
                    "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorReply"}}},
                },
            },
        }
    }
}
"""The route in an OpenAPI document that knows ErrorReply."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmotionRequest:
    """What is asked."""

    model: str
    """One of GET /v1/models; empty takes the server's choice."""
    question: str
    """The question, with its choices "(A) ..." if it has any."""
    answer: str | None
    """An answer that the model has given already, for instance streamed; None asks it."""
    grounding: bool
    """Whether to score the answer with media removed and swapped."""
    clip: bytes | None
    """The media file, or None when it is at `url`."""
    url: str | None
    """Where the clip is, a data: URL included; whoever answers decides which hosts it asks."""


Explain = Callable[[EmotionRequest], Awaitable[Mapping[str, Any]]]


def emotion_route(explain: Explain) -> Route:
    """The route; `explain` gives the JSON of the reply, and raises what the application turns into an error body."""

    async def emotion(request: Request) -> Response:
        if not getattr(request.state, ORIGIN_ALLOWED, False):
            refuse_other_origins(request.headers)
        return JSONResponse(dict(await explain(await read_request(request))))

    return Route(PATH, emotion, methods=["POST"])


async def read_request(request: Request) -> EmotionRequest:
    """What a request asks.

    Raises:
        HTTPException: 400 when it is malformed, 415 when it is neither a form in UTF-8 nor JSON.
        ApiError: there is no room for its file.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        try:
            return await _read_form(request)
        except OSError as error:  # a large file lies on the disk meanwhile
            raise ApiError(503, "there is no room for the file; try again later", code="overloaded") from error
    if kind != JSON:
        raise HTTPException(415, f"the body must be sent as {FORM} or {JSON}")
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON") from error
    if not isinstance(given, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return _understood(given, None)


async def _read_form(request: Request) -> EmotionRequest:
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        raise HTTPException(415, f"the form must be in UTF-8, not in charset {charset.decode('latin-1')[:40]!r}")
    async with request.form(max_files=1, max_fields=len(_FIELDS), max_part_size=4 * MAX_TEXT) as form:
        given: dict[str, Any] = dict(form)
        file = given.pop("clip", None)
        if file is not None and not isinstance(file, UploadFile):
            raise HTTPException(400, "clip must be a file of the form, with a filename")
        return _understood(given, await file.read() if file is not None else None)


def refuse_other_origins(headers: Headers) -> None:
    """Refuses what a page of another origin sends.

    Raises:
        HTTPException: 403.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") or (origin is not None and not is_own_page(origin, headers.get("host"))):
        raise HTTPException(403, "pages of other origins may not ask")


def _understood(given: Mapping[str, Any], clip: bytes | None) -> EmotionRequest:
    if unknown := [str(name)[:40] for name in given if name not in _FIELDS]:
        raise HTTPException(400, f"{unknown[0]!r} is not offered; fields are clip, {', '.join(_FIELDS)}")
    texts = {name: _text(name, given.get(name)) for name in ("model", "question", "answer")}
    url = given.get("url")
    if (clip is None) == (url is None):
        raise HTTPException(400, "send exactly one clip: the file 'clip' of a form, or its 'url'")
    if clip == b"" or (url is not None and not (isinstance(url, str) and url)):
        raise HTTPException(400, "the clip is empty")
    return EmotionRequest(
        model=texts["model"] or "",
        question=(texts["question"] or "").strip() or QUESTION,
        answer=texts["answer"],
        grounding=_flag(given.get("grounding", True)),
        clip=clip,
        url=url,
    )


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise HTTPException(400, f"{name} must be text")
    if len(value) > MAX_TEXT:
        raise HTTPException(400, f"{name} has {len(value)} characters, allowed are {MAX_TEXT}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise HTTPException(400, f"{name} holds half a character (U+D800 to U+DFFF); send whole ones")
    return value


def _flag(value: Any) -> bool:
    found = value if isinstance(value, bool) else _FLAGS.get(value.lower() if isinstance(value, str) else "")
    if found is None:
        raise HTTPException(400, "grounding must be true or false")
    return found
