"""What tracking decides without a server: addresses, params, batches, and which points are missing."""

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

from avere_ray.config import TrackingConfig
from avere_ray.errors import ConfigError, InputError, StageError
from avere_ray.metrics import MetricSpool, read_events
from avere_ray.tracking import Tracker, flatten, send_rest, source_tags, tracking_uri
from avere_ray.tracking.params import changed_tags, current_params
from avere_ray.tracking.past import _last_of_each_step, _tracked
from avere_ray.tracking.repeats import FirstTimes
from avere_ray.tracking.sender import batches


def test_the_default_is_a_database_beside_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = tracking_uri(TrackingConfig(), tmp_path.joinpath("runs", "demo").relative_to(tmp_path))
    assert uri == f"sqlite:///{tmp_path.resolve()}/runs/mlflow.db"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000",
        "https://mlflow.example.org/x",
        "sqlite:////data/mlflow.db",
        "postgresql+psycopg2://h/db",
    ],
)
def test_servers_and_absolute_databases_are_taken_as_they_are(tmp_path, uri):
    assert tracking_uri(TrackingConfig(uri=uri), tmp_path) == uri


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "sqlite://", "sqlite:///runs/mlflow.db"])
def test_a_relative_database_is_refused_with_the_remedy(tmp_path, uri):
    with pytest.raises(ConfigError, match=r"absolute path.*four slashes") as caught:
        tracking_uri(TrackingConfig(uri=uri), tmp_path)
    assert uri in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["file:///data/mlruns", "mlruns", "/data/mlruns", "./mlruns", "http:5000", "ftp://host"]
)
def test_a_file_store_is_refused_with_the_remedy(tmp_path, uri):
    with pytest.raises(ConfigError, match="sqlite:////absolute") as caught:
        tracking_uri(TrackingConfig(uri=uri), tmp_path)
    assert repr(uri) in str(caught.value)


def test_a_password_is_not_shown(tmp_path):
    tracker = Tracker(
        tmp_path / "run", TrackingConfig(uri="http://me:secret@127.0.0.1:9"), run_name="r", say=lambda line: None
    )
    assert tracker.uri == "http://127.0.0.1:9"
    assert "secret" not in (tmp_path / "run" / "mlflow.json").read_text()


def test_params_have_dotted_names_and_fit_mlflow():
    params = flatten(
        {"name": "demo", "train": {"zero_stage": 2, "use_gpu": False}, "data": {"clips": None}, "empty": {}}
    )
    assert params == {
        "name": "demo",
        "train.zero_stage": "2",
        "train.use_gpu": "false",
        "data.clips": "null",
        "empty": "{}",
    }
    long = flatten({"a" * 400: "b" * 9000})
    ((name, text),) = long.items()
    assert (len(name), len(text)) == (250, 6000)
    assert text.endswith("...")


def test_source_tags_name_host_and_version():
    tags = source_tags()
    assert tags["host"]
    assert tags["avere_ray.version"]
    if "git.commit" in tags:
        assert len(tags["git.commit"]) == 40
        assert tags["git.dirty"] in ("true", "false")


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys, avere_ray.tracking, jobs.track, jobs.report; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_everything_is_on_disk_before_anything_is_sent(tmp_path):
    tracker = Tracker(tmp_path, TrackingConfig(), run_name="r", say=lambda line: None)
    tracker.log({"x": 1.0}, step=0)
    tracker.log_text("rollouts/round=0.txt", "hello")
    tracker.log_dict("config.json", {"a": 1})
    tracker.finish()
    assert [event.kind for event in read_events(tracker.folder / "driver.jsonl")] == ["metrics", "status"]
    paths = [event.body["path"] for event in read_events(tracker.folder / "files.jsonl")]
    assert (tmp_path / paths[0]).read_text() == "hello"
    assert tracker.run_id is None
    lines = []
    tracker._say = lines.append
    assert tracker.close() == 4
    assert "4 events" in lines[0]
    assert f"avere-ray track {tmp_path}" in lines[0]


def test_neighbouring_metrics_travel_together_up_to_the_limit(tmp_path):
    spool = MetricSpool(tmp_path, "driver")
    for step in range(5):
        spool.log({f"m{i}": i for i in range(400)}, step=step)
    spool.append({"kind": "tags", "tags": {}})
    spool.log({"x": 1}, step=9)
    sizes = [[event.kind for event in batch] for batch in batches(read_events(spool.path))]
    assert sizes == [["metrics"] * 2, ["metrics"] * 2, ["metrics"], ["tags"], ["metrics"]]


