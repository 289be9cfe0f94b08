"""RAVDESS: 24 actors speak and sing two sentences in eight emotions (Livingstone and Russo, 2018).

Layout: any folders below data.clips with the files as published, for instance

    Video_Speech_Actor_01/Actor_01/01-01-05-02-01-01-01.mp4

The name is modality (01 sound and picture, 02 picture, 03 sound), channel (01 speech, 02 song), emotion (01 neutral,
02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgust, 08 surprised), intensity, statement, repetition, actor.
Only 01 files are read: 02 and 03 are the same performances without sound or picture.

Annotated: the acted emotion, which is that of face and voice alike; the actor as identity. There is no official split.
"""

from functools import partial
from pathlib import Path

from avere_ray.config import SourceConfig
from avere_ray.errors import InputError, RowError
from avere_ray.records import Clip
from avere_ray.sources.source import Found, MediaIndex, Source

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
_PARTS = 7


def read(root: Path, cfg: SourceConfig) -> Found:
    """Every performance with sound and picture.

    Raises:
        InputError: there is none.
    """
    files = [(stem, uri) for stem, uri in MediaIndex(root, root).files() if not stem.startswith(("02-", "03-"))]
    if not any(stem.startswith("01-") for stem, _ in files):
        raise InputError(
            f"{root} is not laid out as RAVDESS: no video is named like 01-01-05-02-01-01-01.mp4. Set data.clips to "
            "the folder with the actors' folders."
        )
    return Found().collect((stem, partial(_clip, stem, uri, cfg)) for stem, uri in files)


def _clip(stem: str, uri: str, cfg: SourceConfig) -> Clip:
    parts = stem.split("-")
    if len(parts) != _PARTS or not all(p.isdigit() for p in parts) or parts[2] not in EMOTIONS:
        raise RowError("bad_name", f"{uri}: not a RAVDESS name (seven numbers with dashes). Rename or remove the file.")
    emotion = EMOTIONS[parts[2]]
    return Clip(
        clip_id=f"ravdess-{stem}",
        uri=uri,
        split=cfg.split or "train",
        identity=f"ravdess-actor-{parts[6]}",
        emotion=emotion,
        face_emotion=emotion,
        voice_emotion=emotion,
        source="ravdess",
    )


RAVDESS = Source(name="ravdess", read=read)
