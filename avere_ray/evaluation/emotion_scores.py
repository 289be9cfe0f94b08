"""Scores of one-word or described emotions, shared by DFEW, RAVDESS and MER2023.

WAR is the weighted average recall (accuracy), UAR the mean recall over the classes that have samples, F1 is given macro
and weighted. All in percent; a missing or unparsable answer, and a class the benchmark does not have, are wrong.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from avere_ray.errors import InputError
from avere_ray.evaluation.emotions import parse_emotion
from avere_ray.evaluation.released import class_metrics, described_emotion
from avere_ray.evaluation.scorer import Item, Responses, Scores, missing_of, unparsable_of
from avere_ray.evaluation.statistics import NO_INTERVAL
from avere_ray.evaluation.tables import (
    Figure,
    Measure,
    Outcome,
    accuracy,
    f1,
    figures,
    macro_f1,
    precision,
    recall,
    tables,
    unweighted_average_recall,
    weighted_f1,
)

PROMPT = "Describe the emotion of the person in the video in one word."
DETAIL_PROMPT = "Describe the emotion of the person in the video in detail."
OTHER = "other"
"""Column of answers that are none of the classes."""


def emotion_outcomes(items: Sequence[Item], responses: Responses) -> list[Outcome]:
    """Every item with the class its response claims."""
    found = []
    for item in items:
        text = responses.get(item.sample_id)
        said = parse_emotion(text) if text is not None else None
        clip = item.clip_id or item.sample_id
        found.append(
            Outcome(
                sample_id=item.sample_id,
                clip_id=clip,
                gold=item.gold,
                said=said,
                missing=text is None,
                task=item.task,
                subtype=item.subtype,
            )
        )
    return found


def score_emotions(name: str, classes: Sequence[str], items: Sequence[Item], responses: Responses) -> Scores:
    """Figures of all items, with a confusion table."""
    outcomes = emotion_outcomes(items, responses)
    clips = sorted({outcome.clip_id for outcome in outcomes})
    counts = {name: tables(outcomes, classes, clips)}
    return Scores(
        benchmark=name,
        legacy=False,
        n=len(items),
        scored=len(items),
        missing=missing_of(outcomes),
        unparsable=unparsable_of(outcomes),
        figures=figures(counts, partial(_measures, name, classes)),
        confusion={name: confusion(counts[name].sum(0), classes)},
    )


def score_emotions_released(
    name: str, classes: Sequence[str], f1_kind: str, items: Sequence[Item], responses: Responses
) -> Scores:
    """Figures by the released rules: missing responses and those its parser fails on are skipped; shares of 1.

    Raises:
        InputError: nothing is left to score, where the released scorer fails.
    """
    missing = tuple(item.sample_id for item in items if item.sample_id not in responses)
    said = {item.sample_id: described_emotion(responses[item.sample_id], classes)
            for item in items if item.sample_id in responses}  # fmt: skip
    scored = [item for item in items if said.get(item.sample_id) is not None]
    if not scored:
        raise InputError(f"{name}: no response can be read by the released rules, which then fail as well")
    answers = [said[item.sample_id] or "" for item in scored]
    metrics = class_metrics([item.gold for item in scored], answers, f1=f1_kind)
    return Scores(
        benchmark=name,
        legacy=True,
        n=len(items),
        scored=len(scored),
        missing=missing,
        unparsable=tuple(sample for sample, answer in said.items() if answer is None),
        figures={key: Figure(value, NO_INTERVAL, len(scored)) for key, value in metrics.items()},
        notes=("released rules: shares of 1, missing and unreadable responses are skipped",),
    )


def confusion(table: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts by right class and class answered, of a table [K, K + 1]."""
    columns = (*classes, OTHER)
    return {gold: {said: int(table[i, j]) for j, said in enumerate(columns)} for i, gold in enumerate(classes)}


def _measures(name: str, classes: Sequence[str], counts: Mapping[str, np.ndarray]) -> dict[str, Measure]:
    table = counts[name]
    measures = {
        "war": accuracy(table),
        "uar": unweighted_average_recall(table),
        "macro_f1": macro_f1(table),
        "weighted_f1": weighted_f1(table),
    }
    for row, label in enumerate(classes):
        measures[f"{label}_recall"] = recall(table, row)
        measures[f"{label}_precision"] = precision(table, row)
        measures[f"{label}_f1"] = f1(table, row)
    return measures
