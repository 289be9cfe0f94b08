"""`avere-ray tiny-base` on a very small recipe: real clips, all three parts of the training, scores, a whole model."""

import json
from pathlib import Path

import pytest

from avere_ray.backbones import check_model_folder, model_digest
from avere_ray.synthetic.base import Recipe
from jobs.tiny_base import MANIFEST, build, main

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


def test_a_small_recipe_gives_a_model_with_its_manifest(tmp_path: Path) -> None:
    manifest = build(tmp_path, SMALL)
    check_model_folder(tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8")) == json.loads(json.dumps(manifest))
    assert manifest["model_digest"] == model_digest(tmp_path)
    assert set(manifest["loss_every_25_steps"]) == {"reading", "towers", "clips"}
    assert {"perception/face", "reasoning_stress_video/spurious", "describe/hallucination"} <= set(manifest["scores"])
    assert all(0 <= value <= 100 for value in manifest["scores"].values())


def test_steps_below_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "0"]) == 2
    assert "'0' is not a whole number of 1 or more" in capsys.readouterr().err
