"""EMER / OV-MERD: descriptions of an emotion, judged on four criteria from 1 to 10.

Data: Lian et al., OV-MERD as in MER2025 (`track3_train_ovmerd.csv`, columns name, reason); under the MER licence.
Split: all rows, zero-shot. Prompt: `DETAIL_PROMPT` of `emotion_scores`, up to 1,024 new tokens. Metrics: means of the
four scores a judge gives, higher is better: cue_overlap (the paper's Clue), emotion_consistency (Label),
emotion_cue_association (Spurious), hallucinated_cues (Hallucination); arXiv 2602.07054 used GPT-4o.

A model describes the clips and a judge rates what it says in an evaluation (`ratings`, `evaluation.judge`).
What is scored here are the judge's replies, not the descriptions: `<name>.json` in a folder, or JSON lines of a batch
service ({"custom_id", "response": {"body": {"choices": [...]}}}) or of {"id", <the four scores>}. A sample nobody
judged has no description and gets the lowest score, 1; a reply that cannot be read is the judge's fault and is left out
of the means, and reported. Released rules (`gpt_evaluation.py`): both are left out.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avere_ray.errors import InputError
from avere_ray.evaluation.predictions import read_json, read_predictions, read_rows
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Responses, Scorer, Scores, unique
from avere_ray.evaluation.statistics import NO_INTERVAL
from avere_ray.evaluation.tables import Figure, Measure, figures

CRITERIA = ("cue_overlap", "emotion_consistency", "emotion_cue_association", "hallucinated_cues")
LOWEST, HIGHEST = 1, 10


def read(path: Path, options: ReadOptions, *, task: str = "emer") -> Annotations:
    """Samples of the description table, each with the task that is given.

    Raises:
        InputError: the file is missing or is no such table.
    """
    rows = read_rows(path, ("name", "reason"))
    return Annotations(items=unique([Item(sample_id=row["name"], gold=row["reason"], task=task) for row in rows], path))


def read_judgements(path: Path) -> dict[str, str]:
    """A judge's replies as text, by sample name.

    Raises:
        InputError: see `read_predictions`; or a row names no sample.
    """
    if path.is_dir():
        return read_predictions(path, suffix=".json")
    if not path.is_file():
        raise InputError(f"judgements {path} do not exist; name a folder of <sample name>.json files, or a JSON file")
    rows = read_json(path)
    if isinstance(rows, Mapping) and not set(CRITERIA) & set(rows):
        return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in rows.items()}
    return dict(_named(row, f"{path}, row {i}") for i, row in enumerate(rows if isinstance(rows, list) else [rows]))


def parse_judgement(reply: str) -> dict[str, int] | None:
    """The four scores of a judge's reply, or None when one is missing, is no whole number or is not from 1 to 10."""
    body = re.sub(r"^\s*```(?:json)?|```\s*$", "", reply.strip()).strip()
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, Mapping):
        return None
    scores = {name: _whole(found.get(name)) for name in CRITERIA}
    return {name: value for name, value in scores.items() if value is not None} if all(scores.values()) else None


def score(items: Sequence[Item], responses: Responses) -> Scores:
    """Mean of each criterion with its interval; see the module docstring for what is left out."""
    judged = {name: parse_judgement(responses[name]) for name in _there(items, responses)}
    missing = tuple(item.sample_id for item in items if item.sample_id not in responses)
    lowest = dict.fromkeys(CRITERIA, LOWEST)
    rows = [lowest if item.sample_id in missing else judged[item.sample_id] for item in items]
    known = [row for row in rows if row is not None]
    counts = {name: _counts([row[name] for row in known]) for name in CRITERIA}
    return Scores(
        benchmark="emer",
        legacy=False,
        n=len(items),
        scored=len(known),
        missing=missing,
        unparsable=tuple(name for name, row in judged.items() if row is None),
        figures=figures(counts, _measures),
    )


def score_released(items: Sequence[Item], responses: Responses) -> Scores:
    """Means over the replies that are JSON, whatever numbers they hold.

    Raises:
        InputError: none is, or one lacks a score, where the released scorer fails.
    """
    judged = {name: _released_judgement(name, responses[name]) for name in _there(items, responses)}
    known = [row for row in judged.values() if row is not None]
    if not known:
        raise InputError("emer: no judgement can be read, which the released scorer cannot average either")
    means = {f"avg_{name}": sum(row[name] for row in known) / len(known) for name in CRITERIA}
    return Scores(
        benchmark="emer",
        legacy=True,
        n=len(items),
        scored=len(known),
        missing=tuple(item.sample_id for item in items if item.sample_id not in responses),
        unparsable=tuple(name for name, row in judged.items() if row is None),
        figures={name: Figure(value, NO_INTERVAL, len(known)) for name, value in means.items()},
    )


def _released_judgement(name: str, reply: str) -> Mapping[str, float] | None:
    try:
        found = json.loads(reply.lstrip("`json").rstrip("`").strip())
    except ValueError:
        return None
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), int | float) for key in CRITERIA):
        raise InputError(f"emer: the judgement of {name} lacks a score, where the released scorer fails as well")
    return {key: found[key] for key in CRITERIA}


def _there(items: Sequence[Item], responses: Responses) -> list[str]:
    return [item.sample_id for item in items if item.sample_id in responses]


def _counts(scores: Sequence[int]) -> np.ndarray:
    """One-hot scores per sample, [C, 1, HIGHEST + 1]; a column per score from 1."""
    table = np.zeros((len(scores), 1, HIGHEST + 1))
    table[np.arange(len(scores)), 0, np.asarray(scores, dtype=int) - 1] = 1
    return table


def _measures(counts: Mapping[str, np.ndarray]) -> dict[str, Measure]:
    measures = {}
    for name, table in counts.items():
        n = table.sum((-2, -1))
        total = (table[..., 0, :HIGHEST] * np.arange(LOWEST, HIGHEST + 1)).sum(-1)
        measures[name] = Measure(np.where(n > 0, total / np.maximum(n, 1e-12), np.nan), n)
    return measures


def _named(row: Any, where: str) -> tuple[str, str]:
    name = row.get("custom_id", row.get("id", row.get("name"))) if isinstance(row, Mapping) else None
    if name is None:
        raise InputError(f"{where}: no custom_id, id or name says which sample was judged")
    if set(CRITERIA) & set(row):
        return str(name), json.dumps(row)
    try:
        return str(name), str(row["response"]["body"]["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError):
        return str(name), row["response"] if isinstance(row.get("response"), str) else ""


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or value != int(value):  # json takes NaN and Infinity
        return None
    return int(value) if LOWEST <= value <= HIGHEST else None


EMER = Scorer(name="emer", read=read, score=score, legacy=score_released, responses=read_judgements)
OVMERD = dataclasses.replace(EMER, name="ovmerd", read=functools.partial(read, task="ovmerd"))
DESCRIBED = (EMER.name, OVMERD.name)
"""Tasks whose answers are descriptions, rated and not right or wrong."""
