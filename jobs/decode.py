"""Clips to decoded clips: frames and waveform of every clip, once in a project's life, into the store.

Reads the folder data.clips, or RUN/clips as written by the synth stage. The media go to data.store, which all runs of a
project share; RUN/decoded says which medium each clip has. A clip that cannot be decoded is recorded with its reason;
more of them than data.drop_budget stop the run.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.placement import label_selector
from avere_ray.progress import reused, stage_progress
from avere_ray.stages import StageFolder, StageManifest
from jobs.command import run_command
from jobs.corpus import read_corpus
from jobs.room import check_room
from jobs.session import ray_session


def run(cfg: RunConfig) -> StageManifest:
    """Decodes every clip of the run, or returns the manifest of the time it was done.

    Raises:
        InputError: there are no clips; see `jobs.corpus.read_corpus`.
        DropBudgetExceeded, StageError, StorageError: see `avere_ray.data.decode_stage`.
        ClusterError: see `jobs.session.ray_session`.
    """
    from avere_ray.av_store import AvStore
    from avere_ray.data import STAGE, check_drops, clips_key, decode_stage, placed
    from avere_ray.store import is_complete

    source = clips_folder(cfg)
    if cfg.data.clips is None and not source.is_dir():
        raise InputError(
            f"{source} does not exist: no clips were drawn for this run. Run `avere-ray synth` with the same config "
            "first, or set data.clips to your own folder."
        )
    clips, source = read_corpus(cfg, source)
    folder = StageFolder(
        decoded_folder(cfg), stage=STAGE, config=cfg.to_yaml(), key=clips_key(clips, source, cfg.data.decode)
    )
    manifest = folder.finished()
    if manifest is not None and is_complete(folder.path):
        reused(STAGE, manifest.used)
        check_drops(manifest, folder.path, cfg.data.drop_budget)
        return manifest
    nodes = label_selector(cfg.placement.decode)
    with ray_session(cfg.ray):
        check_room(cfg, "decode")
        with placed(nodes), stage_progress(STAGE, "clips") as progress:
            return decode_stage(clips, source, cfg.data, AvStore(store_folder(cfg)), folder, progress)


def clips_folder(cfg: RunConfig) -> Path:
    """Where the clip table and the media files are."""
    return (cfg.data.clips or cfg.run_dir / "clips").absolute()


def decoded_folder(cfg: RunConfig) -> Path:
    """Where the decoded clips of a run are; open it with `avere_ray.store.DecodedStore`."""
    return (cfg.run_dir / "decoded").absolute()


def store_folder(cfg: RunConfig) -> Path:
    """Where decoded media are kept for all runs of the project."""
    return (cfg.data.store or cfg.run_dir.absolute().parent / "store").absolute()


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray decode", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
