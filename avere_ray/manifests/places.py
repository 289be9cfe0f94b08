"""Where the paths of a config lie for a job: in the code that every node has, or on a claim that every pod mounts."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from avere_ray.config import RunConfig

CODE_FOLDERS = ("avere_ray", "actors", "jobs")
"""What an image and a submitted package hold of the repository."""
IMAGE_ROOT = Path("/opt/avere_ray")
"""Where the image keeps the repository."""
WRITTEN = ("run_dir", "data.store", "cache.folder")
"""Settings with a folder that a job writes to; code folders are no place for it."""

_ADVICE = "name a place that every node sees, for instance below /mnt/avere"


def config_paths(cfg: RunConfig) -> dict[str, Path]:
    """The files and folders that a config names for its stages, by setting; what it leaves out is left out."""
    found = {
        "run_dir": cfg.run_dir,
        "data.clips": cfg.data.clips,
        "data.benchmark": cfg.data.benchmark,
        "data.queries": cfg.data.queries,
        "data.store": cfg.data.store,
        "data.pairs.path": cfg.data.pairs.path,
        "model.path": cfg.model.path,
        "cache.folder": cfg.cache.folder,
    }
    return {name: path for name, path in found.items() if path is not None}


def misplaced(cfg: RunConfig, root: Path) -> Iterator[str]:
    """A sentence for each relative path that a job would look for in vain, or write to a disk that it loses.

    `root`: the repository, whose code folders go with the job.
    """
    for name, path in config_paths(cfg).items():
        if path.is_absolute():
            continue
        if name in WRITTEN:
            yield f"--{name}={path} is relative to a folder that goes with the job; {_ADVICE}"
        elif path.parts[:1] not in [(folder,) for folder in CODE_FOLDERS] or not (root / path).exists():
            yield f"--{name}={path} is relative, and not in the code that goes with a job; {_ADVICE}"


def unmounted(cfg: RunConfig, claims: Iterable[str]) -> Iterator[str]:
    """`--setting=path` for each absolute path neither in the image nor below one of the places of `claims`."""
    places = list(claims)
    for name, path in config_paths(cfg).items():
        in_image = path.is_relative_to(IMAGE_ROOT) and name not in WRITTEN
        if path.is_absolute() and not in_image and not any(path.is_relative_to(place) for place in places):
            yield f"--{name}={path}"
