"""Differences between evaluations: per task, with paired tests, corrected over all tasks, and question by question.

Two evaluations are paired over the questions that are the same in both: id, words, right answer and clip. Where the
clips differ (two seeds of a drawn world, say) nothing is paired, and only the interval of the difference of two
independent figures is given, with a p-value from its spread.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from avere_ray.comparison.ratings import RatingDifference, rating_differences
from avere_ray.comparison.results import BEFORE, Evaluation, Question, RunResult
from avere_ray.comparison.settings import label_of, newest_of_each_seed, setting_of
from avere_ray.evaluation.emer import DESCRIBED
from avere_ray.evaluation.statistics import (
    PERCENT,
    Interval,
    PairedTest,
    SeedSummary,
    by_clip,
    clip_weights,
    cohens_h,
    holm,
    odds_ratio,
    over_seeds,
    paired_test,
    sign_flip,
    spread_interval,
    unpaired_test,
)
from avere_ray.evaluation.tables import Outcome

AVERAGE = "average"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDifference:
    """One task in two evaluations, in percent."""

    task: str
    first: float
    second: float
    interval: Interval
    """Of second minus first; 95 %."""
    n: int
    """Questions compared."""
    paired: bool
    fixed: int
    """Wrong before, right after."""
    broke: int
    """Right before, wrong after."""
    test: PairedTest
    kind: str = "task"
    """"task", "subtype" (over all tasks) or "average"."""
    p_holm: float = math.nan
    """Corrected over the tasks of every pair of evaluations shown, or over their sub-types, or over their averages."""

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def effect(self) -> float:
        """Cohen's h."""
        return cohens_h(self.first / 100, self.second / 100)

    @property
    def odds(self) -> float:
        """Fixed to broken questions."""
        return odds_ratio(self.fixed, self.broke)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """A question that one evaluation got right and the other did not."""

    question: Question
    first: str
    second: str
    fixed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two evaluations set side by side."""

    first: str
    """Label of the baseline."""
    second: str
    tasks: tuple[TaskDifference, ...]
    """Every task, every labelled sub-type over all tasks, then the average."""
    flips: tuple[Flip, ...]
    shared: int
    """Questions that are the same in both."""
    apart: int
    """Questions that are in one only, or differ."""
    ratings: tuple[RatingDifference, ...] = ()
    """Criteria of descriptions that one judge rated in both."""
    untested: Mapping[str, str] = field(default_factory=dict)
    """Tasks and rated benchmarks of the baseline that no test is about, with the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedGroup:
    """Runs that differ in their seed only."""

    label: str
    seeds: tuple[str, ...]
    before: Mapping[str, SeedSummary]
    after: Mapping[str, SeedSummary]
    change: Mapping[str, SeedSummary]
    """Within each run, after minus before."""
    left_out: tuple[RunResult, ...] = ()
    """Older runs of one of these seeds, which do not count."""


def compare(first: Evaluation, second: Evaluation, labels: tuple[str, str]) -> Pair:
    """Two evaluations task by task; not corrected yet, see `correct`."""
    same = {name for name, question in first.questions.items()
            if name in second.questions and second.questions[name].identity == question.identity}  # fmt: skip
    all_names = set(first.questions) | set(second.questions)
    if same:
        left, right = _outcomes(first, same), _outcomes(second, same)
        differences = _paired(left, right) if left else []
        flips = _flips(first, second, left, right)
    else:
        differences, flips = _unpaired(first.outcomes(), second.outcomes()), ()
    ratings = rating_differences(first, second, same)
    return Pair(
        first=labels[0],
        second=labels[1],
        tasks=tuple(differences),
        flips=flips,
        shared=len(same),
        apart=len(all_names) - len(same),
        ratings=tuple(ratings),
        untested=_untested(first, second, {t.task for t in differences} | {r.benchmark for r in ratings}),
    )


def _untested(first: Evaluation, second: Evaluation, tested: set[str]) -> dict[str, str]:
    """What the first evaluation was asked and no test is about."""
    asked = {question.item.task for question in first.questions.values()}
    found = {}
    for name in sorted(asked - tested):
        raters = [side.beside.raters.get(name) for side in (first, second)]
        if not any(question.item.task == name for question in second.questions.values()):
            found[name] = "the other was not asked about it"
        elif name in DESCRIBED and raters[0] != raters[1]:
            found[name] = f"rated by {raters[0] or 'nobody'} and by {raters[1] or 'nobody'}"
        else:
            found[name] = "the two were asked different questions, or their answers cannot be read"
    return found


