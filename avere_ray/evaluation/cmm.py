"""CMM, the Curse of Multi-Modalities: what a model claims to see and hear out of habit.

Data: Leng et al., arXiv 2410.12787; 1,200 samples with 2,400 yes/no questions, half about things that are not there.
Split: all, zero-shot. File: JSON or JSON lines of {"category", "sub_category", "modality", "granularity", "video_path",
"audio_path", "question", "answer"}. Prompt: the question, which ends in "Answer with yes or no.". Metrics, overall and
per sub-category: perception accuracy (pa: right among Yes), hallucination resistance (hr: right among No), accuracy;
and, beyond the released scorer, the share of Yes. A prediction is called `<id>.txt`, or has the question's place in the
file (from 0) where it has no id; the released layout, the same rows with "pred", is taken as well.
Released rules: `calculate_score.py`, which looks at the first five characters, for pa and hr for "yes" or "no", for the
accuracy for the whole answer as the file has it, so that "yes." is not found in "Yes, it is."; shares of 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from avere_ray.errors import InputError
from avere_ray.evaluation.predictions import read_json
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Responses, Scorer, Scores, unique
from avere_ray.evaluation.statistics import NO_INTERVAL
from avere_ray.evaluation.tables import Figure, Measure, accuracy, recall, said_share
from avere_ray.evaluation.yes_no import LABELS, score_yes_no

OVERALL = "overall"
_HEAD = 5
"""Characters the released scorer looks at."""


def read(path: Path, options: ReadOptions) -> Annotations:
    """Questions of a file.

    Raises:
        InputError: the file is missing, is no list of such questions, or an answer is neither yes nor no.
    """
    rows = read_json(path)
    items = []
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        where = f"{path}, question {number}"
        if not isinstance(row, Mapping) or not {"answer", "sub_category"} <= set(row):
            raise InputError(f"{where}: answer and sub_category are needed, it is {row!r}"[:500])
        written = str(row["answer"]).strip().lower()
        answer = written.strip(" .")
        if answer not in LABELS:
            raise InputError(f"{where}: answer {row['answer']!r} is neither yes nor no")
        clip = str(row.get("video_path") or row.get("audio_path") or number)
        items.append(
            Item(
                sample_id=str(row.get("id", number)),
                gold=answer,
                clip_id=clip,
                task=_name(row["sub_category"]),
                subtype=_name(row.get("granularity") or ""),
                question=str(row.get("question") or ""),
                written=written,
            )
        )
    return Annotations(items=unique(items, path))


def score(items: Sequence[Item], responses: Responses) -> Scores:
    """Figures as `<group>_<metric>`: overall, per sub-category, and per sub-category and granularity."""
    return score_yes_no("cmm", items, responses, _groups, _measures)


def score_released(items: Sequence[Item], responses: Responses) -> Scores:
    """Figures by the released rules. It reads responses from the annotation rows, so that none can be missing there;
    a missing one is skipped here."""
    there = [item for item in items if item.sample_id in responses]
    groups = sorted({group for item in there for group in _groups(item)})
    found: dict[str, Figure] = {}
    for group in groups:
        members = [item for item in there if group in _groups(item)]
        heads = [responses[item.sample_id].strip().lower()[:_HEAD] for item in members]
        whole = [(item.written or item.gold) in head for item, head in zip(members, heads, strict=True)]
        found[f"{group}_accuracy"] = _share(whole)
        for metric, gold in (("pa", LABELS[0]), ("hr", LABELS[1])):
            own = [gold in head for item, head in zip(members, heads, strict=True) if item.gold == gold]
            found[f"{group}_{metric}"] = _share(own)
    return Scores(
        benchmark="cmm",
        legacy=True,
        n=len(items),
        scored=len(there),
        missing=tuple(item.sample_id for item in items if item.sample_id not in responses),
        figures=found,
        notes=("released rules: shares of 1; the answer is looked for in the first five characters",),
    )


def _share(hits: Sequence[bool]) -> Figure:
    return Figure(sum(hits) / len(hits) if hits else 0.0, NO_INTERVAL, len(hits))


def _groups(item: Item) -> list[str]:
    return [OVERALL, item.task] + ([f"{item.task}_{item.subtype}"] if item.subtype else [])


def _measures(counts: Mapping[str, np.ndarray]) -> dict[str, Measure]:
    measures = {}
    for group, table in counts.items():
        measures[f"{group}_accuracy"] = accuracy(table)
        measures[f"{group}_pa"] = recall(table, 0)
        measures[f"{group}_hr"] = recall(table, 1)
        measures[f"{group}_yes_percentage"] = said_share(table, 0)
    return measures


def _name(text: object) -> str:
    return str(text).strip().lower().replace("-", "_").replace(" ", "_")


CMM = Scorer(name="cmm", read=read, score=score, legacy=score_released)
