"""Small runs of the pipeline as a user starts them: in a process of its own, in a folder of its own."""

import collections
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "jobs/configs/demo.yaml"
SMALL = (
    "--world.train_clips=16",
    "--world.test_clips=6",
    "--rollout.queries_per_clip=2",
    "--rollout.samples=2",
    "--rollout.batch_queries=16",
    "--rounds=1",
    "--train.epochs=1",
    "--train.pairs_per_step=8",
    "--train.micro_pairs=4",
)
"""Settings that make the demo small enough for a test; the components stay the same."""


def environment() -> dict[str, str]:
    """The caller's environment without any Ray cluster."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or k == "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}


def start(run_dir: Path, *extra: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a small run, in `environment()` unless another is given."""
    command = [sys.executable, "-m", "jobs.pipeline", "--config", CONFIG, f"--run_dir={run_dir}", *SMALL, *extra]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=env or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # as a shell gives a command a group of its own
        preexec_fn=_listen_to_ctrl_c,
    )


def _listen_to_ctrl_c() -> None:
    """A build server may have started the tests with interrupts ignored, which a child would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """Interrupts a run as a terminal does: it and all that it has started in its group."""
    os.killpg(process.pid, signal.SIGINT)


def complete(run_dir: Path, *extra: str, timeout_s: float = 600) -> tuple[int, str]:
    """Runs a small run to its end; exit code and everything it printed."""
    process = start(run_dir, *extra)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        end(process)
    return process.returncode, output


def end(process: subprocess.Popen[str]) -> None:
    """Ends a run that is still going, by its process id."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(path: Path, process: subprocess.Popen[str], timeout_s: float = 300) -> None:
    """Waits until a file exists; fails when the run ends or the time is up before."""
    limit = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, f"the run ended before it wrote {path.name}: {process.communicate()[0]}"
        assert time.monotonic() < limit, f"no {path.name} after {timeout_s} s"
        time.sleep(0.1)


def report(run_dir: Path) -> dict[str, Any]:
    """The report of a finished run."""
    return json.loads((run_dir / "report.json").read_text(encoding="utf-8"))


def mlflow_run(run_dir: Path) -> str:
    """Id of the MLflow run that a run was sent to."""
    return json.loads((run_dir / "mlflow.json").read_text(encoding="utf-8"))["run_id"]


def points(run_dir: Path) -> collections.Counter[tuple[str, int]]:
    """How often each metric is in MLflow at each step; without what the node did, which depends on the time it took."""
    with sqlite3.connect(run_dir.parent / "mlflow.db") as database:
        rows = database.execute(
            "select key, step from metrics where run_uuid = ? and key not like 'system/%'",
            (mlflow_run(run_dir),),
        ).fetchall()
    return collections.Counter(rows)


def without_timing(figures: dict[str, Any]) -> dict[str, Any]:
    """A report without what may differ between two runs with the same seed."""
    moving = ("seconds", "mlflow_run_id", "mlflow_tracking_uri")
    return {k: v for k, v in figures.items() if k not in moving}
