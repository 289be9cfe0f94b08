"""The tiny base model: a Qwen2.5-Omni trained from nothing on the world, with planted spurious associations.

Recipe (see `Recipe`): decorrelated clips with truthful direct questions, so that it perceives; biased clips with a
careless annotator's answers, so that it reasons wrongly. All questions about one clip are packed into one prefix tree,
so the clip is encoded and read once.
"""

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from avere_ray.backbones.qwen2_5_omni import MediaFeatures, Policy, Processor, Sample, load_policy
from avere_ray.backbones.tiny import TinyShape, conversation
from avere_ray.prompts import LETTERS, TASKS, all_queries
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import digest
from avere_ray.synthetic.questions import (
    Lesson,
    Mistakes,
    Question,
    annotated_lessons,
    direct_lessons,
    perception_questions,
    reading_lessons,
)
from avere_ray.synthetic.scene import Scene, clip_of, sample_scene

Decode = Callable[[list[Scene]], Iterator[DecodedClip]]
"""Turns scenes into decoded clips by way of real mp4 files, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the tiny base is made; stored in its manifest."""

    seed: int = 0
    direct_clips: int = 1600
    """Decorrelated clips with truthful direct questions."""
    annotated_clips: int = 800
    """Biased clips with a careless annotator's answers."""
    bias: float = 0.9
    """Share of annotated clips whose irrelevant cues agree with the emotion."""
    mismatch: float = 0.1
    """Share of annotated clips whose face and voice disagree."""
    mistakes: Mistakes = field(default_factory=Mistakes)
    reading_steps: int = 500
    """Steps on words alone, before any clip."""
    reading_rows: int = 64
    steps: int = 550
    """Steps on clips."""
    clips_per_step: int = 12
    lessons_per_clip: int = 8
    learning_rate: float = 6e-4
    """Peak rate of the language model; higher ones never learn to compare."""
    tower_rate: float = 1.5e-3
    """Peak rate of the towers."""
    warmup: int = 40
    shape: TinyShape = field(default_factory=TinyShape)


def tokenizer_sentences() -> Iterator[str]:
    """What the tokenizer is trained on: the world's questions and answers."""
    rng = random.Random(0)
    yield from (conversation(x.prompt, x.response) for x in (reading_lessons(rng) for _ in range(300)))
    for i in range(300):
        clip = clip_of(sample_scene(f"words{i}", "base", 0, bias=0.0, mismatch=0.5), "")
        for lesson in [*direct_lessons(clip, rng), *annotated_lessons(clip, rng, Mistakes())]:
            yield conversation(lesson.prompt, lesson.response)
        for query in all_queries(clip, i):
            yield f"{query.prompt} {query.reference}"


# Corpus ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyClip:
    """One clip of the base's corpus with its tower inputs and its lessons."""

    clip: Clip
    features: MediaFeatures
    lessons: tuple[Lesson, ...]


def study_corpus(
    recipe: Recipe,
    processor: Processor,
    decode: Decode,
    *,
    say: Callable[[str], None],
) -> list[StudyClip]:
    """The clips the base learns from: direct ones first, then annotated ones.

    `decode` turns scenes into decoded clips by way of real mp4 files, in order.
    """
    scenes = [
        sample_scene(f"direct{i:05d}", "base", recipe.seed, bias=0.0, mismatch=0.8, free_extras=True)
        for i in range(recipe.direct_clips)
    ]
    scenes += [
        sample_scene(f"annotated{i:05d}", "base", recipe.seed, bias=recipe.bias, mismatch=recipe.mismatch)
        for i in range(recipe.annotated_clips)
    ]
    corpus: list[StudyClip] = []
    for scene, decoded in zip(scenes, decode(scenes), strict=True):
        clip = clip_of(scene, "")
        rng = random.Random(f"{recipe.seed}/{clip.clip_id}")
        lessons = (
            direct_lessons(clip, rng)
            if len(corpus) < recipe.direct_clips
            else annotated_lessons(clip, rng, recipe.mistakes)
        )
        corpus.append(StudyClip(clip=clip, features=processor.features(decoded), lessons=tuple(lessons)))
        if len(corpus) % 500 == 0:
            say(f"corpus: {len(corpus)} of {len(scenes)} clips")
    return corpus


# Training -------------------------------------------------------------------------------------------------------


def train_base(policy: Policy, corpus: list[StudyClip], recipe: Recipe, *, say: Callable[[str], None]) -> list[float]:
    """Trains all weights by next-token prediction, first on words alone, then on clips.

    Returns:
        The loss of each step, nats per response token.
    """
    rng = random.Random(recipe.seed)
    reading = (_reading_loss(policy, recipe, rng) for _ in range(recipe.reading_steps))
    losses = _optimize(policy, reading, recipe.reading_steps, recipe, "reading", say)
    clips = (lesson_loss(policy, batch) for batch in _batches(corpus, recipe))
    return losses + _optimize(policy, clips, recipe.steps, recipe, "clips", say)


