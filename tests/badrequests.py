"""Requests made from the OpenAPI document that a server serves: most break it, some keep to it and mean nothing."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

_GENERATED = [
    ("/v1/chat/completions", GenerationMode.NEGATIVE, 460),
    ("/v1/chat/completions", GenerationMode.POSITIVE, 60),
    ("/v1/emotion", GenerationMode.NEGATIVE, 200),
    ("/v1/admin/champion", GenerationMode.NEGATIVE, 90),
]
"""Path, whether bodies keep to the schema, and how many are drawn; about a quarter are drawn twice."""
_FORM = "multipart/form-data"
_FORM_TYPE = f"{_FORM}; boundary=bad"


class BadRequest(NamedTuple):
    """What is sent."""

    path: str
    kind: str
    """Content type."""
    content: bytes


def bad_requests(document: dict[str, Any]) -> list[BadRequest]:
    """Generated requests, no two of them alike; each body in its own media type."""
    operations = schemathesis.openapi.from_dict(document)
    made = [
        BadRequest(path, *_encoded(kind, body))
        for path, mode, count in _GENERATED
        for kind, body in _drawn(operations[path]["POST"], mode, count)
    ]
    return list(dict.fromkeys(made))


def for_a_model(requests: list[BadRequest], model: str) -> Iterator[BadRequest]:
    """The conversations among them once more, with a model that exists."""
    for request in requests:
        try:
            body = json.loads(request.content)
        except ValueError:
            continue
        if isinstance(body, dict) and "messages" in body:
            yield request._replace(content=json.dumps({**body, "model": model, "max_tokens": 1}).encode())


def _drawn(operation: Any, mode: GenerationMode, count: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    @settings(max_examples=count, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        found.append((case.media_type or "application/json", case.body))

    collect()
    return found


def _encoded(kind: str, body: Any) -> tuple[str, bytes]:
    if kind != _FORM:
        return kind, body if isinstance(body, bytes) else json.dumps(body, default=repr).encode()
    if not isinstance(body, dict):
        return _FORM_TYPE, body if isinstance(body, bytes) else repr(body).encode()
    parts = [(str(name), ("a.mp4" if name == "clip" else None, _as_bytes(value))) for name, value in body.items()]
    request = httpx.Request("POST", "http://x", files=parts, headers={"Content-Type": _FORM_TYPE})  # type: ignore[arg-type]
    return _FORM_TYPE, request.read()


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
