"""A head on this machine with token authentication, and jobs submitted to it as a user does."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import runs

RAY = str(Path(sys.executable).with_name("ray"))
_END_S = 10
"""`ray start --block` is asked to end this long before it is killed with what it has started."""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A head on 127.0.0.1 that runs until the block ends, by its own process group; gives the client's environment."""
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
    log = folder / "head.log"
    with log.open("w") as out:
        head = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_for_port(dashboard, head, log)
        yield {**env, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)


def submit(env: dict[str, str], *entrypoint: str) -> subprocess.CompletedProcess[str]:
    """Submits and follows a job; the dashboard answers before the node can take jobs, so that is waited for."""
    command = [RAY, "job", "submit", "--working-dir", ".", "--", *entrypoint]
    limit = time.monotonic() + 120
    while True:
        done = subprocess.run(command, cwd=runs.ROOT, env=env, capture_output=True, text=True, timeout=600)
        if "No available agent" not in done.stderr + done.stdout or time.monotonic() > limit:
            return done
        time.sleep(2)


def job_log(env: dict[str, str], job: str) -> list[str]:
    """The lines of a job's log that hold words."""
    log = subprocess.run([RAY, "job", "logs", job], env=env, capture_output=True, text=True, timeout=120).stdout
    return [line for line in log.splitlines() if line.strip()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_port(port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < limit, f"no dashboard on port {port}: {log.read_text()}"
        time.sleep(0.5)