def _optimize(
    policy: Policy, steps: Iterator[torch.Tensor], count: int, recipe: Recipe, what: str, say: Callable[[str], None]
) -> list[float]:
    """Takes one optimizer step for each loss that `steps` computes."""
    policy.train()
    towers = [p for m in (policy.core.visual, policy.core.audio_tower) for p in m.parameters()]
    known = {id(p) for p in towers}
    groups = [
        {"params": [p for p in policy.parameters() if id(p) not in known], "lr": recipe.learning_rate},
        {"params": towers, "lr": recipe.tower_rate},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: _schedule(s, count, recipe.warmup))
    losses: list[float] = []
    began = time.monotonic()
    for step, loss in enumerate(steps):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if step % 25 == 0 or step + 1 == count:
            say(f"{what}: step {step}/{count} loss {np.mean(losses[-25:]):.4f} {time.monotonic() - began:.0f} s")
    policy.eval()
    return losses


def _schedule(step: int, count: int, warmup: int) -> float:
    """Rises over the warm-up, stays, and falls to a tenth over the last third."""
    left = (count - step) / (count / 3)
    return min(1.0, (step + 1) / warmup) * min(1.0, 0.1 + 0.9 * left)


def _reading_loss(policy: Policy, recipe: Recipe, rng: random.Random) -> torch.Tensor:
    lessons = [reading_lessons(rng) for _ in range(recipe.reading_rows)]
    return -policy([[policy.processor.sample(x.prompt, x.response)] for x in lessons], {}, per_token=True).mean()


def _batches(corpus: list[StudyClip], recipe: Recipe) -> Iterator[list[tuple[StudyClip, list[Lesson]]]]:
    """Clips in shuffled passes, with a few lessons each."""
    rng = random.Random(recipe.seed)
    order: list[int] = []
    for _ in range(recipe.steps):
        if len(order) < recipe.clips_per_step:
            order = rng.sample(range(len(corpus)), len(corpus))
        picked, order = order[: recipe.clips_per_step], order[recipe.clips_per_step :]
        yield [
            (corpus[i], rng.sample(corpus[i].lessons, min(recipe.lessons_per_clip, len(corpus[i].lessons))))
            for i in picked
        ]


def lesson_loss(policy: Policy, batch: list[tuple[StudyClip, list[Lesson]]]) -> torch.Tensor:
    """Mean negative log-prob of the response tokens."""
    media = dict(zip([s.clip.clip_id for s, _ in batch], policy.encode([s.features for s, _ in batch]), strict=True))
    rows = [
        [lesson_sample(policy.processor, study, lesson.prompt, lesson.response) for lesson in lessons]
        for study, lessons in batch
    ]
    return -policy(rows, media, per_token=True).mean()


def lesson_sample(processor: Processor, study: StudyClip, prompt: str, response: str | list[int]) -> Sample:
    """One question about a clip with both media, and an answer."""
    key = (study.clip.clip_id, study.features)
    return processor.sample(prompt, response, video=key, audio=key)


# Scores ---------------------------------------------------------------------------------------------------------

_SCORE_CLIPS = 100


@torch.no_grad()
def choose(policy: Policy, study: StudyClip, questions: Sequence[Question]) -> list[int]:
    """For each question about one clip, the index of the option with the highest summed log-prob."""
    media = {study.clip.clip_id: policy.encode([study.features])[0]}
    row = [lesson_sample(policy.processor, study, q.prompt, option) for q in questions for option in q.options]
    scores = policy([row], media).split([len(q.options) for q in questions])
    return [int(s.argmax()) for s in scores]


def score_base(folder: Path, recipe: Recipe, decode: Decode) -> dict[str, float]:
    """Accuracies (percent) of a finished base on decorrelated clips of other persons, by option log-likelihood.

    `perception/<group>`: direct questions about one cue. `<task>[/<sub-type>]`: the five EmoReAlM tasks.
    """
    policy = load_policy(folder, "float32")
    scenes = [
        sample_scene(f"score{i:05d}", "test", recipe.seed + 1, bias=0.0, mismatch=0.5) for i in range(_SCORE_CLIPS)
    ]
    hits: dict[str, list[bool]] = {}
    for scene, decoded in zip(scenes, decode(scenes), strict=True):
        study = StudyClip(clip=clip_of(scene, ""), features=policy.processor.features(decoded), lessons=())
        questions = [*perception_questions(study.clip), *_task_questions(policy.processor, study.clip, recipe.seed)]
        for question, picked in zip(questions, choose(policy, study, questions), strict=True):
            for name in question.scores:
                hits.setdefault(name, []).append(picked == question.right)
    return {name: round(100.0 * sum(values) / len(values), 1) for name, values in sorted(hits.items())}


def _task_questions(processor: Processor, clip: Clip, seed: int) -> Iterator[Question]:
    """The benchmark's questions with the letters as options."""
    for query in all_queries(clip, seed):
        if query.task not in TASKS:
            continue
        letters = LETTERS[: len(query.choices)]
        options = [processor.text_ids(f"({letter}") for letter in letters]
        names = (query.task, f"{query.task}/{query.subtype}") if query.subtype else (query.task,)
        yield Question(scores=names, prompt=query.prompt, options=tuple(options), right=letters.index(query.answer))


def corpus_digest(corpus: Sequence[StudyClip]) -> str:
    """Digest of the lessons and tower inputs of a corpus."""
    return digest(
        [(s.clip.clip_id, [(x.prompt, x.response) for x in s.lessons], _tensor_digest(s.features)) for s in corpus]
    )


def _tensor_digest(features: MediaFeatures) -> str:
    data = features.pixel_values.numpy().tobytes() + features.mel.contiguous().numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:16]
