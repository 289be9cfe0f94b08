"""Preference pairs to an adapter: one round of AVEm-DPO with Ray Train and DeepSpeed.

Reads RUN/pairs and RUN/reference of the round, goes on from the adapter of the round before, writes RUN/adapters.
"""

import contextlib
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from avere_ray.backbones import model_digest
from avere_ray.config import RunConfig
from avere_ray.metrics import read_events
from avere_ray.progress import reused, say, stage_progress
from avere_ray.protocols import ProgressFn
from avere_ray.stages import StageFolder, StageManifest, digest
from jobs.build_preferences import require
from jobs.command import run_command
from jobs.layout import finished, next_round, stage_path
from jobs.session import ray_session

_LOOK_EVERY_S = 1.0
_NOT_IN_KEY = {"deadline_s", "cpus_per_worker", "use_gpu"}
"""Settings that change where and how long a round trains, not what comes out."""


def run(cfg: RunConfig, round_: int | None = None) -> StageManifest:
    """Trains a round, or returns the manifest of the time it was done; the next round to do when None is named.

    Raises:
        StageError: the round's pairs or reference figures are missing.
        TrainingError: see `avere_ray.learner.run_training`.
    """
    if round_ is None:
        with ray_session(cfg.ray):
            return run(cfg, next_round(cfg))
    pairs, reference = require(cfg, "pairs", round_), require(cfg, "reference", round_)
    before = require(cfg, "adapters", round_ - 1) if round_ else None
    folder = StageFolder(
        stage_path(cfg, "adapters", round_),
        stage="adapters",
        config=cfg.to_yaml(),
        key=digest(
            "adapters",
            pairs.output_digest,
            reference.output_digest,
            before.output_digest if before else "",
            cfg.loss.model_dump(),
            cfg.train.model_dump(exclude=_NOT_IN_KEY),
            cfg.seed,
        ),
    )
    if (manifest := folder.finished()) is not None:
        reused(f"training of round {round_}", manifest.used, "pairs")
        return manifest
    folder.begin()
    return _train(cfg, round_, folder, pairs, reference)


def _train(
    cfg: RunConfig, round_: int, folder: StageFolder, pairs: StageManifest, reference: StageManifest
) -> StageManifest:
    from avere_ray.learner import TrainJob, count_steps, run_training
    from avere_ray.media import spec_digest

    steps = count_steps(pairs.used, cfg.train.epochs, cfg.train.pairs_per_step)
    say(
        f"train (round {round_}): {pairs.used} pairs, {cfg.train.workers} workers, ZeRO-{cfg.train.zero_stage}; "
        f"{steps} steps"
    )
    model = cfg.model.model_copy(update={"path": cfg.model.path.absolute()})
    job = TrainJob(
        pairs=stage_path(cfg, "pairs", round_) / "pairs.parquet",
        reference=stage_path(cfg, "reference", round_) / "reference.parquet",
        decoded=stage_path(cfg, "decoded"),
        start=stage_path(cfg, "adapters", round_ - 1) if round_ else None,
        out=folder.path,
        spool=stage_path(cfg, "metrics"),
        source=folder.key,
        scratch=stage_path(cfg, ".ray_train"),
        round=round_,
        first_step=steps_before(cfg, round_),
        base_digest=model_digest(cfg.model.path),
        decode_spec=spec_digest(cfg.data.decode),
        data_digest=digest(pairs.output_digest, reference.output_digest),
    )
    with _shown_progress(job.spool / f"train-round{round_}.jsonl", round_, steps):
        adapter = run_training(cfg.model_copy(update={"model": model}), job)
    shutil.rmtree(stage_path(cfg, ".ray_train"), ignore_errors=True)
    return folder.finish(
        inputs=pairs.used,
        used=pairs.used,
        summary={
            "steps": adapter.step,
            "version": adapter.version,
            "adapter": folder.path.relative_to(cfg.run_dir.absolute()).as_posix(),
        },
    )


@contextlib.contextmanager
def _shown_progress(spool: Path, round_: int, steps: int) -> Iterator[None]:
    """Shows how far training is, as the learner's metrics arrive."""
    ended = threading.Event()
    begin = spool.stat().st_size if spool.exists() else 0

    def follow(progress: ProgressFn) -> None:
        while not ended.wait(_LOOK_EVERY_S):
            if spool.exists():
                progress(len(read_events(spool, begin, limit=steps)), steps)

    with stage_progress(f"train (round {round_})", "steps") as progress:
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
