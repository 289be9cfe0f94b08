"""Training that is killed and goes on: the same order, bit for bit the same losses, every step logged once.

`tests/local_ray/test_learner_alone.py` stops a learner of one process between steps, with other settings.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pairmaker import make_run

from avere_ray.config import RunConfig, TrainConfig
from avere_ray.errors import TrainingError
from avere_ray.metrics import read_events
from avere_ray.records import ReferenceLogps
from avere_ray.stages import file_digest, read_records, write_records
from jobs import train
from jobs.layout import stage_path

pytestmark = pytest.mark.timeout(1500)

ROOT = Path(__file__).resolve().parents[2]
TRAIN = {"workers": 2, "pairs_per_step": 4, "micro_pairs": 2, "learning_rate": 1e-3, "epochs": 7, "checkpoint_every": 2}
STEPS = 23
"""13 pairs, 7 epochs, 4 pairs a step: the last step has no full set of pairs."""


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_run(tmp_path_factory.mktemp("resume") / "run", clips=3, pairs=13, train=TrainConfig(**TRAIN))


@pytest.fixture(scope="module")
def undisturbed(local_ray: Any, cfg: RunConfig) -> tuple[list[tuple[int, float, float]], str]:
    """Steps and adapter of a run that nobody disturbs."""
    train.run(cfg, 0)
    return steps(cfg), adapter(cfg)


def test_killed_worker_and_killed_driver_change_nothing(
    local_ray: Any, cfg: RunConfig, undisturbed: Any, tmp_path: Path
) -> None:
    """A worker is killed in mid-run and replaced; then all of it, as when power fails; then it is started again."""
    other = cfg.model_copy(update={"run_dir": tmp_path / "run"})
    for stage in ("decoded", "pairs", "reference", "store"):
        shutil.copytree(cfg.run_dir / stage, other.run_dir / stage)
    with started(other) as driver:
        wait_for_step(other, 3, driver)
        victim = next(p for p in descendants(driver.pid) if "RayTrainWorker" in " ".join(p.cmdline()))
        victim.send_signal(signal.SIGKILL)
        wait_for_step(other, 6, driver)
        assert driver.poll() is None, "the driver survives the loss of a worker"
        for process in [psutil.Process(driver.pid), *descendants(driver.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert len(steps(other)) < STEPS, "the driver was killed in mid-run"
    train.run(other, 0)
    assert steps(other) == undisturbed[0]
    assert adapter(other) == undisturbed[1]


def steps(cfg: RunConfig) -> list[tuple[int, float, float]]:
    """Step, loss and gradient norm of everything logged, in order."""
    events = read_events(stage_path(cfg, "metrics") / "train-round0.jsonl")
    return [(e.body["step"], e.metrics["loss"], e.metrics["grad_norm"]) for e in events]


def adapter(cfg: RunConfig) -> str:
    return file_digest(stage_path(cfg, "adapters", 0) / "adapter_model.safetensors")


@contextlib.contextmanager
def started(cfg: RunConfig) -> Iterator[subprocess.Popen[bytes]]:
    """`avere-ray train` in a process and a Ray of its own; whatever is left of it is ended by process id."""
    path = cfg.run_dir / "test.yaml"
    path.write_text(cfg.to_yaml())
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or k.startswith("RAY_ENABLE")}
    command = [sys.executable, "-m", "jobs.train", "--config", str(path), "--ray.num_cpus=2"]
    with (cfg.run_dir / "test.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    known: dict[int, psutil.Process] = {}
    process.known = known  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        known |= {p.pid: p for p in descendants(process.pid)}
        if process.poll() is None:
            process.kill()
        process.wait(30)
        _, left = psutil.wait_procs(known.values(), timeout=20)
        for leftover in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                leftover.kill()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for_step(cfg: RunConfig, step: int, driver: subprocess.Popen[bytes]) -> None:
    """Waits until a step is logged; keeps the processes that were seen meanwhile, so that they can be ended."""
    limit = time.monotonic() + 600
    while not any(logged >= step for logged, _, _ in steps(cfg)):
        driver.known |= {p.pid: p for p in descendants(driver.pid)}  # type: ignore[attr-defined]
        assert driver.poll() is None, (cfg.run_dir / "test.log").read_text()[-3000:]
        assert time.monotonic() < limit, f"step {step} was not logged"
        time.sleep(0.05)


def test_a_reason_that_would_come_again_ends_the_round_at_once(local_ray: Any, cfg: RunConfig, tmp_path: Path) -> None:
    """A reference figure that is infinite: both workers stop, nobody tries again, and the message names the pair."""
    other = cfg.model_copy(update={"run_dir": tmp_path / "run"})
    for stage in ("decoded", "pairs", "reference", "store"):
        shutil.copytree(cfg.run_dir / stage, other.run_dir / stage)
    path = stage_path(other, "reference", 0) / "reference.parquet"
    figures = read_records(path, ReferenceLogps)
    write_records(
        path, ReferenceLogps, [dataclasses.replace(f, responses=(math.inf, *f.responses[1:])) for f in figures]
    )
    with pytest.raises(TrainingError, match=r"the loss is not finite at step 0 for pair\(s\) pair\d+"):
        train.run(other, 0)
    assert steps(other) == []
