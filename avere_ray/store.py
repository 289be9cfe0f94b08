"""The decoded clips of a run, read by clip_id in any process, without Ray. The media are in the project's AV store.

decoded/
  index.parquet         clip_id -> key in the AV store; digest of the media file; frames, samples, duration
  clips.parquet         the Clip records of these clips, sha256 filled in
  places.parquet        clip_id -> shard and row in the store; no part of the stage's result, since shards may move
"""

import collections
import dataclasses
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.arrow import from_row
from avere_ray.av_store import AvStore, Place
from avere_ray.errors import StageError
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import MANIFEST, atomic_path, read_drops, read_records

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

INDEX = "index.parquet"
CLIPS = "clips.parquet"
PLACES = "places.parquet"
_OPEN_SHARDS = 64
_STORE = b"store"


def write_index(folder: Path, clips: Sequence[Clip], places: Mapping[str, Place]) -> None:
    """Writes what the stage's result is: which medium each clip has. `places` by clip_id.

    Raises:
        StorageError: see `stages.atomic_path`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "clip_id": pa.array([c.clip_id for c in clips], pa.string()),
        "key": pa.array([places[c.clip_id].medium.key for c in clips], pa.string()),
        "sha256": pa.array([c.sha256 for c in clips], pa.string()),
        "frames": pa.array([places[c.clip_id].medium.frames for c in clips], pa.int32()),
        "samples": pa.array([places[c.clip_id].medium.samples for c in clips], pa.int64()),
        "duration_s": pa.array([places[c.clip_id].medium.duration_s for c in clips], pa.float64()),
    }
    with atomic_path(folder / INDEX) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")


def write_places(folder: Path, store: AvStore, places: Mapping[str, Place]) -> None:
    """Writes where the media are; the store's folder relative to the run where it is beside it, so that both may move.

    Raises:
        StorageError: see `stages.atomic_path`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = store.folder.is_relative_to(folder.absolute().parent.parent)
    where = os.path.relpath(store.folder, folder.absolute()) if beside else str(store.folder)
    columns = {
        "clip_id": pa.array(list(places), pa.string()),
        "shard": pa.array([p.shard for p in places.values()], pa.string()),
        "row": pa.array([p.row for p in places.values()], pa.int32()),
    }
    table = pa.table(columns).replace_schema_metadata({_STORE: where.encode()})
    with atomic_path(folder / PLACES) as partial:
        pq.write_table(table, partial, compression="zstd")


def is_complete(folder: Path) -> bool:
    """Whether the store still has every medium that a finished decode stage refers to."""
    if not (folder / PLACES).is_file():
        return False
    places = _read_places(folder)
    return places.store.holds(places.shards())


def hold(folder: Path) -> bool:
    """Keeps every medium that a finished decode stage refers to for the run whose decoded folder is `folder` now (it
    may have been renamed or copied since it was decoded), as used just now; whether all of them are there.

    Raises:
        StageError: the folder's places cannot be read.
        StorageError: the store cannot be written.
    """
    places = _read_places(folder)
    places.store.pin(folder, places.shards())
    return places.store.touch(places.shards())


@dataclass(frozen=True, slots=True)
class _Places:
    store: AvStore
    by_clip: dict[str, tuple[str, int]]

    def shards(self) -> set[str]:
        return {shard for shard, _ in self.by_clip.values()}


def _read_places(folder: Path) -> _Places:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder / PLACES)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(folder, folder / PLACES, error) from error
    where = Path(os.path.normpath(folder.absolute() / table.schema.metadata[_STORE].decode()))
    ids, shards, rows = (table[name].to_pylist() for name in ("clip_id", "shard", "row"))
    return _Places(AvStore(where), dict(zip(ids, zip(shards, rows, strict=True), strict=True)))


def _unreadable(folder: Path, path: Path, error: BaseException) -> StageError:
    return StageError(
        f"cannot read {path}: {error}. Run `avere-ray decode` with the run's config again: what the store has lost "
        f"is decoded once more. If that does not help, delete the folder {folder} first."
    )


