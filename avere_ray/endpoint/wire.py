"""Requests and answers as HTTP bodies, and what a status means."""

import email.utils
import http.client
import json
import time
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 16 * 2**20
"""Longest answer that is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question to a remote model."""

    messages: Sequence[Mapping[str, Any]]
    """As the chat API takes them; see `parts`."""
    max_tokens: int
    """Longest answer, tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int | None = None
    """For servers that sample reproducibly."""
    response_format: Mapping[str, Any] | None = None
    """Passed on as it is; see `parts.json_schema`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the body, for instance vLLM's `mm_processor_kwargs`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a remote model answered."""

    text: str
    finish_reason: str
    """"stop" or "length", as the server says."""
    prompt_tokens: int
    completion_tokens: int
    counted: bool = True
    """Whether the server says how many tokens these are; else both are 0."""


class Busy(Exception):
    """Worth another try."""

    def __init__(self, message: str, retry_after_s: float | None = None, *, spent: bool = False) -> None:
        """`spent`: whether the request was sent and may have been worked on, so that it may be on the bill."""
        super().__init__(message)
        self.retry_after_s, self.spent = retry_after_s, spent


def to_body(model: str, request: Request) -> bytes:
    """The body of POST /chat/completions."""
    body: dict[str, Any] = {"model": model, "messages": list(request.messages), "max_tokens": request.max_tokens,
                            "temperature": request.temperature}  # fmt: skip
    if request.seed is not None:
        body["seed"] = request.seed
    if request.response_format is not None:
        body["response_format"] = dict(request.response_format)
    return json.dumps(body | dict(request.extra), ensure_ascii=False).encode()


def read_all(answer: Any, deadline: float) -> bytes:
    """A whole body; a server that sends it drop by drop is as good as silent."""
    data = bytearray()
    while piece := answer.read1(1 << 16):
        data += piece
        if len(data) > MOST_BYTES or time.monotonic() > deadline:
            raise TimeoutError("the answer is too long or comes too slowly")
    return bytes(data)


def read_reply(data: bytes) -> Reply:
    """A successful body.

    Raises:
        Busy: it is none, as a proxy's page is; another try may help.
    """
    try:
        body = json.loads(data)
        choice = body["choices"][0]
        content = choice["message"].get("content")
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())
        prompt, completion = _counts(body.get("usage"))
        return Reply(
            text=text,
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=prompt,
            completion_tokens=completion,
            counted=prompt > 0,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Busy(f"the answer is no chat completion ({type(error).__name__}: {error})", spent=True) from None


def _counts(usage: Any) -> tuple[int, int]:
    """Tokens of prompt and answer; both 0 where they are not said, or cannot be meant."""
    found = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, Mapping) else []
    whole = [n for n in (0 if n is None else n for n in found) if isinstance(n, int) and n >= 0]
    return (whole[0], whole[1]) if len(whole) == 2 and whole[0] else (0, 0)


def explained(error: urllib.error.HTTPError) -> tuple[str, str]:
    """Code and message of an error body, in one line each."""
    try:
        data = error.read(MOST_BYTES)
    except (OSError, http.client.HTTPException):
        data = b""
    try:
        found = json.loads(data)
        found = found[0] if isinstance(found, list) else found
        found = found.get("error", found)
        code, message = (found.get("code") or found.get("type") or ""), found.get("message")
    except (ValueError, AttributeError, IndexError):
        code, message = "", data.decode("utf-8", "replace")
    return str(code), " ".join(str(message or error.reason or "no reason given").split())[:300]


def retry_after(headers: Any) -> float | None:
    """Seconds a server asks to wait, given as milliseconds, seconds or a date; None when it does not say."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) * unit)
        except ValueError:
            continue
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
