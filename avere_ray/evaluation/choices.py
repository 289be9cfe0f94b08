"""Scores of multiple-choice answers, in percent. Missing and unparsable answers count as wrong.

For Yes/No tasks the released EmoReAlM scorer calls the recall of Yes "precision", the recall of No "recall" and their
harmonic mean "f1_score" (`evaluate_emorealm.py`). Those names are kept with that meaning, so that figures can be set
beside the paper's; `standard_precision`, `standard_recall` and `standard_f1` are the usual ones, for the class Yes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from avere_ray.errors import InputError
from avere_ray.evaluation.answers import parse_answer
from avere_ray.evaluation.emotion_scores import confusion
from avere_ray.evaluation.released import letter_matches
from avere_ray.evaluation.scorer import Item, Responses, Scores, missing_of, unparsable_of
from avere_ray.evaluation.statistics import NO_INTERVAL
from avere_ray.evaluation.tables import Figure, Measure, Outcome, accuracy, figures, mean_of, tables, yes_no_measures
from avere_ray.responses import is_yes_no, split_choice

YES_NO = ("yes", "no")
LETTERS = tuple("ABCDEFGH")


def choice_outcomes(items: Sequence[Item], responses: Mapping[str, str | None]) -> list[Outcome]:
    """Every item with the answer its response means: "yes" or "no" for those questions, else a letter."""
    return [_outcome(item, responses.get(item.sample_id)) for item in items]


def score_choices(
    name: str, items: Sequence[Item], responses: Mapping[str, str | None], *, intervals: bool = True
) -> Scores:
    """Figures per task, per sub-type and over all tasks.

    Names: `<task>_<metric>`, `<task>_<subtype>_accuracy`, `<subtype>_accuracy` over all tasks, and `average_accuracy`,
    the unweighted mean of the tasks' accuracies. A figure that no question bears on is left out.
    """
    outcomes = choice_outcomes(items, responses)
    clips = sorted({outcome.clip_id for outcome in outcomes})
    tasks = _grouped(outcomes, lambda outcome: outcome.task)
    labels = {task: YES_NO if {o.gold for o in group} <= set(YES_NO) else LETTERS for task, group in tasks.items()}
    counts = {task: tables(group, labels[task], clips) for task, group in tasks.items()}
    counts |= _subtype_tables(outcomes, clips)
    found = figures(counts, partial(_measures, labels), intervals=intervals)
    return Scores(
        benchmark=name,
        legacy=False,
        n=len(items),
        scored=len(items),
        missing=missing_of(outcomes),
        unparsable=unparsable_of(outcomes),
        figures={key: figure for key, figure in found.items() if not np.isnan(figure.value)},
        confusion={task: _confusion(counts[task].sum(0), labels[task]) for task in tasks},
    )


def flat_metrics(items: Sequence[Item], responses: Mapping[str, str | None], scores: Scores) -> dict[str, float]:
    """The figures as plain values, with the counts per task that a table of metrics wants."""
    metrics = {name: figure.value for name, figure in scores.figures.items()}
    for task, group in _grouped(choice_outcomes(items, responses), lambda outcome: outcome.task).items():
        metrics[f"{task}_n"] = float(len(group))
        metrics[f"{task}_missing"] = float(len(missing_of(group)))
        metrics[f"{task}_unparsable"] = float(len(unparsable_of(group)))
    return metrics | {"missing": float(len(scores.missing)), "unparsable": float(len(scores.unparsable))}


def score_choices_released(
    name: str, yes_no_tasks: Sequence[str], items: Sequence[Item], responses: Responses
) -> Scores:
    """Figures by the released rules: the right letter anywhere counts, missing responses are skipped.

    Where the released scorer divides by zero (both recalls 0), the figure is NaN.

    Raises:
        InputError: a gold choice of a Yes/No task holds neither "yes" nor "no", where the released scorer fails.
    """
    found: dict[str, float] = {}
    counted: dict[str, int] = {}
    for task in dict.fromkeys(item.task for item in items):
        there = [item for item in items if item.task == task and item.sample_id in responses]
        hits = [letter_matches(responses[item.sample_id], item.gold) for item in there]
        own = _released_yes_no(there, hits) if task in yes_no_tasks else {"overall_accuracy": _percent(hits)}
        found |= {f"{task}_{metric}": value for metric, value in own.items()}
        counted |= {f"{task}_{metric}": len(there) for metric in own}
    accuracies = [value for key, value in found.items() if key.endswith("_overall_accuracy")]
    found["average_accuracy"] = sum(accuracies) / len(accuracies)
    there_ids = [item.sample_id for item in items if item.sample_id in responses]
    return Scores(
        benchmark=name,
        legacy=True,
        n=len(items),
        scored=len(there_ids),
        missing=tuple(item.sample_id for item in items if item.sample_id not in responses),
        figures={key: Figure(v, NO_INTERVAL, counted.get(key, len(there_ids))) for key, v in found.items()},
        notes=tuple(f"{key}: the released scorer divides by zero here" for key, v in found.items() if np.isnan(v)),
    )


def _outcome(item: Item, text: str | None) -> Outcome:
    letter = parse_answer(text, item.choices) if text is not None else None
    options = dict(split_choice(choice) for choice in item.choices)
    said, gold = letter, item.gold
    if is_yes_no(options.values()):
        words = {option: text.strip(" .").lower() for option, text in options.items()}
        said, gold = words.get(letter or ""), words[item.gold]
    clip = item.clip_id or item.sample_id
    return Outcome(sample_id=item.sample_id, clip_id=clip, gold=gold, said=said, missing=text is None, task=item.task,
                   subtype=item.subtype)  # fmt: skip


def _grouped(outcomes: Sequence[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return dict(sorted(groups.items()))


def _subtype_tables(outcomes: Sequence[Outcome], clips: Sequence[str]) -> dict[str, np.ndarray]:
    """Tables of each sub-type of each task, and of each sub-type over all tasks; marked by a leading "/"."""
    labelled = [outcome for outcome in outcomes if outcome.subtype]
    groups = _grouped(labelled, lambda outcome: f"/{outcome.task}_{outcome.subtype}")
    groups |= _grouped(labelled, lambda outcome: f"/{outcome.subtype}")
    return {name: tables(group, (*YES_NO, *LETTERS), clips) for name, group in groups.items()}


def _measures(labels: Mapping[str, Sequence[str]], counts: Mapping[str, np.ndarray]) -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    for name, table in counts.items():
        if name.startswith("/"):
            measures[f"{name[1:]}_accuracy"] = accuracy(table)
        elif labels[name] is YES_NO:
            measures |= {f"{name}_{metric}": value for metric, value in yes_no_measures(table).items()}
        else:
            measures[f"{name}_overall_accuracy"] = accuracy(table)
    measures["average_accuracy"] = mean_of([measures[f"{task}_overall_accuracy"] for task in labels])
    return measures


def _confusion(table: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Without the letters no question has."""
    used = [i for i in range(len(labels)) if table[i].sum() or table[:, i].sum()]
    return confusion(table[np.ix_(used, [*used, len(labels)])], [labels[i] for i in used])


def _released_yes_no(items: Sequence[Item], hits: Sequence[bool]) -> dict[str, float]:
    kinds = [_gold_kind(item) for item in items]
    yes = [hit for hit, kind in zip(hits, kinds, strict=True) if kind]
    no = [hit for hit, kind in zip(hits, kinds, strict=True) if not kind]
    precision, recall = _percent(yes), _percent(no)
    said_yes = sum(yes) + len(no) - sum(no)
    return {
        "overall_accuracy": _percent(hits),
        "precision": precision,
        "recall": recall,
        "f1_score": 2 * precision * recall / (precision + recall) if precision + recall else float("nan"),
        "model_yes_percentage": 100.0 * said_yes / len(items) if items else 0.0,
    }


def _gold_kind(item: Item) -> bool:
    text = dict(split_choice(choice) for choice in item.choices)[item.gold].lower()
    if "yes" not in text and "no" not in text:
        raise InputError(f"question {item.sample_id}: its right choice {text!r} holds neither yes nor no")
    return "yes" in text


def _percent(hits: Sequence[bool]) -> float:
    return 100.0 * sum(hits) / len(hits) if hits else 0.0
