"""Alignment of the towers with words: what counts as told, and that training moves towards it."""

from pathlib import Path

import pytest
import torch

import avere_ray
from avere_ray.backbones.qwen2_5_omni import Policy, load_policy
from avere_ray.backbones.types import MediaEmbeds
from avere_ray.synthetic import base_training
from avere_ray.synthetic.base import Recipe, StudyClip
from avere_ray.synthetic.base_towers import Alignment, alignments, cue_scores, tower_loss
from avere_ray.synthetic.base_training import train_base
from avere_ray.synthetic.scene import clip_of, sample_scene
from avere_ray.synthetic.world import CUE

TINY_BASE = Path(avere_ray.__file__).parent / "synthetic" / "tiny_base"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(TINY_BASE, "float32")


def test_the_towers_learn_from_clips_without_the_bias_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, taught = Recipe(direct_clips=3, annotated_clips=2), []
    corpus = [
        StudyClip(clip=clip_of(sample_scene(f"c{i}", split, 0, bias=bias, mismatch=0.5), ""), features=None, lessons=())  # type: ignore[arg-type]
        for i, (split, bias) in enumerate([("direct", 0.0)] * 3 + [("base", 0.9)] * 2)
    ]  # fmt: skip
    monkeypatch.setattr(base_training, "train_towers", lambda policy, clips, recipe, say: taught.extend(clips) or [])
    for part in ("train_reading", "train_on_clips", "encode_corpus"):
        monkeypatch.setattr(base_training, part, lambda *args, **kwargs: [])
    train_base(None, corpus, recipe, say=print)  # type: ignore[arg-type]
    assert [study.clip.split for study in taught] == ["direct"] * 3


@pytest.fixture(scope="module")
def video(policy: Policy) -> Alignment:
    return alignments(policy)[0]


def test_every_cue_has_one_target_direction(policy: Policy) -> None:
    targets = alignments(policy)
    assert sorted(name for a in targets for name in a.names) == sorted(CUE)
    for alignment in targets:
        assert all(CUE[name].modality == alignment.modality for name in alignment.names)
        torch.testing.assert_close(alignment.target_CD.norm(dim=1), torch.ones(len(alignment.names)))


def test_a_cue_counts_as_told_when_one_token_points_to_it(video: Alignment) -> None:
    tokens = torch.zeros(18, video.target_CD.shape[1])
    tokens[:, 0] = 0.01
    assert (cue_scores(tokens, video) < 0).all()
    tokens[7] = 3.0 * video.target_CD[4]
    told = cue_scores(tokens, video) > 0
    assert told[4]
    assert told.sum() == 1


def test_the_loss_is_lowest_when_exactly_the_cues_of_the_clip_are_told(policy: Policy) -> None:
    clip = clip_of(sample_scene("x", "base", 0, bias=0.0, mismatch=0.5), "")
    there = {c.name for c in clip.cues if c.present}
    targets = alignments(policy)

    def loss(names: set[str]) -> float:
        tokens = []
        for a in targets:
            rows = [a.length * a.target_CD[i] for i, n in enumerate(a.names) if n in names]
            tokens.append(torch.stack(rows))
        return float(tower_loss([MediaEmbeds(video=tokens[0], audio=tokens[1])], [clip], targets))

    right = loss(there)
    extra = next(c.name for c in clip.cues if not c.present)
    face = next(c.name for c in clip.cues if c.present and c.modality == "video")
    assert right < loss(there | {extra})
    assert right < loss(there - {face})
