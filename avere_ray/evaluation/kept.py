"""What an evaluation has been answered so far, on disk, so that an interrupted one asks for the rest only.

One JSON line per answer, appended as answers come; a line that was cut off by a kill is not read. The file belongs to
one evaluation, whose key is in its name, and is removed when the evaluation is finished.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.records import Rollout
from avere_ray.stages import storage_error


class Kept:
    """Answers and option likelihoods of one benchmark in one mode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Rollout] = {}
        """By question id."""
        self.logps: dict[str, dict[str, float]] = {}
        """Log-likelihood (nats) of each option, by question id."""
        self.refused: dict[str, str] = {}
        """Why a question gets no answer, by its id; not kept over runs, so that it is asked again."""
        for row in _rows(path):
            self._take(row)

    def add_answers(self, rollouts: Sequence[Rollout]) -> None:
        """Keeps answers.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        self._append([{"kind": "answer", **dataclasses.asdict(rollout)} for rollout in rollouts])

    def add_logps(self, logps: Mapping[str, Mapping[str, float]]) -> None:
        """Keeps option likelihoods by question id.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        self._append([{"kind": "logps", "query_id": name, "logps": dict(row)} for name, row in logps.items()])

    def refuse(self, query_id: str, why: str) -> None:
        """Notes that a question is not answered."""
        self.refused[query_id] = why

    def _take(self, row: dict[str, Any]) -> None:
        if row.pop("kind") == "answer":
            rollout = Rollout(**row | {"token_ids": tuple(row["token_ids"])})
            self.answers[rollout.query_id] = rollout
        else:
            self.logps[row["query_id"]] = row["logps"]

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise storage_error(self.path, error) from error
        for row in rows:
            self._take(dict(row))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file; cuts off a last one that is not whole, so that the next begins a line of its own."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines() if line.strip()]
