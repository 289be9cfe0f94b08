"""Which methods are compared, and tests over seeds: whether the methods differ, not whether these trainings of them do.

A seed is a world, a drawing of pairs and a training. The paired t test takes one figure per seed and method, so it says
what would be found with seeds drawn anew; with three of them (two degrees of freedom) it sees large and steady
differences alone.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avere_ray.evaluation.statistics import Interval, holm, over_seeds
from avere_ray.study.methods import BASE, METHODS

NAIVE = "dpo"
AVERAGE = "average_accuracy"
_TASK = "_overall_accuracy"
"""What the accuracies of tasks end with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedTest:
    """One figure of two methods, paired over seeds; in percent."""

    first: str
    second: str
    metric: str
    difference: float
    """Second minus first, mean over seeds."""
    interval: Interval
    """Student's t, 95 %; none with one seed."""
    seeds: int
    p: float
    """Paired t test, two-sided, before any correction; NaN where the seeds are one, or their differences the same."""
    p_holm: float = math.nan
    """Corrected over the comparisons of the average, of the tasks, or of the other figures."""


def comparisons(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Each method against the base and against naive DPO, and each variant of a method against that method; once."""
    found = {(BASE, method): None for method in methods if method != BASE and BASE in methods}
    found |= {(NAIVE, method): None for method in methods if method not in (BASE, NAIVE) and NAIVE in methods}
    known = [method for method in methods if method != BASE]
    found |= {(METHODS[m].variant_of, m): None for m in known if METHODS[m].variant_of in methods}
    return list(found)


def seed_tests(
    figures: Mapping[str, Sequence[Mapping[str, float]]], compared: Sequence[tuple[str, str]], metrics: Sequence[str]
) -> list[SeedTest]:
    """The metrics of each comparison, where both methods have them for every seed.

    Args:
        figures: of each method, one set per seed, in the same order of seeds.
    """
    found = [
        _test(first, second, metric, [b[metric] - a[metric] for a, b in _seeds(figures, first, second)])
        for first, second in compared
        for metric in metrics
        if all(metric in row for row in (*figures[first], *figures[second]))
    ]
    return _corrected(found)


def paired_t(differences: Sequence[float]) -> float:
    """Two-sided p-value of Student's paired t test; 1 where nothing differs, NaN where the differences do not vary."""
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2:
        return math.nan
    spread = float(values.std(ddof=1)) / math.sqrt(values.size)
    if spread < 1e-9:
        return math.nan if abs(float(values.mean())) > 1e-9 else 1.0
    from scipy.special import stdtr

    return float(2 * stdtr(values.size - 1, -abs(float(values.mean())) / spread))


def _seeds(
    figures: Mapping[str, Sequence[Mapping[str, float]]], first: str, second: str
) -> list[tuple[Mapping[str, float], Mapping[str, float]]]:
    return list(zip(figures[first], figures[second], strict=True))


def _test(first: str, second: str, metric: str, differences: Sequence[float]) -> SeedTest:
    over = over_seeds(differences)
    return SeedTest(
        first=first,
        second=second,
        metric=metric,
        difference=over.mean,
        interval=over.interval,
        seeds=len(differences),
        p=paired_t(differences),
    )


def _family(metric: str) -> str:
    return "average" if metric == AVERAGE else "tasks" if metric.endswith(_TASK) else "others"


def _corrected(tests: Sequence[SeedTest]) -> list[SeedTest]:
    adjusted: dict[str, float] = {}
    for family in ("average", "tasks", "others"):
        adjusted |= holm({str(i): t.p for i, t in enumerate(tests) if _family(t.metric) == family})
    return [dataclasses.replace(t, p_holm=adjusted[str(i)]) for i, t in enumerate(tests)]
