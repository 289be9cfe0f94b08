"""A benchmark put to a model: as it is, and in each robustness mode; what is answered already is not asked again."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from avere_ray.config import EvaluationConfig
from avere_ray.errors import StageError
from avere_ray.evaluation.benchmark import Benchmark, Option
from avere_ray.evaluation.grounding import Loss, View, losses
from avere_ray.evaluation.kept import Kept
from avere_ray.evaluation.showing import PLAIN, Example, Showing, Showings
from avere_ray.protocols import ProgressFn
from avere_ray.records import Query, Rollout

AS_IT_IS = ""
"""Name of the mode in which clips are shown as they are."""


class Answerer(Protocol):
    """A model that answers questions; whatever it is, it keeps each answer as it comes."""

    @property
    def scores_options(self) -> bool:
        """Whether it can tell how likely it finds each option."""

    def answer(
        self,
        queries: Sequence[Query],
        showings: Sequence[Showing],
        *,
        max_tokens: int,
        kept: Kept,
        progress: ProgressFn,
    ) -> None:
        """Answers greedily."""

    def score_options(
        self,
        queries: Sequence[Query],
        showings: Sequence[Showing],
        options: Sequence[Mapping[str, Option]],
        *,
        kept: Kept,
        progress: ProgressFn,
    ) -> None:
        """Scores every option of every question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sitting:
    """One way of putting the questions, and what came of it."""

    mode: str
    queries: Sequence[Query]
    """The questions that could be put in this way, in order."""
    kept: Kept

    @property
    def answers(self) -> list[Rollout]:
        """The answers in the order of the questions; a refused question has none."""
        return [self.kept.answers[q.query_id] for q in self.queries if q.query_id in self.kept.answers]

    @property
    def logps(self) -> dict[str, dict[str, float]]:
        """Option likelihoods by question id, in the order of the questions."""
        return {q.query_id: self.kept.logps[q.query_id] for q in self.queries if q.query_id in self.kept.logps}


class Exam:
    """Puts the questions of one benchmark to a model."""

    def __init__(
        self,
        benchmark: Benchmark,
        queries: Sequence[Query],
        answerer: Answerer,
        cfg: EvaluationConfig,
        *,
        showings: Showings,
        examples: Callable[[Query], tuple[Example, ...]],
        folder: Path,
        show: Callable[[str], AbstractContextManager[ProgressFn]],
    ) -> None:
        """
        Args:
            showings: replaces media.
            examples: few-shot examples of a question.
            folder: where answers are kept until the evaluation is finished.
            show: shows the progress of one mode, by its name.
        """
        self.benchmark, self.queries, self.answerer, self.cfg = benchmark, queries, answerer, cfg
        self._showings, self._examples, self._folder, self._show = showings, examples, folder, show

    def sittings(self) -> list[Sitting]:
        """The questions as they are, then in each mode of the config; descriptions are asked for as they are only.

        Raises:
            StageError: the model cannot go on; what it answered is kept.
        """
        return [self._sit(mode) for mode in (AS_IT_IS, *(() if self.benchmark.described else self.cfg.modes))]

    def losses(self, sittings: Sequence[Sitting]) -> list[Loss]:
        """What each mode costs."""
        views = {sitting.mode: self._view(sitting) for sitting in sittings}
        return losses(self.queries, views.pop(AS_IT_IS), views)

    def _sit(self, mode: str) -> Sitting:
        put = [(query, showing) for query in self.queries if (showing := self._showing(query, mode)) is not None]
        kept = Kept(self._folder / f"{self.benchmark.name}{'_' * bool(mode)}{mode}.jsonl")
        greedy = self.cfg.decoding == "greedy" or self.benchmark.described
        wanted = not greedy or self.cfg.likelihoods or bool(self.cfg.modes)
        score = wanted and self.answerer.scores_options and not self.benchmark.described
        if not greedy and not score:
            raise StageError("this model gives no likelihoods; set evaluation.decoding to greedy")
        with self._show(mode) as progress:
            if greedy:
                self._answer([(q, s) for q, s in put if q.query_id not in kept.answers], kept, progress)
            if score:
                self._score([(q, s) for q, s in put if q.query_id not in kept.logps], kept, progress)
        queries = [query for query, _ in put]
        if not greedy:
            kept.answers |= {q.query_id: self._likeliest(q, kept.logps[q.query_id]) for q in queries}
        return Sitting(mode=mode, queries=queries, kept=kept)

    def _showing(self, query: Query, mode: str) -> Showing | None:
        showing = self._showings.of(query, mode) if mode else PLAIN
        return replace(showing, examples=self._examples(query)) if showing is not None else None

    def _answer(self, put: Sequence[tuple[Query, Showing]], kept: Kept, progress: ProgressFn) -> None:
        queries, showings = [query for query, _ in put], [showing for _, showing in put]
        longest = self.cfg.description_tokens if self.benchmark.described else self.cfg.max_tokens
        self.answerer.answer(queries, showings, max_tokens=longest, kept=kept, progress=progress)

    def _score(self, put: Sequence[tuple[Query, Showing]], kept: Kept, progress: ProgressFn) -> None:
        queries, showings = [query for query, _ in put], [showing for _, showing in put]
        options = [self.benchmark.options(query) for query in queries]
        self.answerer.score_options(queries, showings, options, kept=kept, progress=progress)

    def _likeliest(self, query: Query, logps: Mapping[str, float]) -> Rollout:
        """The likeliest option as an answer; the first one where two are equally likely."""
        best = max(logps, key=lambda name: -math.inf if math.isnan(logps[name]) else logps[name])
        version = getattr(self.answerer, "adapter_version", 0)
        return Rollout(
            rollout_id=f"{query.query_id}#0",
            query_id=query.query_id,
            clip_id=query.clip_id,
            index=0,
            text=self.benchmark.options(query)[best].said,
            token_ids=(),
            finish_reason="likelihood",
            adapter_version=version,
            seed=0,
        )

    def _view(self, sitting: Sitting) -> View:
        """The answers of a sitting; a refused question was not put in this way, and is no wrong answer."""
        texts = {rollout.query_id: rollout.text for rollout in sitting.answers}
        found = self.benchmark.outcomes([q for q in sitting.queries if q.query_id not in sitting.kept.refused], texts)
        return View(outcomes={outcome.sample_id: outcome for outcome in found}, logps=sitting.logps)