def _unreadable_shard(path: Path, error: BaseException) -> StageError:
    """The error for a shard; the store gives it up if it is damaged, since it would be handed out for ever."""
    if AvStore(path.parent.parent).give_up_damaged(f"{path.parent.name}/{path.stem}"):
        what = "It was damaged, and the store has given it up"
    else:
        what = f"If the file is there and stays unreadable, delete {path}" if path.is_file() else "It is gone"
    return StageError(
        f"cannot read {path}: {str(error).strip()}. {what}. Run `avere-ray decode` with the run's config again: what "
        "the store has lost is decoded once more."
    )


class DecodedStore:
    """Decoded clips of a finished decode stage, by clip_id: `store[clip_id]`, `clip_id in store`, `len(store)`.

    Pickles as its folder alone, and opens files when first asked; safe to share between threads of a process.

    Raises:
        StageError: on first use, when the folder holds no finished decode stage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        self._lock = threading.Lock()
        self._places: _Places | None = None
        self._early: dict[str, tuple[Path, int]] = {}
        self._open: collections.OrderedDict[str, pq.ParquetFile] = collections.OrderedDict()

    def __getitem__(self, clip_id: str) -> DecodedClip:
        """One decoded clip; its arrays are read-only.

        Raises:
            StageError: the clip was dropped, and the message says why; or the store has given it up meanwhile, or does
                so now because it is damaged.
        """
        path, row = self._early.get(clip_id) or self._find(clip_id)
        with self._lock:
            table = self._read(path, row)
        return dataclasses.replace(from_row(DecodedClip, table.to_pylist()[0]), clip_id=clip_id)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._index().by_clip

    def __len__(self) -> int:
        return len(self._index().by_clip)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index().by_clip)

    def __reduce__(self) -> tuple[type["DecodedStore"], tuple[Path]]:
        return DecodedStore, (self.folder,)

    def ids(self) -> list[str]:
        """Clip ids in corpus order."""
        return list(self._index().by_clip)

    def clips(self) -> list[Clip]:
        """The clips as annotated, in corpus order, with the sha256 of their media files."""
        self._index()
        return read_records(self.folder / CLIPS, Clip)

    def durations_s(self) -> dict[str, float]:
        """Length of each clip in seconds, by clip id."""
        import pyarrow.parquet as pq

        self._index()
        table = pq.read_table(self.folder / INDEX, columns=["clip_id", "duration_s"])
        return dict(zip(table["clip_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True))

    def largest_bytes(self) -> int:
        """About the memory of the longest clip: its waveform's, and the frames of the first clip; 0 without any."""
        durations = self.durations_s()
        if not durations:
            return 0
        first = self[next(iter(durations))]
        per_second = first.waveform.nbytes / max(first.duration_s, 1e-3)
        return first.frames.nbytes + math.ceil(per_second * max(durations.values()))

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """Makes clips readable before the stage has finished: shard file and row, by clip id."""
        self._early.update(places)

    def _find(self, clip_id: str) -> tuple[Path, int]:
        places = self._index()
        place = places.by_clip.get(clip_id)
        if place is None:
            raise StageError(self._absent(clip_id))
        return places.store.shard_path(place[0]), place[1]

    def _index(self) -> _Places:
        with self._lock:
            if self._places is None:
                if not (self.folder / MANIFEST).is_file():
                    raise StageError(f"{self.folder} holds no finished decode stage. Run `avere-ray decode` first.")
                self._places = _read_places(self.folder)
            return self._places

    def _read(self, path: Path, row: int) -> "pa.Table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        key = str(path)
        try:
            if key not in self._open:
                self._open[key] = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
                if len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(key)
            return self._open[key].read_row_group(row)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable_shard(path, error) from error

    def _absent(self, clip_id: str) -> str:
        drop = next((d for d in read_drops(self.folder) if d.sample_id == clip_id), None)
        why = f"it was dropped ({drop.reason}): {drop.message}" if drop else "it belongs to another corpus"
        return f"clip {clip_id!r} is not among the {len(self)} decoded clips of {self.folder}; {why}"
