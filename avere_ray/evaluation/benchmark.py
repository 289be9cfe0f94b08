"""What a benchmark is, and how a model is scored on one: greedy answers, then a pure score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avere_ray.errors import StageError
from avere_ray.evaluation.scorer import ReadOptions, Scores
from avere_ray.evaluation.showing import Example
from avere_ray.evaluation.tables import Outcome
from avere_ray.protocols import GenerateFn
from avere_ray.records import Clip, Drop, EvalResult, Query, Rollout

Answers = Mapping[str, str | None]
"""Responses by query id, as the model wrote them; None or absent where it gave none."""


class LoadFn(Protocol):
    """Questions of a file about the given clips, and those left out because their clip is missing."""

    def __call__(
        self,
        path: Path,
        clips: Sequence[Clip],
        options: ReadOptions = ReadOptions(),  # noqa: B008
    ) -> tuple[list[Query], list[Drop]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One possible answer to a question."""

    scored: str
    """The words whose likelihood counts: "(A)" for a choice, the class itself else."""
    said: str
    """The response that means it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """Held-out questions and their metrics; all functions are pure, so predictions can be scored without a model."""

    name: str
    """Name in `BENCHMARKS` and in metric keys."""
    load: LoadFn
    """Questions of a file about clips."""
    score: Callable[[Sequence[Query], Answers], dict[str, float]]
    """Metrics of answers to questions; accuracies in percent."""
    details: Callable[[Sequence[Query], Answers], Scores]
    """The same figures with n, 95 % intervals and confusion tables."""
    outcomes: Callable[[Sequence[Query], Answers], list[Outcome]]
    """What each answer says, in the order of the questions."""
    options: Callable[[Query], Mapping[str, Option]]
    """The possible answers to a question, by the name its right answer has in `Query.answer`."""
    examples: Callable[[Sequence[Clip], int], Mapping[str, Sequence[Example]]]
    """Few-shot examples by task, from clips and a seed."""
    described: bool = False
    """Whether answers are descriptions: a judge rates each (`ratings`), and what is scored are its replies."""


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
    predictions = [r for query, found in zip(queries, responses, strict=True) for r in first_answer(query, found)]
    return score_answers(benchmark, queries, predictions, adapter_version=adapter_version, round_=round_), predictions


def score_answers(
    benchmark: Benchmark,
    queries: Sequence[Query],
    predictions: Sequence[Rollout],
    *,
    adapter_version: int = 0,
    round_: int = -1,
) -> EvalResult:
    """Scores of answers; a query without one counts as wrong.

    Raises:
        StageError: another adapter answered.
    """
    versions = {r.adapter_version for r in predictions} - {adapter_version}
    if versions:
        raise StageError(f"{benchmark.name}: adapter {adapter_version} is evaluated, but {min(versions)} answered")
    metrics = benchmark.score(queries, {r.query_id: r.text for r in predictions})
    return EvalResult(
        benchmark=benchmark.name, adapter_version=adapter_version, round=round_, n=len(queries), metrics=metrics
    )


def first_answer(query: Query, found: Sequence[Rollout]) -> Sequence[Rollout]:
    """The first response to a query, as a list of one or none.

    Raises:
        StageError: it answers another query.
    """
    if found and found[0].query_id != query.query_id:
        raise StageError(f"query {query.query_id} got the answer to {found[0].query_id}; results are out of order")
    return found[:1]
