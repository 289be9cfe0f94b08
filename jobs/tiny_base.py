"""Builds the tiny base model from nothing: a tokenizer, a corpus of clips, training, scores, manifest.

Writes avere_ray/synthetic/tiny_base (or --out DIR). The recipe is avere_ray.synthetic.base.Recipe. Two CPU cores take
less than 20 minutes.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.config import DecodeConfig
from avere_ray.environment import own_environment
from avere_ray.errors import AvereError
from avere_ray.progress import say
from avere_ray.records import DecodedClip
from avere_ray.stages import digest, file_digest, full_disk_named, storage_error, write_json

if TYPE_CHECKING:
    from avere_ray.synthetic.base import Recipe

OUT = Path("avere_ray/synthetic/tiny_base")
MANIFEST = "tiny_base.json"


def build(out: Path, recipe: "Recipe") -> dict[str, Any]:
    """Trains the model of the recipe into `out` and returns its manifest.

    What is there already stays as it is until the new model is whole.

    Raises:
        StorageError: the folder cannot be made, or the disk is full.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    with full_disk_named(out), tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as partial:
        manifest = _build(Path(partial), recipe)
        for path in sorted(Path(partial).iterdir(), key=lambda path: path.name == MANIFEST):
            os.replace(path, out / path.name)
    return manifest


def _build(out: Path, recipe: "Recipe") -> dict[str, Any]:
    import torch

    from avere_ray.backbones import model_digest
    from avere_ray.backbones.tiny import make_model, save_trained
    from avere_ray.synthetic import base, base_scores, base_training

    began, cpu = time.monotonic(), cpu_seconds()
    torch.set_num_threads(os.cpu_count() or 1)
    policy = make_model(out, recipe.shape, base.tokenizer_sentences(), seed=recipe.seed)
    corpus = base.study_corpus(recipe, policy.processor, decode_scenes, say=say)
    curves = base_training.train_base(policy, corpus, recipe, say=say)
    save_trained(policy, out)
    scores = base_scores.score_base(out, recipe, decode_scenes)
    manifest = {
        "recipe": dataclasses.asdict(recipe),
        "seed": recipe.seed,
        "data_digest": base.corpus_digest(corpus),
        "model_digest": model_digest(out),
        "weights_sha256": file_digest(out / "model.safetensors"),
        "scores": scores,
        "loss_every_25_steps": {part: [round(x, 4) for x in losses[::25]] for part, losses in curves.items()},
        "decode_spec": digest(DecodeConfig().model_dump()),
        "seconds": round(time.monotonic() - began),
        "cpu_seconds": round(cpu_seconds() - cpu),
    }
    write_json(out / MANIFEST, manifest)
    return manifest


def cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for."""
    return sum(os.times()[:4])


def decode_scenes(scenes: list[Any]) -> Iterator[DecodedClip]:
    """Scenes as they look after an mp4 file: written, decoded, in order, by all cores."""
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_and_decode, scenes, chunksize=16)


def _write_and_decode(scene: Any) -> DecodedClip:
    from avere_ray.media import decode_clip
    from avere_ray.synthetic.clips import write_clip
    from avere_ray.synthetic.scene import clip_of

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(scene, path)
        return decode_clip(clip_of(scene, str(path)), path, DecodeConfig())


def _recipe(steps: int | None) -> "Recipe":
    from avere_ray.synthetic.base import Recipe

    return Recipe() if steps is None else Recipe(reading_steps=steps, tower_steps=steps, steps=steps)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="avere-ray tiny-base", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the model (default: {OUT})")
    parser.add_argument("--steps", type=_positive, help="steps of each of the three parts, to try the recipe out")
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse ends the process after --help or a bad flag
        return int(stop.code or 0)
    os.environ.update(own_environment(os.environ))
    try:
        manifest = build(options.out, _recipe(options.steps))
    except AvereError as error:
        print(f"avere-ray tiny-base: {error}", file=sys.stderr)
        return error.exit_code
    say(f"tiny base in {options.out} after {manifest['seconds']} s")
    for name, value in manifest["scores"].items():
        say(f"  {name:<40} {value:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
