"""DFEW: 16,372 clips from films, 11,697 of them with a single emotion (Jiang et al., 2020, arXiv 2008.05924).

Layout, as published or as AVERE's evaluation has it:

    EmoLabel_DataSplit/train(single-labeled)/set_1.csv     columns video_name, label; also below dfew_annotation/
    EmoLabel_DataSplit/test(single-labeled)/set_1.csv
    Clip/original/1.mp4, at any depth                      or dfew_original_clips_24fps/part_1/1.mp4
    dfew_original_clips_16khz/part_1/1.wav                 separate sound, where it is there

Labels: 1 happiness, 2 sadness, 3 neutral, 4 anger, 5 surprise, 6 disgust, 7 fear. Annotated: the emotion of the whole
clip; `data.source.fold` chooses the lists, which become the splits "train" and "test".
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from avere_ray.config import SourceConfig
from avere_ray.errors import RowError
from avere_ray.records import Clip
from avere_ray.rows import Row, cell, read_rows, require_columns
from avere_ray.sources.source import (
    AUDIO_SUFFIXES,
    Found,
    MediaIndex,
    Source,
    find_folder,
    require_file,
    require_folder,
)

EMOTIONS = {
    "1": "happiness",
    "2": "sadness",
    "3": "neutral",
    "4": "anger",
    "5": "surprise",
    "6": "disgust",
    "7": "fear",
}
LABEL_FOLDERS = ("EmoLabel_DataSplit", "dfew_annotation", "DFEW/EmoLabel_DataSplit", "dfew/dfew_annotation")
VIDEO_FOLDERS = (
    "Clip/original",
    "dfew_original_clips_24fps",
    "dfew_original_clips",
    "DFEW/Clip/original",
    "dfew/dfew_original_clips_24fps",
    "dfew/dfew_original_clips",
)
AUDIO_FOLDERS = ("dfew_original_clips_16khz", "dfew/dfew_original_clips_16khz")


def read(root: Path, cfg: SourceConfig) -> Found:
    """The clips of one fold, training list first.

    Raises:
        InputError: lists or media folders are missing.
    """
    videos = MediaIndex(root, require_folder(root, VIDEO_FOLDERS, "DFEW", "folder of the original clips"))
    sounds = MediaIndex(root, find_folder(root, AUDIO_FOLDERS), AUDIO_SUFFIXES)
    found = Found()
    for split in ("train", "test"):
        rows = labels(root, split, cfg.fold)
        found.collect(
            (str(row["video_name"] or at), partial(_clip, row, at, split, videos, sounds, cfg)) for at, row in rows
        )
    return found


def labels(root: Path, split: str, fold: int) -> Iterator[tuple[str, Row]]:
    """Rows of a label list, each with its place.

    Raises:
        InputError: the list is missing or has other columns.
    """
    path = require_file(root, _lists(split, fold), "DFEW", f"{split} list of fold {fold}")
    for place, row in read_rows(path):
        require_columns(row, ("video_name", "label"), place)
        yield place, row


def has_labels(root: Path, split: str, fold: int) -> bool:
    """Whether a label list is there."""
    return any((root / path).is_file() for path in _lists(split, fold))


def _lists(split: str, fold: int) -> list[str]:
    return [f"{folder}/{split}(single-labeled)/set_{fold}.csv" for folder in LABEL_FOLDERS]


def clip_id(name: str) -> str:
    """The id of a clip, the same in DFEW and EmoReAlM: "1" and "00001" give "dfew-00001"."""
    return f"dfew-{int(name):05d}" if name.isdigit() else f"dfew-{name}"


def emotion(label: str, place: str) -> str:
    """The word of a label.

    Raises:
        RowError: it is not one of 1 to 7 ("unknown_label").
    """
    if label not in EMOTIONS:
        raise RowError("unknown_label", f"{place}: label {label!r}; DFEW has 1 to 7. Correct or remove the line.")
    return EMOTIONS[label]


def _clip(row: Row, place: str, split: str, videos: MediaIndex, sounds: MediaIndex, cfg: SourceConfig) -> Clip:
    name = cell(row, "video_name", place).removesuffix(".mp4")
    return Clip(
        clip_id=clip_id(name),
        uri=videos.require(name, place),
        audio_uri=sounds.find(name),
        split=cfg.split or split,
        emotion=emotion(cell(row, "label", place), place),
        source="dfew",
    )


DFEW = Source(name="dfew", read=read)
