"""Rows of data files, each with the place it stands at: CSV, JSON (a list), JSONL and Parquet.

Whatever is wrong with a row is said with file, line and field. Files are UTF-8; a byte order mark is ignored. CSV and
JSONL are read line by line and Parquet by row groups, so a large file need not fit into memory; a JSON list must.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError, RowError

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
"""What `read_rows` reads; the suffix decides."""

Row = dict[str, Any]


def read_rows(path: Path, *, delimiter: str = ",") -> Iterator[tuple[str, Row]]:
    """Rows as (place, values), in file order; the place names file and line (CSV, JSONL) or row, counted from 1.

    Every column is in every row; an empty value is None. Values of a CSV file are text.

    Raises:
        InputError: the file is missing, has another suffix, or is not what its suffix says.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file. Give the path of a {', '.join(SUFFIXES)} file.")
    readers = {".json": _json, ".jsonl": _jsonl, ".parquet": _parquet}
    suffix = path.suffix.lower()
    if suffix == ".csv":
        rows = _csv(path, delimiter)
    elif suffix in readers:
        rows = readers[suffix](path)
    else:
        raise InputError(f"{path} has the suffix {path.suffix!r}; allowed are {', '.join(SUFFIXES)}. Convert it.")
    yield from rows


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as .json (a list), .jsonl or .parquet, atomically; the suffix decides.

    Raises:
        InputError: another suffix.
        StorageError: the disk is full or the folder cannot be written.
    """
    from avere_ray.stages import atomic_path, write_text

    suffix = path.suffix.lower()
    if suffix == ".json":
        write_text(path, json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n")
    elif suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with atomic_path(path) as partial:
            pq.write_table(pa.Table.from_pylist([dict(r) for r in rows]), partial, compression="zstd")
    else:
        raise InputError(f"cannot write {path}: its suffix must be .json, .jsonl or .parquet. Name it so.")


def require_columns(names: Iterable[str], wanted: Sequence[str], place: str) -> None:
    """Refuses a table without the columns that it needs.

    Raises:
        InputError: names the missing ones and those that are there.
    """
    have = list(names)
    missing = [name for name in wanted if name not in have]
    if missing:
        raise InputError(f"{place}: no column {', '.join(missing)}; it has {', '.join(have) or 'none'}.")


def cell(row: Row, column: str, place: str) -> str:
    """The text of one cell, without space around it.

    Raises:
        RowError: it is empty ("bad_row").
    """
    value = row[column]
    text = "" if value is None else str(value).strip()
    if not text:
        raise RowError("bad_row", f"{place}: field {column} is empty. Fill it or remove the line.")
    return text


def _csv(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, path)
            for values in reader:
                place = f"{path} line {reader.line_num}"
                if not any(value.strip() for value in values):
                    continue
                if len(values) != len(header):
                    raise InputError(f"{place} has {len(values)} values, the header {len(header)}. Correct the line.")
                yield place, {n: v if v.strip() else None for n, v in zip(header, values, strict=True)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}. It must be UTF-8 CSV with a header line.") from error


def _check_header(header: Sequence[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if not header or twice or "" in header[1:]:
        what = f"the column {twice[0]!r} twice" if twice else "a column without a name" if header else "no header line"
        raise InputError(f"{path} has {what}; its first line must name every column once.")


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path} line {number}", _object(line, f"{path} line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}. It must be UTF-8 text, one JSON object a line.") from error


def _object(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is not JSON ({error}); each line must be one JSON object.") from error
    if not isinstance(row, dict):
        raise InputError(f"{place} holds {line.strip()[:40]!r}; each line must be one JSON object.")
    return row


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}. It must be JSON: a list of objects.") from error
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a {type(rows).__name__}; it must be a list of objects.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(f"{path} row {number} is a {type(row).__name__}; each row must be a JSON object.")
        yield f"{path} row {number}", row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}. It must be a Parquet file; write it again.") from error
