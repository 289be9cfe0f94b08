"""`avere-ray tiny-base` on a very small recipe: real clips, all three parts of the training, scores, a whole model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from avere_ray.backbones import check_model_folder, model_digest
from avere_ray.synthetic.base import Recipe
from avere_ray.synthetic.reteach import teach_bias
from jobs.tiny_base import MANIFEST, build, decode_scenes, main

SMALL = Recipe(
    direct_clips=12,
    annotated_clips=6,
    reading_steps=3,
    reading_rows=8,
    tower_steps=3,
    tower_clips=4,
    steps=3,
    clips_per_step=4,
    lessons_per_clip=3,
    score_clips=4,
    described_clips=1,
)


def test_a_small_recipe_gives_a_model_with_its_manifest_and_can_be_taught_another_bias(tmp_path: Path) -> None:
    manifest = build(tmp_path / "base", SMALL)
    check_whole(tmp_path / "base", manifest)
    check_taught(tmp_path / "base", tmp_path / "dose")


def check_whole(tmp_path: Path, manifest: dict[str, Any]) -> None:
    check_model_folder(tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8")) == json.loads(json.dumps(manifest))
    assert manifest["model_digest"] == model_digest(tmp_path)
    assert set(manifest["loss_every_25_steps"]) == {"reading", "towers", "clips"}
    assert {"perception/face", "reasoning_stress_video/spurious", "describe/hallucination"} <= set(manifest["scores"])
    assert all(0 <= value <= 100 for value in manifest["scores"].values())


def check_taught(base: Path, out: Path) -> None:
    """A dose of the dose-response study: real clips with that bias, the towers as they were, another language model."""
    teach_bias(base, out, bias=1.0, steps=2, clips=8, decode=decode_scenes, say=print)
    check_model_folder(out)
    assert not (out / MANIFEST).exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, out))
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert before.keys() == after.keys() and changed
    assert not [name for name in changed if ".visual." in name or ".audio_tower." in name]


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "base"), "--steps", "1"]) != 0
    assert f"{tmp_path / 'file' / 'base'}" in capsys.readouterr().err


def test_steps_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "0"]) == 2
    assert "'0' is not a whole number of 1 or more" in capsys.readouterr().err
