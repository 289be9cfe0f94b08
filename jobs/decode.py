"""Clips to decoded clips: frames and waveform of every clip, once, into RUN/decoded.

Reads the folder data.clips, or RUN/clips as written by the synth stage. A clip that cannot be decoded is recorded with
its reason; more of them than data.drop_budget stop the run.
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
from jobs.session import ray_session


def run(cfg: RunConfig) -> StageManifest:
    """Decodes every clip of the run, or returns the manifest of the time it was done.

    Raises:
        InputError: there are no clips; see `avere_ray.data.read_clips`.
        DropBudgetExceeded, StageError, StorageError: see `avere_ray.data.decode_stage`.
        ClusterError: see `jobs.session.ray_session`.
    """
    from avere_ray.data import STAGE, check_drops, clips_key, decode_stage, placed, read_clips

    source = clips_folder(cfg)
    if cfg.data.clips is None and not source.is_dir():
        raise InputError(
            f"{source} does not exist: no clips were drawn for this run. Run `avere-ray synth` with the same config "
            "first, or set data.clips to your own folder."
        )
    clips = read_clips(source)
    folder = StageFolder(
        decoded_folder(cfg), stage=STAGE, config=cfg.to_yaml(), key=clips_key(clips, source, cfg.data.decode)
    )
    manifest = folder.finished()
    if manifest is not None:
        reused(STAGE, manifest.used)
        check_drops(manifest, folder.path, cfg.data.drop_budget)
        return manifest
    nodes = label_selector(cfg.placement.decode)
    with ray_session(cfg.ray), placed(nodes), stage_progress(STAGE, "clips") as progress:
        return decode_stage(clips, source, cfg.data, folder, progress)


def clips_folder(cfg: RunConfig) -> Path:
    """Where the clip table and the media files are."""
    return (cfg.data.clips or cfg.run_dir / "clips").absolute()


def decoded_folder(cfg: RunConfig) -> Path:
    """Where the decoded clips of a run are; open it with `avere_ray.store.DecodedStore`."""
    return (cfg.run_dir / "decoded").absolute()


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray decode", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
