"""Whether the clips of a run were drawn from a world: said by the key of their folder, never by where it lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avere_ray.errors import StageError
from avere_ray.stages import digest, read_manifest

STAGE = "clips"
WORLD, SEED = "clips.world", "clips.seed"
"""Tags of a run: digest of the world that its clips were drawn from, and their seed."""
OWN = "own"
"""What both say of clips that nothing proves to be drawn."""


def world_key(world: Mapping[str, Any], seed: int) -> str:
    """Key of the folder with the clips of a world; `world`: its settings as plain values."""
    return digest(STAGE, world, seed)


def drawn_tags(config: Mapping[str, Any]) -> dict[str, str]:
    """`WORLD` and `SEED` of a run with this config (plain values); both are `OWN` where its clips are its own."""
    data, world, seed = config.get("data") or {}, config.get("world"), config.get("seed")
    if not isinstance(world, Mapping) or not isinstance(seed, int) or not _drawn(data, world_key(world, seed)):
        return {WORLD: OWN, SEED: OWN}
    return {WORLD: digest(world), SEED: str(seed)}


def _drawn(data: Mapping[str, Any], key: str) -> bool:
    """Whether clips are drawn with this key: by the run itself, or they lie in a folder that was."""
    if data.get("clips") is None:
        return not (data.get("pairs") or {}).get("path")
    try:
        manifest = read_manifest(Path(data["clips"]))
    except StageError:  # a corpus may have a manifest.json of its own
        return False
    return manifest is not None and (manifest.stage, manifest.key) == (STAGE, key)
