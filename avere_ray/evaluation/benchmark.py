"""What a benchmark is, and how a model is scored on one: greedy answers, then a pure score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avere_ray.errors import StageError
from avere_ray.evaluation.scorer import Scores
from avere_ray.protocols import GenerateFn
from avere_ray.records import Clip, Drop, EvalResult, Query, Rollout

Answers = Mapping[str, str | None]
"""Responses by query id, as the model wrote them; None or absent where it gave none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Held-out questions and their metrics; both functions are pure, so predictions can be scored without a model."""

    name: str
    """Name in `BENCHMARKS` and in metric keys."""
    load: Callable[[Path, Sequence[Clip]], tuple[list[Query], list[Drop]]]
    """Questions of a file about the given clips, and those left out because their clip is missing."""
    score: Callable[[Sequence[Query], Answers], dict[str, float]]
    """Metrics of answers to questions; accuracies in percent."""
    details: Callable[[Sequence[Query], Answers], Scores]
    """The same figures with n, 95 % intervals and confusion tables."""


def evaluate(
    benchmark: Benchmark,
    queries: Sequence[Query],
    generate: GenerateFn,
    *,
    max_tokens: int,
    adapter_version: int = 0,
    round_: int = -1,
) -> tuple[EvalResult, list[Rollout]]:
    """Scores of one model and the answers they rest on. Decoding is greedy, so a second run gives the same.

    A query without an answer counts as wrong.

    Raises:
        StageError: `generate` answered other queries than were asked, or with another adapter.
    """
    responses = generate(queries, n=1, temperature=0.0, max_tokens=max_tokens, seed=0)
    if len(responses) != len(queries):
        raise StageError(f"{benchmark.name}: {len(queries)} questions were asked, {len(responses)} were answered")
    predictions = [r for query, found in zip(queries, responses, strict=True) for r in _first(query, found)]
    versions = {r.adapter_version for r in predictions} - {adapter_version}
    if versions:
        raise StageError(f"{benchmark.name}: adapter {adapter_version} is evaluated, but {min(versions)} answered")
    answers = {r.query_id: r.text for r in predictions}
    metrics = benchmark.score(queries, answers)
    result = EvalResult(
        benchmark=benchmark.name, adapter_version=adapter_version, round=round_, n=len(queries), metrics=metrics
    )
    return result, predictions


def _first(query: Query, found: Sequence[Rollout]) -> Sequence[Rollout]:
    if found and found[0].query_id != query.query_id:
        raise StageError(f"query {query.query_id} got the answer to {found[0].query_id}; results are out of order")
    return found[:1]
