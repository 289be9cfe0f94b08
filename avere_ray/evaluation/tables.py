"""Counts of answers by what was right and what was said, and every rate that follows from them.

A table has one row per class and one column more: what was said, the last column holding answers that are none of the
classes (missing, unparsable, or another class). Every function takes tables with any leading dimensions, so that the
same code gives a figure, its bootstrap replicates, and each clip's share in it. Shape letters: K = classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avere_ray.evaluation.statistics import NO_INTERVAL, Interval, clip_weights, exact_interval, spread_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One sample with what the response to it says."""

    sample_id: str
    """Names the prediction."""
    clip_id: str
    """The clip; samples of one clip are resampled together."""
    gold: str
    """The right class."""
    said: str | None
    """The class answered; None when there is no answer or none can be read."""
    missing: bool = False
    """Whether there was no response at all."""
    task: str = ""
    """Part of the benchmark."""
    subtype: str = ""
    """Part of the task; empty when not labelled."""

    @property
    def right(self) -> bool:
        """Whether the answer is the right one."""
        return self.said == self.gold

    @property
    def unparsable(self) -> bool:
        """Whether there was a response of which no answer could be read."""
        return self.said is None and not self.missing


class Measure(NamedTuple):
    """One figure and the number of samples it rests on, both with the leading dimensions of their table."""

    value: np.ndarray
    n: np.ndarray
    proportion: bool = False
    """Whether it is a plain share of its n, in percent."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as reported."""

    value: float
    interval: Interval
    n: int


def tables(outcomes: Sequence[Outcome], labels: Sequence[str], clips: Sequence[str]) -> np.ndarray:
    """Counts per clip, float64 [C, K, K + 1]; `clips` gives the order of the clips."""
    rows = {label: at for at, label in enumerate(labels)}
    order = {clip: at for at, clip in enumerate(clips)}
    counts = np.zeros((len(clips), len(labels), len(labels) + 1))
    for outcome in outcomes:
        counts[order[outcome.clip_id], rows[outcome.gold], rows.get(outcome.said or "", len(labels))] += 1
    return counts


def accuracy(table: np.ndarray) -> Measure:
    """Right answers in percent; also the weighted average recall (WAR)."""
    return _share(_right(table).sum(-1), table.sum((-2, -1)))


def recall(table: np.ndarray, row: int) -> Measure:
    """Right answers among the samples of one class, in percent."""
    return _share(table[..., row, row], table[..., row, :].sum(-1))


def precision(table: np.ndarray, row: int) -> Measure:
    """Right answers among the answers that name one class, in percent; 0 where none does."""
    said = table[..., row].sum(-1)
    value = np.where(said > 0, _share(table[..., row, row], said).value, 0.0)
    return Measure(np.where(table.sum((-2, -1)) > 0, value, np.nan), said, proportion=True)


def f1(table: np.ndarray, row: int) -> Measure:
    """Harmonic mean of precision and recall of one class, in percent; NaN where the class has no sample."""
    total = table[..., row, :].sum(-1) + table[..., row].sum(-1)
    support = table[..., row, :].sum(-1)
    value = np.where(support > 0, 200.0 * table[..., row, row] / np.maximum(total, 1e-12), np.nan)
    return Measure(value, table.sum((-2, -1)))


def unweighted_average_recall(table: np.ndarray) -> Measure:
    """Mean recall over the classes that have samples (UAR), in percent."""
    recalls = np.stack([recall(table, row).value for row in range(table.shape[-2])])
    return Measure(_mean(recalls), table.sum((-2, -1)))


def macro_f1(table: np.ndarray) -> Measure:
    """Mean F1 over the classes that have samples, in percent."""
    return Measure(_mean(np.stack([f1(table, row).value for row in range(table.shape[-2])])), table.sum((-2, -1)))


