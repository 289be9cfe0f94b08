"""Preference pairs to an adapter: one round of AVEm-DPO with Ray Train and DeepSpeed.

Reads RUN/pairs and RUN/reference of the round, goes on from the adapter of the round before, writes RUN/adapters.
"""

import contextlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from avere_ray.backbones import model_digest
from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.learner import TrainJob, checkpoints, count_steps, preflight, run_training
from avere_ray.learner.job import FIRST_PAIR, SIZES
from avere_ray.ledger import Ledger
from avere_ray.progress import reused, say, stage_progress
from avere_ray.protocols import ProgressFn
from avere_ray.records import AdapterManifest, PreferencePair
from avere_ray.stages import StageFolder, StageManifest, digest, read_records, write_json, write_records
from jobs.command import run_command
from jobs.layout import feature_path, finished, logp_path, next_round, require, stage_path
from jobs.room import check_room
from jobs.session import ray_session

_LOOK_EVERY_S = 1.0
_NOT_IN_KEY = {
    "deadline_s",
    "cpus_per_worker",
    "use_gpu",
    "gpus_per_worker",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_by",
    "max_failures",
}
"""Settings that change where and how long a round trains, not what comes out."""
_SHARING = {"workers", "zero_stage", "offload_optimizer"}
"""Settings of how the work is shared: another result in the last digits, but the same training."""


Fit = Callable[[RunConfig, TrainJob], AdapterManifest]
"""How a job is trained: `learner.run_training`, or elsewhere in the same way."""


def run(cfg: RunConfig, round_: int | None = None, fit: Fit = run_training, title: str = "") -> StageManifest:
    """Trains a round, from its latest checkpoint if an earlier run left one; or returns the manifest of the time it was
    done. The next round to do when None is named.

    Raises:
        StageError: the round's pairs or reference figures are missing.
        DropBudgetExceeded: more pairs cannot be trained on than data.drop_budget allows.
        TrainingError, ModelError: see `avere_ray.learner.run_training`.
    """
    if round_ is None:
        with ray_session(cfg.ray):
            check_room(cfg, "train")
            return run(cfg, next_round(cfg))
    inputs = _inputs(cfg, round_)
    folder = _folder(cfg, round_, inputs)
    if (manifest := folder.finished()) is not None:
        reused(f"training of round {round_}", manifest.used, "pairs")
        return manifest
    folder.begin()
    job = _job(cfg, round_, folder, inputs)
    checkpoint = checkpoints.claim(
        job.checkpoints,
        key=job.key,
        world=cfg.train.workers,
        zero_stage=cfg.train.zero_stage,
        base_digest=job.base_digest,
        dtype=cfg.model.dtype,
        spool=job.spool / f"{job.writer}.jsonl",
    )
    if checkpoint is not None:
        say(f"train (round {round_}): goes on from the checkpoint after step {checkpoint.step} in {job.checkpoints}")
    return _train(cfg, job, folder, fit, title or f"train (round {round_})")


def is_finished(cfg: RunConfig, round_: int) -> bool:
    """Whether a round has been trained with these very settings, on what its inputs are now.

    Raises:
        StageError: the round's pairs, clips or reference figures are missing.
    """
    return _folder(cfg, round_, _inputs(cfg, round_)).finished() is not None


def _inputs(cfg: RunConfig, round_: int) -> tuple[str, ...]:
    """Digests of what a round learns from: pairs, reference, the adapter of the round before, decoded clips."""
    pairs = require(cfg, "pairs", round_).output_digest
    stored = cfg.train.reference_source == "precomputed"
    reference = require(cfg, "reference", round_).output_digest if stored else model_digest(cfg.model.path)
    before = require(cfg, "adapters", round_ - 1).output_digest if round_ else ""
    return pairs, reference, before, require(cfg, "decoded").output_digest


def _folder(cfg: RunConfig, round_: int, inputs: Sequence[str]) -> StageFolder:
    key = _key(cfg, (*inputs, cfg.model.dtype), _NOT_IN_KEY)
    return StageFolder(stage_path(cfg, "adapters", round_), stage="adapters", config=cfg.to_yaml(), key=key)


def _key(cfg: RunConfig, inputs: Sequence[str], left_out: set[str]) -> str:
    return digest("adapters", *inputs, cfg.loss.model_dump(), cfg.train.model_dump(exclude=left_out), cfg.seed)


