"""Rated descriptions of two evaluations set side by side: paired differences per criterion, clip by clip.

A description that is missing has the lowest rating, as in the figures; one whose rating cannot be read in either
evaluation is left out of the difference. Ratings of two judges are not compared.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avere_ray.comparison.results import Evaluation
from avere_ray.evaluation.emer import CRITERIA, DESCRIBED, LOWEST, parse_judgement
from avere_ray.evaluation.statistics import (
    Interval,
    PairedTest,
    by_clip,
    clip_weights,
    cohens_d,
    sign_flip,
    spread_interval,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingDifference:
    """One criterion of one benchmark in two evaluations, on the scale from 1 to 10."""

    benchmark: str
    criterion: str
    first: float
    second: float
    interval: Interval
    """Of second minus first; 95 %."""
    n: int
    """Descriptions compared."""
    test: PairedTest
    effect: float
    """Cohen's d of the clips' differences; NaN where they do not vary."""
    p_holm: float = math.nan
    """Corrected over the criteria of every pair of evaluations shown."""

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def rating_differences(first: Evaluation, second: Evaluation, same: set[str]) -> list[RatingDifference]:
    """Every criterion of the benchmarks that one judge rated in both; `same`: ids of the questions both were asked."""
    found = []
    for benchmark in DESCRIBED:
        rater = first.beside.raters.get(benchmark)
        if rater is None or rater != second.beside.raters.get(benchmark):
            continue
        names = sorted(name for name in same if first.questions[name].item.task == benchmark)
        rated = [(name, a, b) for name in names if (a := _rating(first, name)) and (b := _rating(second, name))]
        if rated:
            clips = [first.questions[name].item.clip_id for name, _, _ in rated]
            found += [_difference(benchmark, criterion, rated, clips) for criterion in CRITERIA]
    return found


def _rating(evaluation: Evaluation, name: str) -> dict[str, int] | None:
    reply = evaluation.beside.replies.get(name)
    return dict.fromkeys(CRITERIA, LOWEST) if reply is None else parse_judgement(reply)


def _difference(
    benchmark: str,
    criterion: str,
    rated: Sequence[tuple[str, Mapping[str, int], Mapping[str, int]]],
    clips: Sequence[str],
) -> RatingDifference:
    a = np.array([float(first[criterion]) for _, first, _ in rated])
    b = np.array([float(second[criterion]) for _, _, second in rated])
    count = len(set(clips))
    weights, sums = clip_weights(count), by_clip(b - a, clips)
    drawn = (weights @ sums) / (weights @ by_clip(np.ones(len(a)), clips))
    return RatingDifference(
        benchmark=benchmark,
        criterion=criterion,
        first=float(a.mean()),
        second=float(b.mean()),
        interval=spread_interval(drawn, count),
        n=len(a),
        test=sign_flip(sums),
        effect=cohens_d(sums),
    )
