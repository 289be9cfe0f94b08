"""The one door to ray.data: clip tables in, and the stage that decodes every clip once into the store.

A manifest of ids and paths streams through CPU tasks that return sampled frames and waveforms, never whole videos; the
driver writes them into shards as they arrive and holds one shard at most. A clip that cannot be decoded, hangs or
crashes FFmpeg becomes a row with a reason; the ledger accounts for it.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from avere_ray.arrow import arrow_schema, to_row
from avere_ray.config import DataConfig, DecodeConfig
from avere_ray.errors import ClipDecodeError, InputError, StageError
from avere_ray.isolation import ChildCrashed, ChildProcess, ChildTimedOut
from avere_ray.ledger import Ledger
from avere_ray.protocols import ProgressFn
from avere_ray.records import Clip, Cue, DecodedClip
from avere_ray.stages import StageFolder, StageManifest, digest, read_drops
from avere_ray.store import ShardWriter

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

STAGE = "decode"
TABLES = ("clips.parquet", "clips.jsonl")

_MAX_BLOCK = 16
_BLOCKS_WANTED = 64
_STALL_GRACE_S = 300.0


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a folder, in the order of its table: clips.parquet, or clips.jsonl with one JSON object a line.

    The columns are the fields of `records.Clip`; clip_id and uri are required, the others may be missing or null.

    Raises:
        InputError: the folder or its table is missing, empty or unreadable, a column is unknown, a value has the wrong
            type, or a clip_id is there twice; the message names file, row and value.
    """
    if not folder.is_dir():
        raise InputError(
            f"clip folder {folder} does not exist. Set data.clips to a folder with {TABLES[0]} or "
            f"{TABLES[1]} and the media files, or leave it out to draw synthetic clips."
        )
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        what = "has no clip table" if any(folder.iterdir()) else "is empty"
        raise InputError(
            f"clip folder {folder} {what}. Put {TABLES[0]} or {TABLES[1]} there, one row per clip with at "
            "least clip_id and uri."
        )
    rows = _parquet_rows(table) if table.suffix == ".parquet" else _jsonl_rows(table)
    clips = [_clip(row, where) for where, row in rows]
    if not clips:
        raise InputError(f"{table} lists no clips. Add one row per clip with at least clip_id and uri.")
    _check_ids(clips, table)
    return clips


def clips_key(clips: Sequence[Clip], root: Path, spec: DecodeConfig) -> str:
    """Digest of everything the decode stage depends on: annotations, sampling spec, size and time of each file."""
    from avere_ray.media import spec_digest

    limits = spec.model_dump(include={"max_duration_s", "max_pixels", "max_bytes"})
    return digest(STAGE, spec_digest(spec), limits, [(to_row(c), _size_and_time(media_path(c, root))) for c in clips])


def media_path(clip: Clip, root: Path) -> Path:
    """Absolute path of a clip's media file; a relative uri is relative to the folder of the clip table."""
    return (root / clip.uri).absolute()


def decode_stage(
    clips: Sequence[Clip], root: Path, cfg: DataConfig, folder: StageFolder, progress: ProgressFn
) -> StageManifest:
    """Decodes every clip once, in parallel, into `folder` (layout: `avere_ray.store`). Needs a running Ray.

    The result does not depend on timing: clips keep their order, so equal inputs give an equal `output_digest`.
    The manifest is written before the drop budget is checked: a run with a larger budget decodes nothing again.

    Raises:
        DropBudgetExceeded: more clips were dropped than `cfg.drop_budget` allows.
        StageError: no clip at all could be decoded.
        StorageError: the folder cannot be written.
    """
    folder.begin()
    ledger = Ledger(STAGE)
    writer = ShardWriter(folder.path)
    kept: list[Clip] = []
    progress(0, len(clips))
    for done, (position, row) in enumerate(_decoded_rows(clips, root, cfg.decode), start=1):
        clip = clips[position]
        reason, sha256 = row["reason"][0].as_py(), row["sha256"][0].as_py()
        if reason:
            ledger.drop(clip.clip_id, reason, row["message"][0].as_py(), size=row["bytes"][0].as_py())
        else:
            writer.add(row, sha256)
            kept.append(_with_digest(clip, sha256))
        progress(done, len(clips))
    writer.close()
    folder.write("clips", Clip, kept)
    manifest = folder.finish(
        inputs=len(clips),
        used=len(kept),
        drops=ledger.drops,
        summary={"drops": ledger.counts(), "spec": cfg.decode.model_dump(mode="json")},
    )
    check_drops(manifest, folder.path, cfg.drop_budget)
    return manifest


def check_drops(manifest: StageManifest, folder: Path, budget: float) -> None:
    """Holds a finished decode stage against the drop budget.

    Raises:
        DropBudgetExceeded: more was dropped than the budget allows.
        StageError: nothing is left.
    """
    ledger = Ledger(manifest.stage)
    ledger.extend(read_drops(folder))
    ledger.check_budget(manifest.inputs, budget)
    if manifest.used == 0:
        example = f" For instance {ledger.drops[0].message}" if ledger.drops else ""
        raise StageError(f"none of the {manifest.inputs} clips could be decoded: {ledger.counts()}.{example}")


def _decoded_rows(clips: Sequence[Clip], root: Path, spec: DecodeConfig) -> Iterator[tuple[int, "pa.Table"]]:
    """Tables of one result row each, in clip order, as they come out of Ray Data."""
    dataset = _decode_pipeline(clips, root, spec)
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
        for index, position in enumerate(table["position"].to_pylist()):
            yield position, table.slice(index, 1)


