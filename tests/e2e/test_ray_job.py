"""The same job under Ray Jobs: a local cluster with token authentication, submitted from this working directory."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import runs

RAY = str(Path(sys.executable).with_name("ray"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A head on 127.0.0.1 that runs until its own process group is ended; gives the client's environment."""
    dashboard = _free_port()
    env = {
        **runs.environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        RAY, "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=268435456",
        "--node-ip-address=127.0.0.1", f"--port={_free_port()}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={_free_port()}",
        f"--ray-client-server-port={_free_port()}", "--disable-usage-stats",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("head") / "head.log"
    with log.open("w") as out:
        head = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_for_port(dashboard, head, log)
        yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)


def _wait_for_port(port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < limit, f"no dashboard on port {port}: {log.read_text()}"
        time.sleep(0.5)


def _submit(cluster: dict[str, str], *entrypoint: str) -> subprocess.CompletedProcess[str]:
    """Submits and follows a job; the dashboard answers before the node can take jobs, so that is waited for."""
    command = [RAY, "job", "submit", "--working-dir", ".", "--", *entrypoint]
    limit = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=runs.ROOT, env=cluster, capture_output=True, text=True, timeout=600)
        if "No available agent" not in done.stderr + done.stdout or time.monotonic() > limit:
            return done
        time.sleep(2)


def test_the_pipeline_runs_as_a_submitted_job(cluster: dict[str, str], tmp_path: Path) -> None:
    run_dir = tmp_path / "job"
    done = _submit(
        cluster, "python", "-m", "jobs.pipeline", "--config", runs.CONFIG, f"--run_dir={run_dir}", *runs.SMALL
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "succeeded" in output
    assert "rollouts (round 0)" in output  # the job's log is followed
    figures = runs.report(run_dir)
    assert figures["inputs"] == figures["used"] == 22
    assert figures["pairs"] > 0
    shutil.rmtree(run_dir)


def test_a_broken_config_fails_with_its_error_as_the_last_line(cluster: dict[str, str]) -> None:
    done = _submit(cluster, "python", "-m", "jobs.pipeline", "--config", runs.CONFIG, "--train.zero_stage=7")
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "failed" in output
    job = re.findall(r"raysubmit_\w+", output)[0]
    log = subprocess.run([RAY, "job", "logs", job], env=cluster, capture_output=True, text=True, timeout=120).stdout
    lines = [line for line in log.splitlines() if line.strip()]
    assert lines and re.search(r"train\.zero_stage = '?7'?", lines[-1]), log
