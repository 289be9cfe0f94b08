"""Tracking against a real MLflow: a server that is killed and comes back, one that was never there, and sqlite.

The order in which points reached the server is read from its database (rows in the order of insertion).
"""

import json
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from avere_ray.config import TrackingConfig
from avere_ray.metrics import MetricSpool
from avere_ray.tracking import Tracker, send_rest
from jobs import track
from tests.authproxy import behind_password

pytestmark = [pytest.mark.local_ray, pytest.mark.timeout(240)]

WAIT_S = 90.0


class MlflowServer:
    """`mlflow server` on 127.0.0.1 with one database; may be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, folder / "server.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers; does nothing when it runs."""
        if self._process is not None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        wait_until(self._healthy, f"MLflow server to answer; its log:\n{(self.folder / 'server.log').read_text()}")

    def kill(self) -> None:
        """Ends the server and its worker at once, without a goodbye."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)
            self._process = None

    def rows(self, query: str) -> list[tuple]:
        return database_rows(self.database, query)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


def database_rows(database: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S:.0f} s for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()


def _points(server: MlflowServer, run_id: str, key: str) -> list[tuple]:
    query = f"select step, value from metrics where run_uuid = '{run_id}' and key = '{key}' order by rowid"
    return server.rows(query)


def test_a_server_that_was_never_there_gets_everything_from_track(server, tmp_path, capsys):
    server.kill()
    run_dir = tmp_path / "run"
    adapter = run_dir / "adapters" / "round=0"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    lines: list[str] = []
    cfg = TrackingConfig(uri=server.uri, experiment="late", timeout_s=2)
    with Tracker(run_dir, cfg, run_name="late", say=lines.append) as tracker:
        tracker.start({"seed": 3}, {"data.digest": "d2"})
        tracker.log({"x": 1.5, "bad": math.nan}, step=0)
        tracker.log({"x": 2.5}, step=1)
        tracker.log_text("rollouts/round=0.txt", "a rollout")
        tracker.log_dict("report.json", {"seed": 3})
        tracker.log_artifacts(adapter, "adapter")
    assert tracker.run_id is None
    assert "does not answer" in lines[0]
    assert "9 events are not sent yet" in lines[-1]
    assert track.main([str(run_dir), "--tracking.timeout_s=2"]) == 1
    assert "9 events" in capsys.readouterr().out

    server.start()
    assert track.main([str(run_dir)]) == 0
    run_id = json.loads((run_dir / "mlflow.json").read_text())["run_id"]
    assert run_id in capsys.readouterr().out
    assert _points(server, run_id, "x") == [(0, 1.5), (1, 2.5)]
    assert server.rows(f"select is_nan from metrics where run_uuid = '{run_id}' and key = 'bad'") == [(1,)]
    assert server.rows(f"select key, value from params where run_uuid = '{run_id}'") == [("seed", "3")]
    tags = dict(server.rows(f"select key, value from tags where run_uuid = '{run_id}'"))
    assert (tags["data.digest"], tags["mlflow.runName"]) == ("d2", "late")
    assert server.rows(f"select status from runs where run_uuid = '{run_id}'") == [("FINISHED",)]
    sent = {path.name: path.read_text() for path in (server.folder / "artifacts").rglob("*") if path.is_file()}
    assert sent == {"round=0.txt": "a rollout", "report.json": '{\n  "seed": 3\n}\n', "adapter_config.json": "{}"}
    assert track.main([str(run_dir)]) == 0
    assert len(_points(server, run_id, "x")) == 2


@pytest.mark.parametrize("where", ["environment", "address"])
def test_a_server_behind_a_password(server, tmp_path, monkeypatch, where):
    server.start()
    lines: list[str] = []
    run_dir = tmp_path / "run"
    with behind_password(server.port, "me", "secret") as door:
        cfg = TrackingConfig(uri=f"http://{door}", experiment="locked", timeout_s=10)
        with Tracker(run_dir, cfg, run_name=where, say=lines.append) as tracker:
            tracker.start({"seed": 0})
            tracker.log({"x": 1.5}, step=0)
            tracker.finish()
            assert tracker.close(timeout_s=1) > 0
        assert "refuses access (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in lines[0]
        if where == "environment":
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        else:
            cfg = cfg.model_copy(update={"uri": f"http://me:secret@{door}"})
        run_id, left, why = send_rest(run_dir, cfg)
    assert (left, why) == (0, "")
    assert run_id is not None
    assert _points(server, run_id, "x") == [(0, 1.5)]
    assert "secret" not in (run_dir / "mlflow.json").read_text()


def test_a_server_that_is_killed_gets_every_point_once_and_in_order(server, tmp_path):
    server.start()
    lines: list[str] = []
    cfg = TrackingConfig(uri=server.uri, experiment="outage", timeout_s=5)
    tracker = Tracker(tmp_path / "run", cfg, run_name="outage", say=lines.append)
    tracker.start({"train": {"zero_stage": 2}}, {"base.digest": "d1"})
    learner = tracker.spool("learner")
    for step in range(40):
        tracker.log({"eval/accuracy": step / 2}, step=step)
        learner.log({"loss": 1 / (step + 1), "rewards/margin": step}, step=step)
    wait_until(lambda: tracker._sender.pending() == 0, "the first points to be sent")
    assert tracker.run_id is not None
    server.kill()
    for step in range(40, 60):
        learner.log({"loss": 1 / (step + 1), "rewards/margin": step}, step=step)
    wait_until(lambda: lines, "a line about the outage")
    assert len(lines) == 1
    assert all(part in lines[0] for part in (server.uri, "does not answer", str(tracker.folder), "avere-ray track"))
    for step in range(40, 80):
        tracker.log({"eval/accuracy": step / 2}, step=step)
    server.start()
    for step in range(60, 80):
        learner.log({"loss": 1 / (step + 1), "rewards/margin": step}, step=step)
    tracker.finish()
    assert tracker.close(timeout_s=60) == 0
    assert "answers again" in lines[-1]
    assert _points(server, tracker.run_id, "eval/accuracy") == [(s, s / 2) for s in range(80)]
    assert _points(server, tracker.run_id, "loss") == [(s, 1 / (s + 1)) for s in range(80)]
    assert _points(server, tracker.run_id, "rewards/margin") == [(s, float(s)) for s in range(80)]
    status = server.rows(f"select status, name from runs where run_uuid = '{tracker.run_id}'")
    assert status == [("FINISHED", "outage")]


def test_a_round_that_is_trained_again_is_in_mlflow_once(server, tmp_path):
    """The first training is partly sent and partly kept through an outage; the second one measures all steps again."""
    server.start()
    cfg = TrackingConfig(uri=server.uri, experiment="again", timeout_s=5)
    tracker = Tracker(tmp_path / "run", cfg, run_name="again", say=lambda line: None)
    tracker.start({"train": {"learning_rate": 1e-4}})
    _train(tracker, 12, loss=1.0)
    wait_until(lambda: tracker._sender.pending() == 0, "the first points to be sent")
    server.kill()
    _train(tracker, 16, loss=2.0)
    assert tracker.close(timeout_s=0) > 0
    tracker = Tracker(tmp_path / "run", cfg, run_name="again", say=lambda line: None)
    tracker.start({"train": {"learning_rate": 1e-4}})
    _train(tracker, 20, loss=3.0)
    server.start()
    assert tracker.close(timeout_s=60) == 0
    expected = [(s, 1.0 if s < 12 else 2.0 if s < 16 else 3.0) for s in range(20)]
    assert _points(server, tracker.run_id, "loss") == expected


def _train(tracker: Tracker, steps: int, *, loss: float) -> None:
    for step in range(steps):
        tracker.spool("train-round0").log({"loss": loss}, step=step, source="key of the round")


def _count(database: Path, run_id: str, key: str) -> int:
    query = f"select count(*) from metrics where run_uuid = '{run_id}' and key = '{key}'"
    return database_rows(database, query)[0][0]


def test_the_default_database_keeps_one_run_over_a_crash_and_a_restart(tmp_path):
    """Database beside the run folder; the process is killed after sending, before it notes what it has sent."""
    run_dir, database = tmp_path / "runs" / "demo", tmp_path / "runs" / "mlflow.db"
    code = f"""
