"""The seams: what each part asks of the others, without saying who answers.

An actor pool, a local object or a fake can stand behind each of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from avere_ray.records import Clip, ModalitySwap, Query, Rollout, Verdict


class GenerateFn(Protocol):
    """Samples `n` responses to each query; one result list per query, in the order asked."""

    def __call__(
        self, queries: Sequence[Query], *, n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Rollout]]: ...


class JudgeFn(Protocol):
    """Labels responses; one verdict per rollout, in the order given."""

    def __call__(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]: ...


class AskFn(Protocol):
    """Asks a text model, which answers each prompt with JSON of the schema.

    `done(index, text)` is told of each answer as it comes, in any order; None when the model refuses that one prompt.
    """

    def __call__(
        self, prompts: Sequence[str], schema: Mapping[str, Any], done: Callable[[int, str | None], None]
    ) -> None: ...


class SwapFn(Protocol):
    """Chooses the mismatched input of each query, or None where the corpus offers no partner."""

    def __call__(self, queries: Sequence[Query]) -> list[ModalitySwap | None]: ...


class MetricSink(Protocol):
    """Takes metrics at a step; never raises because a server is away."""

    def log(self, metrics: Mapping[str, float], *, step: int) -> None: ...


class ProgressFn(Protocol):
    """Told how far a stage is; `total` is None while unknown."""

    def __call__(self, done: int, total: int | None) -> None: ...
