"""Any table of clips: CSV, JSON, JSONL or Parquet, with a column mapping.

`data.clips` names the table itself, or a folder with manifest.csv, .jsonl, .json or .parquet. `data.source.columns`
maps fields of a clip to columns, for instance {uri: path, emotion: label, identity: speaker}; a field that is not
mapped is read from the column of its own name, other columns are left alone. Media paths are relative to the table's
folder.

`uri` is the one column that is needed; without clip_id a clip is named by its path. `cues` are a list of objects (in
CSV as JSON text). Annotated: whatever the table has; `data.source.emotions` turns a corpus's own codes into words.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from avere_ray.config import SourceConfig
from avere_ray.errors import InputError, RowError
from avere_ray.records import Clip
from avere_ray.rows import SUFFIXES, Row, read_rows
from avere_ray.sources.source import Found, Source, emotion_of

NAMES = tuple(f"manifest{suffix}" for suffix in (".csv", ".jsonl", ".json", ".parquet"))
FIELDS = tuple(Clip.__dataclass_fields__)
_EMOTION_FIELDS = ("emotion", "face_emotion", "voice_emotion")


def table_of(path: Path) -> Path:
    """The manifest file: `path` itself, or the one in the folder.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return path
    found = [path / name for name in NAMES if (path / name).is_file()]
    if not found:
        what = "is a folder without" if path.is_dir() else "does not exist; give"
        raise InputError(f"{path} {what} a manifest: {', '.join(NAMES)}, or set data.clips to a {SUFFIXES} file.")
    return found[0]


def read(path: Path, cfg: SourceConfig) -> Found:
    """Every row of the manifest as a clip or a drop ("bad_row", "missing_media", "unreadable", "duplicate_id").

    Raises:
        InputError: the table cannot be read, a mapping names no field of a clip, or no row has a mapped column.
    """
    table = table_of(path)
    unknown = sorted(set(cfg.columns) - set(FIELDS))
    if unknown:
        raise InputError(f"data.source.columns maps {unknown[0]!r}; fields of a clip are {', '.join(FIELDS)}.")
    seen: dict[str, str] = {}
    columns: set[str] = set()
    found = Found().collect(
        (place.removeprefix(f"{table} "), partial(_clip, row, place, table.parent, seen, cfg))
        for place, row in _watched(table, columns)
    )
    missing = [c for c in [*cfg.columns.values(), cfg.columns.get("uri", "uri")] if c not in columns]
    if missing:
        raise InputError(
            f"{table} has no column {missing[0]!r}; it has {', '.join(sorted(columns)) or 'no rows'}. Correct "
            "data.source.columns, or name the column uri."
        )
    return found


def _watched(table: Path, columns: set[str]) -> Iterable[tuple[str, Row]]:
    for place, row in read_rows(table):
        columns.update(row)
        yield place, row


def _clip(row: Row, place: str, root: Path, seen: dict[str, str], cfg: SourceConfig) -> Clip:
    columns = {name: cfg.columns.get(name, name) for name in FIELDS}
    values = {name: row[column] for name, column in columns.items() if row.get(column) is not None}
    values = {name: value if name == "cues" else _text(value) for name, value in values.items()}
    for name in ("uri", "clip_id", *_EMOTION_FIELDS):
        if not isinstance(values.get(name, ""), str):
            raise RowError("bad_row", f"{place}: field {columns[name]} = {values[name]!r} must be a text. Correct it.")
    uri = values.get("uri", "").strip()
    if not uri:
        raise RowError("bad_row", f"{place}: field uri (column {cfg.columns.get('uri', 'uri')}) is empty. Fill it.")
    values |= {"uri": uri, "clip_id": values.get("clip_id") or str(PurePosixPath(uri).parent / PurePosixPath(uri).stem)}
    if cfg.split:
        values["split"] = cfg.split
    for name in _EMOTION_FIELDS:
        if values.get(name):
            values[name] = emotion_of(values[name], cfg, place)
    clip = _validated(values, place, cfg)
    _check_media(clip, place, root)
    first = seen.setdefault(clip.clip_id, place)
    if first != place:
        raise RowError("duplicate_id", f"{place}: clip_id {clip.clip_id!r} is also that of {first}. Rename one.")
    return clip


def _text(value: object) -> object:
    """Numbers become text, so that an id 12 or an identity 7 may stand in any table."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _validated(values: Mapping[str, Any], place: str, cfg: SourceConfig) -> Clip:
    cues = values.get("cues")
    try:
        parsed = json.loads(cues) if isinstance(cues, str) else cues
        return _clip_type().validate_python({**values, "cues": parsed or ()})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        column = cfg.columns.get(name, name)
        raise RowError("bad_row", f"{place}: field {column} = {first['input']!r}: {first['msg']}.") from error
    except ValueError as error:
        raise RowError("bad_row", f"{place}: field cues is not JSON ({error}). Correct it.") from error


def _check_media(clip: Clip, place: str, root: Path) -> None:
    for name, uri in (("uri", clip.uri), ("audio_uri", clip.audio_uri)):
        if not uri or "://" in uri:
            continue
        try:
            there = (root / uri).is_file()
        except OSError as error:  # a name that is too long, a folder that may not be read
            what = f"the file cannot be examined ({error.strerror}). Correct its name or rights."
            raise RowError("unreadable", f"{place}: field {name} = {uri!r}: {what}") from error
        if not there:
            raise RowError("missing_media", f"{place}: field {name} = {uri!r}: no such file below {root}.")


@functools.cache
def _clip_type() -> TypeAdapter[Clip]:
    return TypeAdapter(Clip)


MANIFEST = Source(name="manifest", read=read)
