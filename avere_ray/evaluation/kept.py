"""What an evaluation has been answered so far, on disk, so that an interrupted one asks for the rest only.

One JSON line per answer, appended as answers come. The file belongs to one evaluation, whose key is in its name, and is
removed when the evaluation is finished.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.journal import Journal
from avere_ray.records import Rollout


class Kept:
    """Answers and option likelihoods of one benchmark in one mode."""

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, Journal(path)
        self.answers: dict[str, Rollout] = {}
        """By question id."""
        self.logps: dict[str, dict[str, float]] = {}
        """Log-likelihood (nats) of each option, by question id."""
        self.refused: dict[str, str] = {}
        """Why a question gets no answer, by its id; not kept over runs, so that it is asked again."""
        for row in self._journal.rows:
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
        self._journal.append(rows)
        for row in rows:
            self._take(dict(row))
