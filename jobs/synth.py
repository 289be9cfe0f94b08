"""Writes synthetic clips with known cues, and held-out questions about the test clips in EmoReAlM's format.

    avere-ray synth --clips 500 --bias 0.9 --out DIR
    avere-ray synth --clips 500 --test-clips 100 --bias spurious=0.9,text_prior=0.5,dominance=0.5 --out DIR

Training clips are biased: shirt, background and sound agree with the emotion in a share `spurious` of them, captions
name the stereotyped cue of the emotion though it is not there (`text_prior`), clips with disagreeing face and voice
carry the label of the face (`dominance`). In test clips objects and sounds are independent of the emotion, which is
shown by other persons and with other shirts. Beside the clips lie their table (clips.parquet), the held-out questions
(emorealm.json), all queries with reference answers, open ones too (queries.parquet, for data.queries), and a contact
sheet. Without --out the clips go into RUN/clips, as a pipeline's first stage; nothing is written there when
data.clips names a folder.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError
from avere_ray.progress import reused, say, stage_progress
from avere_ray.records import Clip
from avere_ray.stages import StageFolder, StageManifest, write_text
from avere_ray.synthetic.drawn import STAGE, world_key
from jobs.layout import stage_path
from jobs.operands import Arguments, run_with_arguments

OWN = Arguments(positions=(), options=("clips", "test-clips", "bias", "out"))
BIASES = {"spurious": "bias", "text_prior": "text_prior", "dominance": "dominance"}
"""Names in --bias to settings of `world`."""


def run(cfg: RunConfig) -> StageManifest | None:
    """Writes RUN/clips, or returns the manifest of the time it was done; None when data.clips or data.pairs is set.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    if cfg.data.clips is not None or cfg.data.pairs.path is not None:
        return None
    world, folder = cfg.world, _folder(cfg)
    manifest = folder.finished()
    if manifest is not None:
        reused(STAGE, manifest.used)
        return manifest
    folder.begin()
    clips = _write(cfg, folder.path)
    return folder.finish(
        inputs=len(clips), used=len(clips), summary={"train": world.train_clips, "test": world.test_clips}
    )


def check_world(cfg: RunConfig) -> None:
    """Refuses a world that cannot be drawn on this machine; one that is in RUN/clips already needs nothing.

    Raises:
        InputError: it has speech, and espeak-ng is not installed.
    """
    from avere_ray.synthetic.speech import PROGRAM, check_speech

    if cfg.world.speech == PROGRAM and _folder(cfg).finished() is None:
        check_speech()


def _folder(cfg: RunConfig) -> StageFolder:
    key = world_key(cfg.world.model_dump(), cfg.seed)
    return StageFolder(stage_path(cfg, STAGE), stage=STAGE, config=cfg.to_yaml(), key=key)


def write_to(cfg: RunConfig, out: Path) -> None:
    """Writes the clips of `cfg.world` into a folder of the user's own.

    Raises:
        ConfigError: the folder exists and is not empty.
        StorageError: the disk is full or the folder cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder; name another one, or remove it first")
    clips = _write(cfg, out)
    write_text(out / "config.yaml", cfg.to_yaml())
    say(f"{len(clips)} clips in {out}; use them with --data.clips={out}")


def _write(cfg: RunConfig, folder: Path) -> list[Clip]:
    from avere_ray.synthetic.clips import CorpusSpec, write_corpus

    spec = CorpusSpec(seed=cfg.seed, **cfg.world.model_dump())
    with stage_progress(STAGE, "clips") as progress:
        return write_corpus(folder, spec, workers=min(8, os.cpu_count() or 1), progress=progress)


def world_settings(options: Mapping[str, str]) -> list[str]:
    """What --clips, --test-clips and --bias say, as settings of `world`.

    Raises:
        ConfigError: --bias names something else than the three biases.
    """
    named = {"clips": "train_clips", "test-clips": "test_clips"}
    settings = [f"--world.{named[name]}={value}" for name, value in options.items() if name in named]
    for part in filter(None, options.get("bias", "").split(",")):
        name, sign, value = part.partition("=")
        if sign and name not in BIASES:
            raise ConfigError(f"--bias {part!r}: unknown bias {name!r}; allowed are {', '.join(BIASES)}, or one number")
        settings.append(f"--world.{BIASES[name] if sign else 'bias'}={value if sign else name}")
    return settings


def benchmark_path(cfg: RunConfig) -> Path:
    """The held-out questions of a run: data.benchmark, or the file beside the clip table."""
    from avere_ray.synthetic.clips import BENCHMARK

    return cfg.data.benchmark or (cfg.data.clips or stage_path(cfg, STAGE)) / BENCHMARK


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""

    def work(cfg: RunConfig, positions: list[str], options: dict[str, str]) -> None:
        if "out" in options:
            write_to(cfg, Path(options["out"]))
        else:
            run(cfg)

    return run_with_arguments(
        "avere-ray synth", __doc__, OWN, work, argv, settings=lambda given, options: world_settings(options)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
