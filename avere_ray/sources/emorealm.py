"""EmoReAlM: the DFEW clips that its 4,000 questions are about (Chaubey et al., arXiv 2602.07054, section 3).

Layout, as AVERE's evaluation has it:

    EmoReAlM/emorealm_v1.json                              or emorealm_v1.json: {"id", "video", "task", ...}
    dfew/dfew_original_clips_24fps/part_1/1.mp4            `video` is the path below this folder
    dfew/dfew_original_clips_16khz/part_1/1.wav            separate sound, where it is there
    dfew/dfew_annotation/test(single-labeled)/set_1.csv    optional: DFEW's labels, of all folds that are there

Annotated: the emotion, where DFEW's lists are there. The questions themselves are a benchmark (`data.benchmark`); their
answers do not become annotations, so that nothing of the test leaks into training. Split: "test".
"""

from functools import partial
from pathlib import Path, PurePosixPath

from avere_ray.config import SourceConfig
from avere_ray.errors import RowError
from avere_ray.records import Clip
from avere_ray.rows import read_rows, require_columns
from avere_ray.sources import dfew
from avere_ray.sources.source import Found, Source, require_file, require_folder

QUESTIONS = ("EmoReAlM/emorealm_v1.json", "emorealm_v1.json")
_FOLDS = range(1, 6)


def read(root: Path, cfg: SourceConfig) -> Found:
    """One clip for each video that a question names, in the order of the questions.

    Raises:
        InputError: the questions or the clip folder are missing.
    """
    path = require_file(root, QUESTIONS, "EmoReAlM", "file of questions")
    folder = require_folder(root, dfew.VIDEO_FOLDERS, "EmoReAlM", "folder of DFEW's clips")
    places: dict[str, str] = {}
    for place, row in read_rows(path):
        require_columns(row, ("video",), place)
        places.setdefault(str(row["video"]), place)
    emotions = _emotions(root)
    return Found().collect(
        (video, partial(_clip, video, at, root, folder, emotions, cfg)) for video, at in places.items()
    )


def _emotions(root: Path) -> dict[str, str]:
    """DFEW's labels by clip id, from every list that is there; a label outside 1 to 7 is left out."""
    lists = [(split, fold) for fold in _FOLDS for split in ("train", "test") if dfew.has_labels(root, split, fold)]
    return {
        dfew.clip_id(str(row["video_name"])): dfew.EMOTIONS[row["label"]]
        for split, fold in lists
        for _, row in dfew.labels(root, split, fold)
        if row["label"] in dfew.EMOTIONS
    }


def _clip(video: str, place: str, root: Path, folder: Path, emotions: dict[str, str], cfg: SourceConfig) -> Clip:
    path = folder / PurePosixPath(video)
    if PurePosixPath(video).is_absolute() or ".." in path.parts or not path.is_file():
        raise RowError("missing_media", f"{place}: video {video} is not below {folder}. Put it there.")
    sound = Path(str(folder).replace("_24fps", "_16khz")) / PurePosixPath(video).with_suffix(".wav")
    clip_id = dfew.clip_id(path.stem)
    return Clip(
        clip_id=clip_id,
        uri=path.relative_to(root).as_posix(),
        audio_uri=sound.relative_to(root).as_posix() if sound.is_file() else "",
        split=cfg.split or "test",
        emotion=emotions.get(clip_id, ""),
        source="emorealm",
    )


EMOREALM = Source(name="emorealm", read=read)
