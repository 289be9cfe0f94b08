"""A comparison as plain parts: what the terminal, Markdown and the page all show, put together once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avere_ray.comparison.beside import GroundingLoss
from avere_ray.comparison.differences import (
    AVERAGE,
    Pair,
    RatingDifference,
    SeedGroup,
    TaskDifference,
    accuracies,
    compare,
    correct,
    differing_params,
    seed_groups,
)
from avere_ray.comparison.results import BEFORE, Evaluation, Points, RunResult
from avere_ray.errors import InputError
from avere_ray.evaluation.calibration import Calibration, calibration
from avere_ray.evaluation.scorer import Scores
from avere_ray.evaluation.statistics import RESAMPLES
from avere_ray.evaluation.tables import Figure

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One evaluation that is shown."""

    label: str
    run: RunResult
    evaluation: Evaluation
    scores: Scores | None
    """Figures with intervals; None when the answers are not here."""

    def accuracy(self, task: str) -> tuple[float, float, float, int]:
        """Accuracy in percent, both ends of its interval, and n; NaN and 0 where unknown."""
        key = "average_accuracy" if task == "average" else f"{task}_overall_accuracy"
        if self.scores is not None and key in self.scores.figures:
            figure = self.scores.figures[key]
            return figure.value, figure.interval.low, figure.interval.high, figure.n
        value = accuracies(self.evaluation.metrics).get(task, math.nan)
        return value, math.nan, math.nan, round(self.evaluation.metrics.get(f"{task}_n", 0))

    def figure(self, name: str) -> Figure | None:
        """Another figure with its interval; None where the answers are not here."""
        return self.scores.figures.get(name) if self.scores is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything a comparison says."""

    columns: tuple[Column, ...]
    tasks: tuple[str, ...]
    """Tasks any column has, then "average" where there is one."""
    other: tuple[str, ...]
    """Names of the figures besides those accuracies."""
    params: Mapping[str, Sequence[str]]
    """Settings that differ, a value per run."""
    runs: tuple[RunResult, ...]
    run_labels: tuple[str, ...]
    pairs: tuple[Pair, ...]
    seeds: tuple[SeedGroup, ...]
    curves: Mapping[str, Mapping[str, Points]]
    """Training metric to run label to points."""
    calibrations: Mapping[str, Calibration]
    losses: Mapping[str, Sequence[GroundingLoss]]
    """What each robustness mode costs, by column; empty where none has modes."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Figures, differences and flips as plain values; NaN becomes null."""
        return {
            "runs": [{"label": label, "name": run.name, "run_id": run.run_id, "folder": str(run.folder or "")}
                     for label, run in zip(self.run_labels, self.runs, strict=True)],
            "params": {name: list(values) for name, values in self.params.items()},
            "figures": {column.label: {task: _figure(column, task) for task in self.tasks} for column in self.columns},
            "other_figures": {c.label: {name: _other(c, name) for name in self.other} for c in self.columns},
            "pairs": [_pair(pair) for pair in self.pairs],
            "seeds": [_seed_group(group) for group in self.seeds],
            "ratings": {c.label: {name: {k: _spread(f) for k, f in rated.items()}
                                  for name, rated in c.evaluation.beside.ratings.items()} for c in self.columns},
            "grounding": {column.label: dict(column.evaluation.beside.grounding) for column in self.columns},
            "calibration": {label: _calibration(c) for label, c in self.calibrations.items()},
            "notes": list(self.notes),
        }  # fmt: skip


def make_report(runs: Sequence[tuple[RunResult, str | None]]) -> Report:
    """Compares runs: one with itself before training, several with the first.

    Args:
        runs: each with the stage to show, or None for its last evaluation.

    Raises:
        InputError: a stage does not exist, or one run has nothing to be compared with.
    """
    labels = run_labels([run for run, _ in runs])
    columns = _columns(runs, labels)
    own = [run for run, _ in runs]
    first = columns[0]
    pairs = correct([compare(first.evaluation, c.evaluation, (first.label, c.label)) for c in columns[1:]])
    tasks = sorted({task for column in columns for task in accuracies(column.evaluation.metrics)} - {"average"})
    distinct = list({_same(run): run for run in own}.values())
    seeds = seed_groups(distinct)
    names = sorted(
        {name for run in distinct for name in run.curves}, key=lambda n: list(_curve_order(distinct)).index(n)
    )
    return Report(
        columns=columns,
        tasks=tuple(tasks + ["average"] * any(AVERAGE in accuracies(c.evaluation.metrics) for c in columns)),
        other=_other_figures(columns),
        params=differing_params(own),
        runs=tuple(own),
        run_labels=tuple(labels),
        pairs=tuple(pairs),
        seeds=tuple(seeds),
        curves={name: {label: run.curves[name] for label, run in zip(labels, own, strict=True) if name in run.curves}
                for name in names},
        calibrations=_calibrations(columns),
        losses={c.label: c.evaluation.beside.losses for c in columns if c.evaluation.beside.losses},
        notes=(*_notes(columns, pairs), *_seed_notes(seeds)),
    )  # fmt: skip


