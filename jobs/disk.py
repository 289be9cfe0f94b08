"""How much disk a run will need, and whether it is there; nothing is written.

    run_dir        clips that are drawn; tables, adapters and checkpoints
    data.store     frames and waveform of every clip
    cache.folder   tower outputs of every clip, within cache.features_gb

It is an estimate for choosing sizes, as that of memory is: what an earlier run has left there is not needed again.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from avere_ray.config import RunConfig
from avere_ray.environment import Finding
from jobs.decode import store_folder
from jobs.layout import feature_path
from jobs.memory import CLIP_S, MIB, size_words

_CLIP_BYTES = 300_000  # a short clip as a file; its waveform and frames are counted apart
_SPARE_MB = 1024.0


class _Need(NamedTuple):
    """What is written into a folder, MiB."""

    setting: str
    folder: Path
    mb: float


def disk_findings(cfg: RunConfig, clips: int, features_mb: float) -> Iterator[Finding]:
    """Whether each disk that a run writes on has room for what goes there.

    Args:
        clips: of the run.
        features_mb: tower outputs that are kept on disk, see `memory.features_mb`.
    """
    disks: dict[int, list[tuple[Path, _Need]]] = {}
    for need in _needs(cfg, clips, features_mb):
        above = next(path for path in (need.folder, *need.folder.parents) if path.exists())
        if os.access(above, os.W_OK):
            disks.setdefault(above.stat().st_dev, []).append((above, need))
        else:
            remedy = f"change its permissions or set {need.setting} elsewhere"
            yield Finding("fail", f"{above} cannot be written, where {need.folder} ({need.setting}) has to be", remedy)
    for found in disks.values():
        yield _room(found[0][0], [need for _, need in found], clips)


def _needs(cfg: RunConfig, clips: int, features_mb: float) -> list[_Need]:
    spec = cfg.data.decode
    decoded = spec.most_frames * spec.height * spec.width * 3 + 4 * 16_000 * CLIP_S
    drawn = clips * _CLIP_BYTES if cfg.data.clips is None and cfg.data.pairs.path is None else 0
    return [
        _Need("run_dir", cfg.run_dir.absolute(), drawn / MIB + _SPARE_MB),
        _Need("data.store", store_folder(cfg), clips * decoded / MIB),
        _Need("cache.folder", feature_path(cfg), features_mb),
    ]


def _room(disk: Path, needs: list[_Need], clips: int) -> Finding:
    free, needed = shutil.disk_usage(disk).free / MIB, sum(need.mb for need in needs)
    parts = " + ".join(f"{size_words(need.mb)} in {need.setting}" for need in needs)
    what = (
        f"{size_words(free)} free on the disk of {needs[0].folder}, about {size_words(needed)} needed for {clips} clips"
    )
    if free >= needed:
        return Finding("ok", f"{what} ({parts})")
    names = " or ".join(need.setting for need in needs if need.mb)
    return Finding("fail", f"{what} ({parts})", f"free some space, or set {names} elsewhere")
