"""How the tiny base is scored, and what the shipped one is: size, manifest, perception, and both failures."""

import dataclasses
import json
from pathlib import Path

import pytest

import avere_ray
from avere_ray.backbones import model_digest
from avere_ray.prompts import all_queries
from avere_ray.records import Clip
from avere_ray.stages import file_digest
from avere_ray.synthetic.base import Recipe
from avere_ray.synthetic.base_scores import description_failures
from avere_ray.synthetic.scene import clip_of, sample_scene

TINY_BASE = Path(avere_ray.__file__).parent / "synthetic" / "tiny_base"


@pytest.fixture
def clip() -> Clip:
    scene = dataclasses.replace(
        sample_scene("x", "test", 0, bias=0.0, mismatch=0.0),
        face="anger", voice="anger", body=(), events=(), shirt="red_shirt", sound="rain",
    )  # fmt: skip
    return clip_of(scene, "")


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("The person looks angry. I see lowered brows. The person sounds angry. I hear a loud harsh voice.", (0, 0)),
        ("The person looks angry. I see lowered brows and a red shirt.", (1, 0)),
        ("The person looks angry. I see lowered brows and clenched fists.", (0, 1)),
        ("The person looks angry. I see clenched fists. The person sounds angry. I hear rain and growling.", (1, 1)),
    ],
)
def test_a_description_fails_by_what_it_relies_on(clip: Clip, text: str, failures: tuple[int, int]) -> None:
    query = next(q for q in all_queries(clip, 0) if q.task == "describe")
    assert description_failures(clip, query, text) == tuple(bool(f) for f in failures)


def test_the_shipped_base_is_the_one_its_manifest_describes() -> None:
    manifest = json.loads((TINY_BASE / "tiny_base.json").read_text(encoding="utf-8"))
    assert manifest["recipe"] == json.loads(json.dumps(dataclasses.asdict(Recipe())))
    assert manifest["weights_sha256"] == file_digest(TINY_BASE / "model.safetensors")
    assert manifest["model_digest"] == model_digest(TINY_BASE)
    assert len(manifest["data_digest"]) == 32
    assert sum(f.stat().st_size for f in TINY_BASE.iterdir()) <= 10_000_000


def test_the_shipped_base_perceives_and_yet_fails() -> None:
    scores = json.loads((TINY_BASE / "tiny_base.json").read_text(encoding="utf-8"))["scores"]
    for group in ("face", "voice", "object"):
        assert min(scores[f"perception/{group}{asked}"] for asked in ("", "_present", "_absent")) >= 85
    assert scores["perception/match"] >= 85
    for modality in ("video", "audio"):
        for failure in ("spurious", "hallucination"):
            assert scores[f"reasoning_stress_{modality}/{failure}"] <= 40
        assert scores[f"reasoning_stress_{modality}/no_hallucination"] >= 85
    assert min(scores["describe/spurious"], scores["describe/hallucination"]) >= 40
