"""The rows of a comparison's tables as text, the same in the terminal, in Markdown and on the page."""

import math
from collections.abc import Sequence

from avere_ray.comparison.differences import Pair, SeedGroup
from avere_ray.comparison.report import Column, Report, verdict
from avere_ray.evaluation.statistics import SeedSummary
from avere_ray.evaluation.tables import Figure

PAIR_HEAD = ("task", "n", "first", "second", "change", "95 % interval", "fixed", "broke", "test", "p", "p (Holm)",
             "effect h", "verdict")  # fmt: skip
RATING_HEAD = ("benchmark", "criterion", "n", "first", "second", "change", "95 % interval", "test", "p", "p (Holm)",
               "effect d", "verdict")  # fmt: skip
CALIBRATION_HEAD = ("run", "n", "expected calibration error", "Brier score")
GROUNDING_HEAD = ("run", "benchmark", "without", "mode", "asked about", "n", "accuracy", "in the mode", "accuracy lost",
                  "log-likelihood lost, nats")  # fmt: skip
GROUNDING_NOTE = (
    "Accuracy (percentage points) and log-likelihood of the right answer that are lost when a medium is swapped, "
    "silenced, blanked or left out: a model that loses nothing without the sound does not listen. 95 % intervals over "
    "clips."
)
SEED_HEAD = ("task", "before", "after", "change", "95 % interval of the change")


def figure_rows(report: Report) -> list[list[str]]:
    """Task, then each column's accuracy with interval and n."""
    return [[task, *(_accuracy(column, task) for column in report.columns)] for task in report.tasks]


def other_rows(report: Report) -> list[list[str]]:
    """Recalls, F1 both ways, share of Yes and sub-types: name, then each column's figure with interval and n."""
    return [[name, *(_other(column, name) for column in report.columns)] for name in report.other]


def pair_rows(pair: Pair) -> list[list[str]]:
    """One row per task, in the order of `PAIR_HEAD`."""
    return [
        [
            t.task,
            str(t.n),
            f"{t.first:.1f}",
            f"{t.second:.1f}",
            f"{t.difference:+.1f}",
            _range(t.interval.low, t.interval.high),
            str(t.fixed) if t.paired else "-",
            str(t.broke) if t.paired else "-",
            t.test.name,
            p_value(t.test.p),
            p_value(t.p_holm),
            f"{t.effect:+.2f}",
            verdict(t),
        ]
        for t in pair.tasks
    ]


def rating_rows(pair: Pair) -> list[list[str]]:
    """One row per criterion of rated descriptions, in the order of `RATING_HEAD`."""
    return [
        [
            r.benchmark,
            r.criterion,
            str(r.n),
            f"{r.first:.2f}",
            f"{r.second:.2f}",
            f"{r.difference:+.2f}",
            _range(r.interval.low, r.interval.high, 2),
            r.test.name,
            p_value(r.test.p),
            p_value(r.p_holm),
            f"{r.effect:+.2f}" if math.isfinite(r.effect) else "-",
            verdict(r),
        ]
        for r in pair.ratings
    ]


def rated_rows(report: Report) -> list[list[str]]:
    """Benchmark and criterion, then each column's mean rating with interval and n."""
    rated = [column.evaluation.beside.ratings for column in report.columns]
    names = dict.fromkeys((name, key) for found in rated for name, figures in found.items() for key in figures)
    return [[f"{name} {key}", *(_rated(found.get(name, {}).get(key)) for found in rated)] for name, key in names]


def grounding_rows(report: Report) -> list[list[str]]:
    """One row per column, benchmark, mode and kind of question, in the order of `GROUNDING_HEAD`."""
    return [
        [
            label,
            loss.benchmark,
            loss.without,
            loss.mode,
            loss.asked,
            str(loss.drop.n),
            f"{loss.plain:.1f}",
            f"{loss.changed:.1f}",
            _lost(loss.drop, 1),
            _lost(loss.shift, 3) if loss.shift is not None else "-",
        ]
        for label, losses in report.losses.items()
        for loss in losses
    ]


def calibration_rows(report: Report) -> list[list[str]]:
    """One row per column whose likelihoods are known, in the order of `CALIBRATION_HEAD`."""
    return [
        [
            label,
            str(c.n),
            _figure(c.error, c.error_interval.low, c.error_interval.high, 0, digits=3),
            _figure(c.brier, c.brier_interval.low, c.brier_interval.high, 0, digits=3),
        ]
        for label, c in report.calibrations.items()
    ]


def _lost(figure: Figure, digits: int) -> str:
    if math.isnan(figure.value):
        return "-"
    low, high = figure.interval.low, figure.interval.high
    spread = f" [{low:+.{digits}f}, {high:+.{digits}f}]" if math.isfinite(low) else ""
    return f"{figure.value:+.{digits}f}{spread}"


def _rated(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return _figure(figure.value, figure.interval.low, figure.interval.high, figure.n, digits=2)


def seed_rows(group: SeedGroup) -> list[list[str]]:
    """One row per task, in the order of `SEED_HEAD`."""
    rows = []
    for task, after in group.after.items():
        change = group.change.get(task)
        change_text = f"{change.mean:+.1f}" if change is not None else "-"
        spread = _range(change.interval.low, change.interval.high) if change is not None else "-"
        rows.append([task, _mean(group.before.get(task)), _mean(after), change_text, spread])
    return rows


def param_rows(report: Report) -> list[list[str]]:
    """Setting, then each run's value."""
    return [[name, *(_cut(value) for value in values)] for name, values in report.params.items()]


def p_value(p: float) -> str:
    """ "0.052", "< 0.0001", or "-"."""
    if math.isnan(p):
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _other(column: Column, name: str) -> str:
    figure = column.figure(name)
    return "-" if figure is None else _figure(figure.value, figure.interval.low, figure.interval.high, figure.n)


def _accuracy(column: Column, task: str) -> str:
    return _figure(*column.accuracy(task))


def _figure(value: float, low: float, high: float, n: int, *, digits: int = 1) -> str:
    if math.isnan(value):
        return "-"
    spread = f" [{low:.{digits}f}, {high:.{digits}f}]" if math.isfinite(low) else ""
    return f"{value:.{digits}f}{spread}" + (f" n={n}" if n else "")


def _range(low: float, high: float, digits: int = 1) -> str:
    return f"{low:+.{digits}f} to {high:+.{digits}f}" if math.isfinite(low) else "-"


def _mean(summary: SeedSummary | None) -> str:
    if summary is None:
        return "-"
    return f"{summary.mean:.1f} ± {summary.sd:.1f}" if math.isfinite(summary.sd) else f"{summary.mean:.1f}"


def _cut(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + "..."


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(_cell(cell) for cell in head) + " |"]
    lines.append("|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|")
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
