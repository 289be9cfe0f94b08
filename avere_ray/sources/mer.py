"""MER2023 and MER2025: clips from Chinese films and series (Lian et al., arXiv 2304.08981 and 2504.19423).

MER2023:

    train/NAME.avi, test1/, test2/, test3/          the clips of each part
    train-label.csv, test1-label.csv, ...           columns name, discrete; also below test_labels/

MER2025, with OV-MERD and MER-Caption+:

    video/NAME.mp4
    track1_train_disdim.csv                         name, discrete, valence
    track3_train_ovmerd.csv                         name, reason: a checked description of what is seen and heard
    track3_train_mercaptionplus.csv                 name, reason: the same, written by a model

Annotated: the emotion of the whole clip (neutral, anger, happiness, sadness, worry, surprise) and, in MER2025, the
description (`caption`; OV-MERD's where both lists have one). Parts become splits; in MER2025 all is "train".
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from avere_ray.config import SourceConfig
from avere_ray.errors import InputError
from avere_ray.records import Clip
from avere_ray.rows import Row, cell, read_rows, require_columns
from avere_ray.sources.source import Found, MediaIndex, Source, emotion_of, find_folder, require_folder

EMOTIONS = frozenset(["neutral", "anger", "happiness", "sadness", "worry", "surprise"])
PARTS = ("train", "test1", "test2", "test3")
DESCRIPTIONS = ("track3_train_mercaptionplus.csv", "track3_train_ovmerd.csv")
"""Later ones win."""


def read_2023(root: Path, cfg: SourceConfig) -> Found:
    """The labelled parts that are there, in the order train, test1, test2, test3.

    Raises:
        InputError: there is no label list at all.
    """
    found, lists = Found(), 0
    for part in PARTS:
        for path in (root / f"{part}-label.csv", root / "test_labels" / f"{part}-label.csv"):
            if path.is_file():
                lists += 1
                videos = MediaIndex(root, find_folder(root, (part, f"{part}/video", f"video/{part}")))
                rows = _rows(path, "discrete")
                found.collect(
                    (str(row["name"] or at), partial(_clip_2023, row, at, part, videos, cfg)) for at, row in rows
                )
                break
    if not lists:
        raise InputError(
            f"{root} is not laid out as MER2023: none of {', '.join(f'{p}-label.csv' for p in PARTS)} is there. Set "
            "data.clips to the folder that holds them."
        )
    return found


def read_2025(root: Path, cfg: SourceConfig) -> Found:
    """Every clip that a list names, in the order of the lists; a name that stands in one list twice counts once, as
    it stands there first.

    Raises:
        InputError: there is no video folder, or no list.
    """
    videos = MediaIndex(root, require_folder(root, ("video", "clips_24fps"), "MER2025", "video folder"))
    found = Found()
    emotions: dict[str, tuple[str, str]] = {}
    captions: dict[str, tuple[str, str]] = {}
    for name, column, table in (
        ("track1_train_disdim.csv", "discrete", emotions),
        *((name, "reason", captions) for name in DESCRIPTIONS),
    ):
        if (root / name).is_file():
            table.update(_named(root / name, column, found))
    names = list(dict.fromkeys([*emotions, *captions]))
    if not names and not found.drops:
        raise InputError(
            f"{root} is not laid out as MER2025: none of track1_train_disdim.csv, {', '.join(DESCRIPTIONS)} lists a "
            "clip. Set data.clips to the folder that holds them."
        )

    def make(name: str) -> Clip:
        place, label = emotions.get(name, ("", ""))
        seen_at, caption = captions.get(name, ("", ""))
        return Clip(
            clip_id=f"mer2025-{name}",
            uri=videos.require(name, place or seen_at),
            split=cfg.split or "train",
            emotion=emotion_of(label, cfg, place, EMOTIONS) if label else "",
            caption=caption,
            source="mer2025",
        )

    return found.collect((name, partial(make, name)) for name in names)


def _named(path: Path, column: str, found: Found) -> dict[str, tuple[str, str]]:
    """Place and value of each name of a list; lines without a name, and those with an earlier one, are refused."""
    named: dict[str, tuple[str, str]] = {}
    for place, row in _rows(path, column):
        name = str(row["name"] or "").strip()
        if not name:
            found.refuse(place.removeprefix(f"{path} "), "bad_row", f"{place}: field name is empty. Fill it.")
        elif name in named:
            first = named[name][0]
            found.refuse(name, "duplicate_id", f"{place}: {name} stands there already, at {first}. Remove one.")
        else:
            named[name] = (place, row[column] or "")
    return named


def _rows(path: Path, column: str) -> Iterator[tuple[str, Row]]:
    for place, row in read_rows(path):
        require_columns(row, ("name", column), place)
        yield place, row


def _clip_2023(row: Row, place: str, part: str, videos: MediaIndex, cfg: SourceConfig) -> Clip:
    name = cell(row, "name", place)
    return Clip(
        clip_id=f"mer2023-{name}",
        uri=videos.require(name, place),
        split=cfg.split or part,
        emotion=emotion_of(cell(row, "discrete", place), cfg, place, EMOTIONS),
        source="mer2023",
    )


MER2023 = Source(name="mer2023", read=read_2023)
MER2025 = Source(name="mer2025", read=read_2025)
