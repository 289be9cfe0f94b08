"""Adapters in MLflow's model registry: one version per run, and the aliases that say which one is used.

`candidate` is the newest adapter put forward, `champion` the one that passed the gate of `avere-ray promote`.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError
from avere_ray.tracking.past import mlflow_client

CANDIDATE, CHAMPION = "candidate", "champion"
ADAPTER = "adapter"
"""Artifact folder of a run's adapter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """One version of a registered model."""

    version: str
    run_id: str


def alias_of(uri: str, name: str, alias: str) -> Registered | None:
    """The version an alias names, or None.

    Raises:
        StageError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_client(uri) as client:
        try:
            found = client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.get_http_status_code() in (400, 404):  # no such model, or no such alias
                return None
            raise
    return Registered(version=str(found.version), run_id=str(found.run_id))


def register(uri: str, name: str, run_id: str) -> Registered:
    """The version of a run's adapter, made when there is none yet.

    Raises:
        InputError: the run has no adapter among its artifacts.
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        _make_model(client, name)
        for found in client.search_model_versions(f"name = '{name}'"):
            if found.run_id == run_id:
                return Registered(version=str(found.version), run_id=run_id)
        if not client.list_artifacts(run_id, ADAPTER):
            raise InputError(
                f"MLflow run {run_id} has no artifact {ADAPTER!r}; `avere-ray track RUN` sends what a run could not"
            )
        source = f"{client.get_run(run_id).info.artifact_uri}/{ADAPTER}"
        made = client.create_model_version(name, source, run_id=run_id)
        return Registered(version=str(made.version), run_id=run_id)


def set_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Lets an alias name a version, and no other.

    Raises:
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        client.set_registered_model_alias(name, alias, version)


def fetch_adapter(uri: str, run_id: str, folder: Path) -> Path:
    """A run's adapter, in a folder of its own below `folder`; one that is there already is not fetched again.

    Raises:
        InputError: the run has no adapter among its artifacts.
        StageError: MLflow does not answer.
    """
    place = folder / run_id
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    with mlflow_client(uri) as client, tempfile.TemporaryDirectory(dir=folder) as scratch:
        if not client.list_artifacts(run_id, ADAPTER):
            raise InputError(f"MLflow run {run_id} has no artifact {ADAPTER!r}")
        fetched = Path(client.download_artifacts(run_id, ADAPTER, scratch))
        try:
            fetched.rename(place)
        except OSError:  # another replica was first
            if not place.is_dir():
                raise
    return place


def _make_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.get_http_status_code() != 404:
            raise
        client.create_registered_model(name, description="Adapters of avere_ray; champion passed `avere-ray promote`.")
