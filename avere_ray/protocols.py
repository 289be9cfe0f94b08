"""The seams: what each part asks of the others, without saying who answers.

An actor pool, a local object or a fake can stand behind each of them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

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


class SwapFn(Protocol):
    """Chooses the mismatched input of each query, or None where the corpus offers no partner."""

    def __call__(self, queries: Sequence[Query]) -> list[ModalitySwap | None]: ...


class MetricSink(Protocol):
    """Takes metrics at a step; never raises because a server is away."""

    def log(self, metrics: Mapping[str, float], *, step: int) -> None: ...


class ProgressFn(Protocol):
    """Told how far a stage is; `total` is None while unknown."""

    def __call__(self, done: int, total: int | None) -> None: ...
