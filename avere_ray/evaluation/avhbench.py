"""AVHBench: does a sound make a model see things, or a picture make it hear them?

Data: Sung-Bin et al., ICLR 2025 (arXiv 2410.18325); clips of VALOR and AudioCaps, half of them with another clip's
audio. Split: all yes/no questions, zero-shot; the captioning task is left out. Tasks: audio-driven video hallucination,
video-driven audio hallucination, audio-visual matching. File: a JSON list of {"video_id", "task", "text", "label"}, or
a folder of such files. Prompt: the question as it stands. Metrics per task, for the class Yes: accuracy, precision,
recall, F1, share of Yes; and the mean accuracy of the tasks. MoD-DPO (arXiv 2603.03192) reports accuracy and F1.
Questions about a video and about its copy with swapped audio (`<video_id>_swap`) are resampled together.
A prediction is called `<id>.txt`; a question without "id" is called `<video_id>_<k>`, its place (from 0) among the
questions of its video in the file. No released scorer is known.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avere_ray.errors import InputError
from avere_ray.evaluation.predictions import read_json
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Responses, Scorer, Scores, unique
from avere_ray.evaluation.tables import Measure, mean_of, yes_no_measures
from avere_ray.evaluation.yes_no import LABELS, score_yes_no

TASKS = {
    "audio-driven video hallucination": "audio_driven_video",
    "video-driven audio hallucination": "video_driven_audio",
    "av matching": "matching",
    "audio-visual matching": "matching",
}
"""Our name of a task by the file's, in lower case."""
_LEFT_OUT = ("av captioning", "audio-visual captioning")
_KEPT = {"overall_accuracy": "accuracy", "standard_precision": "precision", "standard_recall": "recall",
         "standard_f1": "f1", "yes_percentage": "yes_percentage"}  # fmt: skip


def read(path: Path, options: ReadOptions) -> Annotations:
    """Yes/no questions of a JSON file, or of every JSON file of a folder.

    Raises:
        InputError: the file is missing, is no such list, or a task or label is unknown.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"folder {path} holds no .json file of questions")
    items: list[Item] = []
    left_out: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for file in files:
        for number, row in enumerate(_rows(file)):
            item = _item(row, f"{file}, question {number}", seen)
            items += [item] if item is not None else []
            left_out["captioning"] += item is None
    return Annotations(items=unique(items, path), left_out={k: n for k, n in left_out.items() if n})


def score(items: Sequence[Item], responses: Responses) -> Scores:
    """Figures per task, as `<task>_<metric>`, and `average_accuracy`."""
    return score_yes_no("avhbench", items, responses, lambda item: [item.task], _measures)


def _measures(counts: Mapping[str, np.ndarray]) -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    for task, table in counts.items():
        own = yes_no_measures(table)
        measures |= {f"{task}_{ours}": own[name] for name, ours in _KEPT.items()}
    measures["average_accuracy"] = mean_of([measures[f"{task}_accuracy"] for task in counts])
    return measures


def _rows(file: Path) -> list[Any]:
    rows = read_json(file)
    if not isinstance(rows, list):
        raise InputError(f"{file} holds a {type(rows).__name__}; an AVHBench file is a list of questions")
    return rows


def _item(row: Any, where: str, seen: Counter[str]) -> Item | None:
    if not isinstance(row, Mapping) or not {"video_id", "task", "label"} <= set(row):
        raise InputError(f"{where}: video_id, task and label are needed, it is {row!r}"[:500])
    task, label, video = str(row["task"]).strip().lower(), str(row["label"]).strip(" .").lower(), str(row["video_id"])
    place = seen[video]
    seen[video] += 1
    if task in _LEFT_OUT:
        return None
    if task not in TASKS:
        raise InputError(f"{where}: unknown task {row['task']!r}; known are {', '.join(TASKS)}")
    if label not in LABELS:
        raise InputError(f"{where}: label {row['label']!r} is neither Yes nor No")
    return Item(
        sample_id=str(row.get("id", f"{video}_{place}")),
        gold=label,
        clip_id=video.removesuffix("_swap"),
        task=TASKS[task],
        media=video,
        question=str(row.get("text") or row.get("question") or ""),
    )


AVHBENCH = Scorer(name="avhbench", read=read, score=score)