def _same(run: RunResult) -> object:
    """Equal for two readings of one run."""
    return run.run_id or run.folder or id(run)


def run_labels(runs: Sequence[RunResult]) -> list[str]:
    """A short name for each run; with its folder or id where two are called the same."""
    distinct = {(run.name, str(run.folder), run.run_id) for run in runs}
    names = [run.name for run in runs]
    often = [name for name, *_ in distinct]
    return [name if often.count(name) == 1 else f"{name} ({run.folder.name if run.folder else run.run_id[:8]})"
            for name, run in zip(names, runs, strict=True)]  # fmt: skip


def verdict(task: TaskDifference | RatingDifference) -> str:
    """ "better", "worse" or "no evidence", at 5 % after correction."""
    p = task.p_holm if math.isfinite(task.p_holm) else task.test.p
    if math.isnan(p) or p > ALPHA or task.difference == 0:
        return "no evidence"
    return "better" if task.difference > 0 else "worse"


def _columns(runs: Sequence[tuple[RunResult, str | None]], labels: Sequence[str]) -> tuple[Column, ...]:
    if len(runs) == 1 and runs[0][1] is None:
        run = runs[0][0]
        if len(run.evaluations) < 2:
            raise InputError(f"{labels[0]} has one evaluation only, so there is nothing to compare; name another run")
        base = BEFORE if BEFORE in run.evaluations else next(iter(run.evaluations))
        return tuple(_column(run, stage, f"{labels[0]}, {_said(stage)}") for stage in (base, run.last().stage))
    if len(runs) == 1:
        raise InputError(
            f"{labels[0]} at one stage cannot be compared with itself; name two, for instance RUN RUN@before"
        )
    return tuple(
        _column(run, stage or run.last().stage, label if stage is None else f"{label}, {_said(stage)}")
        for (run, stage), label in zip(runs, labels, strict=True)
    )


def _column(run: RunResult, stage: str, label: str) -> Column:
    if stage not in run.evaluations:
        raise InputError(f"{run.name} has no evaluation {stage!r}; it has {', '.join(run.evaluations)}")
    evaluation = run.evaluations[stage]
    return Column(label=label, run=run, evaluation=evaluation, scores=evaluation.scores())


def _other_figures(columns: Sequence[Column]) -> tuple[str, ...]:
    names = dict.fromkeys(name for column in columns if column.scores is not None for name in column.scores.figures)
    return tuple(name for name in names if not name.endswith("_overall_accuracy") and name != "average_accuracy")


def _said(stage: str) -> str:
    return "before" if stage == BEFORE else f"round {stage.partition('=')[2]}"


def _curve_order(runs: Sequence[RunResult]) -> dict[str, None]:
    return dict.fromkeys(name for run in runs for name in run.curves)


def _calibrations(columns: Sequence[Column]) -> dict[str, Calibration]:
    found = {}
    for column in columns:
        items = [question.item for question in column.evaluation.questions.values()]
        measured = calibration(items, column.evaluation.option_logps)
        if measured is not None:
            found[column.label] = measured
    return found


def _notes(columns: Sequence[Column], pairs: Sequence[Pair]) -> tuple[str, ...]:
    notes = [f"{c.label}: its answers are not on this machine, so its figures have no interval and no test"
             for c in columns if c.scores is None and not c.evaluation.questions]  # fmt: skip
    notes += _rating_notes(columns)
    for pair in pairs:
        if (pair.tasks or pair.ratings) and not pair.shared:
            notes.append(f"{pair.first} and {pair.second} were asked about different clips, so nothing is paired")
        elif pair.apart and pair.shared:
            notes.append(
                f"{pair.first} and {pair.second}: {pair.apart} questions are not the same in both and are left out of "
                f"the differences, {pair.shared} are compared"
            )
    tests = {t.test.name for pair in pairs for t in pair.tasks}
    if "sign_flip_by_clip" in tests:
        notes.append("sign_flip_by_clip: permutation of clips, since some clips have several questions")
    notes.append(
        "p (Holm) is corrected over the tasks of all pairs shown, over their sub-types, and over their averages; "
        "intervals are 95 %, from "
        f"{RESAMPLES} resamples of whole clips"
    )
    return tuple(notes)


