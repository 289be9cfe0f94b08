"""Tracking URIs: which ones may be used, where their database lies, and how they are shown."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from avere_ray.config import TrackingConfig
from avere_ray.errors import ConfigError

_SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")


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


def database_path(uri: str) -> Path | None:
    """File of a sqlite URI; None for a server."""
    return Path(uri.partition("://")[2][1:].partition("?")[0]) if uri.startswith("sqlite") else None


def public_uri(uri: str) -> str:
    """The URI without user name and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
