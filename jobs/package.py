"""What a submitted job takes along: the code and its resolved config, nothing else, in a folder that Ray uploads."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avere_ray.errors import InputError
from avere_ray.manifests.places import CODE_FOLDERS
from avere_ray.stages import digest, file_digest, write_text

CONFIG = "submitted.yaml"
LIMIT_BYTES = 512 * 1024 * 1024
"""Ray refuses larger working directories."""

_LEFT_OUT = ("__pycache__", ".partial", ".pyc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """The files of a package, before anything is copied or sent."""

    root: Path
    files: dict[str, int]
    """Path relative to the root, to its size in bytes; sorted."""
    config: str
    """The resolved config as YAML."""
    digest: str
    """Of every file's content and of the config; the same on every machine."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values()) + len(self.config.encode())

    def write(self, folder: Path) -> Path:
        """Copies the package into an empty folder and returns it.

        Raises:
            StorageError: the config cannot be written.
        """
        for name in self.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / name, target)
        write_text(folder / CONFIG, self.config)
        return folder


def build(root: Path, config: str, *, limit: int = LIMIT_BYTES) -> Package:
    """The package of a checkout.

    Raises:
        InputError: `root` is no checkout of this project, or the package is too large to upload.
    """
    missing = [name for name in CODE_FOLDERS if not (root / name).is_dir()]
    if missing:
        raise InputError(f"{root} has no {', '.join(missing)}: run this in a checkout of avere_ray")
    found = dict(_files(root))
    sizes = {name: path.stat().st_size for name, path in found.items()}
    total = sum(sizes.values())
    if total > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise InputError(
            f"the package has {total / 2**20:.1f} MiB, Ray takes {limit / 2**20:.1f}. Largest: {named}. "
            "Move data out of the code folders, to the shared folder of the cluster."
        )
    contents = [(name, file_digest(path)) for name, path in found.items()]
    return Package(root=root, files=sizes, config=config, digest=digest(contents, config))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in CODE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not any(part in name for part in _LEFT_OUT):
                yield name, path
