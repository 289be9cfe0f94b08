"""What one round of training works on, in a form that travels to Ray Train's workers."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADAPTER_MANIFEST = "adapter_manifest.json"
MODEL_FOLDER = "model"
"""Folder beside the manifest that holds the whole model after full fine-tuning."""
TEXT_PRIOR = "text_prior.json"
"""File beside the manifest: where an adaptive text prior has got to, for the next round to go on from."""
PAIRS, SIZES, FIRST_PAIR = "pairs.parquet", "sizes.json", "first_pair.txt"
"""Files in the checkpoint folder: usable pairs, their lengths, the first pair in words."""

_PATHS = ("reference", "decoded", "start", "out", "checkpoints", "spool", "scratch", "mlflow", "features", "logps")


def writer_of(round_: int) -> str:
    """Name of the metric spool of a round's training."""
    return f"train-round{round_}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """What one round of training works on; every path is absolute, since Ray Train changes the working directory."""

    reference: Path
    """reference.parquet."""
    decoded: Path
    """Folder of the decoded clips."""
    start: Path | None
    """Adapter folder to go on from; None starts a fresh adapter."""
    out: Path
    """Folder for the new adapter."""
    checkpoints: Path
    """Folder of the round's checkpoints, with the pairs it trains on; see `learner.preflight`."""
    spool: Path
    """Folder of the metric spools."""
    scratch: Path
    """Folder for Ray Train's own files; nothing in it is needed afterwards."""
    mlflow: Path
    """File that holds the id of the MLflow run, once there is one."""
    features: Path
    """Folder of tower outputs, shared by all runs."""
    logps: Path
    """Folder of reference figures, shared by all runs."""
    source: str
    """Key of the stage, under which its metrics are logged once."""
    round: int
    first_step: int
    """Optimizer steps of the run before this round, so that metric steps go on rising."""
    key: str
    """Digest of everything that decides what comes out, except how many workers share the work."""
    base_digest: str
    decode_spec: str
    data_digest: str

    @property
    def pairs(self) -> Path:
        """Table of the pairs it trains on."""
        return self.checkpoints / PAIRS

    @property
    def writer(self) -> str:
        """Name of its metric spool."""
        return writer_of(self.round)

    def sizes(self) -> list[int] | None:
        """Length of each pair in tokens; None when nobody has measured."""
        path = self.checkpoints / SIZES
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def to_plain(self) -> dict[str, Any]:
        """Plain values, paths absolute."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: str(v.resolve()) if isinstance(v, Path) else v for k, v in values.items()}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "TrainJob":
        """The inverse of `to_plain`."""
        return cls(**{k: Path(v) if k in _PATHS and v is not None else v for k, v in values.items()})  # type: ignore[arg-type]