def _job(cfg: RunConfig, round_: int, folder: StageFolder, inputs: Sequence[str]) -> TrainJob:
    from avere_ray.media import spec_digest

    return TrainJob(
        reference=stage_path(cfg, "reference", round_) / "reference.parquet",
        decoded=stage_path(cfg, "decoded"),
        start=stage_path(cfg, "adapters", round_ - 1) if round_ else None,
        out=folder.path,
        checkpoints=stage_path(cfg, "checkpoints", round_),
        spool=stage_path(cfg, "metrics"),
        source=folder.key,
        scratch=stage_path(cfg, ".ray_train"),
        mlflow=cfg.run_dir.absolute() / "mlflow.json",
        features=feature_path(cfg),
        logps=logp_path(cfg),
        round=round_,
        first_step=steps_before(cfg, round_),
        key=_key(cfg, inputs, _NOT_IN_KEY | _SHARING),
        base_digest=model_digest(cfg.model.path),
        decode_spec=spec_digest(cfg.data.decode),
        data_digest=digest(*inputs[:2]),
    )


def _train(cfg: RunConfig, job: TrainJob, folder: StageFolder, fit: Fit, title: str) -> StageManifest:
    ledger = Ledger("adapters")
    inputs = read_records(stage_path(cfg, "pairs", job.round) / "pairs.parquet", PreferencePair)
    usable = _usable_pairs(cfg, job, inputs, ledger)
    steps = count_steps(len(usable), cfg.train.epochs, cfg.train.pairs_per_step)
    say(
        f"{title}: {len(usable)} pairs, {cfg.train.workers} worker{'s' * (cfg.train.workers > 1)}, "
        f"ZeRO-{cfg.train.zero_stage}; {steps} steps"
    )
    model = cfg.model.model_copy(update={"path": cfg.model.path.absolute()})
    with _shown_progress(job, steps, title):
        adapter = fit(cfg.model_copy(update={"model": model}), job)
    shutil.rmtree(job.scratch, ignore_errors=True)
    manifest = folder.finish(
        inputs=len(inputs),
        used=len(usable),
        drops=ledger.drops,
        summary={
            "steps": adapter.step,
            "version": adapter.version,
            "adapter": folder.path.relative_to(cfg.run_dir.absolute()).as_posix(),
        },
    )
    checkpoints.close(job.checkpoints)
    return manifest


def _usable_pairs(
    cfg: RunConfig, job: TrainJob, pairs: Sequence[PreferencePair], ledger: Ledger
) -> list[PreferencePair]:
    """The pairs that can be trained on, written with their lengths where the workers read them."""
    from avere_ray.backbones import load_processor
    from avere_ray.learner.objective import forward_passes

    lengths = preflight.Lengths(load_processor(cfg.model), job.decoded, cfg.data.decode)
    usable, sizes = preflight.check_pairs(
        pairs,
        cfg.train,
        ledger,
        passes=forward_passes(cfg.loss, adapter_off=cfg.train.reference_source == "adapter_off"),
        response_tokens=lengths.response,
        prompt_tokens=lengths.prompt,
        words_tokens=lengths.words,
    )
    ledger.check_budget(len(pairs), cfg.data.drop_budget)
    if not usable:
        raise StageError(f"none of the {len(pairs)} pairs can be trained on: {ledger.counts()}")
    write_records(job.pairs, PreferencePair, usable)
    write_json(job.checkpoints / SIZES, sizes)
    return usable


@contextlib.contextmanager
def _shown_progress(job: TrainJob, steps: int, title: str) -> Iterator[None]:
    """Shows the first pair, and how far training is, as the learner's metrics arrive."""
    ended = threading.Event()
    spool = job.spool / f"{job.writer}.jsonl"
    first = job.checkpoints / FIRST_PAIR
    first.unlink(missing_ok=True)

    def follow(progress: ProgressFn) -> None:
        shown = False
        while not ended.wait(_LOOK_EVERY_S):
            if not shown and first.is_file():
                say(first.read_text(encoding="utf-8"))
                shown = True
            progress(max(0, checkpoints.last_logged(job.checkpoints, spool) + 1 - job.first_step), steps)

    with stage_progress(title, "steps") as progress:
        thread = threading.Thread(target=follow, args=(progress,), name="train-progress", daemon=True)
        thread.start()
        try:
            yield
            progress(steps, steps)
        finally:
            ended.set()
            thread.join(timeout=5)


def steps_before(cfg: RunConfig, round_: int) -> int:
    """Optimizer steps of the rounds before this one."""
    manifests = [finished(cfg, "adapters", k) for k in range(round_)]
    return sum(m.summary["steps"] for m in manifests if m is not None)


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray train", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
