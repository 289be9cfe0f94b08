"""The spool: what is appended is read back in order, whatever a crash left at its end."""

import json
import math
import pickle

import pytest

from avere_ray.errors import ConfigError, StorageError
from avere_ray.metrics import UNREADABLE, MetricSpool, read_events, spool_paths


def test_events_are_read_back_in_order_with_step_and_time(tmp_path):
    spool = MetricSpool(tmp_path / "metrics", "learner")
    for step in range(3):
        spool.log({"loss": 1.0 / (step + 1), "rewards/margin": step}, step=step)
    events = read_events(spool.path)
    assert [event.body["step"] for event in events] == [0, 1, 2]
    assert events[1].metrics == {"loss": 0.5, "rewards/margin": 1.0}
    assert all(event.body["timestamp_ms"] > 1_600_000_000_000 for event in events)


def test_reading_goes_on_where_it_stopped(tmp_path):
    spool = MetricSpool(tmp_path, "driver")
    for step in range(5):
        spool.log({"x": step}, step=step)
    first = read_events(spool.path, limit=2)
    rest = read_events(spool.path, first[-1].end)
    assert [event.body["step"] for event in first + rest] == [0, 1, 2, 3, 4]
    assert read_events(spool.path, rest[-1].end) == []


def test_a_last_line_that_was_cut_off_is_left_until_it_is_complete(tmp_path):
    spool = MetricSpool(tmp_path, "driver")
    spool.log({"x": 1}, step=1)
    line = json.dumps({"kind": "metrics", "metrics": {"x": 2}, "step": 2, "timestamp_ms": 1}).encode() + b"\n"
    with spool.path.open("ab") as file:
        file.write(line[:20])
    assert [event.body["step"] for event in read_events(spool.path)] == [1]
    with spool.path.open("ab") as file:
        file.write(line[20:])
    assert [event.body["step"] for event in read_events(spool.path)] == [1, 2]


def test_a_writer_that_comes_back_after_a_crash_loses_only_the_line_cut_off(tmp_path):
    spool = MetricSpool(tmp_path, "driver")
    spool.log({"x": 1}, step=1)
    with spool.path.open("ab") as file:
        file.write(b'{"kind": "metrics", "metr')
    MetricSpool(tmp_path, "driver").log({"x": 2}, step=2)
    events = read_events(spool.path)
    assert [event.kind for event in events] == ["metrics", UNREADABLE, "metrics"]
    assert events[2].metrics == {"x": 2.0}


def test_nan_and_infinity_are_kept_in_strict_json(tmp_path):
    spool = MetricSpool(tmp_path, "learner")
    spool.log({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1}, step=0)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    json.loads(spool.path.read_text(), parse_constant=refuse)
    values = read_events(spool.path)[0].metrics
    assert math.isnan(values["a"])
    assert (values["b"], values["c"], values["d"]) == (math.inf, -math.inf, 1.0)


def test_no_metrics_leave_no_line(tmp_path):
    spool = MetricSpool(tmp_path, "driver")
    spool.log({}, step=0)
    assert read_events(spool.path) == []


@pytest.mark.parametrize("line", [b"[]\n", b'{"kind": "metrics"}\n', b'{"kind": "other"}\n', b"\x00\x00\n", b"3\n"])
def test_a_line_that_is_no_event_is_marked(tmp_path, line):
    path = tmp_path / "driver.jsonl"
    path.write_bytes(line)
    assert [(event.kind, event.end) for event in read_events(path)] == [(UNREADABLE, len(line))]


def test_a_spool_travels_to_another_process(tmp_path):
    spool = pickle.loads(pickle.dumps(MetricSpool(tmp_path, "actor-0")))
    spool.log({"x": 1}, step=0)
    assert spool_paths(tmp_path) == [tmp_path / "actor-0.jsonl"]


@pytest.mark.parametrize("writer", ["", "a/b", "..", "a.b"])
def test_a_writer_name_that_is_no_file_name_is_refused(tmp_path, writer):
    with pytest.raises(ConfigError, match="writer"):
        MetricSpool(tmp_path, writer)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "metrics").write_text("a file in the way")
    with pytest.raises(StorageError, match="metrics"):
        MetricSpool(tmp_path / "metrics", "driver").log({"x": 1}, step=0)
