"""The AV store: decoded media of a project, addressed by content, so that one (medium, sampling spec) is decoded once.

STORE/
  <spec>/                digest of a sampling spec and the decoder's version
    <shard>.parquet      decoded media, one row group each, so that one is one small read; never changed
    <shard>.json         written after it: the media it holds, its size and digest; a shard without it, or of
                         another size, does not exist (manifests of former versions tell no size)
  pins/<owner>.json      the shards a run refers to, as long as its folder exists
  remote/xx/<name>.json  by address: what a remote file held when it was fetched, so that it need not be fetched again;
                         by spec and key: where a medium of remote files is, so that it need not be decoded again

A medium's key is its content (the SHA-256 of its file, and of its separate audio file), and the part of it that is the
clip. Any number of processes may read and write at a time: shards have names of their own, and appear whole.

Above its quota the store gives up shards that no run refers to, those not used for longest first, until a tenth of it
is free; who misses one later decodes it again. Runs on other machines may share the store, so a run whose folder is not
to be seen counts as gone only where the folder that held it can be seen.
"""

import dataclasses
import json
import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.arrow import to_table
from avere_ray.errors import StorageError
from avere_ray.records import DecodedClip
from avere_ray.stages import atomic_path, digest, file_digest, storage_error, write_json

PINS = "pins"
YOUNG_S = 600.0
"""Shards used this recently are not removed: a run that has just written or found them may not have pinned them yet."""
LOW_WATER = 0.9
"""Share of the quota that is left when shards have been removed, so that this is not needed again at once."""
_LEFTOVER_S = 3600.0
"""Half-written files older than this belong to processes that are gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Medium:
    """One decoded medium of a shard."""

    key: str
    """See `media_key`."""
    size: int
    """Bytes of the media file; equal files have equal sizes, so this finds candidates without reading them. 0 for a
    remote file."""
    frames: int
    samples: int
    duration_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a medium is: shard as "<spec>/<name>", and its row there."""

    shard: str
    row: int
    medium: Medium


def media_key(content: str, start_s: float = 0.0, end_s: float | None = None) -> str:
    """Key of a medium (see `media.content_of`), or of the part [start, end) of it."""
    whole = start_s == 0.0 and end_s is None
    return content if whole else f"{content}@{start_s!r}-{'' if end_s is None else repr(end_s)}"


def key_content(key: str) -> str:
    """What a key says of the files."""
    return key.partition("@")[0]


def key_part(key: str) -> str:
    """What a key says of the part; "" for the whole."""
    return key.partition("@")[2]