def _seed_notes(groups: Sequence[SeedGroup]) -> list[str]:
    return [
        f"{run.name} ({run.folder.name if run.folder else run.run_id[:8]}) has the seed of a newer run of the same "
        f"setting and does not count over the seeds of {group.label}"
        for group in groups
        for run in group.left_out
    ]


def _rating_notes(columns: Sequence[Column]) -> list[str]:
    """Who rated descriptions, and that ratings of two judges say nothing about the difference of two runs."""
    raters: dict[str, dict[str, None]] = {}
    for column in columns:
        for benchmark, rater in column.evaluation.beside.raters.items():
            raters.setdefault(benchmark, {})[rater] = None
    return [f"{name}: descriptions rated by {next(iter(found))}" if len(found) == 1 else
            f"{name}: descriptions rated by different judges ({', '.join(found)}), so the runs are not compared"
            for name, found in raters.items()]  # fmt: skip


def _figure(column: Column, task: str) -> dict[str, Any]:
    value, low, high, n = column.accuracy(task)
    return {"accuracy": _plain(value), "low": _plain(low), "high": _plain(high), "n": n}


def _other(column: Column, name: str) -> dict[str, Any] | None:
    figure = column.figure(name)
    return None if figure is None else _spread(figure)


def _spread(figure: Figure) -> dict[str, Any]:
    low, high = figure.interval.low, figure.interval.high
    return {"value": _plain(figure.value), "low": _plain(low), "high": _plain(high), "n": figure.n}


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "shared": pair.shared,
        "apart": pair.apart,
        "tasks": {t.task: _task(t) for t in pair.tasks},
        "ratings": [_rating(r) for r in pair.ratings],
        "flips": [{"question": f.question.item.sample_id, "task": f.question.item.task, "fixed": f.fixed,
                   "first": f.first, "second": f.second} for f in pair.flips],
    }  # fmt: skip


def _task(t: TaskDifference) -> dict[str, Any]:
    return {
        "first": t.first,
        "second": t.second,
        "difference": t.difference,
        "low": _plain(t.interval.low),
        "high": _plain(t.interval.high),
        "n": t.n,
        "kind": t.kind,
        "paired": t.paired,
        "fixed": t.fixed,
        "broke": t.broke,
        "test": t.test.name,
        "p": t.test.p,
        "p_holm": _plain(t.p_holm),
        "cohens_h": t.effect,
        "odds_ratio": t.odds if t.paired else None,
        "verdict": verdict(t),
    }


def _rating(r: RatingDifference) -> dict[str, Any]:
    return {"benchmark": r.benchmark, "criterion": r.criterion, "first": r.first, "second": r.second,
            "difference": r.difference, "low": _plain(r.interval.low), "high": _plain(r.interval.high), "n": r.n,
            "test": r.test.name, "p": r.test.p, "p_holm": _plain(r.p_holm), "cohens_d": _plain(r.effect),
            "verdict": verdict(r)}  # fmt: skip


def _calibration(c: Calibration) -> dict[str, Any]:
    return {"n": c.n, "error": c.error, "error_low": _plain(c.error_interval.low),
            "error_high": _plain(c.error_interval.high), "brier": c.brier, "brier_low": _plain(c.brier_interval.low),
            "brier_high": _plain(c.brier_interval.high)}  # fmt: skip


def _seed_group(group: SeedGroup) -> dict[str, Any]:
    def rows(found: Mapping[str, Any]) -> dict[str, Any]:
        return {task: {"mean": s.mean, "sd": _plain(s.sd), "low": _plain(s.interval.low),
                       "high": _plain(s.interval.high), "seeds": s.seeds} for task, s in found.items()}  # fmt: skip

    return {"label": group.label, "seeds": list(group.seeds), "before": rows(group.before), "after": rows(group.after),
            "change": rows(group.change)}  # fmt: skip


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
