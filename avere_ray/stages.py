"""Stage folders: each stage reads the previous one, writes its own, and writes its manifest last.

A folder whose `manifest.json` exists and carries the key of the current inputs is finished and is not run again.
Every file is written beside its final name as `*.partial` and moved into place, so a full disk or a kill leaves
either the old state or the new one.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import avere_ray
from avere_ray.arrow import from_table, to_table
from avere_ray.errors import StageError, StorageError
from avere_ray.records import Drop

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
DROPS = "drops.parquet"

_R = TypeVar("_R")
_NO_ROOM = 1 << 20
"""Bytes free on a disk that counts as full, where a library does not say what went wrong."""


def digest(*parts: Any) -> str:
    """SHA-256 (hex, 32 characters) of JSON-serialisable parts; equal parts give equal digests on any machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_OF_MODEL = (
    "*.safetensors",
    "config.json",
    "*processor_config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "*_tokens*.json",
    "chat_template*",
)
"""Files of a model folder, as transformers names them."""


def model_digest(folder: Path) -> str:
    """Digest of all that decides what a model makes of a question: weights, config, media processing, tokenizer and
    chat template; an adapter is tied to it. Files are read once in a process."""
    files = {path for pattern in _OF_MODEL for path in folder.glob(pattern)}
    stats = [(f, f.stat()) for f in sorted(files) if f.is_file()]
    return _digest_of_files(tuple((f, stat.st_size, stat.st_mtime_ns) for f, stat in stats))


@functools.lru_cache(maxsize=16)
def _digest_of_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    return digest([(file.name, file_digest(file)) for file, _, _ in files])


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary name in the same folder and moves it to `path` when the block ends without error.

    Raises:
        StorageError: the disk is full or the folder cannot be written; nothing is left at `path`.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, StorageError):
            raise
        raise storage_error(path, error) from error
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically.

    Raises:
        StorageError: see `atomic_path`.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically; keys keep their order.

    Raises:
        StorageError: see `atomic_path`.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_records(path: Path, record: type[_R], rows: Iterable[_R]) -> int:
    """Writes records as one Parquet file, atomically; returns how many.

    Raises:
        StorageError: see `atomic_path`.
    """
    import pyarrow.parquet as pq

    table = to_table(record, rows)
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return table.num_rows


def read_records(path: Path, record: type[_R]) -> list[_R]:
    """Records of a Parquet file written by `write_records`.

    Raises:
        StageError: the file is missing or is not such a file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return from_table(record, pq.read_table(path))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StageError(
            f"cannot read {record.__name__} records from {path}: {error}. "
            f"Delete the folder {path.parent} and run the stage again."
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class StageManifest:
    """What a finished stage did. `inputs == used + dropped` always holds."""

    stage: str
    key: str
    inputs: int
    used: int
    dropped: int
    seconds: float
    output_digest: str
    files: dict[str, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    version: str = avere_ray.__version__


class StageFolder:
    """One stage's folder in a run: asks whether it is finished, writes its files, and finishes it.

    `key` is the digest of everything the stage's result depends on: its part of the config and the
    `output_digest` of the stages it reads.
    """

    def __init__(self, path: Path, *, stage: str, key: str, config: str = "") -> None:
        """`config`: the resolved configuration as YAML, stored beside the result; it does not enter its digest."""
        self.path = path
        self.config = config
        self.stage = stage
        self.key = key
        self._started = time.monotonic()

    def finished(self) -> StageManifest | None:
        """The manifest, when the stage finished with this very key; else None."""
        manifest = read_manifest(self.path)
        return manifest if manifest is not None and manifest.key == self.key else None

    def begin(self, since: float | None = None) -> None:
        """Removes what an earlier, unfinished or outdated run of the stage left, and starts the clock.

        `since`: when the work began (monotonic seconds), where that was before.
        """
        if self.path.exists():
            shutil.rmtree(self.path)
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise storage_error(self.path, error) from error
        self._started = time.monotonic() if since is None else since

    def write(self, name: str, record: type[_R], rows: Iterable[_R]) -> int:
        """Writes `<name>.parquet`; returns how many records."""
        return write_records(self.path / f"{name}.parquet", record, rows)

    def read(self, name: str, record: type[_R]) -> list[_R]:
        """Reads `<name>.parquet`."""
        return read_records(self.path / f"{name}.parquet", record)

    def finish(
        self, *, inputs: int, used: int, drops: Sequence[Drop] = (), summary: dict[str, Any] | None = None
    ) -> StageManifest:
        """Stores the drops, checks that every input is accounted for, and writes the manifest last.

        Raises:
            StageError: `inputs` is not `used` plus the number of drops.
            StorageError: see `atomic_path`.
        """
        if inputs != used + len(drops):
            raise StageError(
                f"stage {self.stage}: {inputs} inputs but {used} used and {len(drops)} dropped; "
                "an input was lost without a reason"
            )
        if drops:
            write_records(self.path / DROPS, Drop, drops)
        files = {
            p.relative_to(self.path).as_posix(): file_digest(p)
            for p in sorted(self.path.rglob("*"))
            if p.is_file() and p.name not in (MANIFEST, CONFIG)
        }
        manifest = StageManifest(
            stage=self.stage,
            key=self.key,
            inputs=inputs,
            used=used,
            dropped=len(drops),
            files=files,
            output_digest=digest(self.stage, _result(files, drops)),
            seconds=round(time.monotonic() - self._started, 3),
            summary=summary or {},
        )
        if self.config:
            write_text(self.path / CONFIG, self.config)
        write_json(self.path / MANIFEST, dataclasses.asdict(manifest))
        return manifest


def _result(files: dict[str, str], drops: Sequence[Drop]) -> dict[str, Any]:
    """What later stages depend on: of the drops only which inputs they are, since a message may tell times or counts
    that differ from one attempt to the next."""
    return {**files, DROPS: [drop.sample_id for drop in drops]} if drops else files


def read_manifest(folder: Path) -> StageManifest | None:
    """The manifest of a stage folder, or None when the stage has not finished.

    Raises:
        StageError: the file exists but is not a manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return StageManifest(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise StageError(
            f"{path} is not a stage manifest ({error}). Delete the folder {folder} and run the stage again."
        ) from error


def read_drops(folder: Path) -> list[Drop]:
    """The drops a finished stage recorded."""
    path = folder / DROPS
    return read_records(path, Drop) if path.is_file() else []


def storage_error(path: Path, error: OSError) -> StorageError:
    """An OSError met while writing `path`, in words a person can act on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, remedy = "the disk is full", "Free some space, or set run_dir to another disk, and run again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what, remedy = "the folder cannot be written", "Change its permissions or set run_dir elsewhere"
    else:
        what, remedy = str(error), "Check the disk and run again"
    return StorageError(f"cannot write {path}: {what}. {remedy}; finished stages are kept.")


@contextlib.contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Around another library that writes to `folder`: what it raises because the disk is full becomes a StorageError.

    safetensors and torch raise errors of their own, of which torch's says nothing of the disk.

    Raises:
        StorageError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, StorageError) or not _is_full(folder, error):
            raise
        raise storage_error(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error


def _is_full(folder: Path, error: Exception) -> bool:
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
        return True
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(place).free < _NO_ROOM


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
