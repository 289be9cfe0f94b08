"""What a round needs to go on as if nothing had happened, in a folder whose manifest is written last.

    checkpoints/round=K/
      job.json            whose checkpoints these are, and where the round's metrics begin in the spool
      pairs.parquet       the pairs it trains on, and their lengths in sizes.json
      step=000040/
        adapter/          peft format with the full model's key names (not with full fine-tuning)
        deepspeed/        trained weights and optimizer, as DeepSpeed shards them
        rng-0.pt ...      random number generators of each worker
        manifest.json     step, data cursor, controller, MLflow run id, sizes of all files

A folder without a manifest, or with a file of another size, is no checkpoint. A step number is how many optimizer steps
are done.
"""

import dataclasses
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avere_ray.errors import TrainingError
from avere_ray.metrics import MetricSpool, read_events
from avere_ray.stages import MANIFEST, write_json

NOTE = "job.json"
ADAPTER, STATE = "adapter", "deepspeed"
_READ_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The manifest of one checkpoint."""

    step: int
    """Optimizer steps of the round that are done."""
    cursor: int
    """Pairs of the round that are done, over all epochs."""
    epoch: float
    """Passes over the pairs that are done."""
    key: str
    """Digest of everything that decides what comes out; see `TrainJob.key`."""
    world: int
    """Workers that wrote it."""
    zero_stage: int
    dtype: str
    base_digest: str
    """Digest of the base weights it belongs to."""
    mlflow_run_id: str | None
    controller: dict[str, Any] = field(default_factory=dict)
    """State of the text-prior controller; empty when the strength is fixed."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last step."""
    files: dict[str, int] = field(default_factory=dict)
    """Size in bytes of every file, by path within the folder."""


def step_folder(root: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` steps."""
    return root / f"step={step:06d}"


def saved(root: Path) -> list[Checkpoint]:
    """The complete checkpoints of a folder, oldest first."""
    found = (_read(path) for path in sorted(root.glob("step=*")))
    return [checkpoint for checkpoint in found if checkpoint is not None]


def latest(root: Path) -> Checkpoint | None:
    """The checkpoint to go on from."""
    return max(saved(root), key=lambda c: c.step, default=None)


def finish(folder: Path, checkpoint: Checkpoint) -> Checkpoint:
    """Writes the manifest, after every other file of the folder; returns it with the files' sizes.

    Raises:
        StorageError: it cannot be written.
    """
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    files.pop(MANIFEST, None)
    whole = dataclasses.replace(checkpoint, files=files)
    write_json(folder / MANIFEST, dataclasses.asdict(whole))
    return whole


def prune(root: Path, keep: int, by: str) -> None:
    """Removes all but the latest checkpoint and the `keep` best by the metric `by` (a loss: the lowest), and leftovers.

    A checkpoint's manifest goes first, so that a kill in between leaves no half checkpoint.
    """
    complete = saved(root)
    sign = 1.0 if by.startswith("loss") else -1.0
    best = sorted(complete, key=lambda c: (sign * c.metrics.get(by, float("inf") * sign), -c.step))[:keep]
    kept = {step_folder(root, c.step) for c in [*best, *complete[-1:]]}
    for path in sorted(root.glob("step=*")):
        if path not in kept:
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def claim(
    root: Path, *, key: str, world: int, zero_stage: int, base_digest: str, dtype: str, spool: Path
) -> Checkpoint | None:
    """Makes the folder ready for a round: what it can go on from is returned, what belongs to other settings removed.

    Raises:
        TrainingError: the checkpoints are of the same round with another number of workers or ZeRO stage, whose
            shards do not fit, of another base, or of another dtype.
    """
    note, found = _note(root), latest(root)
    going_on = not note["finished"] and note["key"] == key
    if going_on and found is not None:
        _check_weights(root, found, base_digest=base_digest, dtype=dtype)
        _check_shards(root, found, world=world, zero_stage=zero_stage)
    elif not going_on or (note["world"], note["zero_stage"]) != (world, zero_stage):
        shutil.rmtree(root, ignore_errors=True)
        begin = spool.stat().st_size if spool.is_file() else 0
        note = {"key": key, "world": world, "zero_stage": zero_stage, "spool_begin": begin, "finished": False}
        found = None
    write_json(root / NOTE, {**note, "attempt": uuid.uuid4().hex})
    return found


def attempt(root: Path) -> str:
    """Which start of the round the folder belongs to now; workers of an earlier one must not write any more."""
    return _note(root)["attempt"]


def close(root: Path) -> None:
    """Notes that the round is finished: its checkpoints are kept, but no later run goes on from them."""
    write_json(root / NOTE, {**_note(root), "finished": True})


def last_logged(root: Path, spool: Path) -> int:
    """Last metric step that this round has in its spool; -1 when there is none.

    A replayed step repeats its values exactly, so it is not logged a second time: the spool only ever grows, and what
    has been sent from it stays true.
    """
    offset, last = _note(root)["spool_begin"], -1
    while events := read_events(spool, offset, limit=_READ_AT_ONCE):
        offset = events[-1].end
        last = max([last, *(e.body["step"] for e in events if e.kind == "metrics")])
    return last


class ReplaySafeSpool:
    """Logs each step of a round once, however often it is run."""

    def __init__(self, folder: Path, writer: str, root: Path, source: str) -> None:
        """
        Args:
            root: the round's checkpoint folder.
            source: key of the stage that the figures come from.
        """
        self._spool, self._source = MetricSpool(folder, writer), source
        self._last = last_logged(root, self._spool.path)

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Appends one metrics event unless the step is there.

        Raises:
            StorageError: the spool cannot be written.
        """
        if step > self._last:
            self._spool.log(metrics, step=step, source=self._source)
            self._last = step


def _check_weights(root: Path, found: Checkpoint, *, base_digest: str, dtype: str) -> None:
    if found.base_digest != base_digest:
        raise TrainingError(
            f"the checkpoints in {root} were written for another base model (digest {found.base_digest}, "
            f"model.path has {base_digest}). Set model.path back, or delete {root} to start the round again."
        )
    if found.dtype != dtype:
        raise TrainingError(
            f"the checkpoint after step {found.step} in {root} was trained in {found.dtype}, but model.dtype is "
            f"{dtype}; weights and optimizer do not go on in another precision. "
            f"Set model.dtype={found.dtype} to go on, or delete {root} to start the round again."
        )


def _check_shards(root: Path, found: Checkpoint, *, world: int, zero_stage: int) -> None:
    if (found.world, found.zero_stage) != (world, zero_stage):
        raise TrainingError(
            f"the checkpoint after step {found.step} in {root} was written by {found.world} worker(s) with ZeRO stage "
            f"{found.zero_stage}; its optimizer shards do not fit {world} worker(s) with stage {zero_stage}. Set "
            f"train.workers={found.world} and train.zero_stage={found.zero_stage} to go on, or delete {root} to start "
            "the round again."
        )


def _note(root: Path) -> dict[str, Any]:
    """Contents of the note; with an empty key when there is none."""
    try:
        return json.loads((root / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"key": "", "world": 0, "zero_stage": 0, "spool_begin": 0, "finished": True, "attempt": ""}


def _read(folder: Path) -> Checkpoint | None:
    try:
        checkpoint = Checkpoint(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        whole = all((folder / name).stat().st_size == size for name, size in checkpoint.files.items())
    except (OSError, ValueError, TypeError):
        return None
    return checkpoint if whole else None