def correct(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's correction over all their tasks, over all their sub-types, over all their averages, and
    over all criteria of their descriptions."""
    adjusted: dict[str, float] = {}
    for kind in ("task", "subtype", "average"):
        rows = [(i, t) for i, pair in enumerate(pairs) for t in pair.tasks if t.kind == kind]
        adjusted |= holm({f"{i}/{t.task}": t.test.p for i, t in rows})
    rated = holm({f"{i}/{r.benchmark}/{r.criterion}": r.test.p for i, pair in enumerate(pairs) for r in pair.ratings})
    return [
        dataclasses.replace(
            pair,
            tasks=tuple(dataclasses.replace(t, p_holm=adjusted.get(f"{i}/{t.task}", math.nan)) for t in pair.tasks),
            ratings=tuple(
                dataclasses.replace(r, p_holm=rated[f"{i}/{r.benchmark}/{r.criterion}"]) for r in pair.ratings
            ),
        )
        for i, pair in enumerate(pairs)
    ]


def differing_params(runs: Sequence[RunResult]) -> dict[str, list[str]]:
    """Seed and settings (see `setting_of`) that are not the same in all runs, with each run's value; "-" where a run
    has none."""
    settings = [{**{n: v for n, v in run.params.items() if n == "seed"}, **setting_of(run)} for run in runs]
    names = sorted({name for setting in settings for name in setting})
    rows = {name: [setting.get(name, "-") for setting in settings] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def seed_groups(runs: Sequence[RunResult]) -> list[SeedGroup]:
    """Groups of two or more runs of one setting with different seeds; of a seed the newest run counts."""
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    for run in runs:
        groups.setdefault(tuple(sorted(setting_of(run).items())), []).append(run)
    return [_seed_group(group) for group in groups.values() if len({run.params.get("seed") for run in group}) > 1]


def accuracies(metrics: Mapping[str, float]) -> dict[str, float]:
    """Accuracy of each task and their average, in percent, from a run's own metrics."""
    found = {name.removesuffix("_overall_accuracy"): value
             for name, value in metrics.items() if name.endswith("_overall_accuracy")}  # fmt: skip
    return found | ({AVERAGE: metrics["average_accuracy"]} if "average_accuracy" in metrics else {})


def _seed_group(all_runs: Sequence[RunResult]) -> SeedGroup:
    runs, left_out = newest_of_each_seed(all_runs)
    after = [accuracies(run.last().metrics) for run in runs]
    before = [accuracies(run.evaluations[BEFORE].metrics) if BEFORE in run.evaluations else {} for run in runs]
    tasks = [task for task in after[0] if all(task in row for row in after)]
    known = [task for task in tasks if all(task in row for row in before)]
    return SeedGroup(
        label=label_of(runs),
        left_out=tuple(left_out),
        seeds=tuple(run.params.get("seed", "?") for run in runs),
        before={task: over_seeds([row[task] for row in before], bounds=PERCENT) for task in known},
        after={task: over_seeds([row[task] for row in after], bounds=PERCENT) for task in tasks},
        change={
            task: over_seeds([b[task] - a[task] for a, b in zip(before, after, strict=True)], bounds=(-100.0, 100.0))
            for task in known
        },
    )


def _outcomes(evaluation: Evaluation, names: set[str]) -> list[Outcome]:
    return sorted((o for o in evaluation.outcomes() if o.sample_id in names), key=lambda o: o.sample_id)


def _positions(outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> dict[str, np.ndarray]:
    """Positions of the questions of each task, or of each sub-type that is labelled."""
    names = np.array([key(outcome) for outcome in outcomes])
    return {name: np.flatnonzero(names == name) for name in sorted(set(names.tolist()) - {""})}


def _task_of(outcome: Outcome) -> str:
    return outcome.task


def _subtype_of(outcome: Outcome) -> str:
    return outcome.subtype


def _right(outcomes: Sequence[Outcome]) -> np.ndarray:
    return np.array([float(outcome.right) for outcome in outcomes])


def _paired(left: Sequence[Outcome], right: Sequence[Outcome]) -> list[TaskDifference]:
    a, b = _right(left), _right(right)
    clips = [outcome.clip_id for outcome in left]
    weights = clip_weights(len(set(clips)))

    def draws(at: np.ndarray) -> np.ndarray:
        masked = np.zeros(len(a))
        masked[at] = 1.0
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * (weights @ by_clip((b - a) * masked, clips)) / (weights @ by_clip(masked, clips))

    def row(name: str, at: np.ndarray, kind: str) -> TaskDifference:
        own = [clips[i] for i in at]
        test = paired_test(a[at], b[at], own)
        return _row(name, a[at], b[at], spread_interval(draws(at), len(set(own))), test, kind)

    tasks = _positions(left, _task_of)
    found = [row(task, at, "task") for task, at in tasks.items()]
    subtypes = [row(name, at, "subtype") for name, at in _positions(left, _subtype_of).items()]
    shares = np.zeros(len(a))
    for at in tasks.values():
        shares[at] = 1.0 / (len(at) * len(tasks))
    interval = spread_interval(np.mean([draws(at) for at in tasks.values()], axis=0), len(set(clips)))
    test = sign_flip(by_clip((b - a) * shares, clips))
    return [*found, *subtypes, _average(found, interval, test, paired=True)]


def _row(name: str, a: np.ndarray, b: np.ndarray, interval: Interval, test: PairedTest, kind: str) -> TaskDifference:
    return TaskDifference(
        task=name,
        first=100 * float(a.mean()),
        second=100 * float(b.mean()),
        interval=interval,
        n=len(a),
        paired=True,
        fixed=int(np.sum(b > a)),
        broke=int(np.sum(b < a)),
        test=test,
        kind=kind,
    )


def _average(tasks: Sequence[TaskDifference], interval: Interval, test: PairedTest, *, paired: bool) -> TaskDifference:
    return TaskDifference(
        task=AVERAGE,
        first=float(np.mean([t.first for t in tasks])),
        second=float(np.mean([t.second for t in tasks])),
        interval=interval,
        n=sum(t.n for t in tasks),
        paired=paired,
        fixed=sum(t.fixed for t in tasks),
        broke=sum(t.broke for t in tasks),
        test=test,
        kind="average",
    )


def _unpaired(left: Sequence[Outcome], right: Sequence[Outcome]) -> list[TaskDifference]:
    if not left or not right:
        return []
    tasks, draws = _unpaired_rows(left, right, _task_of, "task")
    subtypes, _ = _unpaired_rows(left, right, _subtype_of, "subtype")
    if not tasks:
        return []
    replicates = np.mean(draws, axis=0)
    counts = len({outcome.clip_id for outcome in left}), len({outcome.clip_id for outcome in right})
    test = unpaired_test(float(np.mean([t.difference for t in tasks])), replicates, counts)
    return [*tasks, *subtypes, _average(tasks, spread_interval(replicates, min(counts)), test, paired=False)]


def _unpaired_rows(
    left: Sequence[Outcome], right: Sequence[Outcome], key: Callable[[Outcome], str], kind: str
) -> tuple[list[TaskDifference], list[np.ndarray]]:
    first, second = _replicates(left, key, seed=0), _replicates(right, key, seed=1)
    found, drawn = [], []
    for name in (name for name in first if name in second):
        (a, n_a, draws_a, clips_a), (b, n_b, draws_b, clips_b) = first[name], second[name]
        drawn.append(draws_b - draws_a)
        test = unpaired_test(b - a, drawn[-1], (clips_a, clips_b))
        interval = spread_interval(drawn[-1], min(clips_a, clips_b))
        found.append(
            TaskDifference(
                task=name,
                first=a,
                second=b,
                interval=interval,
                n=n_a + n_b,
                paired=False,
                fixed=0,
                broke=0,
                test=test,
                kind=kind,
            )
        )
    return found, drawn


def _replicates(
    outcomes: Sequence[Outcome], key: Callable[[Outcome], str], *, seed: int
) -> dict[str, tuple[float, int, np.ndarray, int]]:
    """Accuracy in percent, n, bootstrap replicates and number of clips of each task or sub-type."""
    right, clips = _right(outcomes), [outcome.clip_id for outcome in outcomes]
    weights = clip_weights(len(set(clips)), seed=seed)
    found = {}
    for task, at in _positions(outcomes, key).items():
        masked = np.zeros(len(right))
        masked[at] = 1.0
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = 100 * (weights @ by_clip(right * masked, clips)) / (weights @ by_clip(masked, clips))
        found[task] = (100 * float(right[at].mean()), len(at), draws, len({clips[i] for i in at}))
    return found


def _flips(
    first: Evaluation, second: Evaluation, left: Sequence[Outcome], right: Sequence[Outcome]
) -> tuple[Flip, ...]:
    flips = [
        Flip(
            question=first.questions[a.sample_id],
            first=first.responses.get(a.sample_id, ""),
            second=second.responses.get(a.sample_id, ""),
            fixed=b.right,
        )
        for a, b in zip(left, right, strict=True)
        if a.right != b.right
    ]
    return tuple(sorted(flips, key=lambda flip: (flip.fixed, flip.question.item.task, flip.question.item.sample_id)))
