"""The store of decoded clips: written once as Parquet shards, read by clip_id in any process, without Ray.

decoded/
  shard-00000.parquet   DecodedClip records, one row group each, so that one clip is one small read
  index.parquet         clip_id -> shard, row; digest of the media file; frames, samples, duration
  clips.parquet         the Clip records of these clips, sha256 filled in
"""

import collections
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.arrow import arrow_schema, from_row
from avere_ray.errors import StageError
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import MANIFEST, atomic_path, read_drops, read_records

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

INDEX = "index.parquet"
CLIPS = "clips.parquet"
SHARD_CLIPS = 64
"""Clips per shard file."""
SHARD_BYTES = 256 * 1024 * 1024
"""A shard is closed earlier when its clips take this much memory."""
_OPEN_SHARDS = 16


def index_schema() -> "pa.Schema":
    """Arrow schema of the index: where each clip is, and what it holds."""
    import pyarrow as pa

    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("shard", pa.int32()),
            ("row", pa.int32()),
            ("sha256", pa.string()),
            ("frames", pa.int32()),
            ("samples", pa.int64()),
            ("duration_s", pa.float64()),
        ]
    )


class ShardWriter:
    """Writes decoded clips in the order given, holding one shard in memory at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pending: list[pa.Table] = []
        self._index: list[dict[str, Any]] = []
        self._shards = 0

    def add(self, row: "pa.Table", sha256: str) -> None:
        """Adds one clip: a table of one DecodedClip row, and the digest of its media file.

        Raises:
            StorageError: see `stages.atomic_path`.
        """
        row = row.select(arrow_schema(DecodedClip).names)
        self._index.append(
            {
                "clip_id": row["clip_id"][0].as_py(),
                "shard": self._shards,
                "row": len(self._pending),
                "sha256": sha256,
                "frames": row["frames_shape"][0][0].as_py(),
                "samples": row["waveform_shape"][0][0].as_py(),
                "duration_s": row["duration_s"][0].as_py(),
            }
        )
        self._pending.append(row)
        if len(self._pending) == SHARD_CLIPS or sum(t.nbytes for t in self._pending) >= SHARD_BYTES:
            self._flush()

    def close(self) -> None:
        """Writes the last shard and the index.

        Raises:
            StorageError: see `stages.atomic_path`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._pending:
            self._flush()
        with atomic_path(self.folder / INDEX) as partial:
            pq.write_table(pa.Table.from_pylist(self._index, schema=index_schema()), partial, compression="zstd")

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._pending).replace_schema_metadata(arrow_schema(DecodedClip).metadata)
        with atomic_path(self.folder / shard_name(self._shards)) as partial:
            pq.write_table(
                table, partial, row_group_size=1, compression="zstd", use_dictionary=False, write_statistics=False
            )
        self._shards += 1
        self._pending = []


class DecodedStore:
    """Decoded clips of a finished decode stage, by clip_id: `store[clip_id]`, `clip_id in store`, `len(store)`.

    Pickles as its folder alone, and opens files when first asked; safe to share between threads of a process.

    Raises:
        StageError: on first use, when the folder holds no finished decode stage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] | None = None
        self._open: collections.OrderedDict[int, pq.ParquetFile] = collections.OrderedDict()

    def __getitem__(self, clip_id: str) -> DecodedClip:
        """One decoded clip; its arrays are read-only.

        Raises:
            StageError: the clip is not in the store; the message says why it was dropped.
        """
        place = self._index().get(clip_id)
        if place is None:
            raise StageError(self._absent(clip_id))
        shard, row = place
        with self._lock:
            table = self._shard(shard).read_row_group(row)
        return from_row(DecodedClip, table.to_pylist()[0])

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._index()

    def __len__(self) -> int:
        return len(self._index())

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __reduce__(self) -> tuple[type["DecodedStore"], tuple[Path]]:
        return DecodedStore, (self.folder,)

    def ids(self) -> list[str]:
        """Clip ids in corpus order."""
        return list(self._index())

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

    def _index(self) -> dict[str, tuple[int, int]]:
        with self._lock:
            if self._places is None:
                self._places = self._read_index()
            return self._places

    def _read_index(self) -> dict[str, tuple[int, int]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not (self.folder / MANIFEST).is_file():
            raise StageError(f"{self.folder} holds no finished decode stage. Run `avere-ray decode` first.")
        try:
            table = pq.read_table(self.folder / INDEX, columns=["clip_id", "shard", "row"])
        except (OSError, pa.ArrowException) as error:
            raise self._unreadable(INDEX, error) from error
        ids, shards, rows = (column.to_pylist() for column in table.columns)
        return dict(zip(ids, zip(shards, rows, strict=True), strict=True))

    def _shard(self, number: int) -> "pq.ParquetFile":
        import pyarrow as pa
        import pyarrow.parquet as pq

        if number not in self._open:
            try:
                self._open[number] = pq.ParquetFile(self.folder / shard_name(number), memory_map=True)
            except (OSError, pa.ArrowException) as error:
                raise self._unreadable(shard_name(number), error) from error
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def _unreadable(self, name: str, error: BaseException) -> StageError:
        return StageError(
            f"cannot read {self.folder / name}: {error}. Delete the folder {self.folder} and run the stage again."
        )

    def _absent(self, clip_id: str) -> str:
        drop = next((d for d in read_drops(self.folder) if d.sample_id == clip_id), None)
        why = f"it was dropped ({drop.reason}): {drop.message}" if drop else "it belongs to another corpus"
        return f"clip {clip_id!r} is not among the {len(self)} decoded clips of {self.folder}; {why}"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.parquet"
