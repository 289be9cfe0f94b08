"""The spool: metrics written to disk first, one file per writer, so that no server can hold up a run.

Every process that measures something (driver, learner rank 0, actors) appends events to its own file
`RUN/metrics/<writer>.jsonl`, one JSON line each; `avere_ray.tracking` in the driver reads them and sends them on.
A writer needs neither MLflow nor a network. Kinds of event:

    {"kind": "metrics", "metrics": {name: value}, "step": 3, "timestamp_ms": 1700000000000, "source": "stage key"}
    {"kind": "params", "params": {name: text}}          {"kind": "tags", "tags": {name: text}}
    {"kind": "artifact", "path": "metrics/artifacts/config.json", "name": "config.json"}
    {"kind": "status", "status": "FINISHED", "timestamp_ms": 1700000000000}
    {"kind": "child", "child": "round=0/adapters", "run_name": "train, round 0", "key": "...", "metrics": {...}, ...}
    {"kind": "dataset", "name": "clips", "digest": "...", "source": "folder", "context": "training", "profile": {...}}
    {"kind": "model", "name": "adapter-round0", "path": "adapters/round=0", "step": 30, "tags": {...}}
An artifact, data set or model with "child" belongs to that child run; one with "table": true is shown as a table.

NaN and infinities are kept, since a loss that became NaN is what a person looks for: they are written as the
strings "NaN", "Infinity" and "-Infinity" (JSON has no such numbers) and read back as floats.
"""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avere_ray.errors import ConfigError
from avere_ray.stages import storage_error

FOLDER = "metrics"
"""Where the spools lie in a run folder."""
UNREADABLE = "unreadable"
"""Kind given to a line that is no event: cut off by a crash and followed by another run's events."""

_WRITER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FIELDS = {
    "metrics": ("metrics", "step", "timestamp_ms"),
    "params": ("params",),
    "tags": ("tags",),
    "artifact": ("path", "name"),
    "child": ("child", "run_name", "key", "metrics", "step", "params", "tags", "status", "start_ms", "end_ms"),
    "dataset": ("name", "digest", "source", "context", "profile"),
    "model": ("name", "path", "step", "tags"),
    "status": ("status", "timestamp_ms"),
}


class MetricSpool:
    """Appends one writer's events to its file; a `protocols.MetricSink`. Cheap to pickle: it holds no open file."""

    def __init__(self, folder: Path, writer: str) -> None:
        """
        Args:
            folder: the run's spool folder, `RUN/metrics`; made when missing.
            writer: name of this process among the run's writers, for instance "learner".

        Raises:
            ConfigError: `writer` is no plain word.
        """
        if not _WRITER.fullmatch(writer):
            raise ConfigError(f"writer {writer!r} may hold letters, digits, '_' and '-' only; it names a file")
        self.path = Path(folder).resolve() / f"{writer}.jsonl"

    def log(self, metrics: Mapping[str, float], *, step: int, source: str = "") -> None:
        """Appends one metrics event with the time of now; anything that `float()` takes is a value.

        Args:
            metrics: values by name.
            step: optimizer step of the run.
            source: key of the stage that the figures come from. A point is a name, a step and a source: when a stage
                is done again and measures it again, the first one is sent to MLflow and the others are not.

        Raises:
            StorageError: the file cannot be written (disk full, no permission).
        """
        values = {name: _to_json(float(value)) for name, value in metrics.items()}
        if values:
            event = {"kind": "metrics", "metrics": values, "step": int(step), "timestamp_ms": now_ms()}
            self.append(event | {"source": source} if source else event)

    def append(self, event: Mapping[str, Any]) -> None:
        """Appends one event as a line of strict JSON.

        Raises:
            StorageError: the file cannot be written (disk full, no permission).
        """
        line = json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:  # one write of the whole line when the file is closed
                file.write(line if _ends_with_newline(self.path) else b"\n" + line)
        except OSError as error:
            raise storage_error(self.path, error) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class SpooledEvent:
    """One line of a spool."""

    kind: str
    """As above, or "unreadable"."""
    end: int
    """Offset of the byte after the line; where reading goes on."""
    body: dict[str, Any] = field(default_factory=dict)
    """The event as written; empty when it is unreadable."""

    @property
    def metrics(self) -> dict[str, float]:
        """Values of a metrics event, NaN and infinities as floats again; none for other events."""
        if self.kind != "metrics":
            return {}
        return {name: float(value) for name, value in self.body.get("metrics", {}).items()}

    @property
    def step(self) -> int:
        """Step of a metrics event."""
        return self.body["step"]

    @property
    def source(self) -> str:
        """Key of the stage that a metrics event comes from; empty when it was not named."""
        return self.body.get("source", "")


def read_events(path: Path, offset: int = 0, *, limit: int = 1000) -> list[SpooledEvent]:
    """Up to `limit` events from byte `offset` on; a last line that is not completed yet is left for later."""
    events: list[SpooledEvent] = []
    if not path.is_file():
        return events
    with path.open("rb") as file:
        file.seek(offset)
        while len(events) < limit and (line := file.readline()).endswith(b"\n"):
            events += _event(line, file.tell())
    return events


def spool_paths(folder: Path) -> list[Path]:
    """The spools of a run, by name."""
    return sorted(folder.glob("*.jsonl"))


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts them."""
    return time.time_ns() // 1_000_000


def _event(line: bytes, end: int) -> list[SpooledEvent]:
    if not line.strip():
        return []
    try:
        body = json.loads(line)
        if all(name in body for name in _FIELDS[body["kind"]]):
            return [SpooledEvent(kind=body["kind"], end=end, body=body)]
    except (ValueError, KeyError, TypeError):
        pass
    return [SpooledEvent(kind=UNREADABLE, end=end)]


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"
