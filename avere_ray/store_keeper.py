"""The store beside a decode stage: it keeps what the stage needs, notes what has been decoded, and holds the quota."""

import math
import time
from collections.abc import Collection
from pathlib import Path

from avere_ray.av_store import AvStore, Place

_PIN_EVERY_S = 30.0
_SWEEP_EVERY_S = 600.0


class StoreKeeper:
    """Holds the shards of one run in the store, and the store within its quota, while media arrive.

    Shards that are `likely` to be used are held from the beginning until `close`, which leaves those that were.
    """

    def __init__(self, store: AvStore, owner: Path, quota_bytes: int, likely: Collection[str] = ()) -> None:
        self.store = store
        self.owner = owner
        self.quota_bytes = quota_bytes
        self._shards: set[str] = set()
        self._likely = frozenset(likely)
        self._held = store.size()
        self._decoded = self._found = 0
        self._pinned = time.monotonic()
        self._swept = -math.inf
        if self._likely:
            self._pin()

    def note(self, place: Place | None, *, decoded: bool) -> bool:
        """Takes notice of one medium, or of none; whether it is still there.

        A medium waits until all before it have arrived, and the store may give it up meanwhile for another run.

        Raises:
            StorageError: see `AvStore.evict`.
        """
        if place is None:
            return True
        if place.shard not in self._shards:
            if not self.store.touch([place.shard]):
                return False
            self._shards.add(place.shard)
            self._held += self.store.bytes_of(place.shard) if decoded else 0
        self._decoded += decoded
        self._found += not decoded
        if self._held > self.quota_bytes:
            self._make_room()
        elif time.monotonic() - self._pinned > _PIN_EVERY_S:
            self._pin()
        return True

    def close(self) -> None:
        """Pins what the run refers to, and makes room.

        Raises:
            StorageError: see `AvStore.evict`.
        """
        self._likely = frozenset()
        self._make_room()

    def _make_room(self) -> None:
        self._pin()
        sweep = time.monotonic() - self._swept > _SWEEP_EVERY_S
        if sweep:
            self._swept = time.monotonic()
        self._held = self.store.evict(self.quota_bytes, sweep=sweep)

    def counts(self) -> dict[str, int]:
        """Media decoded now, and media that the store had."""
        return {"decoded": self._decoded, "found": self._found}

    def _pin(self) -> None:
        self.store.pin(self.owner, self._shards | self._likely)
        self._pinned = time.monotonic()
