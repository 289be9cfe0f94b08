"""What a remote model was asked and has cost: counted, and kept on disk where a budget is for more than one process."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from avere_ray.stages import storage_error


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What was asked and spent."""

    requests: int = 0
    """Sent, retries included."""
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0
    """Of answers whose tokens the server did not count, and of requests it got whose answer did not come: what they
    were taken to need."""
    cost: float = 0.0
    """By the stated prices."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens + self.estimated_tokens

    def plus(self, **more: float) -> "Usage":
        """This, and what came after it."""
        return Usage(**{name: getattr(self, name) + more.get(name, 0) for name in Usage.__slots__})  # type: ignore[arg-type]

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {name: round(getattr(self, name), 6) for name in Usage.__slots__}


class UsageLog:
    """Usage of every process that asks one model, in one file; nothing where there is no file.

    One JSON object a line with its time ("at", seconds since 1970), appended and flushed as requests are sent and
    answered, so a process that is killed loses nothing but the request it waits for. A line that was cut off is
    ignored.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._offset = 0
        self._total = Usage()

    def total(self) -> Usage:
        """What all processes have used so far."""
        if self.path is not None and self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                self._total = self._total.plus(**_amounts(_row(line)))
        return self._total

    def lately(self, seconds: float) -> list[tuple[float, Usage]]:
        """What all processes used in the last seconds, and how long ago, the oldest first."""
        if self.path is None or not self.path.is_file():
            return []
        now, rows = time.time(), [_row(line) for line in self.path.read_bytes().splitlines()]
        ages = [(max(0.0, now - row["at"]), row) for row in rows if "at" in row]
        recent = sorted(((age, row) for age, row in ages if age < seconds), key=lambda found: -found[0])
        return [(age, Usage().plus(**_amounts(row))) for age, row in recent]

    def add(self, **more: float) -> None:
        """Notes what was used.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        if self.path is None:
            return
        line = json.dumps({"at": round(time.time(), 3), **more}).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
                cut = file.read(1) not in (b"", b"\n")
                file.write(b"\n" * cut + line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self.path, error) from error


def _row(line: bytes) -> dict[str, float]:
    """What a line holds; nothing where it was cut off."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return {name: n for name, n in row.items() if isinstance(n, int | float)} if isinstance(row, dict) else {}


def _amounts(row: Mapping[str, float]) -> dict[str, float]:
    return {name: row[name] for name in row if name in Usage.__slots__}