import os, pathlib
from avere_ray.config import TrackingConfig
from avere_ray.tracking import Tracker
from avere_ray.tracking.sender import Sender
def die(self, path, offset):
    if path.name == "learner.jsonl":
        os._exit(9)
    write(self, path, offset)
write = Sender._move
Sender._move = die
tracker = Tracker(pathlib.Path({str(run_dir)!r}), TrackingConfig(), run_name="demo")
for step in range(20):
    tracker.spool("learner").log({{"loss": step}}, step=step)
tracker.start({{"seed": 0}})
tracker.close()
"""
    died = subprocess.run([sys.executable, "-c", code], timeout=WAIT_S, capture_output=True, text=True)
    assert died.returncode == 9, died.stderr
    run_id = json.loads((run_dir / "mlflow.json").read_text())["run_id"]
    assert _count(database, run_id, "loss") == 20
    assert not (run_dir / "metrics" / "learner.sent").exists()

    MetricSpool(run_dir / "metrics", "learner").log({"loss": 20}, step=20)
    lines: list[str] = []
    with Tracker(run_dir, TrackingConfig(), run_name="demo", say=lines.append) as tracker:
        tracker.start({"seed": 1})
        tracker.log({"no*such*name": 1.0, "fine": 1.0}, step=0)
        tracker.log({"fine": 2.0}, step=1)
    assert tracker.run_id == run_id
    query = f"select step from metrics where run_uuid = '{run_id}' and key = 'loss' order by rowid"
    assert database_rows(database, query) == [(step,) for step in range(21)]
    assert database_rows(database, "select count(*) from runs") == [(1,)]
    tags = dict(database_rows(database, f"select key, value from tags where run_uuid = '{run_id}'"))
    assert tags["changed.seed"] == "1"
    assert _count(database, run_id, "fine") == 1
    assert any("refused 1 events" in line for line in lines)
    assert "no*such*name" in (run_dir / "metrics" / "refused.txt").read_text()
    location = database_rows(database, "select artifact_location from experiments where name = 'avere_ray'")
    assert location == [((tmp_path / "runs" / "mlflow-artifacts" / "avere_ray").as_uri(),)]
    _resend_after_deletion(run_dir, database, run_id)


def _resend_after_deletion(run_dir: Path, database: Path, run_id: str) -> None:
    """A run that a person deleted in MLflow is sent again as a new one."""
    from mlflow.tracking import MlflowClient

    MlflowClient(f"sqlite:///{database}").delete_run(run_id)
    new_id, left, reason = send_rest(run_dir, TrackingConfig())
    assert (left, reason) == (0, "")
    assert new_id not in (None, run_id)
    assert _count(database, str(new_id), "loss") == 21
