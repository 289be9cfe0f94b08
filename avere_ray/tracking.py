"""The one door to MLflow: a run's spools go in, an MLflow run comes out, and no outage stops the run.

Nothing is sent from where it is measured. Writers append to `RUN/metrics/<writer>.jsonl` (`avere_ray.metrics`); a
thread in the driver reads these files and sends them in order. What has been sent is kept in
`RUN/metrics/<writer>.sent` and moves only after the server said yes, so an outage means that it stands still for a
while. Creating the MLflow run is the first thing sent: a server that is down from the start changes nothing.

No point is lost or doubled:
- After a crash or an answer that was lost, the points of the first batch are held against what the server has.
- The MLflow run carries the tag `avere_ray.spool`, by which it is found again when the answer to its creation was lost.
- The offsets belong to one MLflow run: another server, or a run that was deleted there, gets everything from the start.

What the server refuses for good (a bad name, a file that is gone) goes to `RUN/metrics/refused.txt` with the reason,
and the rest goes on. `RUN/mlflow.json` holds the id of the run, so that the next start continues the same one.
"""

import collections
import contextlib
import dataclasses
import fcntl
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit, urlunsplit

import avere_ray
from avere_ray import progress
from avere_ray.config import TrackingConfig
from avere_ray.errors import ConfigError, InputError, StageError
from avere_ray.metrics import FOLDER, UNREADABLE, MetricSpool, SpooledEvent, now_ms, read_events, spool_paths
from avere_ray.stages import storage_error, write_json, write_text

STATE = "mlflow.json"
DRIVER = "driver"
FILES = "files"
"""Writer of the artifact events; sent last, so that a broken artifact store holds up no metric."""
SPOOL_TAG = "avere_ray.spool"

_SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")
_POLL_S = 1.0
_CLOSING_POLL_S = 0.25
_LONGEST_WAIT_S = 30.0
_CLOSE_S = 60.0
_ARTIFACT_TIMEOUT_S = 120.0  # the server answers an upload only when it has stored it
_METRICS_PER_BATCH = 1000  # MLflow's limits per request, and per text
_ENTRIES_PER_BATCH = 100
_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # read by MLflow at every request
_LONGEST = {"key": 250, "param": 6000, "tag": 5000}


