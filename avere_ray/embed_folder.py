"""Tower outputs on disk: one file each, by key, within a quota."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from avere_ray.stages import storage_error

_PARTIAL = ".partial"
_LEFTOVER_S = 3600.0
"""Partial files older than this belong to processes that are gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One medium's tower output."""

    vectors: torch.Tensor
    """[tokens, D]."""
    grid_thw: tuple[int, int, int]
    """Patches over time, height, width; zeros for audio."""


class EmbedFolder:
    """Tower outputs on disk, one file each, within a quota; the least recently used go first.

    Several processes may share a folder: files appear whole, and one that another process has removed is a miss.
    """

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self.folder, self.quota = folder, quota_bytes
        self._written = 0
        self._room: int | None = None

    def get(self, key: str) -> Encoded | None:
        """The entry, or None when it is not there; a file that cannot be read (a power cut) goes, and is made anew."""
        from safetensors import SafetensorError, safe_open

        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                grid = tuple(int(x) for x in file.metadata()["grid_thw"].split(","))
                found = Encoded(vectors=file.get_tensor("vectors"), grid_thw=(grid[0], grid[1], grid[2]))
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError):
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # another process removed it, or may read it only
            os.utime(path)
        return found

    def put(self, key: str, entry: Encoded) -> None:
        """Writes an entry, and removes old ones when the quota is reached.

        Two processes may write the same entry at the same moment, so each has a partial file of its own.

        Raises:
            StorageError: it cannot be written, for instance because the disk is full.
        """
        from safetensors.torch import save

        path = self._path(key)
        vectors = entry.vectors.detach().cpu().contiguous()
        data = save({"vectors": vectors}, metadata={"grid_thw": ",".join(map(str, entry.grid_thw))})
        partial = path.with_name(f"{key}.{os.getpid()}-{uuid.uuid4().hex[:8]}{_PARTIAL}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise storage_error(path, error) from error
        self._written += len(data)
        if self._room is None or self._written > self._room:
            self._make_room()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _make_room(self) -> None:
        """Removes the least recently used entries until at most nine tenths of the quota are in use."""
        for left in self.folder.glob(f"*/*{_PARTIAL}"):
            if time.time() - _modified(left) > _LEFTOVER_S:
                left.unlink(missing_ok=True)
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        wanted = total if total <= self.quota else self.quota - self.quota // 10
        for _, size, path in entries:
            if total <= wanted:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._written, self._room = 0, max(0, self.quota - total) // 2

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("*/*.safetensors"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            yield stat.st_mtime, stat.st_size, path


def _modified(path: Path) -> float:
    """When a file was written last; now when it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
