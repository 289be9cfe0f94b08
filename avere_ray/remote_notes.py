"""What remote files held when they were fetched, with the version that their servers told (ETag, time of change): an
unchanged file need not be fetched again to know its content. And where the store has what was decoded from them: a file
whose server tells no version, or that has another address now, is fetched again, but not decoded."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def medium(self, spec: str, key: str) -> dict[str, Any] | None:
        """What was noted of a medium decoded with a sampling spec; None when nothing was."""
        try:
            values = json.loads(self._path(spec, key).read_text(encoding="utf-8"))
            return dict(values["medium"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put_medium(self, spec: str, key: str, medium: dict[str, Any]) -> None:
        """Notes where a medium is; done without where it cannot be written."""
        with contextlib.suppress(OSError):
            write_json(self._path(spec, key), {"medium": medium})

    def forget_medium(self, spec: str, key: str) -> None:
        """Notes that a medium is gone."""
        with contextlib.suppress(OSError):
            self._path(spec, key).unlink(missing_ok=True)

    def _path(self, *parts: str) -> Path:
        name = digest(*parts)
        return self.folder / name[:2] / f"{name}.json"
