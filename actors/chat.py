"""The chat API in plain types: what a client sends, how it is read, and what goes back; no Ray, no engine.

The shape is OpenAI's (chat completions, with vLLM's `video_url` part). What this server does not do is refused by
name, never ignored: a client must not believe that `top_p` or a second clip had an effect.
"""

import base64
import binascii
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.errors import AvereError
from avere_ray.records import Rollout

MAX_TEXT = 16_384
"""Longest question, characters."""
_DATA_PREFIX = "data:video/mp4;base64,"


class ApiError(AvereError):
    """A request that is not answered; becomes an HTTP status and an OpenAI-style error body."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Part):
    """Words of the question."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_TEXT)]


class VideoUrl(_Part):
    """Where the clip is: inside the request."""

    url: str


class VideoPart(_Part):
    """The clip."""

    type: Literal["video_url"]
    video_url: VideoUrl


class Message(_Part):
    """The one user message: its parts are a clip and a question."""

    role: Literal["user"]
    content: Annotated[list[Annotated[TextPart | VideoPart, Field(discriminator="type")]], Field(max_length=16)]


class ChatRequest(_Part):
    """Body of POST /v1/chat/completions."""

    model: str
    """One of GET /v1/models."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=1)]
    """One user message."""
    n: Annotated[int, Field(ge=1, le=8)] = 1
    """Answers wanted."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] = 1.0
    """Sampling temperature; 0 is greedy."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest answer, tokens; None takes the run's rollout.max_tokens."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """The same request with the same seed gets the same answer; None draws one."""
    stream: Literal[False] = False
    """Streaming is not offered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSpec:
    """What one replica serves; every path is absolute."""

    model: ModelConfig
    rollout: RolloutConfig
    decode: DecodeConfig
    lora_rank: int
    models: Mapping[str, tuple[Path, int]]
    """Model id to adapter folder and version; version 0 is the base."""
    token_sha256: str | None
    """SHA-256 (hex) of the bearer token; None answers this machine alone."""


def question_and_video(request: ChatRequest) -> tuple[str, bytes]:
    """The words and the bytes of the clip.

    Raises:
        ApiError: there is not exactly one clip, no question, or the clip is not given as a data: URL; or several
            different answers are wanted without sampling.
    """
    if request.n > 1 and request.temperature == 0.0:
        raise _bad("n above 1 needs a temperature above 0: greedy answers are all the same", "n")
    parts = request.messages[0].content
    texts = [p.text for p in parts if isinstance(p, TextPart)]
    videos = [(i, p.video_url.url) for i, p in enumerate(parts) if isinstance(p, VideoPart)]
    question = "\n".join(texts).strip()
    if not question:
        raise _bad("there is no question; add a part of type 'text'", "messages.0.content")
    if len(question) > MAX_TEXT:
        raise _bad(f"the question has {len(question)} characters, allowed are {MAX_TEXT}", "messages.0.content")
    if len(videos) != 1:
        raise _bad(
            f"there are {len(videos)} parts of type 'video_url'; send exactly one clip, with sound",
            "messages.0.content",
            "missing_video" if not videos else "several_videos",
        )
    at, url = videos[0]
    return question, decode_data_url(url, f"messages.0.content.{at}.video_url.url")


def decode_data_url(url: str, param: str) -> bytes:
    """The bytes inside a data: URL of an mp4 file.

    Raises:
        ApiError: it is another kind of URL, or its base64 is broken.
    """
    head = url[: len(_DATA_PREFIX)]
    if head.lower() != _DATA_PREFIX:
        scheme = url.partition(":")[0][:16] if ":" in url[:17] else "no scheme"
        raise _bad(
            f"the clip must be a URL that starts with '{_DATA_PREFIX}' (got {scheme!r}); this server fetches nothing "
            "from elsewhere",
            param,
            "unsupported_url",
        )
    try:
        media = base64.b64decode(url[len(_DATA_PREFIX) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"the clip is not valid base64: {error}", param, "invalid_base64") from error
    if not media:
        raise _bad("the clip has 0 bytes", param, "empty_file")
    return media


def explain(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's validation errors, in words; values are not repeated, since they may be whole clips."""
    first = errors[0]
    path = [str(part) for part in first["loc"][first["loc"][:1] == ("body",) :]]
    if path[2:3] == ["content"]:
        del path[4:5]  # which kind of part pydantic took it for
    param = ".".join(path) or None
    if first["type"] == "json_invalid":
        return _bad(f"the body is not JSON: {first.get('ctx', {}).get('error', '')}", None, "invalid_json")
    if first["type"] == "extra_forbidden":
        return _bad(f"{param} is not offered by this server; leave it out", param, "unsupported_parameter")
    if first["type"] == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])[:40]
        allowed = first["ctx"]["expected_tags"]
        return _bad(
            f"{param} is of type {tag!r}, which is not accepted; allowed are {allowed}", param, "unsupported_type"
        )
    if path == ["stream"]:
        return _bad("streaming is not offered; leave stream out or set it to false", param, "unsupported_parameter")
    if path == ["messages"] and first["type"] == "too_long":
        return _bad("there are several messages; send exactly one, with the role 'user'", param, "unsupported_value")
    return _bad(f"{param or 'the body'}: {first['msg']}", param, "invalid_value")


def chat_reply(model: str, rollouts: Sequence[Rollout], prompt_tokens: int) -> dict[str, Any]:
    """The body of a successful answer."""
    completion = sum(len(r.token_ids) for r in rollouts)
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(r) for r in rollouts],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": prompt_tokens + completion,
        },
    }


def model_list(models: Sequence[str]) -> dict[str, Any]:
    """The body of GET /v1/models."""
    return {
        "object": "list",
        "data": [{"id": m, "object": "model", "created": 0, "owned_by": "avere_ray"} for m in models],
    }


def _choice(rollout: Rollout) -> dict[str, Any]:
    return {
        "index": rollout.index,
        "message": {"role": "assistant", "content": rollout.text, "refusal": None},
        "logprobs": None,
        "finish_reason": rollout.finish_reason,
    }


def _bad(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code=code, param=param)