def _decode_pipeline(clips: Sequence[Clip], root: Path, spec: DecodeConfig) -> "ray.data.Dataset":
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
    block = max(1, min(_MAX_BLOCK, len(clips) // _BLOCKS_WANTED))
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = block * spec.timeout_s + _STALL_GRACE_S
    rows = [{"position": i, "clip_id": c.clip_id, "path": str(media_path(c, root))} for i, c in enumerate(clips)]
    with ray.data.DataContext.current(context):
        manifest = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block))
        return manifest.map_batches(
            decode_batch, batch_size=block, batch_format="pyarrow", num_cpus=1, fn_kwargs={"spec": spec}
        )


@contextlib.contextmanager
def placed(labels: dict[str, str]) -> Iterator[None]:
    """Within the block, Ray Data works on nodes with these labels; without labels nothing changes."""
    import ray.data

    options = ray.data.DataContext.get_current().execution_options
    before = options.label_selector
    options.label_selector = labels or before
    try:
        yield
    finally:
        options.label_selector = before


def decode_batch(batch: "pa.Table", spec: DecodeConfig) -> Iterator["pa.Table"]:
    """The task: position, clip_id and path in; one result row per clip out, in order."""
    import pyarrow as pa

    schema = _result_schema()
    for row in batch.to_pylist():
        yield pa.Table.from_pylist([_decode_row(row, spec)], schema=schema)


def _result_schema() -> "pa.Schema":
    import pyarrow as pa

    extra = [
        ("position", pa.int64()),
        ("sha256", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("bytes", pa.int64()),
    ]
    return pa.schema([*arrow_schema(DecodedClip), *(pa.field(n, t) for n, t in extra)])


def _decode_row(row: dict[str, Any], spec: DecodeConfig) -> dict[str, Any]:
    path = Path(row["path"])
    clip = Clip(clip_id=row["clip_id"], uri=row["path"])
    try:
        decoded, sha256 = decode_isolated(clip, path, spec)
    except ClipDecodeError as error:
        size, _ = _size_and_time(path)
        return {
            "position": row["position"],
            "clip_id": clip.clip_id,
            "reason": error.reason,
            "message": error.message,
            "bytes": size,
        }
    return {**to_row(decoded), "position": row["position"], "sha256": sha256, "reason": "", "message": "", "bytes": 0}


def decode_isolated(clip: Clip, path: Path, spec: DecodeConfig) -> tuple[DecodedClip, str]:
    """`media.decode_with_digest` in a child process that is killed when it hangs.

    Raises:
        ClipDecodeError: as `media.decode_clip`; besides "timeout" when the child had to be killed, and
            "decoder_crashed" when it died.
    """
    from avere_ray.media import decode_with_digest

    try:
        return _decoder_child().call(spec.timeout_s, decode_with_digest, clip, path, spec)
    except ChildTimedOut as error:
        raise ClipDecodeError(
            "timeout",
            f"{path}: decoding took longer than {spec.timeout_s:g} s and was killed. Cut "
            "or re-encode the file, or raise data.decode.timeout_s.",
        ) from error
    except ChildCrashed as error:
        raise ClipDecodeError(
            "decoder_crashed",
            f"{path}: the decoder crashed on it ({error}). The file is damaged or hostile; re-encode or remove it.",
        ) from error


@functools.cache
def _decoder_child() -> ChildProcess:
    """One child per worker process; it leaves when idle."""
    return ChildProcess(preload=("avere_ray.media",))


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}. It must be a Parquet file; write it again.") from error
    _check_columns(table.column_names, str(path))
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path} row {number}", row


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}. It must be UTF-8 text, one JSON object a line.") from error
    for number, line in enumerate(lines, start=1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is not JSON ({error}); each line must be one JSON object.") from error
        if not isinstance(row, dict):
            raise InputError(f"{where} holds {line.strip()[:40]!r}; each line must be one JSON object.")
        _check_columns(row, where)
        yield where, row


def _check_columns(names: Sequence[str] | dict[str, Any], where: str, record: type = Clip) -> None:
    allowed = list(record.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise InputError(
            f"{where}: unknown column {unknown[0]!r} of a {record.__name__}. "
            f"Allowed: {', '.join(allowed)}. Rename or remove it."
        )


def _clip(row: dict[str, Any], where: str) -> Clip:
    for cue in row.get("cues") or ():
        if isinstance(cue, dict):
            _check_columns(cue, where, Cue)
    try:
        clip = _clip_type().validate_python({k: v for k, v in row.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(str(part) for part in first["loc"])
        value = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise InputError(f"{where}: column {column}{value}: {first['msg']}. Correct the row.") from error
    if not clip.clip_id or not clip.uri:
        raise InputError(f"{where}: clip_id = {clip.clip_id!r}, uri = {clip.uri!r}; neither may be empty.")
    if "://" in clip.uri:
        raise InputError(f"{where}: uri = {clip.uri!r} is remote; copy the file and give its local path.")
    return clip


@functools.cache
def _clip_type() -> TypeAdapter[Clip]:
    return TypeAdapter(Clip)


def _check_ids(clips: Sequence[Clip], table: Path) -> None:
    seen: dict[str, int] = {}
    for number, clip in enumerate(clips, start=1):
        first = seen.setdefault(clip.clip_id, number)
        if first != number:
            raise InputError(
                f"{table}: clip_id {clip.clip_id!r} is there twice, as clips {first} and {number}. Each "
                "clip needs its own id; rename or remove one."
            )


def _with_digest(clip: Clip, sha256: str) -> Clip:
    return dataclasses.replace(clip, sha256=sha256)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes and modification time (ns) of a file; zeros when it cannot be examined."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns
