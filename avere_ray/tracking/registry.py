"""Adapters in MLflow's model registry: one version per adapter, and the aliases that say which one is used.

`candidate` is the newest adapter put forward, `champion` the one that passed the gate of `avere-ray promote`. An
adapter is known by the digest of its weights: a run that is continued has another one, in an artifact folder of its own
(`adapter/<digest>`), so what a version stands for never changes. In runs that were tracked without digests the adapter
is the folder `adapter` itself.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError
from avere_ray.tracking.past import mlflow_client

CANDIDATE, CHAMPION = "candidate", "champion"
ADAPTER = "adapter"
"""Artifact folder of a run's adapters."""
NEWEST = "adapter.digest"
"""Tag of a run: its newest adapter; tag of a version: its adapter."""
_EVALUATED = "evaluated.round"
_MANIFEST = "adapter_manifest.json"
_WEIGHTS = "adapter_model.safetensors"
_HOW = "evaluate the base and the adapter, or run the pipeline; `avere-ray track RUN` sends what a run could not"


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """One version of a registered model."""

    version: str
    run_id: str
    digest: str = ""
    """Of the adapter's weights; empty for runs that were tracked without."""


def adapter_digest(folder: Path) -> str:
    """Digest of the weights of an adapter, from its manifest; empty where the folder holds no adapter."""
    if not (folder / _WEIGHTS).is_file():
        return ""
    try:
        return str(json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def evaluated_tag(round_: int) -> str:
    """Tag of a run: the adapter that its evaluation after this round is about."""
    return f"{_EVALUATED}{round_}"


def evaluated_adapter(tags: Mapping[str, str], stage: str) -> str | None:
    """Digest of the adapter that an evaluation ("round=1") of a run with these tags is about, empty where it is about
    none of the run's; None for a run that was tracked without such tags."""
    if not any(name.startswith(_EVALUATED) for name in tags):
        return None
    return tags.get(f"{_EVALUATED}{stage.partition('=')[2]}", "")


def alias_of(uri: str, name: str, alias: str) -> Registered | None:
    """The version an alias names, or None.

    Raises:
        StageError: MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_client(uri) as client:
        try:
            return _registered(client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            if error.get_http_status_code() in (400, 404):  # no such model, or no such alias
                return None
            raise


def register(uri: str, name: str, run_id: str, digest: str | None = None) -> Registered:
    """The version of a run's adapter, made when there is none yet.

    Args:
        digest: which one; None takes the run's newest.

    Raises:
        InputError: the run has no such adapter among its artifacts, or its files are those of another one.
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        digest = digest if digest is not None else client.get_run(run_id).data.tags.get(NEWEST, "")
        found = _version_of(client, name, run_id, digest)
        if found is not None:
            return found
        place = _place(client, run_id, digest)
        _make_model(client, name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{place}"
        tags = {NEWEST: digest} if digest else {}
        return _registered(client.create_model_version(name, source, run_id=run_id, tags=tags))


def set_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Lets an alias name a version, and no other.

    Raises:
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        client.set_registered_model_alias(name, alias, version)


def fetch_adapter(uri: str, run_id: str, folder: Path, digest: str | None = None) -> Path:
    """An adapter of a run, in a folder of its own below `folder`; one that is there already is not fetched again.

    Args:
        digest: which one; None takes that of the run's version that an alias `champion` names, else the newest.

    Raises:
        InputError: the run has no such adapter among its artifacts, or its files are those of another one.
        StageError: MLflow does not answer.
    """
    with mlflow_client(uri) as client:
        digest = _champion_digest(client, run_id) if digest is None else digest
        place = folder / (digest or run_id)
        if place.is_dir():
            return place
        artifacts = _place(client, run_id, digest)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fetched = Path(client.download_artifacts(run_id, artifacts, scratch))
            try:
                fetched.rename(place)
            except OSError:  # another replica was first
                if not place.is_dir():
                    raise
    return place


def _champion_digest(client: Any, run_id: str) -> str:
    """Digest of the run's version that is a champion; else of its newest adapter."""
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    for found in versions:
        aliases = client.get_registered_model(found.name).aliases
        if str(aliases.get(CHAMPION, "")) == str(found.version):
            return str(found.tags.get(NEWEST, ""))
    return str(client.get_run(run_id).data.tags.get(NEWEST, ""))


def _place(client: Any, run_id: str, digest: str) -> str:
    """Artifact folder of an adapter, whose files are its own."""
    place = f"{ADAPTER}/{digest}" if digest else ADAPTER
    if not client.list_artifacts(run_id, place):
        raise InputError(f"MLflow run {run_id} has no artifact {place!r}; {_HOW}")
    if digest:
        with tempfile.TemporaryDirectory(prefix="adapter-") as scratch:
            held = json.loads(Path(client.download_artifacts(run_id, f"{place}/{_MANIFEST}", scratch)).read_bytes())
        if held["weights_sha256"] != digest:
            raise InputError(
                f"MLflow run {run_id}: the artifact {place!r} holds another adapter, {held['weights_sha256']}; the "
                "round was trained again before MLflow could be told. Evaluate the adapter again"
            )
    return place


def _version_of(client: Any, name: str, run_id: str, digest: str) -> Registered | None:
    found = [_registered(version) for version in client.search_model_versions(f"name = '{name}'")]
    return next((one for one in found if (one.run_id, one.digest) == (run_id, digest)), None)


def _registered(version: Any) -> Registered:
    digest = str((version.tags or {}).get(NEWEST, ""))
    return Registered(version=str(version.version), run_id=str(version.run_id), digest=digest)


def _make_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.get_http_status_code() != 404:
            raise
        client.create_registered_model(name, description="Adapters of avere_ray; champion passed `avere-ray promote`.")
