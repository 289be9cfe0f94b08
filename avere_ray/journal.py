"""A file of JSON lines that grows as work is done, so that an interrupted stage goes on with the rest only.

It belongs to one stage with one key, one process writes it, and it is removed when the stage is finished. A last line
that was cut off by a kill is not read, and is cut off the file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.stages import storage_error


class Journal:
    """Rows that were noted before, and room for more."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            StorageError: the file cannot be read or shortened.
        """
        self.path = path
        try:
            self.rows: list[dict[str, Any]] = _rows(path)
            """What the file held when it was opened."""
        except OSError as error:
            raise storage_error(path, error) from error

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Notes rows; they are with the operating system when this returns.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise storage_error(self.path, error) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines() if line.strip()]
