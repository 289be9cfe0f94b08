"""A round of training in this very process: one worker, no Ray Train; for many small trainings one after the other.

The same learner as under Ray Train with one worker, with the same steps in the same order; its shares come from disk.
"""

import functools
import os
from typing import TYPE_CHECKING

from avere_ray.errors import ConfigError, TrainingError
from avere_ray.learner.job import TrainJob
from avere_ray.learner.trainer import check_start
from avere_ray.records import AdapterManifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from avere_ray.config import RunConfig
    from avere_ray.learner.order import StepShare
    from avere_ray.learner.stream import Dealt


def train_alone(cfg: "RunConfig", job: TrainJob) -> AdapterManifest:
    """Trains one round, from its latest checkpoint if it has one; returns the adapter's manifest.

    Raises:
        ConfigError: the config asks for more than one worker.
        TrainingError: see `learner.guard`.
        ModelError: the adapter to go on from belongs to another base.
    """
    from avere_ray.learner.worker import Learner, set_threads

    if cfg.train.workers != 1:
        raise ConfigError(f"train.workers is {cfg.train.workers}; a training in one process has 1")
    check_start(job)
    set_threads()
    _join_group_of_one()
    manifest = Learner(cfg, job, rank=0, world=1).run(functools.partial(_owed_rows, cfg, job))
    if manifest is None:
        raise TrainingError(f"training of round {job.round} ended without an adapter in {job.out}")
    return manifest


def _owed_rows(cfg: "RunConfig", job: TrainJob, owed: "Sequence[StepShare]") -> "Iterator[Dealt]":
    from avere_ray.learner.stream import local_rows

    return local_rows(cfg, job, rank=0, world=1, first=owed[0].step) if owed else iter(())


def _join_group_of_one() -> None:
    """DeepSpeed wants a process group, even of one; it meets in memory, so nothing listens."""
    import torch.distributed as dist

    if dist.is_initialized():
        return
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    os.environ.update(alone)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
