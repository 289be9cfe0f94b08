"""Figures of every method and seed -> means with intervals, and tests of one method against another.

Intervals of means are Student's t over seeds: with three seeds they are wide, and say so. Tests here pair the questions
of all seeds: the same question, asked before and after, or asked of two methods. They take the trainings as given;
`seeds` has the tests that do not.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avere_ray.comparison.differences import Pair, compare, correct
from avere_ray.comparison.results import Evaluation, Question
from avere_ray.evaluation.statistics import PERCENT, over_seeds
from avere_ray.study.probes import PERCEPTION

Figures = Mapping[str, float]
"""Metrics of one method on one world."""
METRICS: dict[str, str] = {
    "average_accuracy": "average of the five tasks",
    "reasoning_basic_audio_overall_accuracy": "basic, audio",
    "reasoning_basic_video_overall_accuracy": "basic, video",
    "modality_agreement_overall_accuracy": "agreement",
    "modality_agreement_f1_score": "agreement, F1",
    "reasoning_stress_audio_overall_accuracy": "stress, audio",
    "reasoning_stress_video_overall_accuracy": "stress, video",
    "spurious_accuracy": "spurious cues refused",
    "hallucination_accuracy": "absent cues refused",
    "no_hallucination_accuracy": "true cues confirmed",
    "cue_presence": "absent and true cues told apart",
    "unreadable": "answers that name no choice",
    "text_only_accuracy": "average without the clip",
    "emotion_war": "emotion, WAR",
    "emotion_uar": "emotion, UAR",
    "description_faithful": "descriptions faithful",
    "description_spurious": "descriptions spurious",
    "description_hallucination": "descriptions hallucinated",
    "perception": "perception of single cues",
}
"""What the table shows, by metric; all in percent."""
_MODALITIES = ("audio", "video", "audiovisual")  # as `losses.terms` has them, which needs torch
TRAINING: dict[str, str] = {
    "rewards/margins": "reward margin",
    "rewards/spurious": "reward of spurious rejects",
    "rewards/hallucinated": "reward of hallucinated rejects",
    "modality/margin": "modality margin",
    "text_prior/gap": "text prior, chosen minus rejects (nats)",
    "text_prior/favours_chosen": "share of pairs it favours the chosen of",
    "text_prior/shift": "what it adds to the margin",
}
"""Training metrics that the page has as a table, by name."""
CURVES = (
    "loss",
    "rewards/accuracies",
    *TRAINING,
    *(f"text_prior/{what}_{modality}" for what in ("reliance", "gamma") for modality in _MODALITIES),
)
"""Training metrics that a study reads."""
RETENTION_POINTS = 3.0
"""How much perception may fall before it counts as lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A finished study."""

    figures: Mapping[str, Sequence[Figures]]
    """Of each method and the base, one per seed in the order of `about["seeds"]`."""
    tests: Sequence[Pair]
    """One method against another (`seeds.comparisons`) on the questions of all seeds, corrected together."""
    doses: Mapping[str, Mapping[str, Figures]]
    """Of each strength of bias: the base and the methods that repaired it."""
    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
    """Training metrics of each method on the first seed."""
    search: Mapping[str, Sequence[Mapping[str, float]]]
    """Of each method: learning rate, beta and validation accuracy of every candidate, the best first."""
    about: Mapping[str, Any]
    """Date, machine, seeds, clips, pairs, steps."""


def derived(figures: Figures) -> dict[str, float]:
    """Figures that follow from those of an evaluation, as far as it has them.

    - `cue_presence`: mean of the shares of absent cues refused and of true cues confirmed; 50 for who says the same to
      all, or goes by a cue's name.
    - `unreadable`: share of answers that name no choice.
    """
    found = {}
    if {"hallucination_accuracy", "no_hallucination_accuracy"} <= figures.keys():
        found["cue_presence"] = (figures["hallucination_accuracy"] + figures["no_hallucination_accuracy"]) / 2
    asked = [name for name in figures if name.endswith("_n") and f"{name[:-2]}_unparsable" in figures]
    if asked:
        unread = sum(figures[f"{name[:-2]}_unparsable"] for name in asked)
        found["unreadable"] = 100.0 * unread / sum(figures[name] for name in asked)
    return found


def summary(figures: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, dict[str, Any]]]:
    """{method: {metric: {mean, low, high, per_seed}}}; low and high are None with one seed, and where the
    seeds do not differ."""
    return {method: _method_summary(rows) for method, rows in figures.items()}


def _method_summary(rows: Sequence[Figures]) -> dict[str, dict[str, Any]]:
    names = [name for name in rows[0] if all(name in row for row in rows)]
    found = {}
    for name in names:
        values = [row[name] for row in rows]
        over = over_seeds(values, bounds=PERCENT) if name in METRICS else over_seeds(values)
        known = math.isfinite(over.interval.low)
        found[name] = {
            "mean": over.mean,
            "low": over.interval.low if known else None,
            "high": over.interval.high if known else None,
            "per_seed": values,
        }
    return found


def paired_tests(evaluations: Mapping[str, Sequence[Evaluation]], compared: Sequence[tuple[str, str]]) -> list[Pair]:
    """The second of each pair of methods against the first, on the questions of all seeds.

    With Holm's correction over all of the tasks, over all of the sub-types, and over all of the averages.

    Args:
        evaluations: of each method, one per seed, in the same order of seeds.
    """
    pooled = {method: pool(found) for method, found in evaluations.items()}
    return correct([compare(pooled[first], pooled[second], (first, second)) for first, second in compared])


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The questions and answers of several worlds as one evaluation; ids and clips are told apart by world."""
    questions: dict[str, Question] = {}
    responses: dict[str, str] = {}
    for number, found in enumerate(evaluations):
        for name, question in found.questions.items():
            own = f"{number}/{name}"
            item = dataclasses.replace(question.item, sample_id=own, clip_id=f"{number}/{question.item.clip_id}")
            identity = (own, *question.identity[1:])
            questions[own] = dataclasses.replace(question, item=item, identity=identity)
        responses |= {f"{number}/{name}": text for name, text in found.responses.items()}
    return Evaluation(stage=evaluations[0].stage, metrics={}, questions=questions, responses=responses)


def late_means(points: Sequence[tuple[int, float]]) -> float:
    """Mean of a training metric over the last quarter of the steps that have it."""
    last = [value for _, value in points[-max(1, len(points) // 4) :]]
    return sum(last) / len(last)


def lost_perception(
    figures: Mapping[str, Sequence[Figures]], base: str, metric: str = "perception"
) -> dict[str, float]:
    """Methods whose perception fell by more than RETENTION_POINTS in the mean over seeds, with the change.

    Args:
        metric: "perception" for the mean over the kinds of cues, or "perception_KIND".
    """
    before = figures[base]
    changes = {
        method: sum(a[metric] - b[metric] for a, b in zip(rows, before, strict=True)) / len(rows)
        for method, rows in figures.items()
        if all(metric in row for row in (*rows, *before))
    }
    return {method: change for method, change in changes.items() if change < -RETENTION_POINTS}


def kinds_perceived(figures: Mapping[str, Sequence[Figures]], base: str) -> list[str]:
    """The kinds of cues that perception was asked of, as they end the names of their metrics."""
    return [name.removeprefix(PERCEPTION) for name in figures[base][0] if name.startswith(PERCEPTION)]