def weighted_f1(table: np.ndarray) -> Measure:
    """Mean F1 over classes, weighted by their samples, in percent."""
    support = np.moveaxis(table.sum(-1), -1, 0)
    scores = np.stack([np.nan_to_num(f1(table, row).value) for row in range(table.shape[-2])])
    total = support.sum(0)
    return Measure(np.where(total > 0, (scores * support).sum(0) / np.maximum(total, 1e-12), np.nan), total)


def said_share(table: np.ndarray, column: int) -> Measure:
    """Answers that name one class, in percent of all samples."""
    return _share(table[..., column].sum(-1), table.sum((-2, -1)))


def harmonic(a: Measure, b: Measure) -> Measure:
    """2ab / (a + b); 0 where both are."""
    value = np.where(a.value + b.value > 0, 2 * a.value * b.value / np.maximum(a.value + b.value, 1e-12), 0.0)
    return Measure(np.where(np.isnan(a.value + b.value), np.nan, value), a.n + b.n)


def mean_of(measures: Sequence[Measure]) -> Measure:
    """Unweighted mean of figures; NaN where one is missing."""
    return Measure(sum(m.value for m in measures) / len(measures), sum(m.n for m in measures))  # type: ignore[arg-type]


def yes_no_measures(table: np.ndarray) -> dict[str, Measure]:
    """Figures of a yes/no task, rows (yes, no). `precision`, `recall` and `f1_score` are the paper's: the recall of
    Yes, the recall of No and their harmonic mean; the usual ones, for Yes, have the prefix `standard_`."""
    yes, no = recall(table, 0), recall(table, 1)
    return {
        "overall_accuracy": accuracy(table),
        "yes_percentage": said_share(table, 0),
        "precision": yes,
        "recall": no,
        "f1_score": harmonic(yes, no),
        "standard_precision": precision(table, 0),
        "standard_recall": yes,
        "standard_f1": f1(table, 0),
    }


MeasureFn = Callable[[Mapping[str, np.ndarray]], dict[str, Measure]]
"""Named measures of tables by task."""


def figures(
    counts: Mapping[str, np.ndarray], measure: MeasureFn, *, intervals: bool = True, seed: int = 0
) -> dict[str, Figure]:
    """Every measure of tables by task [C, K, K + 1], with its interval from resampled clips.

    A share on which all clips agree gets the exact interval over the clips, since resampling cannot vary it; another
    figure that resampling does not vary gets none.
    """
    values = measure({task: table.sum(0) for task, table in counts.items()})
    if not intervals or not counts:
        return {name: Figure(float(m.value), NO_INTERVAL, round(float(m.n))) for name, m in values.items()}
    clips = {name: int(np.sum(m.n > 0)) for name, m in measure(counts).items()}
    weights = clip_weights(len(next(iter(counts.values()))), seed=seed)
    drawn = measure({task: resampled(table, weights) for task, table in counts.items()})
    return {name: _figure(m, drawn[name].value, clips[name]) for name, m in values.items()}


def resampled(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Tables of bootstrap resamples [B, K, K + 1] from clip weights [B, C]."""
    return (weights @ table.reshape(len(table), -1)).reshape(len(weights), *table.shape[1:])


def _figure(measure: Measure, replicates: np.ndarray, clips: int) -> Figure:
    point, n = float(measure.value), round(float(measure.n))
    if np.isnan(point):
        return Figure(point, NO_INTERVAL, n)
    if measure.proportion and point in (0.0, 100.0):
        exact = exact_interval(clips if point else 0, clips)
        return Figure(point, Interval(100 * exact.low, 100 * exact.high), n)
    return Figure(point, spread_interval(replicates, clips), n)


def _right(table: np.ndarray) -> np.ndarray:
    return np.diagonal(table[..., :-1], axis1=-2, axis2=-1)


def _share(part: np.ndarray, whole: np.ndarray) -> Measure:
    value = np.where(whole > 0, 100.0 * part / np.maximum(whole, 1e-12), np.nan)
    return Measure(value, whole, proportion=True)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there; NaN where nothing is."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(0)
    return np.where(there.any(0), total / np.maximum(there.sum(0), 1), np.nan)
