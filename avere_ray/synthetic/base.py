"""What the tiny base model is made from: the recipe and the corpus of clips with their lessons.

The base is a Qwen2.5-Omni trained from nothing on the world. Decorrelated clips with truthful direct questions teach it
to perceive; biased clips with a careless annotator's answers teach it to reason wrongly. How it is trained is in
`base_training`, how it is scored in `base_scores`.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from avere_ray.backbones.qwen2_5_omni import Processor
from avere_ray.backbones.tiny import TinyShape, conversation
from avere_ray.backbones.types import MediaFeatures, Sample
from avere_ray.prompts import all_queries
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import digest
from avere_ray.synthetic.annotator import USUAL_BIAS, Mistakes, annotated_lessons
from avere_ray.synthetic.questions import Lesson, direct_lessons, reading_lessons
from avere_ray.synthetic.scene import Scene, clip_of, sample_scene

Decode = Callable[[list[Scene]], Iterator[DecodedClip]]
"""Turns scenes into decoded clips by way of real mp4 files, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the tiny base is made; stored in its manifest."""

    seed: int = 0
    direct_clips: int = 3000
    """Decorrelated clips with truthful direct questions."""
    annotated_clips: int = 1000
    """Biased clips with a careless annotator's answers."""
    bias: float = USUAL_BIAS
    """Share of annotated clips whose irrelevant cues agree with the emotion."""
    mismatch: float = 0.5
    """Share of annotated clips whose face and voice disagree."""
    mistakes: Mistakes = field(default_factory=Mistakes)
    reading_steps: int = 1000
    """Steps of the language model on words alone."""
    reading_rows: int = 32
    """Lessons in a step on words alone."""
    tower_steps: int = 700
    """Steps of the towers on decorrelated clips."""
    tower_clips: int = 32
    """Clips in a step of the towers."""
    steps: int = 1600
    """Steps of the language model on clips, as the trained towers see and hear them."""
    clips_per_step: int = 8
    lessons_per_clip: int = 8
    learning_rate: float = 6e-4
    """Peak rate of the language model; with 1.5e-3 it never learned to compare."""
    tower_rate: float = 1.5e-3
    """Peak rate of the towers."""
    warmup: int = 40
    """Steps in which a rate rises to its peak, in each of the three parts."""
    shape: TinyShape = field(default_factory=TinyShape)
    score_clips: int = 100
    """Decorrelated clips of other persons it is scored on."""
    described_clips: int = 40
    """How many of them it describes in words."""


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
        sample_scene(f"direct{i:05d}", "direct", recipe.seed, bias=0.0, mismatch=0.8, free_extras=True)
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


def lesson_sample(study: StudyClip, processor: Processor, prompt: str, response: str | list[int]) -> Sample:
    """One question about a clip with both media, and an answer."""
    key = (study.clip.clip_id, study.features)
    return processor.sample(prompt, response, video=key, audio=key)


def corpus_digest(corpus: Sequence[StudyClip]) -> str:
    """Digest of the lessons and tower inputs of a corpus."""
    return digest(
        [(s.clip.clip_id, [(x.prompt, x.response) for x in s.lessons], _tensor_digest(s.features)) for s in corpus]
    )


def _tensor_digest(features: MediaFeatures) -> str:
    data = features.pixel_values.numpy().tobytes() + features.mel.contiguous().numpy().tobytes()
    return hashlib.sha256(data).hexdigest()[:16]
