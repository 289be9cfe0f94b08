"""`RUN/mlflow.json`: which MLflow run belongs to a run folder, so that the next start continues the same one."""

import dataclasses
import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from avere_ray.config import TrackingConfig
from avere_ray.errors import StageError
from avere_ray.metrics import now_ms
from avere_ray.stages import write_json
from avere_ray.tracking.address import public_uri

STATE = "mlflow.json"


@dataclass
class RunState:
    """What `RUN/mlflow.json` holds."""

    tracking_uri: str
    """Without user name and password."""
    experiment: str
    run_name: str
    spool_id: str
    """Value of the MLflow run's tag `avere_ray.spool`."""
    start_ms: int
    """Milliseconds since 1970."""
    experiment_id: str | None = None
    run_id: str | None = None
    """None until the server has created the run."""

    @classmethod
    def read(cls, run_dir: Path) -> "RunState | None":
        """The state of a run folder; None when nothing of it was tracked.

        Raises:
            StageError: the file is damaged.
        """
        path = run_dir / STATE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StageError(
                f"{path} cannot be read ({error}). Delete it; the metrics of the run are then sent to a new MLflow run."
            ) from error

    @classmethod
    def open(cls, run_dir: Path, uri: str, cfg: TrackingConfig, run_name: str) -> "RunState":
        """The state to go on with, written: another server or experiment means another MLflow run.

        Raises:
            StageError: the file is damaged.
            StorageError: it cannot be written.
        """
        state, public = cls.read(run_dir), public_uri(uri)
        if state is None:
            state = cls(
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
        state.write(run_dir)
        return state

    def write(self, run_dir: Path) -> None:
        """Writes the state into the run folder."""
        write_json(run_dir / STATE, dataclasses.asdict(self))
