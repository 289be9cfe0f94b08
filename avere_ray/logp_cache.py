"""Reference figures kept over runs: append-only files of (key, values), a miss on any change of what they depend on.

A key is a digest of everything that changes the figures of one pair (see `reference.pair_key`), so nothing is ever
looked up by a name that may go stale. Every process appends to a file of its own; a record that was cut off by a kill
ends the file it is in and is counted, never used.

    record: key (32 bytes) | number of values (uint16) | values (float64 each) | CRC-32 of all before
"""

import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Self

from avere_ray.errors import StorageError

_HEAD = struct.Struct("<32sH")
_CRC = struct.Struct("<I")


class LogpCache:
    """Figures by key; opened once per process.

    Raises:
        StorageError: the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hits = self.misses = self.damaged = 0
        self._known: dict[bytes, tuple[float, ...]] = {}
        self._out: BinaryIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.logps")):
                self._read(path.read_bytes())
        except OSError as error:
            raise StorageError(f"the reference cache {folder} cannot be read: {error.strerror or error}") from error

    def get(self, key: str) -> tuple[float, ...] | None:
        """The figures of a key, or None; counts hits and misses."""
        found = self._known.get(bytes.fromhex(key))
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def put(self, key: str, values: Sequence[float]) -> None:
        """Appends figures; the record is with the operating system when this returns.

        Raises:
            ValueError: the key is not the hex form of 32 bytes.
            StorageError: the file cannot be written, for instance because the disk is full.
        """
        raw = bytes.fromhex(key)
        if len(raw) != 32:
            raise ValueError(f"a key has 32 bytes, got {len(raw)} from {key!r}")
        body = _HEAD.pack(raw, len(values)) + struct.pack(f"<{len(values)}d", *values)
        try:
            if self._out is None:
                self._out = (self.folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.logps").open("ab")
            self._out.write(body + _CRC.pack(zlib.crc32(body)))
            self._out.flush()
        except OSError as error:
            raise StorageError(
                f"the reference cache {self.folder} cannot be written: {error.strerror or error}. Free space, or set "
                "train.reference_source to precomputed."
            ) from error
        self._known[raw] = tuple(values)

    def close(self) -> None:
        """Closes the file that was appended to."""
        if self._out is not None:
            self._out.close()
            self._out = None

    def __len__(self) -> int:
        return len(self._known)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            record = _record_at(data, at)
            if record is None:
                self.damaged += 1
                return
            key, values, at = record
            self._known[key] = values


def _record_at(data: bytes, at: int) -> tuple[bytes, tuple[float, ...], int] | None:
    """Key, values and end of the record that starts at a place; None when it is cut off or damaged."""
    if at + _HEAD.size > len(data):
        return None
    key, count = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + 8 * count
    if end + _CRC.size > len(data) or _CRC.unpack_from(data, end)[0] != zlib.crc32(data[at:end]):
        return None
    return key, struct.unpack_from(f"<{count}d", data, at + _HEAD.size), end + _CRC.size
