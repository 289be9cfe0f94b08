"""Ray Train around the worker: starts a round's workers, starts them again after a loss, and reads what they wrote.

A worker that dies takes the round back to its latest checkpoint, `train.max_failures` times. An error that would come
again (a loss that is not finite, a model that does not fit) is noted in the checkpoint folder, so that it is not tried
again, and raised here in its own words.
"""

import functools
import json
import os
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray import errors
from avere_ray.errors import AvereError, ModelError, TrainingError
from avere_ray.learner import checkpoints
from avere_ray.learner.job import ADAPTER_MANIFEST, TrainJob
from avere_ray.records import AdapterManifest
from avere_ray.stages import write_json

if TYPE_CHECKING:
    from avere_ray.config import RunConfig

SHARDS = "shares"
_LOOK_EVERY_S = 1.0
_START_TIMEOUT = ("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
"""Ray Train gives workers a minute to start, which an autoscaled node or a busy machine does not keep."""
_SILENCE = ("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", 600.0)
"""How long a worker that hangs goes unnoticed, at most; Ray Train hands this on to its controller."""


def run_training(cfg: "RunConfig", job: TrainJob) -> AdapterManifest:
    """Trains one round with Ray Train, from its latest checkpoint if it has one; returns the adapter's manifest.

    Raises:
        TrainingError: a worker failed more often than train.max_failures allows, or stopped for a reason that would
            come again; the message carries its last words. Checkpoints of another world size: see `checkpoints.claim`.
        ModelError: the adapter to go on from belongs to another base.
    """
    check_start(job)
    os.environ.setdefault(*_START_TIMEOUT)
    os.environ.setdefault(_SILENCE[0], str(min(_SILENCE[1], cfg.train.deadline_s)))
    for note in _stop_notes(job):
        note.unlink()
    try:
        _fit(_trainer(cfg, job), limit_s=_limit_s(cfg))
    except Exception as error:  # Ray Train wraps what a worker raised in classes of its own
        raise _stopped(job) or TrainingError(
            f"training of round {job.round} failed: {_last_words(error)}. "
            "Run again to go on from the latest checkpoint."
        ) from error
    stopped = _stopped(job)
    if stopped is not None:
        raise stopped
    path = job.out / ADAPTER_MANIFEST
    if not path.is_file():
        raise TrainingError(f"training of round {job.round} ended without an adapter in {job.out}")
    return AdapterManifest(**json.loads(path.read_text(encoding="utf-8")))


def _limit_s(cfg: "RunConfig") -> float:
    """Seconds after which no attempt can still be at work."""
    start_s = float(os.environ[_START_TIMEOUT[0]])
    return (cfg.train.max_failures + 1) * (start_s + cfg.train.deadline_s + float(os.environ[_SILENCE[0]]))


def _fit(trainer: Any, limit_s: float) -> None:
    """Runs a trainer in a thread. In the main one Ray Train takes Ctrl-C for itself, and keeps it afterwards: the
    process would exit with code 0 as if its work were done.

    Raises:
        TimeoutError: it has not ended after `limit_s` seconds, for instance because Ray Train's controller hangs.
    """
    done: Future[None] = Future()

    def work() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="ray-train", daemon=True).start()
    end = time.monotonic() + limit_s
    while not wait([done], timeout=_LOOK_EVERY_S).done:
        if time.monotonic() > end:
            raise TimeoutError(f"it has not ended within {limit_s:g} s, which all its attempts together have")
    done.result()


def _trainer(cfg: "RunConfig", job: TrainJob) -> Any:
    from ray.train import DataConfig, FailureConfig, ScalingConfig
    from ray.train import RunConfig as TrainRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from avere_ray.data import in_order
    from avere_ray.learner.stream import build_stream
    from avere_ray.placement import label_selector

    train = cfg.train
    stream = in_order()
    stream.label_selector = label_selector(cfg.placement.learner) or None
    settings = {"config": cfg.model_dump(mode="json"), "job": job.to_plain()}
    resources = {"CPU": train.cpus_per_worker, **({"GPU": train.gpus_per_worker} if train.use_gpu else {})}
    return TorchTrainer(
        train_loop,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if train.use_gpu else "gloo", timeout_s=int(train.deadline_s)),
        scaling_config=ScalingConfig(
            num_workers=train.workers,
            use_gpu=train.use_gpu,
            resources_per_worker=resources,
            label_selector=label_selector(cfg.placement.learner) or None,
        ),
        datasets={SHARDS: functools.partial(build_stream, settings["config"], settings["job"])},
        dataset_config=DataConfig(execution_options=stream, enable_shard_locality=False),
        run_config=TrainRunConfig(
            name=f"round-{job.round}-{time.time_ns()}",
            storage_path=str(job.scratch.resolve()),
            failure_config=FailureConfig(max_failures=train.max_failures, controller_failure_limit=train.max_failures),
        ),
    )


def train_loop(settings: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    import ray.train

    from avere_ray.config import RunConfig
    from avere_ray.learner.stream import ShardReader
    from avere_ray.learner.worker import Learner, set_threads

    cfg, job = RunConfig.model_validate(settings["config"]), TrainJob.from_plain(settings["job"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if _stop_notes(job):
        return
    set_threads()
    reader = ShardReader(ray.train.get_dataset_shard(SHARDS), rank=rank)
    attempt = checkpoints.attempt(job.checkpoints)
    try:
        manifest = Learner(cfg, job, rank=rank, world=world).run(reader.rows)
    except AvereError as error:
        if checkpoints.attempt(job.checkpoints) == attempt:  # else it is no longer ours to stop
            note = {"error": type(error).__name__, "message": str(error)}
            write_json(job.checkpoints / f"stopped-{rank}.json", note)
        raise
    ray.train.report({"steps": manifest.step if manifest else 0})


def check_start(job: TrainJob) -> None:
    """Refuses to go on from an adapter of another base.

    Raises:
        ModelError: the adapter's manifest is missing, or names another base.
    """
    if job.start is None:
        return
    path = job.start / ADAPTER_MANIFEST
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_digest"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Train the round before again.") from error
    if base != job.base_digest:
        raise ModelError(
            f"adapter {job.start} was trained on another base (digest {base}) than model.path (digest "
            f"{job.base_digest}). Set model.path to its base, or train the round before again."
        )


def _stopped(job: TrainJob) -> AvereError | None:
    """What a worker noted as the reason not to go on."""
    notes = _stop_notes(job)
    if not notes:
        return None
    note = json.loads(notes[0].read_text(encoding="utf-8"))
    kind = getattr(errors, note["error"], TrainingError)
    return TrainingError(note["message"]) if kind is errors.ClipDecodeError else kind(note["message"])


def _stop_notes(job: TrainJob) -> list[Path]:
    return sorted(job.checkpoints.glob("stopped-*.json"))


def _last_words(error: BaseException) -> str:
    """The last line that is an error of ours, since Ray adds advice after it; else the last line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("avere_ray.errors.")]
    return (ours or lines or [type(error).__name__])[-1]
