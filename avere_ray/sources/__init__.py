"""Corpora as their authors ship them, read into Clip records: one file per corpus, which documents its layout.

A reader looks at label lists and file names only; nothing is decoded. What is listed but cannot be used becomes a drop
with file, line and reason.
"""

from pathlib import Path

from avere_ray.config import SourceConfig
from avere_ray.errors import InputError
from avere_ray.sources.crema_d import CREMA_D
from avere_ray.sources.dfew import DFEW
from avere_ray.sources.emorealm import EMOREALM
from avere_ray.sources.mafw import MAFW
from avere_ray.sources.manifest import MANIFEST
from avere_ray.sources.mer import MER2023, MER2025
from avere_ray.sources.ravdess import RAVDESS
from avere_ray.sources.source import STAGE, Found, Source

SOURCES: dict[str, Source] = {s.name: s for s in (MANIFEST, RAVDESS, DFEW, MAFW, MER2023, MER2025, CREMA_D, EMOREALM)}
"""Readers by `data.source.kind`; kind "clips" is the project's own table, see `avere_ray.clip_table.read_clips`."""

__all__ = ["SOURCES", "STAGE", "Found", "Source", "media_root", "read_source"]


def read_source(path: Path, cfg: SourceConfig) -> Found:
    """Clips and drops of a corpus.

    Raises:
        InputError: the folder is missing, or is not laid out as `cfg.kind` says.
    """
    if cfg.kind not in SOURCES:
        raise InputError(f"no reader for source {cfg.kind!r}; known are {', '.join(SOURCES)}")
    if cfg.kind != MANIFEST.name and not path.is_dir():
        raise InputError(f"corpus folder {path} does not exist. Set data.clips to the folder of {cfg.kind}.")
    found = SOURCES[cfg.kind].read(path, cfg)
    if not found.clips and not found.drops:
        raise InputError(f"{path} lists no clips of {cfg.kind}. Check data.clips and data.source.")
    return found


def media_root(path: Path) -> Path:
    """The folder that the clips' uris are relative to: `path`, or its folder when it is a manifest file."""
    return path.parent if path.is_file() else path
