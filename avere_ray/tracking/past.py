"""Past runs as MLflow holds them: found by id, name or filter, with params, metrics, histories and artifacts.

The reading side of the door to MLflow; `tracking` writes runs while they go on. Nothing here creates a database or an
experiment: what is not there is an InputError that says so.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError, StageError
from avere_ray.tracking.nested import ANSWERS, ANSWERS_TAG, CHILD_TAG, ROOT_TAG
from avere_ray.tracking.params import current_params

DEFAULT_DATABASE = Path("runs/mlflow.db")
MOST_RUNS = 200
"""Runs a filter may find."""
_TIMEOUT_S = 30
_PAGE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """One MLflow run."""

    run_id: str
    name: str
    status: str
    start_ms: int
    params: Mapping[str, str]
    """As the run was last started with."""
    metrics: Mapping[str, float]
    """Last value of each metric."""
    tags: Mapping[str, str]


def default_uri(uri: str | None) -> str:
    """The given tracking URI, or the database that runs in `runs/` are tracked with.

    Raises:
        InputError: a database is not there.
    """
    if uri is None:
        uri = f"sqlite:///{DEFAULT_DATABASE.resolve()}"
    if uri.startswith("sqlite"):
        path = database(uri)
        if path is None or not path.is_file():
            raise InputError(
                f"no MLflow database at {path or uri}. Name the server or database with --tracking.uri, for instance "
                "sqlite:////absolute/path/mlflow.db, or name run folders instead of MLflow runs"
            )
    return uri


def database(uri: str) -> Path | None:
    """Path of an sqlite database; None for a server."""
    return Path(uri.partition("://")[2][1:].partition("?")[0]) if uri.startswith("sqlite") else None


def find_run(uri: str, experiment: str, selector: str) -> TrackedRun:
    """The run with this id, or the only one with this name.

    Raises:
        InputError: there is none, or several have the name.
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        if re.fullmatch(r"[0-9a-f]{32}", selector):
            return _by_id(client, uri, selector)
        found = _search(client, experiment, f"attributes.run_name = '{_quoted(selector)}'")
    if not found:
        raise InputError(
            f"{selector!r} is no run folder, and no run in experiment {experiment!r} of {uri} is called so"
        )
    if len(found) > 1:
        ids = ", ".join(f"{run.run_id} ({run.status.lower()})" for run in found[:5])
        raise InputError(f"{len(found)} runs are called {selector!r}; name one by its id: {ids}")
    return found[0]


def search_runs(uri: str, experiment: str, filter_string: str) -> list[TrackedRun]:
    """Runs that an MLflow filter finds, oldest first, for instance "params.seed = '0'".

    Raises:
        InputError: the filter is malformed, or finds nothing or too much.
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        found = _search(client, experiment, filter_string)
    if not found:
        raise InputError(f"the filter {filter_string!r} finds no run in experiment {experiment!r} of {uri}")
    if len(found) > MOST_RUNS:
        raise InputError(f"the filter {filter_string!r} finds {len(found)} runs; narrow it to {MOST_RUNS} at most")
    return found


def metric_history(uri: str, run_id: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) of metrics in order of steps, the last one of each step; a metric the run does not have is
    left out."""
    with mlflow_client(uri) as client:
        histories = {name: client.get_metric_history(run_id, name) for name in names}
    return {name: _last_of_each_step(points) for name, points in histories.items() if points}


def _last_of_each_step(points: Sequence[Any]) -> list[tuple[int, float]]:
    """What was measured last at each step, in order of steps."""
    ordered = sorted(points, key=lambda point: (point.step, point.timestamp))
    return sorted({point.step: point.value for point in ordered}.items())


def evaluation_artifacts(uri: str, run_id: str, scratch: Path) -> dict[str, Path]:
    """Folders of the evaluations that a run's child runs keep as artifacts, fetched into `scratch`, by stage; none for
    runs that were tracked without.

    Raises:
        StageError: MLflow does not answer.
    """
    found: dict[str, Path] = {}
    with mlflow_client(uri) as client:
        experiment = client.get_run(run_id).info.experiment_id
        for child in client.search_runs([experiment], f"tags.`{ROOT_TAG}` = '{run_id}'", max_results=MOST_RUNS):
            stage = child.data.tags.get("stage", "")
            answers = child.data.tags.get(ANSWERS_TAG, ANSWERS)
            if stage.startswith("evals/") and client.list_artifacts(child.info.run_id, answers):
                place = scratch / child.info.run_id
                place.mkdir()
                found[stage] = Path(client.download_artifacts(child.info.run_id, answers, str(place)))
    return found


def log_file(uri: str, run_id: str, path: Path, folder: str) -> None:
    """Puts a file into a run's artifacts.

    Raises:
        StageError: MLflow does not take it.
    """
    with mlflow_client(uri) as client:
        client.log_artifact(run_id, str(path), folder)


def run_folder(run: TrackedRun, uri: str) -> Path | None:
    """The run's folder on this machine, when it is there and belongs to this very run."""
    import json

    named = Path(run.params.get("run_dir", ""))
    beside = database(uri)
    for folder in [named, *([beside.parent / named.name] if beside is not None else [])]:
        state = folder / "mlflow.json"
        if named.name and state.is_file():
            try:
                if json.loads(state.read_text(encoding="utf-8")).get("run_id") == run.run_id:
                    return folder.resolve()
            except (ValueError, AttributeError):
                continue
    return None


@contextmanager
def mlflow_client(uri: str) -> Iterator[Any]:
    """An MLflow client; what MLflow or the network raises inside the block becomes a StageError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        yield MlflowClient(uri)
    except MlflowException as error:
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise StageError(f"MLflow at {_public(uri)} gives an error: {first}") from error
    except OSError as error:
        raise StageError(f"MLflow at {_public(uri)} does not answer: {error}") from error


def _by_id(client: Any, uri: str, run_id: str) -> TrackedRun:
    from mlflow.exceptions import MlflowException

    try:
        return _tracked(client.get_run(run_id))
    except MlflowException as error:
        if error.get_http_status_code() == 404:
            raise InputError(f"{_public(uri)} has no run {run_id}") from error
        raise


def _search(client: Any, experiment: str, filter_string: str) -> list[TrackedRun]:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise InputError(f"there is no experiment {experiment!r}; name another with --tracking.experiment")
    runs: list[Any] = []
    token = None
    while len(runs) <= MOST_RUNS:
        try:
            page = client.search_runs([found.experiment_id], filter_string, max_results=_PAGE, page_token=token,
                                      order_by=["attributes.start_time ASC"])  # fmt: skip
        except MlflowException as error:
            if error.get_http_status_code() == 400:
                raise InputError(f"MLflow cannot read the filter {filter_string!r}: {error}") from error
            raise
        runs += [run for run in page if CHILD_TAG not in run.data.tags]  # stages of runs, not runs
        if not (token := page.token):
            break
    return [_tracked(run) for run in runs]


def _tracked(run: Any) -> TrackedRun:
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id[:8],
        status=run.info.status,
        start_ms=run.info.start_time or 0,
        params=current_params(run.data.params, run.data.tags),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def _quoted(text: str) -> str:
    return text.replace("'", "")


def _public(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)