class AvStore:
    """The store in a folder, which need not exist yet. Pickles as its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()

    def shard_path(self, shard: str) -> Path:
        """The Parquet file of a shard."""
        return self.folder / f"{shard}.parquet"

    def holds(self, shards: Collection[str]) -> bool:
        """Whether all these shards are there, each with the size it was written with."""
        return all(_is_whole(self.shard_path(shard), _read_json(self._manifest(shard))) for shard in shards)

    def places(self, spec: str) -> dict[str, Place]:
        """Every medium decoded with a spec (its digest), by key."""
        found: dict[str, Place] = {}
        for shard, media in self._shards(spec):
            for row, values in enumerate(media):
                medium = Medium(**values)
                found.setdefault(medium.key, Place(shard=shard, row=row, medium=medium))
        return found

    def add(self, spec: str, items: Sequence[tuple[str, int, DecodedClip]]) -> list[Place]:
        """Writes one shard of (key, bytes of the media file, decoded medium); returns their places.

        Raises:
            StorageError: see `stages.atomic_path`.
        """
        import pyarrow.parquet as pq

        shard = f"{spec}/{digest([key for key, _, _ in items])[:12]}-{uuid.uuid4().hex[:8]}"
        media = [_medium(key, size, clip) for key, size, clip in items]
        table = to_table(DecodedClip, [dataclasses.replace(clip, clip_id=key) for key, _, clip in items])
        with atomic_path(self.shard_path(shard)) as partial:
            options = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
            pq.write_table(table, partial, row_group_size=1, compression="zstd", **options)
            written = {"bytes": partial.stat().st_size, "sha256": file_digest(partial)}
        write_json(self._manifest(shard), {**written, "media": [dataclasses.asdict(m) for m in media]})
        return [Place(shard=shard, row=row, medium=medium) for row, medium in enumerate(media)]

    def touch(self, shards: Collection[str]) -> bool:
        """Notes that shards are used now; whether all of them are there."""
        there = True
        for shard in shards:
            try:
                os.utime(self._manifest(shard))
            except OSError:  # given up meanwhile
                there = False
        return there and self.holds(shards)

    def give_up_damaged(self, shard: str) -> bool:
        """Removes a shard whose file is not what was written, so that its media are decoded again; whether it did.

        A shard whose manifest tells no digest (of a former version), or that cannot be removed from here, stays.
        """
        path, values = self.shard_path(shard), _read_json(self._manifest(shard))
        try:
            if values is None or values.get("sha256") in (None, file_digest(path)):
                return False
            self._manifest(shard).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def pin(self, owner: Path, shards: Collection[str]) -> None:
        """Keeps shards for the run whose decoded folder is `owner`, in place of those it pinned before.

        Raises:
            StorageError: see `stages.atomic_path`.
        """
        name = digest(str(owner.absolute()))
        write_json(
            self.folder / PINS / f"{name}.json", {"folder": str(owner.absolute()), "shards": sorted(set(shards))}
        )

    def bytes_of(self, shard: str) -> int:
        """Bytes of a shard; 0 when it is gone."""
        return _bytes(self.shard_path(shard))

    def size(self) -> int:
        """Bytes of all shards."""
        return sum(_bytes(path) for path in self.folder.glob("*/*.parquet"))

    def owners(self) -> dict[str, set[str]]:
        """The shards that runs refer to, by the run's decoded folder; forgets runs that are gone."""
        owners: dict[str, set[str]] = {}
        for path in sorted((self.folder / PINS).glob("*.json")):
            values = _read_json(path)
            if values is None:
                continue
            if _is_gone(Path(values["folder"])) and time.time() - _modified(path) > YOUNG_S:
                path.unlink(missing_ok=True)
            else:
                owners[values["folder"]] = set(values["shards"])
        return owners

    def evict(self, quota_bytes: int, *, sweep: bool = True) -> int:
        """Above the quota, removes shards that no run refers to, those not used for longest first, down to LOW_WATER.

        Returns the bytes that are left.

        Args:
            sweep: also removes what killed processes left.

        Raises:
            StorageError: the quota cannot be kept, since runs refer to all the rest; the message names them.
        """
        if sweep:
            self._sweep()
        left = self.size()
        if left <= quota_bytes:
            return left
        pins = _Pins(self)
        for used, path in sorted((_modified(p), p) for p in self.folder.glob("*/*.json")):
            if left <= LOW_WATER * quota_bytes:
                break
            if path.parent.name == PINS or not self._is_idle(path, used, pins):
                continue
            size = _bytes(path.with_suffix(".parquet"))
            path.unlink(missing_ok=True)
            path.with_suffix(".parquet").unlink(missing_ok=True)
            left -= size
        if left > quota_bytes:
            raise StorageError(self._over_quota(left, quota_bytes, sorted(pins.owners())))
        return left

    def _is_idle(self, manifest: Path, used: float, pins: "_Pins") -> bool:
        """Whether a shard, used last at the time `used`, may be removed now: going through a large store takes long, so
        use and pins are looked at once more."""
        return (
            time.time() - used >= YOUNG_S and _modified(manifest) == used and self._name(manifest) not in pins.shards()
        )

    def _over_quota(self, left: int, quota_bytes: int, owners: list[str]) -> str:
        unseen = [owner for owner in owners if not Path(owner).is_dir()]
        hint = (
            f" {unseen[0]} is not to be seen from here; if it is gone, delete {self.folder / PINS}." if unseen else ""
        )
        return (
            f"the store {self.folder} holds {left / 1e9:.3f} GB, above its quota of {quota_bytes / 1e9:.3f} GB "
            f"(data.store_gb), and the rest is in use by {', '.join(owners) or 'runs that just began'}. "
            f"Raise data.store_gb, or delete the folders of runs that are no longer needed.{hint}"
        )

    def _shards(self, spec: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for path in sorted((self.folder / spec).glob("*.json")):
            values = _read_json(path)
            if values is not None and _is_whole(path.with_suffix(".parquet"), values):
                yield self._name(path), values["media"]

    def _sweep(self) -> None:
        """Removes what killed processes left: half-written files, and shards without a manifest."""
        for path in [*self.folder.glob("*/*.partial"), *self.folder.glob("*/*.parquet")]:
            whole = path.suffix == ".parquet" and path.with_suffix(".json").is_file()
            if not whole and 0 < _modified(path) < time.time() - _LEFTOVER_S:
                path.unlink(missing_ok=True)

    def _manifest(self, shard: str) -> Path:
        return self.folder / f"{shard}.json"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).with_suffix("").as_posix()


class _Pins:
    """The pins of a store, read again whenever one has been written."""

    def __init__(self, store: AvStore) -> None:
        self._store = store
        self._seen = -1
        self._owners: dict[str, set[str]] = {}
        self._shards: set[str] = set()

    def owners(self) -> dict[str, set[str]]:
        return self._read()._owners

    def shards(self) -> set[str]:
        return self._read()._shards

    def _read(self) -> "_Pins":
        folder = self._store.folder / PINS
        changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
        if changed != self._seen:
            self._seen, self._owners = changed, self._store.owners()
            self._shards = set().union(*self._owners.values())
        return self


def _is_gone(folder: Path) -> bool:
    """Whether a run's decoded folder has been deleted, and is not just on a disk that this machine does not have."""
    return not folder.is_dir() and folder.parent.parent.is_dir()


def check_writable(folder: Path) -> None:
    """Makes the folder of a store.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


def _medium(key: str, size: int, clip: DecodedClip) -> Medium:
    return Medium(
        key=key, size=size, frames=len(clip.frames), samples=len(clip.waveform), duration_s=float(clip.duration_s)
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    """The values of a file; None when another process has removed it meanwhile, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_whole(path: Path, manifest: dict[str, Any] | None) -> bool:
    """Whether a shard's file is there, with the size that its manifest tells; a former version's tells none."""
    if manifest is None or not path.is_file():
        return False
    return manifest.get("bytes") in (None, _bytes(path))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # removed meanwhile
        return 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0