def tracking_uri(cfg: TrackingConfig, run_dir: Path) -> str:
    """The MLflow tracking URI of a run; by default `mlflow.db` (sqlite) beside the run folder, as an absolute path.

    Raises:
        ConfigError: the URI names a file store, a relative or in-memory sqlite database, or nothing MLflow knows.
    """
    if cfg.uri is None:
        return f"sqlite:///{run_dir.resolve().parent / 'mlflow.db'}"
    scheme = cfg.uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        if not cfg.uri.partition("://")[2].startswith("//"):
            raise ConfigError(
                f"tracking.uri {cfg.uri!r} must hold an absolute path, since workers have other working "
                "folders: sqlite:////absolute/path/mlflow.db (four slashes)"
            )
    elif scheme not in _SERVERS or ("://" not in cfg.uri and scheme != "databricks"):
        raise ConfigError(
            f"tracking.uri {cfg.uri!r} cannot be used; MLflow no longer keeps runs in folders (file:). "
            "Use http://HOST:PORT of a server, sqlite:////absolute/path/mlflow.db, or leave it out; "
            "`mlflow migrate-filestore` moves an old folder into a database"
        )
    return cfg.uri


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as MLflow params: dotted names, values as text, cut to MLflow's limits (250 and 6000)."""
    params: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            params |= flatten(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            params[_cut(f"{prefix}{name}", "key")] = _cut(text, "param")
    return params


def source_tags() -> dict[str, str]:
    """Where a run was started from: host, version, and the git commit when the package lies in a checkout."""
    tags = {"host": socket.gethostname(), "avere_ray.version": avere_ray.__version__}
    commit = _git("rev-parse", "HEAD")
    if commit:
        dirty = bool(_git("status", "--porcelain"))
        tags |= {"git.commit": commit, "git.dirty": str(dirty).lower(), "mlflow.source.git.commit": commit}
    return tags


class Tracker:
    """A run's MLflow tracking as the driver sees it: every call writes to disk and returns at once.

        with Tracker(cfg.run_dir, cfg.tracking, run_name=cfg.name) as tracker:
            tracker.start(cfg.resolved(), tags={"base.digest": ..., "data.digest": ...})
            tracker.log({"eval/average_accuracy": 61.0}, step=0)

    The block ends the MLflow run as FINISHED, FAILED or KILLED and sends what is left for a bounded time. Other
    processes write through `spool(writer)`, which they may be sent (it is picklable).
    """

    def __init__(
        self, run_dir: Path, cfg: TrackingConfig, *, run_name: str, say: Callable[[str], None] = progress.say
    ) -> None:
        """
        Args:
            run_dir: the run's folder; made when missing.
            cfg: where to track.
            run_name: name shown in MLflow.
            say: takes one line for the user, from any thread.

        Raises:
            ConfigError: see `tracking_uri`.
            StorageError: the run folder cannot be written.
        """
        self._sender = _Sender(run_dir.resolve(), tracking_uri(cfg, run_dir), cfg, run_name)
        self.run_dir, self.folder = self._sender.run_dir, self._sender.folder
        self._say, self._timeout_s = say, cfg.timeout_s
        self._driver, self._files = self.spool(DRIVER), self.spool(FILES)
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._outage = self._ended = False
        self._deadline = self._patience_s = math.inf

    @property
    def run_id(self) -> str | None:
        """Id of the MLflow run; None until the server has created it."""
        return self._sender.state.run_id

    @property
    def uri(self) -> str:
        """The tracking URI, without a password it may hold."""
        return _public(self._sender.uri)

    def spool(self, writer: str) -> MetricSpool:
        """The spool of one writer of this run, for instance "learner"; a `MetricSink` for any process."""
        return MetricSpool(self.folder, writer)

    def sink(self) -> MetricSpool:
        """The driver's own spool."""
        return self._driver

    def start(self, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> None:
        """Notes params (nested; see `flatten`) and tags, marks the run as running, and starts sending.

        MLflow never changes a param. When a continued run has another value, it is kept as the tag `changed.<name>`.
        """
        self._driver.append({"kind": "tags", "tags": _tags({**source_tags(), **(tags or {})})})
        self._driver.append({"kind": "params", "params": flatten(params)})
        self._driver.append({"kind": "status", "status": "RUNNING", "timestamp_ms": now_ms()})
        if not self._sender.lock():
            self._say(
                f"MLflow: another process is sending the metrics of {self.run_dir}; these are kept in "
                f"{self.folder} and sent by it, or by `avere-ray track {self.run_dir}`"
            )
            return
        # Imported here, not in the thread: two threads that import big packages can wait for each other.
        _import_mlflow(self._sender.uri, self._timeout_s)
        self._thread = threading.Thread(target=self._send_on, name="mlflow-sender", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Notes metrics at a step."""
        self._driver.log(metrics, step=step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Notes tags; a later value of the same tag wins."""
        self._driver.append({"kind": "tags", "tags": _tags(tags)})

    def log_text(self, name: str, text: str) -> None:
        """Keeps a text in the run folder and sends it as the artifact `name`, for instance "rollouts/round=0.txt"."""
        path = self.folder / "artifacts" / name
        write_text(path, text)
        self._log_path(path, name)

    def log_dict(self, name: str, value: Any) -> None:
        """Keeps a value as JSON in the run folder and sends it as the artifact `name`."""
        path = self.folder / "artifacts" / name
        write_json(path, value)
        self._log_path(path, name)

    def log_artifacts(self, path: Path, name: str) -> None:
        """Sends a folder as the artifact folder `name`; a file keeps its own name within the folder `name`.

        It is not copied, so it must stay in place until it has been sent.
        """
        path = Path(path).resolve()
        self._log_path(path, f"{name}/{path.name}" if path.is_file() else name)

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the MLflow run as "FINISHED", "FAILED" or "KILLED"; a later `start` continues it."""
        self._ended = True
        self._driver.append({"kind": "status", "status": status, "timestamp_ms": now_ms()})

    def close(self, timeout_s: float | None = None) -> int:
        """Sends what is left, says what could not be sent, and returns how many events that is.

        Takes at most `timeout_s` seconds; by default 60, and no more than `tracking.timeout_s` in an outage.
        """
        if self._thread is not None:
            limit = _CLOSE_S if timeout_s is None else timeout_s
            self._patience_s = self._timeout_s if timeout_s is None else limit
            self._deadline = time.monotonic() + limit
            self._closing.set()
            self._thread.join(limit + 1.0)
            self._thread = None
        left = self._sender.pending()
        if self._sender.refused:
            self._say(f"MLflow refused {self._sender.refused} events for good; see {self._sender.refusals}")
        if left:
            self._say(
                f"MLflow: {left} events are not sent yet; they are kept in {self.folder}, and "
                f"`avere-ray track {self.run_dir}` sends them when {self.uri} answers"
            )
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            self.finish("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")
        self.close()

    def _log_path(self, path: Path, name: str) -> None:
        inside = path.is_relative_to(self.run_dir)
        kept = path.relative_to(self.run_dir) if inside else path
        self._files.append({"kind": "artifact", "path": kept.as_posix(), "name": name})

    def _send_on(self) -> None:
        wait = _POLL_S
        try:
            while True:
                closing = self._closing.is_set()  # asked before the attempt: the last one sees everything
                error = self._sender.attempt()
                self._tell(error)
                if closing and (error is None or time.monotonic() >= self._deadline):
                    return
                wait = _POLL_S if error is None else min(2 * wait, _LONGEST_WAIT_S)
                if closing:
                    self._deadline = min(self._deadline, time.monotonic() + self._patience_s)
                    self._patience_s = math.inf  # counts from the first failure
                    time.sleep(_CLOSING_POLL_S)
                else:
                    self._closing.wait(wait)
        finally:
            self._sender.unlock()

    def _tell(self, error: Exception | None) -> None:
        if error is not None and not self._outage:
            self._say(
                f"MLflow at {self.uri} {_reason(error)}; metrics are kept in {self.folder} and will be sent when "
                f"it is back, or by `avere-ray track {self.run_dir}`"
            )
        elif error is None and self._outage:
            self._say(f"MLflow at {self.uri} answers again; what was kept has been sent")
        self._outage = error is not None


def send_rest(run_dir: Path, cfg: TrackingConfig) -> tuple[str | None, int, str]:
    """Sends what a run has not sent yet; returns the MLflow run id, how many events are left, and why ("" if none).

    With `cfg.uri` None the URI that the run was tracked with is used.

    Raises:
        InputError: the folder holds no tracked run.
        StageError: another process is sending the metrics of this run.
    """
    state = _State.read(run_dir)
    if state is None:
        raise InputError(
            f"{run_dir} holds no {STATE}, so nothing of it was tracked. Name the folder of a run, "
            "for instance runs/demo."
        )
    if cfg.uri is None:
        cfg = cfg.model_copy(update={"uri": state.tracking_uri, "experiment": state.experiment})
    sender = _Sender(run_dir.resolve(), tracking_uri(cfg, run_dir), cfg, state.run_name)
    if not sender.lock():
        raise StageError(f"another process is sending the metrics of {run_dir}; wait until it has ended")
    try:
        _import_mlflow(sender.uri, cfg.timeout_s)
        error = sender.attempt()
        return sender.state.run_id, sender.pending(), "" if error is None else _reason(error)
    finally:
        sender.unlock()


@dataclass
class _State:
    """What `RUN/mlflow.json` holds."""

    tracking_uri: str
    experiment: str
    run_name: str
    spool_id: str
    start_ms: int
    experiment_id: str | None = None
    run_id: str | None = None

    @classmethod
    def read(cls, run_dir: Path) -> "_State | None":
        path = run_dir / STATE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StageError(
                f"{path} cannot be read ({error}). Delete it; the metrics of the run are then sent to a new MLflow run."
            ) from error

    def write(self, run_dir: Path) -> None:
        write_json(run_dir / STATE, dataclasses.asdict(self))


class _Refused(Exception):
    """An event that can never be sent."""


class _Sender:
    """Moves events from the spools of one run to MLflow. Used by one thread at a time."""

    def __init__(self, run_dir: Path, uri: str, cfg: TrackingConfig, run_name: str) -> None:
        self.run_dir, self.folder, self.uri = run_dir, run_dir / FOLDER, uri
        self._make_folder()
        self.state = self._open_state(cfg, run_name)
        self._client: Any = None
        self._lock_file: IO[bytes] | None = None
        self._connected = False
        self.refused = 0
        self.refusals = self.folder / "refused.txt"
        self._unsure: set[Path] = set()
        """Spools whose first batch may be on the server already."""

    def lock(self) -> bool:
        """Makes this process the only sender of the run; False when another one is."""
        file = (self.folder / "sender.lock").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError:
            pass  # a file system without locks: there is no way to tell
        self._lock_file = file
        return True

    def unlock(self) -> None:
        """Lets another process send."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def pending(self) -> int:
        """How many completed events have not been sent."""
        return sum(1 for path in spool_paths(self.folder) for _ in self._unsent(path))

    def attempt(self) -> Exception | None:
        """Sends all there is; the error that stopped it, if one did.

        Artifact stores raise what they like, and none of it may stop the run or the sending thread: whatever it is,
        the events stay where they are until the next attempt.
        """
        try:
            self._connect()
            for path in sorted(spool_paths(self.folder), key=_turn):
                self._send_spool(path)
        except Exception as error:  # noqa: BLE001
            self._connected = False
            return error
        return None

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.folder, error) from error

    def _open_state(self, cfg: TrackingConfig, run_name: str) -> _State:
        state = _State.read(self.run_dir)
        public = _public(self.uri)
        if state is None:
            state = _State(
                tracking_uri=public,
                experiment=cfg.experiment,
                run_name=run_name,
                spool_id=uuid.uuid4().hex,
                start_ms=now_ms(),
            )
        elif (state.tracking_uri, state.experiment) != (public, cfg.experiment):
            state = dataclasses.replace(
                state, tracking_uri=public, experiment=cfg.experiment, experiment_id=None, run_id=None
            )
        state.write(self.run_dir)
        return state

    def _connect(self) -> None:
        if self._connected:
            return
        if self._client is None:
            from mlflow.tracking import MlflowClient

            if self.uri.startswith("sqlite"):
                _database(self.uri).parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self.uri)
        run_id = self._find_run()
        self._unsure = set(spool_paths(self.folder)) if run_id else set()
        if run_id is None:
            run_id = self._create_run()
        if run_id != self.state.run_id:
            self.state.run_id = run_id
            self.state.write(self.run_dir)
        self._connected = True

    def _find_run(self) -> str | None:
        from mlflow.exceptions import MlflowException

        if self.state.run_id is not None:
            try:
                if self._run_is_active():
                    return self.state.run_id
            except MlflowException as error:
                if error.get_http_status_code() != 404:
                    raise
        self.state.experiment_id = self._experiment_id()
        found = self._client.search_runs(
            [self.state.experiment_id], f"tags.`{SPOOL_TAG}` = '{self.state.spool_id}'", max_results=1
        )
        return found[0].info.run_id if found else None

    def _run_is_active(self) -> bool:
        return self._client.get_run(self.state.run_id).info.lifecycle_stage == "active"

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self.state.experiment)
        if experiment is None:
            return self._client.create_experiment(self.state.experiment, artifact_location=self._artifact_location())
        if experiment.lifecycle_stage != "active":
            self._client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _artifact_location(self) -> str | None:
        """Beside the database, absolute; a server decides for itself."""
        if not self.uri.startswith("sqlite"):
            return None
        return (_database(self.uri).parent / "mlflow-artifacts" / self.state.experiment).as_uri()

    def _create_run(self) -> str:
        run = self._client.create_run(
            self.state.experiment_id,
            start_time=self.state.start_ms,
            run_name=self.state.run_name,
            tags={SPOOL_TAG: self.state.spool_id},
        )
        return run.info.run_id

    def _send_spool(self, path: Path) -> None:
        while events := read_events(path, self._offset(path)):
            for batch in _batches(events):
                try:
                    self._send(path, batch)
                except _Refused as error:
                    self._send_singly(path, batch, error)
                self._unsure.discard(path)
                self._move(path, batch[-1].end)

    def _send_singly(self, path: Path, batch: Sequence[SpooledEvent], error: _Refused) -> None:
        """One event of the batch was refused for good: finds out which, sends the others."""
        if len(batch) == 1:
            self._refuse(path, batch[0], error)
            return
        self._unsure.add(path)
        for event in batch:
            try:
                self._send(path, [event])
            except _Refused as refusal:
                self._refuse(path, event, refusal)

    def _send(self, path: Path, batch: Sequence[SpooledEvent]) -> None:
        """Sends a batch. Raises `_Refused` when it never can be; anything else is worth another try."""
        from mlflow.exceptions import MlflowException

        try:
            self._send_kind(path, batch)
        except MlflowException as error:
            if error.get_http_status_code() == 400 and self._run_is_active():
                raise _Refused(str(error)) from error
            raise

    def _send_kind(self, path: Path, batch: Sequence[SpooledEvent]) -> None:
        event = batch[0]
        if event.kind == "metrics":
            self._send_metrics(path, batch)
        elif event.kind == "params":
            self._send_params(event.body["params"])
        elif event.kind == "tags":
            self._send_entries("tags", event.body["tags"])
        elif event.kind == "artifact":
            self._send_artifact(self.run_dir / event.body["path"], event.body["name"])
        elif event.kind == "status":
            self._send_status(event.body["status"], event.body["timestamp_ms"])
        elif event.kind == UNREADABLE:
            raise _Refused("the line was cut off, or is no event")

    def _send_metrics(self, path: Path, batch: Sequence[SpooledEvent]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, event.body["timestamp_ms"], event.body["step"])
            for event in batch
            for name, value in event.metrics.items()
        ]
        if path in self._unsure:
            metrics = self._missing(metrics)
        for chunk in _chunks(metrics, _METRICS_PER_BATCH):
            self._client.log_batch(self.state.run_id, metrics=chunk)

    def _missing(self, metrics: Sequence[Any]) -> list[Any]:
        """Those that the server does not have yet."""
        there: collections.Counter[tuple[Any, ...]] = collections.Counter()
        for name in {metric.key for metric in metrics}:
            there.update(_identity(metric) for metric in self._client.get_metric_history(self.state.run_id, name))
        missing = []
        for metric in metrics:
            identity = _identity(metric)
            if there[identity] > 0:
                there[identity] -= 1
            else:
                missing.append(metric)
        return missing

    def _send_params(self, params: Mapping[str, str]) -> None:
        there = self._client.get_run(self.state.run_id).data.params
        self._send_entries("params", {name: text for name, text in params.items() if name not in there})
        changed = {
            _cut(f"changed.{name}", "key"): _cut(text, "tag")
            for name, text in params.items()
            if name in there and there[name] != text
        }
        self._send_entries("tags", changed)

    def _send_entries(self, kind: str, entries: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        make = Param if kind == "params" else RunTag
        for chunk in _chunks([make(name, text) for name, text in entries.items()], _ENTRIES_PER_BATCH):
            self._client.log_batch(self.state.run_id, **{kind: chunk})

    def _send_artifact(self, path: Path, name: str) -> None:
        if not path.exists():
            raise _Refused(f"{path} does not exist any more")
        with _request_timeout(_ARTIFACT_TIMEOUT_S):
            if path.is_dir():
                self._client.log_artifacts(self.state.run_id, str(path), name)
            else:
                parent = Path(name).parent.as_posix()
                self._client.log_artifact(self.state.run_id, str(path), None if parent == "." else parent)

    def _send_status(self, status: str, timestamp_ms: int) -> None:
        if status == "RUNNING":
            self._client.update_run(self.state.run_id, status=status)
        else:
            self._client.set_terminated(self.state.run_id, status, timestamp_ms)

    def _refuse(self, path: Path, event: SpooledEvent, error: _Refused) -> None:
        self.refused += 1
        with self.refusals.open("a", encoding="utf-8") as file:
            file.write(f"{path.name}, {event.kind} event ending at byte {event.end}: {' '.join(str(error).split())}\n")

    def _unsent(self, path: Path) -> Iterator[SpooledEvent]:
        offset = self._offset(path)
        while events := read_events(path, offset):
            yield from events
            offset = events[-1].end

    def _offset(self, path: Path) -> int:
        try:
            sent = json.loads(path.with_suffix(".sent").read_text(encoding="utf-8"))
            return int(sent["offset"]) if sent["run_id"] == self.state.run_id else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _move(self, path: Path, offset: int) -> None:
        write_json(path.with_suffix(".sent"), {"run_id": self.state.run_id, "offset": offset})


def _import_mlflow(uri: str, timeout_s: float) -> None:
    """Imports MLflow without its telemetry and chatter; one try per request, since the sender tries again itself."""
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        _TIMEOUT_VARIABLE: str(math.ceil(timeout_s)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    import mlflow.tracking

    if uri.startswith("sqlite"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


@contextlib.contextmanager
def _request_timeout(seconds: float) -> Iterator[None]:
    before = os.environ[_TIMEOUT_VARIABLE]
    os.environ[_TIMEOUT_VARIABLE] = str(max(math.ceil(seconds), int(before)))
    try:
        yield
    finally:
        os.environ[_TIMEOUT_VARIABLE] = before


def _batches(events: Sequence[SpooledEvent]) -> Iterator[list[SpooledEvent]]:
    """Neighbouring metrics events together, up to MLflow's limit; every other event by itself."""
    batch: list[SpooledEvent] = []
    size = 0
    for event in events:
        points = len(event.body["metrics"]) if event.kind == "metrics" else _METRICS_PER_BATCH + 1
        if batch and size + points > _METRICS_PER_BATCH:
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += points
    if batch:
        yield batch


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _turn(path: Path) -> tuple[int, str]:
    return {DRIVER: 1, FILES: 2}.get(path.stem, 0), path.name


def _identity(metric: Any) -> tuple[str, int, int, float | str]:
    """What makes a point the same: databases store infinities as the largest float."""
    value: float | str = (
        "NaN" if math.isnan(metric.value) else max(min(metric.value, sys.float_info.max), -sys.float_info.max)
    )
    return metric.key, metric.step, metric.timestamp, value


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_cut(name, "key"): _cut(str(text), "tag") for name, text in tags.items()}


def _cut(text: str, what: str) -> str:
    return text if len(text) <= _LONGEST[what] else text[: _LONGEST[what] - 3] + "..."


def _database(uri: str) -> Path:
    return Path(uri.partition("://")[2][1:].partition("?")[0])


def _public(uri: str) -> str:
    """The URI without user name and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _reason(error: Exception) -> str:
    """What the server did, in words: the first cause says it in one line."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    status = getattr(error, "get_http_status_code", lambda: 0)()
    if status in (401, 403):
        return "refuses access (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
    away = any(isinstance(cause, OSError) for cause in chain) and not isinstance(error, StageError)
    first = (str(chain[-1]).strip() or type(chain[-1]).__name__).splitlines()[0]
    return f"{'does not answer' if away else 'gives an error'} ({first})"


def _git(*arguments: str) -> str:
    """Output of a git command in the folder of the package; empty when there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
