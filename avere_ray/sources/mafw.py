"""MAFW: 10,045 clips from films, series and shows; 9,172 have one of eleven emotions (Liu et al., arXiv 2208.00847).

Layout, as published:

    data/clips/00001.mp4                                          or clips/, clips_24fps/
    Train & Test Set/single/no_caption/set_1/train.txt, test.txt  lines "00001.mp4 anger"
    Train & Test Set/single/with_caption/set_1/...                tabs: clip, label, Chinese text, English text
    clips_16khz/00001.wav                                         separate sound, where it is there

Annotated: the emotion of the whole clip, and for all but neutral clips an English description (`caption`; the captioned
lists are not clean UTF-8, of which only the English text is read). `data.source.fold` chooses the lists.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from avere_ray.config import SourceConfig
from avere_ray.errors import RowError
from avere_ray.records import Clip
from avere_ray.sources.source import (
    AUDIO_SUFFIXES,
    Found,
    MediaIndex,
    Source,
    emotion_of,
    find_folder,
    require_file,
    require_folder,
)

EMOTIONS = frozenset(
    {
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
        "contempt",
        "anxiety",
        "helplessness",
        "disappointment",
    }
)
LISTS = ("Train & Test Set", "train_test_set/Train & Test Set")
VIDEO_FOLDERS = ("data/clips", "clips", "clips_24fps")
AUDIO_FOLDERS = ("clips_16khz", "data/clips_16khz")


def read(root: Path, cfg: SourceConfig) -> Found:
    """The single-labelled clips of one fold, training list first.

    Raises:
        InputError: lists or media folders are missing.
    """
    videos = MediaIndex(root, require_folder(root, VIDEO_FOLDERS, "MAFW", "folder of clips"))
    sounds = MediaIndex(root, find_folder(root, AUDIO_FOLDERS), AUDIO_SUFFIXES)
    captions = {name: text for split in ("train", "test") for name, text in _captions(root, split, cfg.fold)}
    found = Found()
    for split in ("train", "test"):
        for place, line in _lines(root, split, cfg.fold):
            make = partial(_clip, line, place, split, videos, sounds, captions, cfg)
            found.collect([(line.split()[0], make)])
    return found


def _lines(root: Path, split: str, fold: int) -> Iterator[tuple[str, str]]:
    candidates = [f"{folder}/single/no_caption/set_{fold}/{split}.txt" for folder in LISTS]
    path = require_file(root, candidates, "MAFW", f"{split} list of fold {fold}")
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if line.strip():
            yield f"{path} line {number}", line


def _captions(root: Path, split: str, fold: int) -> Iterator[tuple[str, str]]:
    for folder in LISTS:
        path = root / folder / "single" / "with_caption" / f"set_{fold}" / f"{split}.txt"
        if path.is_file():
            for line in path.read_bytes().splitlines():
                cells = line.decode("latin-1").split("\t")
                if len(cells) >= 3:
                    yield Path(cells[0].strip()).stem, cells[-1].strip()
            return


def _clip(
    line: str,
    place: str,
    split: str,
    videos: MediaIndex,
    sounds: MediaIndex,
    captions: Mapping[str, str],
    cfg: SourceConfig,
) -> Clip:
    cells = line.split()
    if len(cells) != 2:
        raise RowError("bad_row", f"{place}: {line!r} is not a clip and a label. Correct or remove the line.")
    stem = Path(cells[0]).stem
    return Clip(
        clip_id=f"mafw-{stem}",
        uri=videos.require(stem, place),
        audio_uri=sounds.find(stem),
        split=cfg.split or split,
        emotion=emotion_of(cells[1], cfg, place, EMOTIONS),
        caption=captions.get(stem, ""),
        source="mafw",
    )


MAFW = Source(name="mafw", read=read)
