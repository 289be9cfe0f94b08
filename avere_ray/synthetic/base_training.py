"""Trains the tiny base in three parts: words, towers, clips.

1. reading: the language model alone, on cues told in words. It learns to look up and to compare, which it does not
   learn from clips in the time there is.
2. towers: vision and audio tower alone, on decorrelated clips. What a tower says of a clip must point to the words of
   the cues that are there (`base_towers`), so that a clip reads to the language model like the words it knows.
3. clips: the language model alone, on what the towers say of each clip, which is computed once. All questions about a
   clip are packed into one prefix tree, so its media tokens are read once for all of them.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from avere_ray.backbones.qwen2_5_omni import Policy
from avere_ray.backbones.types import MediaEmbeds, Sample
from avere_ray.synthetic.base import Recipe, StudyClip, lesson_sample
from avere_ray.synthetic.base_towers import Alignment, alignments, tower_loss
from avere_ray.synthetic.questions import Lesson, reading_lessons

Say = Callable[[str], None]
_ENCODE_CLIPS = 32
_LESSONS_PER_ROW = 4
"""Lessons in words that share a row, which needs less padding than rows of their own."""


def train_base(policy: Policy, corpus: list[StudyClip], recipe: Recipe, *, say: Say) -> dict[str, list[float]]:
    """Trains all weights in three parts; returns the loss of each step, nats, by the name of the part."""
    curves = {"reading": train_reading(policy, recipe, say=say)}
    curves["towers"] = train_towers(policy, corpus[: recipe.direct_clips], recipe, say=say)
    curves["clips"] = train_on_clips(policy, corpus, encode_corpus(policy, corpus), recipe, say=say)
    return curves


def train_reading(policy: Policy, recipe: Recipe, *, say: Say) -> list[float]:
    """Part 1; returns the loss of each step, nats per response token."""
    rng = random.Random(recipe.seed)
    losses = (reading_loss(policy, recipe, rng) for _ in range(recipe.reading_steps))
    return _optimize(language_weights(policy), recipe.learning_rate, losses, recipe.reading_steps, recipe, "words", say)


def train_towers(policy: Policy, direct: Sequence[StudyClip], recipe: Recipe, *, say: Say) -> list[float]:
    """Part 2, on decorrelated clips; returns the loss of each step, nats per cue."""
    rng = random.Random(recipe.seed)
    targets = alignments(policy)
    batches = _shuffled(range(len(direct)), recipe.tower_clips, recipe.tower_steps, rng)
    losses = (_tower_step(policy, [direct[i] for i in batch], targets) for batch in batches)
    return _optimize(tower_weights(policy), recipe.tower_rate, losses, recipe.tower_steps, recipe, "towers", say)


def train_on_clips(
    policy: Policy, corpus: Sequence[StudyClip], media: dict[str, MediaEmbeds], recipe: Recipe, *, say: Say
) -> list[float]:
    """Part 3; `media` is what the towers say of each clip. Returns the loss of each step, nats per response token."""
    rng = random.Random(recipe.seed)
    known: dict[str, list[Sample]] = {}
    batches = _shuffled(range(len(corpus)), recipe.clips_per_step, recipe.steps, rng)
    losses = (
        _lesson_loss(policy, [_lessons(corpus[i], policy, recipe, rng, known) for i in batch], media)
        for batch in batches
    )
    return _optimize(language_weights(policy), recipe.learning_rate, losses, recipe.steps, recipe, "clips", say)


def tower_weights(policy: Policy) -> list[nn.Parameter]:
    """The weights of the vision and the audio tower."""
    return [p for tower in (policy.core.visual, policy.core.audio_tower) for p in tower.parameters()]


def language_weights(policy: Policy) -> list[nn.Parameter]:
    """All weights but the towers'."""
    towers = {id(p) for p in tower_weights(policy)}
    return [p for p in policy.parameters() if id(p) not in towers]


@torch.no_grad()
def encode_corpus(policy: Policy, corpus: Sequence[StudyClip]) -> dict[str, MediaEmbeds]:
    """What the towers say of each clip, by clip id."""
    media: dict[str, MediaEmbeds] = {}
    for start in range(0, len(corpus), _ENCODE_CLIPS):
        part = corpus[start : start + _ENCODE_CLIPS]
        embeds = policy.encode([s.features for s in part])
        for study, one in zip(part, embeds, strict=True):
            assert one.video is not None and one.audio is not None
            media[study.clip.clip_id] = MediaEmbeds(video=one.video.clone(), audio=one.audio.clone())
    return media


# Losses ---------------------------------------------------------------------------------------------------------


def reading_loss(policy: Policy, recipe: Recipe, rng: random.Random) -> torch.Tensor:
    """Mean negative log-prob of the response tokens of fresh lessons in words."""
    lessons = [reading_lessons(rng) for _ in range(recipe.reading_rows)]
    samples = [policy.processor.sample(x.prompt, x.response) for x in lessons]
    rows = [samples[i : i + _LESSONS_PER_ROW] for i in range(0, len(samples), _LESSONS_PER_ROW)]
    return -policy(rows, {}, per_token=True).mean()


def _tower_step(policy: Policy, batch: Sequence[StudyClip], targets: Sequence[Alignment]) -> torch.Tensor:
    return tower_loss(policy.encode([s.features for s in batch]), [s.clip for s in batch], targets)


def _lessons(
    study: StudyClip, policy: Policy, recipe: Recipe, rng: random.Random, known: dict[str, list[Sample]]
) -> list[Sample]:
    """Some lessons about a clip; `known` keeps those made before."""
    key = study.clip.clip_id
    if key not in known:
        known[key] = [_sample(study, policy, lesson) for lesson in study.lessons]
    return rng.sample(known[key], min(recipe.lessons_per_clip, len(known[key])))


def _sample(study: StudyClip, policy: Policy, lesson: Lesson) -> Sample:
    return lesson_sample(study, policy.processor, lesson.prompt, lesson.response)


def _lesson_loss(policy: Policy, rows: list[list[Sample]], media: dict[str, MediaEmbeds]) -> torch.Tensor:
    """Mean negative log-prob of the response tokens."""
    return -policy(rows, media, per_token=True).mean()


# Optimizing -----------------------------------------------------------------------------------------------------


def _optimize(
    weights: list[nn.Parameter],
    rate: float,
    steps: Iterator[torch.Tensor],
    count: int,
    recipe: Recipe,
    what: str,
    say: Say,
) -> list[float]:
    """Takes one optimizer step for each loss that `steps` computes."""
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _schedule(s, count, recipe.warmup))
    losses: list[float] = []
    began = time.monotonic()
    for step, loss in enumerate(steps):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if step % 25 == 0 or step + 1 == count:
            say(f"{what}: step {step}/{count} loss {np.mean(losses[-25:]):.4f} {time.monotonic() - began:.0f} s")
    return losses


def _schedule(step: int, count: int, warmup: int) -> float:
    """Rises over the warm-up, stays, and falls to a tenth over the last third."""
    left = (count - step) / (count / 3)
    return min(1.0, (step + 1) / warmup) * min(1.0, 0.1 + 0.9 * left)


def _shuffled(items: Sequence[int], size: int, steps: int, rng: random.Random) -> Iterator[list[int]]:
    """Batches of shuffled passes over the items; what is left of a pass when it is too short is skipped."""
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order = rng.sample(items, len(items))
        yield order[:size]
        order = order[size:]
