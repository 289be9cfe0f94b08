"""Small runs sent to a cluster of several nodes with `avere-ray submit`."""

import subprocess
import sys
import time
from pathlib import Path

import runs
from raynodes import Nodes

from avere_ray.metrics import read_events

PLACED = ("--placement.decode=decode", "--placement.rollout=decode", "--placement.learner=learner")
STEADY = (
    "--world.train_clips=10",
    "--world.test_clips=4",
    "--train.epochs=14",
    "--train.checkpoint_every=4",
    "--ray.connect_timeout_s=240",
)
"""Few clips, but enough steps that a node can be taken away between two of them."""


def submit(nodes: Nodes, run_dir: Path, *extra: str) -> subprocess.Popen[str]:
    """Sends a small run, each stage placed on nodes with its role."""
    command = [sys.executable, "-m", "jobs.submit", "--config", runs.CONFIG, f"--run_dir={run_dir}", *runs.SMALL]
    return subprocess.Popen(
        [*command, *STEADY, *PLACED, *extra],
        cwd=runs.ROOT,
        env=nodes.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(job: subprocess.Popen[str], timeout_s: float = 900) -> str:
    """What a submission printed until it ended."""
    try:
        return job.communicate(timeout=timeout_s)[0]
    finally:
        runs.end(job)


def logged_steps(run_dir: Path) -> list[int]:
    """Optimizer steps in the learner's metrics, in order."""
    return [event.step for event in read_events(run_dir / "metrics" / "train-round0.jsonl") if event.metrics]


def wait_for_step(run_dir: Path, step: int, job: subprocess.Popen[str], timeout_s: float = 900) -> None:
    """Waits until a step is logged; fails when the submission ends or the time is up before."""
    limit = time.monotonic() + timeout_s
    while max(logged_steps(run_dir), default=-1) < step:
        assert job.poll() is None, finish(job)
        assert time.monotonic() < limit, f"step {step} was not logged"
        time.sleep(0.05)
