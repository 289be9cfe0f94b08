"""A run's MLflow tracking as the driver sees it: notes go to disk at once, a thread sends them, the end is bounded."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from avere_ray import progress
from avere_ray.config import TrackingConfig
from avere_ray.errors import InputError, StageError
from avere_ray.metrics import MetricSpool, now_ms
from avere_ray.stages import write_json, write_text
from avere_ray.tracking.address import public_uri, tracking_uri
from avere_ray.tracking.mlflow_run import import_mlflow, reason
from avere_ray.tracking.params import fitting_tags, flatten, source_tags
from avere_ray.tracking.sender import DRIVER, FILES, Sender
from avere_ray.tracking.state import STATE, RunState

_POLL_S = 1.0
_CLOSING_POLL_S = 0.25
_LONGEST_WAIT_S = 30.0
_CLOSE_S = 60.0


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
        self._sender = Sender(run_dir.resolve(), tracking_uri(cfg, run_dir), cfg, run_name)
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
        return public_uri(self._sender.uri)

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
        self._driver.append({"kind": "tags", "tags": fitting_tags({**source_tags(), **(tags or {})})})
        self._driver.append({"kind": "params", "params": flatten(params)})
        self._driver.append({"kind": "status", "status": "RUNNING", "timestamp_ms": now_ms()})
        if not self._sender.lock():
            self._say(
                f"MLflow: another process is sending the metrics of {self.run_dir}; these are kept in "
                f"{self.folder} and sent by it, or by `avere-ray track {self.run_dir}`"
            )
            return
        # Imported here, not in the thread: two threads that import big packages can wait for each other.
        import_mlflow(self._sender.uri, self._timeout_s)
        self._thread = threading.Thread(target=self._send_on, name="mlflow-sender", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], *, step: int, source: str = "") -> None:
        """Notes metrics at a step; see `MetricSpool.log`."""
        self._driver.log(metrics, step=step, source=source)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Notes tags; a later value of the same tag wins."""
        self._driver.append({"kind": "tags", "tags": fitting_tags(tags)})

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

    def log_table(self, name: str, columns: Mapping[str, Sequence[Any]], *, child: str = "") -> None:
        """Keeps a table, columns of equal length by name, and sends it as the artifact `name`, for instance "a/b.json";
        MLflow shows it and `mlflow.load_table` reads it."""
        path = self.folder / "artifacts" / name
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        write_json(path, {"columns": list(columns), "data": rows})
        self._log_path(path, name, child=child, table=True)

    def log_artifacts(self, path: Path, name: str, *, child: str = "") -> None:
        """Sends a folder as the artifact folder `name`; a file keeps its own name within the folder `name`.

        It is not copied, so it must stay in place until it has been sent.
        """
        path = Path(path).resolve()
        self._log_path(path, f"{name}/{path.name}" if path.is_file() else name, child=child)

    def log_child(
        self,
        child: str,
        *,
        run_name: str,
        key: str,
        metrics: Mapping[str, float],
        step: int,
        start_ms: int,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        model: str = "",
        model_key: str = "",
    ) -> None:
        """Notes a stage that ended as a child run; "round=0/adapters" is a child of "round=0".

        Args:
            key: of the stage; a child is sent once per key.
            model: name of the logged model that the figures are about, see `log_model`.
            model_key: its key.
        """
        values = {name: value for name, value in metrics.items() if math.isfinite(value)}
        event = {"kind": "child", "child": child, "run_name": run_name, "key": key, "metrics": values, "step": step,
                 "params": dict(params or {}), "tags": dict(tags or {}), "status": "FINISHED", "start_ms": start_ms,
                 "end_ms": now_ms(), "model": model, "model_key": model_key}  # fmt: skip
        self._driver.append(event)

    def log_dataset(
        self, name: str, digest: str, *, source: str, context: str, profile: Mapping[str, Any], child: str = ""
    ) -> None:
        """Notes a data set that is read, for instance in the context "training", with its digest and counts."""
        self._driver.append({"kind": "dataset", "name": name, "digest": digest, "source": source, "context": context,
                             "profile": dict(profile), "child": child})  # fmt: skip

    def log_model(
        self,
        name: str,
        path: Path | None,
        *,
        step: int,
        tags: Mapping[str, str],
        child: str = "",
        key: str = "",
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Notes a logged model, with the files of a folder, or None to name it only.

        Args:
            key: of the stage that made it; another key makes another logged model of the same name.
            metrics: figures of the model at that step; `log_child` adds others.
        """
        kept = self._kept(Path(path).resolve()) if path is not None else ""
        values = {key: value for key, value in (metrics or {}).items() if math.isfinite(value)}
        event = {"kind": "model", "name": name, "path": kept, "step": step, "tags": dict(tags), "child": child,
                 "key": key, "metrics": values, "timestamp_ms": now_ms()}  # fmt: skip
        self._files.append(event)

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

    def _log_path(self, path: Path, name: str, *, child: str = "", table: bool = False) -> None:
        event: dict[str, Any] = {"kind": "artifact", "path": self._kept(path), "name": name}
        self._files.append(event | ({"child": child} if child else {}) | ({"table": True} if table else {}))

    def _kept(self, path: Path) -> str:
        """Relative to the run folder where it lies inside, so that the folder may be moved."""
        return (path.relative_to(self.run_dir) if path.is_relative_to(self.run_dir) else path).as_posix()

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
                f"MLflow at {self.uri} {reason(error)}; metrics are kept in {self.folder} and will be sent when "
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
    state = RunState.read(run_dir)
    if state is None:
        raise InputError(
            f"{run_dir} holds no {STATE}, so nothing of it was tracked. Name the folder of a run, "
            "for instance runs/demo."
        )
    if cfg.uri is None:
        cfg = cfg.model_copy(update={"uri": state.tracking_uri, "experiment": state.experiment})
    sender = Sender(run_dir.resolve(), tracking_uri(cfg, run_dir), cfg, state.run_name)
    if not sender.lock():
        raise StageError(f"another process is sending the metrics of {run_dir}; wait until it has ended")
    try:
        import_mlflow(sender.uri, cfg.timeout_s)
        error = sender.attempt()
        return sender.state.run_id, sender.pending(), "" if error is None else reason(error)
    finally:
        sender.unlock()