def _point(value, step, name="loss", timestamp=1):
    return SimpleNamespace(key=name, value=value, step=step, timestamp=timestamp)


def test_points_the_server_has_are_not_sent_again(tmp_path):
    """A server that, unlike MLflow's own, would store a point twice."""
    tracker = Tracker(tmp_path, TrackingConfig(), run_name="r", say=lambda line: None)
    there = {"loss": [_point(0.5, 0), _point(math.nan, 1), _point(sys.float_info.max, 2)], "other": []}
    tracker._sender.run._client = SimpleNamespace(get_metric_history=lambda run_id, name: there[name])
    sent = [_point(0.5, 0), _point(math.nan, 1), _point(math.inf, 2), _point(0.5, 3), _point(1.0, 0, "other")]
    assert tracker._sender.run._missing(sent) == sent[3:]


def test_two_equal_points_are_two_points(tmp_path):
    tracker = Tracker(tmp_path, TrackingConfig(), run_name="r", say=lambda line: None)
    tracker._sender.run._client = SimpleNamespace(get_metric_history=lambda run_id, name: [_point(0.5, 0)])
    assert len(tracker._sender.run._missing([_point(0.5, 0), _point(0.5, 0)])) == 1


def test_offsets_belong_to_one_mlflow_run(tmp_path):
    tracker = Tracker(tmp_path, TrackingConfig(), run_name="r", say=lambda line: None)
    tracker.log({"x": 1.0}, step=0)
    sender, path = tracker._sender, tracker.sink().path
    sender.state.run_id = "first"
    sender._move(path, path.stat().st_size)
    assert sender.pending() == 0
    sender.state.run_id = "second"
    assert sender.pending() == 1


def test_another_address_gets_another_mlflow_run(tmp_path):
    first = Tracker(tmp_path, TrackingConfig(uri="http://127.0.0.1:9"), run_name="r")
    first._sender.state.run_id = "abc"
    first._sender.state.write(tmp_path)
    assert Tracker(tmp_path, TrackingConfig(uri="http://127.0.0.1:9"), run_name="r").run_id == "abc"
    assert Tracker(tmp_path, TrackingConfig(uri="http://127.0.0.1:8"), run_name="r").run_id is None


def test_only_one_process_sends(tmp_path):
    first = Tracker(tmp_path, TrackingConfig(), run_name="r")
    second = Tracker(tmp_path, TrackingConfig(), run_name="r")
    assert first._sender.lock()
    assert not second._sender.lock()
    with pytest.raises(StageError, match="another process"):
        send_rest(tmp_path, TrackingConfig())
    first._sender.unlock()
    assert second._sender.lock()
    second._sender.unlock()


def test_a_folder_without_a_tracked_run_is_named(tmp_path):
    with pytest.raises(InputError, match=r"mlflow\.json"):
        send_rest(tmp_path, TrackingConfig())


def test_a_damaged_state_file_is_named_with_the_remedy(tmp_path):
    (tmp_path / "mlflow.json").write_text("{")
    with pytest.raises(StageError, match="Delete it"):
        Tracker(tmp_path, TrackingConfig(), run_name="r")


class ForgetfulServer:
    """Stores what it is given, duplicates too, and once loses its answer; as MLflow's client shows it."""

    def __init__(self, lose_answer_at):
        self.points, self.requests, self.lose_answer_at = [], 0, lose_answer_at

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        self.points += metrics
        self.requests += 1
        if self.requests == self.lose_answer_at:
            raise ConnectionResetError("connection reset by peer")

    def get_metric_history(self, run_id, name):
        return [point for point in self.points if point.key == name]

    def get_run(self, run_id):
        return SimpleNamespace(info=SimpleNamespace(lifecycle_stage="active"))


def _tracker_of(run_dir, server):
    tracker = Tracker(run_dir, TrackingConfig(), run_name="r", say=lambda line: None)
    tracker._sender.state.run_id, tracker._sender.run._client = "abc", server
    return tracker


def test_an_answer_that_is_lost_doubles_no_point(tmp_path):
    server = ForgetfulServer(lose_answer_at=2)
    tracker = _tracker_of(tmp_path, server)
    sender = tracker._sender
    for step in range(600):
        tracker.log({"loss": step, "logps/chosen": -step, "same": 1.0}, step=step)
    assert isinstance(sender.attempt(), ConnectionResetError)
    assert 0 < sender.pending() < 600
    tracker.log({"loss": 600}, step=600)
    assert sender.attempt() is None
    assert [point.step for point in server.get_metric_history("abc", "loss")] == list(range(601))
    assert [point.step for point in server.get_metric_history("abc", "same")] == list(range(600))
    assert sender.pending() == 0


