"""What remote files held when they were fetched, with the version that their servers told (ETag, time of change): an
unchanged file need not be fetched again to know its content."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from avere_ray.remote import shown
from avere_ray.stages import digest, write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """What a remote file held when it was fetched."""

    version: str
    sha256: str


class RemoteNotes:
    """Notes of remote files, in a folder that processes may share. Pickles as its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, uri: str) -> Note | None:
        """The note of a file; None when there is none."""
        try:
            values = json.loads(self._path(uri).read_text(encoding="utf-8"))
            return Note(version=values["version"], sha256=values["sha256"])
        except (OSError, ValueError, KeyError):
            return None

    def put(self, uri: str, version: str, sha256: str) -> None:
        """Notes what a file held. A note that cannot be written is done without: it only saves a download."""
        with contextlib.suppress(OSError):
            write_json(self._path(uri), {"uri": shown(uri), "version": version, "sha256": sha256})

    def _path(self, uri: str) -> Path:
        name = digest(uri)
        return self.folder / name[:2] / f"{name}.json"
