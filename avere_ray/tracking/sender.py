"""Walks the spools of a run and moves their events to its MLflow run: in order, once, and again after an outage."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from avere_ray.config import TrackingConfig
from avere_ray.metrics import FOLDER, SpooledEvent, read_events, spool_paths
from avere_ray.stages import storage_error, write_json
from avere_ray.tracking.mlflow_run import METRICS_PER_BATCH, MlflowRun, Point, Refused
from avere_ray.tracking.repeats import FirstTimes
from avere_ray.tracking.state import RunState

DRIVER = "driver"
FILES = "files"
"""Writer of the artifact events; sent last, so that a broken artifact store holds up no metric."""


class Sender:
    """Moves events from the spools of one run to MLflow. Used by one thread at a time."""

    def __init__(self, run_dir: Path, uri: str, cfg: TrackingConfig, run_name: str) -> None:
        self.run_dir, self.folder, self.uri = run_dir, run_dir / FOLDER, uri
        self._make_folder()
        self.state = RunState.open(run_dir, uri, cfg, run_name)
        self.run = MlflowRun(run_dir, uri, self.state)
        self.refused = 0
        """Events that can never be sent."""
        self.refusals = self.folder / "refused.txt"
        self._lock_file: IO[bytes] | None = None
        self._connected = False
        self._first_times: dict[Path, FirstTimes] = {}
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

    def _connect(self) -> None:
        if not self._connected:
            was_there = self.run.connect()
            self._unsure = set(spool_paths(self.folder)) if was_there else set()
            self._connected = True

    def _send_spool(self, path: Path) -> None:
        while events := read_events(path, self._offset(path)):
            for batch in batches(events):
                try:
                    self._send(path, batch)
                except Refused as error:
                    self._send_singly(path, batch, error)
                self._unsure.discard(path)
                self._move(path, batch[-1].end)

    def _send_singly(self, path: Path, batch: Sequence[SpooledEvent], error: Refused) -> None:
        """One event of the batch was refused for good: finds out which, sends the others."""
        if len(batch) == 1:
            self._refuse(path, batch[0], error)
            return
        self._unsure.add(path)
        for event in batch:
            try:
                self._send(path, [event])
            except Refused as refusal:
                self._refuse(path, event, refusal)

    def _send(self, path: Path, batch: Sequence[SpooledEvent]) -> None:
        if batch[0].kind == "metrics":
            self.run.send_points(self._points(path, batch), unsure=path in self._unsure)
        else:
            self.run.send_event(batch[0])

    def _points(self, path: Path, batch: Sequence[SpooledEvent]) -> list[Point]:
        """The points of a batch, without repetitions of earlier ones."""
        first_times = self._first_times.setdefault(path, FirstTimes(path))
        return [
            Point(name, value, event.body["timestamp_ms"], event.step)
            for event in batch
            for name, value in first_times.points(event).items()
        ]

    def _refuse(self, path: Path, event: SpooledEvent, error: Refused) -> None:
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


def batches(events: Sequence[SpooledEvent]) -> Iterator[list[SpooledEvent]]:
    """Neighbouring metrics events together, up to MLflow's limit; every other event by itself."""
    batch: list[SpooledEvent] = []
    size = 0
    for event in events:
        points = len(event.body["metrics"]) if event.kind == "metrics" else METRICS_PER_BATCH + 1
        if batch and size + points > METRICS_PER_BATCH:
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += points
    if batch:
        yield batch


def _turn(path: Path) -> tuple[int, str]:
    return {DRIVER: 1, FILES: 2}.get(path.stem, 0), path.name
