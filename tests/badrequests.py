"""Requests made from the OpenAPI document that a server serves: most break it, some keep to it and mean nothing."""

import json
from collections.abc import Iterator
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

_GENERATED = [
    ("/v1/chat/completions", GenerationMode.NEGATIVE, 200),
    ("/v1/chat/completions", GenerationMode.POSITIVE, 40),
    ("/v1/emotion", GenerationMode.NEGATIVE, 40),
    ("/v1/admin/champion", GenerationMode.NEGATIVE, 30),
]
"""Path, whether bodies keep to the schema, and how many."""


def bad_requests(document: dict[str, Any], model: str) -> Iterator[tuple[str, bytes]]:
    """Paths and bodies; each body as it is, and again with a model that exists, or as words."""
    operations = schemathesis.openapi.from_dict(document)
    for path, mode, count in _GENERATED:
        for body in _generated(operations[path]["POST"], mode, count, model):
            yield path, body if isinstance(body, bytes) else json.dumps(body, default=repr).encode()


def _generated(operation: Any, mode: GenerationMode, count: int, model: str) -> list[Any]:
    bodies: list[Any] = []

    @settings(max_examples=count, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        there = isinstance(case.body, dict) and "messages" in case.body
        bodies.extend([case.body, {**case.body, "model": model, "max_tokens": 1} if there else [repr(case.body)]])

    collect()
    return bodies
