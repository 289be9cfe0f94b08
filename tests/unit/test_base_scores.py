"""How the tiny base is scored."""

import dataclasses

import pytest

from avere_ray.prompts import all_queries
from avere_ray.records import Clip
from avere_ray.synthetic.base_scores import description_failures
from avere_ray.synthetic.scene import clip_of, sample_scene


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
