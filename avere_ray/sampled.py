"""Rollouts of a round while they are sampled: batches are noted, and an interrupted round asks for the rest only."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from avere_ray.journal import Journal
from avere_ray.records import Query, Rollout


class Sampled:
    """What was answered before, and what is answered now; `rest`, then `note` as answers come, then `merged`."""

    def __init__(self, path: Path) -> None:
        """`path`: the file of this round and of everything its rollouts depend on.

        Raises:
            StorageError: the file is there and cannot be read.
        """
        self._journal = Journal(path)
        self._before = {row["query_id"]: [_rollout(one) for one in row["rollouts"]] for row in self._journal.rows}
        self._asked: list[str] = []

    @property
    def before(self) -> int:
        """How many queries an earlier run has left answered."""
        return len(self._before)

    def rest(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Those of the round's queries that have not been answered, as they come."""
        for query in queries:
            self._asked.append(query.query_id)
            if query.query_id not in self._before:
                yield query

    def note(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Notes the responses to some queries, in any order of queries.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        self._journal.append(
            [{"query_id": group[0].query_id, "rollouts": [dataclasses.asdict(one) for one in group]}
             for group in groups if group]
        )  # fmt: skip

    def merged(self, found: Iterable[list[Rollout]]) -> list[list[Rollout]]:
        """The responses to every query that `rest` was given, in that order.

        Args:
            found: those to what `rest` gave, in the order it did.
        """
        new = iter(found)
        return [self._before[name] if name in self._before else next(new) for name in self._asked]

    def remove(self) -> None:
        """Removes the file, and its folder when nothing else is in it."""
        path = self._journal.path
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _rollout(row: dict) -> Rollout:  # type: ignore[type-arg]
    return Rollout(**row | {"token_ids": tuple(row["token_ids"])})
