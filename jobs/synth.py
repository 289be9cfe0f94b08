"""Writes the synthetic clips of a run, with known cues, and the held-out questions about the test clips.

Training clips are biased: shirt, background and sound agree with the emotion in world.bias of them. Test clips are
decorrelated and show other persons and other combinations. Nothing is written when data.clips names a folder.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.progress import reused, stage_progress
from avere_ray.stages import StageFolder, StageManifest, digest
from jobs.command import run_command
from jobs.layout import stage_path

STAGE = "clips"


def run(cfg: RunConfig) -> StageManifest | None:
    """Writes RUN/clips, or returns the manifest of the time it was done; None when data.clips or data.pairs is set.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    if cfg.data.clips is not None or cfg.data.pairs.path is not None:
        return None
    from avere_ray.synthetic.clips import CorpusSpec, write_corpus

    world = cfg.world
    folder = StageFolder(
        stage_path(cfg, STAGE), stage=STAGE, config=cfg.to_yaml(), key=digest(STAGE, world.model_dump(), cfg.seed)
    )
    manifest = folder.finished()
    if manifest is not None:
        reused(STAGE, manifest.used)
        return manifest
    folder.begin()
    spec = CorpusSpec(
        seed=cfg.seed,
        train_clips=world.train_clips,
        test_clips=world.test_clips,
        bias=world.bias,
        corrupt_clips=world.corrupt_clips,
    )
    with stage_progress(STAGE, "clips") as progress:
        clips = write_corpus(folder.path, spec, workers=min(8, os.cpu_count() or 1), progress=progress)
    return folder.finish(
        inputs=len(clips), used=len(clips), summary={"train": world.train_clips, "test": world.test_clips}
    )


def benchmark_path(cfg: RunConfig) -> Path:
    """The held-out questions of a run: data.benchmark, or the file beside the clip table."""
    from avere_ray.synthetic.clips import BENCHMARK

    return cfg.data.benchmark or (cfg.data.clips or stage_path(cfg, STAGE)) / BENCHMARK


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray synth", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
