"""Responses on disk, and the small table files that annotations come in.

The released layout is one `<sample id>.txt` per sample in a folder; an id with a slash names a folder within. A file
is taken as well: JSON (a mapping from sample id to response, or a list of rows) or JSON lines, a row holding its sample
id under "id", "sample_id" or "query_id" and its response under "pred", "prediction", "response", "answer_text" or
"text".
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError

_IDS = ("id", "sample_id", "query_id", "custom_id")
_RESPONSES = ("pred", "prediction", "response", "answer_text", "text")


def read_predictions(path: Path, *, suffix: str = ".txt") -> dict[str, str]:
    """Responses by sample id, as written, from a folder of files or from one file.

    A row without an id has its position (from 0) as its id.

    Raises:
        InputError: there is nothing at `path`, a file is not text or not JSON, a row has no response, or an id occurs
            twice.
    """
    if path.is_dir():
        files = sorted(path.rglob(f"*{suffix}"))
        found = {file.relative_to(path).as_posix().removesuffix(suffix): _text(file) for file in files}
        if not found:
            raise InputError(f"folder {path} holds no {suffix} file; a prediction is called <sample id>{suffix}")
        return found
    if not path.is_file():
        raise InputError(f"predictions {path} do not exist; name a folder of <sample id>{suffix} files, or a JSON file")
    if path.suffix not in (".json", ".jsonl"):
        raise InputError(f"predictions {path}: a file must be .json or .jsonl; else name a folder")
    return _by_id(read_json(path), path)


def read_json(path: Path) -> Any:
    """A JSON file, or the list of rows of a file with one JSON value a line.

    Raises:
        InputError: the file is missing, is not text, or is neither.
    """
    text = _text(path)
    try:
        return json.loads(text)
    except ValueError as whole:
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path} is neither JSON ({whole}) nor JSON lines (line {number}: {error})") from error
        if not rows:
            raise InputError(f"{path} is empty") from whole
        return rows


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with at least these columns.

    Raises:
        InputError: the file is missing, is not text, has no row or lacks a column.
    """
    rows = list(csv.DictReader(_text(path).lstrip("\ufeff").splitlines(), skipinitialspace=True))
    if not rows:
        raise InputError(f"{path} has no row; a CSV file with the columns {', '.join(columns)} is needed")
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        found = ", ".join(str(name) for name in rows[0])
        raise InputError(f"{path} has no column {' or '.join(missing)}; it has {found}")
    return [{name: (value or "").strip() for name, value in row.items() if isinstance(name, str)} for row in rows]


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file")
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error


def _by_id(found: Any, path: Path) -> dict[str, str]:
    if isinstance(found, Mapping) and all(isinstance(value, str) for value in found.values()):
        return {str(name): value for name, value in found.items()}
    rows = found if isinstance(found, list) else [found]
    table: dict[str, str] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{path}, row {number}: {row!r} is no row; see the layout in `avere-ray score --help`")
        sample_id = str(next((row[name] for name in _IDS if name in row), number))
        response = next((row[name] for name in _RESPONSES if isinstance(row.get(name), str)), None)
        if response is None:
            raise InputError(f"{path}, row {number} (id {sample_id}): no response under {', '.join(_RESPONSES)}")
        if sample_id in table:
            raise InputError(f"{path}, row {number}: id {sample_id} occurs twice")
        table[sample_id] = response
    return table
