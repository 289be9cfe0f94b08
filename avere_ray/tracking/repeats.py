"""Which points of a spool came before: an interrupted round is trained again and measures the same steps again.

Spools are only ever appended to, so they hold both trainings. A point is a name, a step and a source (the key of the
stage it comes from); only its first appearance in a spool counts. With other settings the source is another one: these
are other figures, and they are sent. What has been sent is not needed to decide, so an outage, a crash or a new MLflow
run makes no difference.
"""

import sys
from pathlib import Path

from avere_ray.metrics import SpooledEvent, read_events


class FirstTimes:
    """Where in a spool each point first appears; reads the file once, as far as it is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._first: dict[tuple[str, int, str], int] = {}

    def points(self, event: SpooledEvent) -> dict[str, float]:
        """Values of a metrics event of this spool, without those that an earlier event has."""
        self._read_to(event.end)
        return {n: v for n, v in event.metrics.items() if self._first[n, event.step, event.source] == event.end}

    def _read_to(self, offset: int) -> None:
        while self._offset < offset and (events := read_events(self._path, self._offset)):
            for event in events:
                for name in event.metrics:
                    self._first.setdefault((sys.intern(name), event.step, event.source), event.end)
            self._offset = events[-1].end
