"""The Ray session of a job, each in a process of its own, as a job has it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PRELUDE = """
import sys
from avere_ray.config import RayConfig
from avere_ray.errors import ClusterError
from jobs.session import ray_session

def attempt(**settings):
    try:
        with ray_session(RayConfig(**settings)):
            print("connected")
    except ClusterError as error:
        print("ClusterError", error)
"""


def run(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], env={**inherited, **environment}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def port() -> Iterator[int]:
    """A port of 127.0.0.1 where something listens that never speaks."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_closed_port(port: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening
        closed = unused.getsockname()[1]
        output = run(f"attempt(address='127.0.0.1:{closed}', connect_timeout_s=2)")
    assert output.startswith("ClusterError")
    assert f"127.0.0.1:{closed}" in output
    assert "ray.connect_timeout_s" in output


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_port_where_no_ray_answers(port: int, scheme: str) -> None:
    output = run(f"attempt(address='{scheme}127.0.0.1:{port}', connect_timeout_s=2)")
    assert output.startswith("ClusterError")
    assert "no Ray head" in output


def test_the_address_of_the_environment_is_used(port: int) -> None:
    output = run("attempt(connect_timeout_s=2)", RAY_ADDRESS=f"127.0.0.1:{port}")
    assert output.startswith("ClusterError")
    assert str(port) in output


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "nonsense", "host:port"])
def test_an_address_of_the_wrong_form(address: str) -> None:
    output = run(f"attempt(address='{address}', connect_timeout_s=2)")
    assert output.startswith("ClusterError")
    assert address in output
    assert "HOST:PORT" in output


def test_auto_finds_what_ray_start_left(port: int, tmp_path: Path) -> None:
    code = "attempt(address='auto', connect_timeout_s=2)"
    assert "no Ray runs on this machine" in run(code, RAY_TMPDIR=str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in run(code, RAY_TMPDIR=str(tmp_path))


LOCAL = """
import psutil
with ray_session(RayConfig(num_cpus=2, object_store_mb=100)):
    import ray

    @ray.remote
    def probe():
        import actors, avere_ray, jobs, os
        return os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"]), os.environ["OMP_NUM_THREADS"]

    print(*ray.get(probe.remote()))
    print(int(ray.cluster_resources()["CPU"]))
    with ray_session(RayConfig()):
        pass
    print(ray.is_initialized())
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {c.laddr.ip for p in ours for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    print(sorted(listening))
print(ray.is_initialized())
"""


def test_a_local_cluster_is_whole_closed_to_others_and_ends_with_the_block() -> None:
    probe, cpus, nested, listening, after = run(LOCAL).splitlines()[-5:]
    assert probe == "token 64 1"
    assert cpus == "2"
    assert nested == "True"
    assert set(eval(listening)) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert listening != "[]"
    assert after == "False"


JOIN = """
import subprocess
with ray_session(RayConfig(num_cpus=1, object_store_mb=100)):
    import ray
    address = ray.get_runtime_context().gcs_address
    join = f"import ray; ray.init(address='{address}', log_to_driver=False); print('joined')"
    for token in (os.environ["RAY_AUTH_TOKEN"], "0" * 64):
        environment = {**os.environ, "RAY_AUTH_TOKEN": token}
        done = subprocess.run([sys.executable, "-c", join], env=environment, capture_output=True, text=True, timeout=60)
        print("joined" in done.stdout)
"""


def test_a_local_cluster_is_joined_with_its_token_alone() -> None:
    assert run("import os" + JOIN).split()[-2:] == ["True", "False"]


def test_who_is_asked_to_end_has_time_to_close_what_is_open() -> None:
    """Ray's own handler would abort the process after three seconds."""
    code = """
import os, signal, time
from jobs.command import Terminated, raise_on_sigterm
raise_on_sigterm()
try:
    with ray_session(RayConfig(num_cpus=1, object_store_mb=100)):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            time.sleep(4)
except Terminated:
    import ray
    print(ray.is_initialized())
"""
    assert run(code).split()[-1] == "False"
