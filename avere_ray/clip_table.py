"""The project's own table of clips: clips.parquet or clips.jsonl in a folder, held to the fields of `records.Clip`."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from avere_ray.errors import InputError
from avere_ray.records import Clip, Cue
from avere_ray.rows import read_rows

TABLES = ("clips.parquet", "clips.jsonl")


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a folder, in the order of its table: clips.parquet, or clips.jsonl with one JSON object a line.

    The columns are the fields of `records.Clip`; clip_id and uri are required, the others may be missing or null.

    Raises:
        InputError: the folder or its table is missing, empty or unreadable, a column is unknown, a value has the wrong
            type, or a clip_id is there twice; the message names file, row and value.
    """
    if not folder.is_dir():
        raise InputError(
            f"clip folder {folder} does not exist. Set data.clips to a folder with {TABLES[0]} or "
            f"{TABLES[1]} and the media files, or leave it out to draw synthetic clips."
        )
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        what = "has no clip table" if any(folder.iterdir()) else "is empty"
        raise InputError(
            f"clip folder {folder} {what}. Put {TABLES[0]} or {TABLES[1]} there, one row per clip with at "
            "least clip_id and uri."
        )
    clips = [_clip(row, where) for where, row in read_rows(table)]
    if not clips:
        raise InputError(f"{table} lists no clips. Add one row per clip with at least clip_id and uri.")
    _check_ids(clips, table)
    return clips


def _check_columns(names: Sequence[str] | dict[str, Any], where: str, record: type = Clip) -> None:
    allowed = list(record.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise InputError(
            f"{where}: unknown column {unknown[0]!r} of a {record.__name__}. "
            f"Allowed: {', '.join(allowed)}. Rename or remove it."
        )


def _clip(row: dict[str, Any], where: str) -> Clip:
    _check_columns(row, where)
    for cue in row.get("cues") or ():
        if isinstance(cue, dict):
            _check_columns(cue, where, Cue)
    try:
        clip = _clip_type().validate_python({k: v for k, v in row.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(str(part) for part in first["loc"])
        value = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise InputError(f"{where}: column {column}{value}: {first['msg']}. Correct the row.") from error
    if not clip.clip_id or not clip.uri:
        raise InputError(f"{where}: clip_id = {clip.clip_id!r}, uri = {clip.uri!r}; neither may be empty.")
    return clip


@functools.cache
def _clip_type() -> TypeAdapter[Clip]:
    return TypeAdapter(Clip)


def _check_ids(clips: Sequence[Clip], table: Path) -> None:
    seen: dict[str, int] = {}
    for number, clip in enumerate(clips, start=1):
        first = seen.setdefault(clip.clip_id, number)
        if first != number:
            raise InputError(
                f"{table}: clip_id {clip.clip_id!r} is there twice, as clips {first} and {number}. Each "
                "clip needs its own id; rename or remove one."
            )
