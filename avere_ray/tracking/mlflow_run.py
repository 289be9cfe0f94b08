"""The MLflow side of tracking: finds or creates the MLflow run of a run folder, and sends it one batch at a time.

The only file that imports mlflow, and only once something is to be sent.
"""

import collections
import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avere_ray.errors import StageError
from avere_ray.metrics import UNREADABLE, SpooledEvent
from avere_ray.tracking.address import database_path
from avere_ray.tracking.nested import Nested
from avere_ray.tracking.params import changed_tags
from avere_ray.tracking.state import RunState

SPOOL_TAG = "avere_ray.spool"
METRICS_PER_BATCH = 1000
"""MLflow's limit per request."""

_ENTRIES_PER_BATCH = 100  # MLflow's limit of params or tags per request
_ARTIFACT_TIMEOUT_S = 120.0  # the server answers an upload only when it has stored it
_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # read by MLflow at every request


class Refused(Exception):
    """An event that can never be sent."""


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    timestamp_ms: int
    step: int


class MlflowRun:
    """The MLflow run that belongs to a run folder; every method asks the server and may fail while it is away."""

    def __init__(self, run_dir: Path, uri: str, state: RunState) -> None:
        self.run_dir, self.uri, self.state = run_dir, uri, state
        self._client: Any = None
        self._nested: Nested | None = None

    def connect(self) -> bool:
        """Finds the run, or creates it; `state` holds its id then. Returns whether it was there before."""
        database = database_path(self.uri)
        if self._client is None:
            from mlflow.tracking import MlflowClient

            if database is not None:
                database.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self.uri)
        found = self._find()
        run_id = found or self._create()
        self._nested = None
        if run_id != self.state.run_id:
            self.state.run_id = run_id
            self.state.write(self.run_dir)
        return found is not None

    def is_active(self) -> bool:
        """Whether nobody deleted the run in MLflow."""
        return self._client.get_run(self.state.run_id).info.lifecycle_stage == "active"

    def send_points(self, points: Sequence[Point], *, unsure: bool) -> None:
        """Sends points; `unsure`: some may be there already, so what the server has is asked for first.

        Raises:
            Refused: the server never takes one of them. Any other error is worth another try.
        """
        from mlflow.entities import Metric

        metrics = [Metric(*point) for point in points]
        with self._refusals():
            if unsure:
                metrics = self._missing(metrics)
            for chunk in _chunks(metrics, METRICS_PER_BATCH):
                self._client.log_batch(self.state.run_id, metrics=chunk)

    def send_event(self, event: SpooledEvent) -> None:
        """Sends an event of any other kind.

        Raises:
            Refused: the server never takes it. Any other error is worth another try.
        """
        with self._refusals():
            if event.kind == "params":
                self._send_params(event.body["params"])
            elif event.kind == "tags":
                self._send_entries("tags", event.body["tags"])
            elif event.kind == "artifact":
                self._send_artifact(event.body)
            elif event.kind in ("child", "dataset", "model"):
                self._send_nested(event)
            elif event.kind == "status":
                self._send_status(event.body["status"], event.body["timestamp_ms"])
            elif event.kind == UNREADABLE:
                raise Refused("the line was cut off, or is no event")

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Tells what can never be sent from what is worth another try."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.get_http_status_code() == 400 and self.is_active():
                raise Refused(str(error)) from error
            raise

    def _find(self) -> str | None:
        from mlflow.exceptions import MlflowException

        if self.state.run_id is not None:
            try:
                if self.is_active():
                    return self.state.run_id
            except MlflowException as error:
                if error.get_http_status_code() != 404:
                    raise
        self.state.experiment_id = self._experiment_id()
        found = self._client.search_runs(
            [self.state.experiment_id], f"tags.`{SPOOL_TAG}` = '{self.state.spool_id}'", max_results=1
        )
        return found[0].info.run_id if found else None

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self.state.experiment)
        if experiment is None:
            return self._client.create_experiment(self.state.experiment, artifact_location=self._artifact_location())
        if experiment.lifecycle_stage != "active":
            self._client.restore_experiment(experiment.experiment_id)
        return experiment.experiment_id

    def _artifact_location(self) -> str | None:
        """Beside the database, absolute; a server decides for itself."""
        database = database_path(self.uri)
        return None if database is None else (database.parent / "mlflow-artifacts" / self.state.experiment).as_uri()

    def _create(self) -> str:
        run = self._client.create_run(
            self.state.experiment_id,
            start_time=self.state.start_ms,
            run_name=self.state.run_name,
            tags={SPOOL_TAG: self.state.spool_id},
        )
        return run.info.run_id

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
        there = self._client.get_run(self.state.run_id).data
        self._send_entries("params", {name: text for name, text in params.items() if name not in there.params})
        self._send_entries("tags", changed_tags(there.params, params, there.tags))

    def _send_entries(self, kind: str, entries: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        make = Param if kind == "params" else RunTag
        for chunk in _chunks([make(name, text) for name, text in entries.items()], _ENTRIES_PER_BATCH):
            self._client.log_batch(self.state.run_id, **{kind: chunk})

    def _send_artifact(self, body: Mapping[str, Any]) -> None:
        path, name = self._existing(body["path"]), body["name"]
        run_id = self._hanging().run_id(body.get("child", ""))
        with _request_timeout(_ARTIFACT_TIMEOUT_S):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), name)
            else:
                parent = Path(name).parent.as_posix()
                self._client.log_artifact(run_id, str(path), None if parent == "." else parent)
        if body.get("table"):
            self._hanging().mark_table(run_id, name)

    def _send_nested(self, event: SpooledEvent) -> None:
        nested, body = self._hanging(), event.body
        if event.kind == "child":
            nested.send_child(body)
        elif event.kind == "dataset":
            nested.send_dataset(body)
        else:
            folder = self._existing(body["path"]) if body["path"] else None
            with _request_timeout(_ARTIFACT_TIMEOUT_S):
                nested.send_model(body, folder)

    def _existing(self, kept: str) -> Path:
        path = self.run_dir / kept
        if not path.exists():
            raise Refused(f"{path} does not exist any more")
        return path

    def _hanging(self) -> Nested:
        """What hangs on the run; belongs to this very run."""
        if self._nested is None:
            run = self._client.get_run(self.state.run_id)
            self._nested = Nested(self._client, experiment_id=run.info.experiment_id, run_id=run.info.run_id,
                                  spool_id=self.state.spool_id)  # fmt: skip
        return self._nested

    def _send_status(self, status: str, timestamp_ms: int) -> None:
        if status == "RUNNING":
            self._client.update_run(self.state.run_id, status=status)
        else:
            self._client.set_terminated(self.state.run_id, status, timestamp_ms)


def import_mlflow(uri: str, timeout_s: float) -> None:
    """Imports MLflow without its telemetry and chatter; one try per request, since the sender tries again itself."""
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        _TIMEOUT_VARIABLE: str(math.ceil(timeout_s)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    import mlflow.tracking

    if uri.startswith("sqlite"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def reason(error: Exception) -> str:
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


@contextlib.contextmanager
def _request_timeout(seconds: float) -> Iterator[None]:
    before = os.environ[_TIMEOUT_VARIABLE]
    os.environ[_TIMEOUT_VARIABLE] = str(max(math.ceil(seconds), int(before)))
    try:
        yield
    finally:
        os.environ[_TIMEOUT_VARIABLE] = before


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _identity(metric: Any) -> tuple[str, int, int, float | str]:
    """What makes a point the same: databases store infinities as the largest float."""
    value: float | str = (
        "NaN" if math.isnan(metric.value) else max(min(metric.value, sys.float_info.max), -sys.float_info.max)
    )
    return metric.key, metric.step, metric.timestamp, value