def _train_again(spool, steps, value, source="round 0 with these settings"):
    for step in range(steps):
        spool.log({"loss": value, "grad_norm": value}, step=step, source=source)


@pytest.mark.parametrize("sent_between", [True, False], ids=["sent", "outage"])
@pytest.mark.parametrize("restarted", [True, False], ids=["new-sender", "same-sender"])
def test_a_round_that_is_trained_again_sends_each_step_once(tmp_path, sent_between, restarted):
    server = ForgetfulServer(lose_answer_at=None)
    tracker = _tracker_of(tmp_path, server)
    spool = tracker.spool("train-round0")
    _train_again(spool, 7, 1.0)
    if sent_between:
        assert tracker._sender.attempt() is None
    _train_again(spool, 10, 2.0)
    sender = (_tracker_of(tmp_path, server) if restarted else tracker)._sender
    assert sender.attempt() is None
    for name in ("loss", "grad_norm"):
        points = [(p.step, p.value) for p in server.get_metric_history("abc", name)]
        assert points == [(step, 1.0 if step < 7 else 2.0) for step in range(10)]
    assert sender.pending() == 0


def test_another_mlflow_run_gets_a_repeated_point_once_too(tmp_path):
    server = ForgetfulServer(lose_answer_at=None)
    tracker = _tracker_of(tmp_path, server)
    for value in (1.0, 2.0):
        _train_again(tracker.spool("train-round0"), 3, value)
    assert tracker._sender.attempt() is None
    server.points.clear()
    tracker._sender.state.run_id = "def"
    assert tracker._sender.attempt() is None
    assert [(p.step, p.value) for p in server.get_metric_history("def", "loss")] == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_other_settings_give_other_points(tmp_path):
    server = ForgetfulServer(lose_answer_at=None)
    tracker = _tracker_of(tmp_path, server)
    _train_again(tracker.spool("train-round0"), 1, 1.0)
    _train_again(tracker.spool("train-round0"), 1, 2.0, source="a higher learning rate")
    assert tracker._sender.attempt() is None
    assert [p.value for p in server.get_metric_history("abc", "loss")] == [1.0, 2.0]


def test_a_repetition_is_a_name_a_step_and_a_source(tmp_path):
    spool = MetricSpool(tmp_path, "driver")
    for metrics in ({"x": 1}, {"x": 2, "y": 3}, {"y": 4}):
        spool.log(metrics, step=0)
    spool.append({"kind": "tags", "tags": {}})
    spool.log({"x": 5}, step=1)
    spool.log({"x": 6}, step=0, source="k")
    events = [event for event in read_events(spool.path) if event.kind == "metrics"]
    first_times = FirstTimes(spool.path)
    expected = [{"x": 1.0}, {"y": 3.0}, {}, {"x": 5.0}, {"x": 6.0}]
    assert [first_times.points(event) for event in events] == expected
    assert [first_times.points(event) for event in reversed(events)] == expected[::-1]


# continued runs -------------------------------------------------------------------------------------------------------


def test_a_changed_setting_is_the_runs_setting_and_changing_it_back_is_told() -> None:
    first, tags = {"seed": "0", "rounds": "1"}, {}
    for params, told in (
        ({"seed": "1", "rounds": "1"}, {"changed.seed": "1"}),
        ({"seed": "2", "rounds": "1"}, {"changed.seed": "2"}),
        ({"seed": "2", "rounds": "1"}, {}),
        ({"seed": "0", "rounds": "1"}, {"changed.seed": "0"}),
    ):
        assert changed_tags(first, params, tags) == told
        tags |= told
        assert current_params(first, tags) == params
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="a" * 32, run_name="r", status="FINISHED", start_time=1),
        data=SimpleNamespace(params=first, metrics={}, tags={"changed.rounds": "3", "changed.other": "x"}),
    )
    assert _tracked(run).params == {"seed": "0", "rounds": "3"}


def test_of_a_step_what_was_measured_last_counts_and_not_what_is_highest() -> None:
    points = [SimpleNamespace(step=s, timestamp=t, value=v) for s, t, v in ((4, 9, 50.0), (4, 5, 80.0), (0, 1, 40.0))]
    assert _last_of_each_step(points) == [(0, 40.0), (4, 50.0)]
