"""DFEW: the emotion of a person in a film clip, seven classes, five folds.

Data: Jiang et al., ACM MM 2020; 16,372 clips under the DFEW licence, of which about 11,700 have a single label.
Split: fold K of `dfew_annotation/test(single-labeled)/set_K.csv` (columns video_name, label; 1 happiness, 2 sadness,
3 neutral, 4 anger, 5 surprise, 6 disgust, 7 fear); the paper (arXiv 2602.07054) reports fold 1. Prompt: `PROMPT` of
`emotion_scores`, up to 5 new tokens. Metrics: WAR, UAR, macro-F1 and the confusion table; see `emotion_scores`.
A prediction is called `<video_name>.txt`. Released rules: `evaluate_emotion_dfew.py`, shares of 1.
"""

from functools import partial
from pathlib import Path

from avere_ray.errors import ConfigError, InputError
from avere_ray.evaluation.emotion_scores import score_emotions, score_emotions_released
from avere_ray.evaluation.emotions import CLASSES
from avere_ray.evaluation.predictions import read_rows
from avere_ray.evaluation.released import CLASS_ORDER
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Scorer, unique

LABELS = dict(zip("1234567", CLASSES, strict=True))
"""Class by the number in the file."""
FOLDS = 5
_FOLDER = "test(single-labeled)"


def read(path: Path, options: ReadOptions) -> Annotations:
    """Samples of one fold: of a set_K.csv, or of fold `options.fold` (default 1) in the folder that holds them.

    Raises:
        ConfigError: the fold does not exist, or a file is named together with another fold.
        InputError: the file is missing or is no such table.
    """
    file = _fold_file(path, options.fold)
    items, left_out = [], 0
    for row in read_rows(file, ("video_name", "label")):
        label = LABELS.get(row["label"].removesuffix(".0"))
        name = row["video_name"].removesuffix(".0")
        if label is None or not name:
            left_out += 1
        else:
            items.append(Item(sample_id=name, gold=label, task="dfew"))
    return Annotations(
        items=unique(items, file), left_out={"not one of the seven classes": left_out} if left_out else {}
    )


def _fold_file(path: Path, fold: int | None) -> Path:
    if fold is not None and not 1 <= fold <= FOLDS:
        raise ConfigError(f"--fold {fold}: DFEW has the folds 1 to {FOLDS}")
    if not path.is_dir():
        if fold is not None and path.stem.startswith("set_") and path.stem != f"set_{fold}":
            raise ConfigError(f"--fold {fold} does not fit the file {path}; name the folder of the set_K.csv files")
        return path
    name = f"set_{fold or 1}.csv"
    for candidate in (path / name, path / _FOLDER / name, path / "dfew_annotation" / _FOLDER / name):
        if candidate.is_file():
            return candidate
    raise InputError(f"folder {path} holds no {name}, nor {_FOLDER}/{name}")


DFEW = Scorer(
    name="dfew",
    read=read,
    score=partial(score_emotions, "dfew", CLASSES),
    legacy=partial(score_emotions_released, "dfew", CLASS_ORDER, "macro"),
    options=("fold",),
)
