"""What a remote model was asked and has cost: counted, and kept on disk where a budget is for more than one process."""

import json
import os
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

    One JSON object a line, appended and flushed as requests are sent and answered, so a process that is killed loses
    nothing but the request it waits for; a line that was cut off is ignored.
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
                self._count(line)
        return self._total

    def add(self, **more: float) -> None:
        """Notes what was used.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
                cut = file.read(1) not in (b"", b"\n")
                file.write(b"\n" * cut + json.dumps(more).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(self.path, error) from error

    def _count(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            self._total = self._total.plus(**{name: row[name] for name in row if name in Usage.__slots__})
        except (ValueError, TypeError):
            return
