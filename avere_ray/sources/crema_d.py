"""CREMA-D: 91 actors speak twelve sentences in six emotions (Cao et al., 2014, doi 10.1109/TAFFC.2014.2336244).

Layout, as published:

    VideoFlash/1001_DFA_ANG_XX.flv             actor, sentence, emotion, level; else VideoMP4/ or Video/
    processedResults/summaryTable.csv          optional: FileName, VoiceVote, FaceVote, MultiModalVote

Annotated: the actor as identity, and what raters perceived in voice alone, face alone and both, where one emotion has
the most votes (a tie, "A:D", leaves that field empty). Without the table the acted emotion is taken for all three.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from avere_ray.config import SourceConfig
from avere_ray.errors import RowError
from avere_ray.records import Clip
from avere_ray.rows import read_rows, require_columns
from avere_ray.sources.source import Found, MediaIndex, Source, require_folder

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
VIDEO_FOLDERS = ("VideoFlash", "VideoMP4", "Video")
VOTES = "processedResults/summaryTable.csv"
_LETTERS = {code[0]: word for code, word in EMOTIONS.items()}
_FIELDS = {"multimodalvote": "emotion", "facevote": "face_emotion", "voicevote": "voice_emotion"}


def read(root: Path, cfg: SourceConfig) -> Found:
    """Every video of the corpus, by name.

    Raises:
        InputError: there is no video folder, or the table of votes has other columns.
    """
    folder = require_folder(root, VIDEO_FOLDERS, "CREMA-D", "video folder")
    votes = _votes(root / VOTES)
    files = MediaIndex(root, folder).files()
    return Found().collect((stem, partial(_clip, stem, uri, votes, cfg)) for stem, uri in files)


def _votes(path: Path) -> dict[str, dict[str, str]]:
    """Perceived emotions by file name; empty without the table."""
    if not path.is_file():
        return {}
    votes: dict[str, dict[str, str]] = {}
    for place, row in read_rows(path):
        lower = {name.lower(): str(value or "").strip() for name, value in row.items()}
        require_columns(lower, ("filename", *_FIELDS), place)
        votes[lower["filename"]] = {field: _LETTERS.get(lower[column], "") for column, field in _FIELDS.items()}
    return votes


def _clip(stem: str, uri: str, votes: Mapping[str, dict[str, str]], cfg: SourceConfig) -> Clip:
    parts = stem.split("_")
    if len(parts) != 4 or parts[2] not in EMOTIONS:
        raise RowError(
            "bad_name", f"{uri}: not a CREMA-D name like 1001_DFA_ANG_XX ({', '.join(EMOTIONS)}). Rename or remove it."
        )
    acted = EMOTIONS[parts[2]]
    perceived = votes.get(stem) or dict.fromkeys(_FIELDS.values(), acted)
    return Clip(
        clip_id=f"crema_d-{stem}",
        uri=uri,
        split=cfg.split or "train",
        identity=f"crema_d-actor-{parts[0]}",
        source="crema_d",
        emotion=perceived["emotion"],
        face_emotion=perceived["face_emotion"],
        voice_emotion=perceived["voice_emotion"],
    )


CREMA_D = Source(name="crema_d", read=read)
