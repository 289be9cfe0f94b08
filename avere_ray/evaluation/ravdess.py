"""RAVDESS: acted speech and song, seven of its eight emotions.

Data: Livingstone & Russo, PLoS ONE 13(5), 2018; 24 actors. Split: all full audio-visual speech clips, 1,248 without
"calm", zero-shot; song by `--channel song` or `both`. A file name holds seven numbers: modality (01 full audio-visual,
02 video only, 03 audio only), channel (01 speech, 02 song), emotion (01 neutral, 02 calm, 03 happiness, 04 sadness,
05 anger, 06 fear, 07 disgust, 08 surprise), intensity, statement, repetition, actor. Calm is left out, as the paper
(arXiv 2602.07054) does. Prompt: `PROMPT` of `emotion_scores`. Metrics: WAR, UAR, macro-F1, confusion.
Annotations are the names themselves: a folder of media, or a file with one name a line. A prediction is called
`<name without ending>.txt`. The released scorer reads whatever channels are there; so does
`--legacy` by default.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path

from avere_ray.errors import ConfigError, InputError
from avere_ray.evaluation.emotion_scores import score_emotions, score_emotions_released
from avere_ray.evaluation.emotions import CLASSES
from avere_ray.evaluation.released import CLASS_ORDER
from avere_ray.evaluation.scorer import Annotations, Item, ReadOptions, Scorer, unique

LABELS = {"01": "neutral", "03": "happiness", "04": "sadness", "05": "anger", "06": "fear", "07": "disgust",
          "08": "surprise"}  # fmt: skip
"""Class by the third number of a name; 02, calm, is left out."""
CHANNELS = {"speech": ("01",), "song": ("02",), "both": ("01", "02")}
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)$")
_MEDIA = (".mp4", ".wav", ".avi", ".mov", ".txt")


def read(path: Path, options: ReadOptions) -> Annotations:
    """Samples of a folder of media or of a file of names, for one channel (default speech).

    Video-only and audio-only files are left out where the same recording is there in full.

    Raises:
        ConfigError: the channel does not exist.
        InputError: there is nothing at `path`, or a name is not RAVDESS's.
    """
    channel = options.channel or "speech"
    if channel not in CHANNELS:
        raise ConfigError(f"--channel {channel}: RAVDESS has {', '.join(CHANNELS)}")
    left_out: Counter[str] = Counter()
    items: dict[str, Item] = {}
    names = _names(path)
    full = {name[3:] for name in names if name.startswith("01-")}
    for name in names:
        if (reason := _left_out(name, channel, full)) is not None:
            left_out[reason] += 1
        else:
            items[name] = Item(sample_id=name, gold=LABELS[name[6:8]], clip_id=name[3:], task="ravdess")
    return Annotations(items=unique(list(items.values()), path), left_out=dict(left_out))


def _left_out(name: str, channel: str, full: set[str]) -> str | None:
    if name[3:5] not in CHANNELS[channel]:
        return f"not {channel}"
    if name[6:8] == "02":
        return "calm"
    if name[6:8] not in LABELS:
        return "unknown emotion"
    return "not the full audio-visual file" if not name.startswith("01-") and name[3:] in full else None


def _names(path: Path) -> list[str]:
    if path.is_dir():
        stems = {file.stem for file in path.rglob("*") if file.suffix.lower() in _MEDIA}
        return sorted(stem for stem in stems if _NAME.fullmatch(stem))
    if not path.is_file():
        raise InputError(f"{path} does not exist; name a folder of RAVDESS files, or a file with one name a line")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not (text := line.strip()) or (number == 1 and not _NAME.search(Path(text).stem)):
            continue
        stem = Path(text.split(",")[0].strip().strip('"')).stem
        if not _NAME.fullmatch(stem):
            raise InputError(f"{path}, line {number}: {text!r} is no RAVDESS name such as 01-01-05-02-01-01-12.mp4")
        found.append(stem)
    return sorted(set(found))


RAVDESS = Scorer(
    name="ravdess",
    read=read,
    score=partial(score_emotions, "ravdess", CLASSES),
    legacy=partial(score_emotions_released, "ravdess", CLASS_ORDER, "macro"),
    options=("channel",),
)
