"""Scores of the tiny base on decorrelated clips of other persons: what it perceives, and how it fails.

Questions with options are scored by the log-prob of each option, all options of all questions about a clip in one
prefix tree. Descriptions are written word by word and judged by the rules judge.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from avere_ray.backbones.qwen2_5_omni import Policy, Processor, load_policy
from avere_ray.prompts import LETTERS, TASKS, all_queries
from avere_ray.records import Clip, Query
from avere_ray.synthetic.base import Decode, Recipe, StudyClip, lesson_sample
from avere_ray.synthetic.clips import benchmark_queries
from avere_ray.synthetic.questions import Question, perception_questions
from avere_ray.synthetic.scene import clip_of, sample_scene
from avere_ray.verdicts import judge_text

_MISMATCH = 0.5
_LONGEST = 64
"""Tokens of the longest description."""


def score_base(folder: Path, recipe: Recipe, decode: Decode) -> dict[str, float]:
    """Scores of a finished base, in percent.

    - `perception/<group>`: direct questions which cue of a kind the clip has; `_present` and `_absent`: direct
      questions whether it has a certain one, for cues that are and are not there; `match`: whether face and voice show
      the same emotion.
    - `<task>`: the five tasks as the held-out benchmark asks them, Yes and No equally often; `<task>/<sub-type>`: all
      questions of a sub-type.
    - `describe/spurious`, `describe/hallucination`: descriptions that rely on an irrelevant or an absent cue.
    """
    policy = load_policy(folder, "float32")
    scenes = [
        sample_scene(f"score{i:05d}", "test", recipe.seed + 1, bias=0.0, mismatch=_MISMATCH)
        for i in range(recipe.score_clips)
    ]
    studies = [
        StudyClip(clip=clip_of(scene, ""), features=policy.processor.features(decoded), lessons=())
        for scene, decoded in zip(scenes, decode(scenes), strict=True)
    ]
    hits = score_choices(policy, studies, recipe.seed) | score_descriptions(
        policy, studies[: recipe.described_clips], recipe
    )
    return {name: round(100.0 * sum(values) / len(values), 1) for name, values in sorted(hits.items())}


# Questions with options -----------------------------------------------------------------------------------------


def score_choices(policy: Policy, studies: Sequence[StudyClip], seed: int) -> dict[str, list[bool]]:
    """Whether each question was answered rightly, by the names it counts for."""
    hits: dict[str, list[bool]] = {}
    asked = {q.query_id for q in benchmark_queries([s.clip for s in studies], seed)}
    for study in studies:
        questions = [*perception_questions(study.clip), *_task_questions(policy.processor, study.clip, seed, asked)]
        for question, picked in zip(questions, choose(policy, study, questions), strict=True):
            for name in question.scores:
                hits.setdefault(name, []).append(picked == question.right)
    return hits


@torch.no_grad()
def choose(policy: Policy, study: StudyClip, questions: Sequence[Question]) -> list[int]:
    """For each question about one clip, the index of the option with the highest summed log-prob."""
    media = {study.clip.clip_id: policy.encode([study.features])[0]}
    row = [lesson_sample(study, policy.processor, q.prompt, option) for q in questions for option in q.options]
    scores = policy([row], media).split([len(q.options) for q in questions])
    return [int(s.argmax()) for s in scores]


def _task_questions(processor: Processor, clip: Clip, seed: int, asked: set[str]) -> Iterator[Question]:
    """The benchmark's questions with the letters as options; those in `asked` count for their task."""
    for query in all_queries(clip, seed):
        if query.task not in TASKS:
            continue
        letters = LETTERS[: len(query.choices)]
        options = [processor.text_ids(f"({letter}") for letter in letters]
        names = [query.task] * (query.query_id in asked) + [f"{query.task}/{query.subtype}"] * bool(query.subtype)
        yield Question(
            scores=tuple(names), prompt=query.prompt, options=tuple(options), right=letters.index(query.answer)
        )


# Descriptions ---------------------------------------------------------------------------------------------------


def score_descriptions(policy: Policy, studies: Sequence[StudyClip], recipe: Recipe) -> dict[str, list[bool]]:
    """Whether each description relies on an irrelevant cue, and on an absent one."""
    hits: dict[str, list[bool]] = {"describe/spurious": [], "describe/hallucination": []}
    for study in studies:
        query = next(q for q in all_queries(study.clip, recipe.seed) if q.task == "describe")
        spurious, hallucination = description_failures(study.clip, query, describe(policy, study, query.prompt))
        hits["describe/spurious"].append(spurious)
        hits["describe/hallucination"].append(hallucination)
    return hits


def description_failures(clip: Clip, query: Query, text: str) -> tuple[bool, bool]:
    """Whether a response relies on a cue that is present but irrelevant, and on one that is absent."""
    relied = [c for c in judge_text(text, query, clip).cited if c.affirmed]
    return any(c.present and not c.relevant for c in relied), any(not c.present for c in relied)


@torch.no_grad()
def describe(policy: Policy, study: StudyClip, prompt: str) -> str:
    """The most likely response to an open question, word by word."""
    sample = lesson_sample(study, policy.processor, prompt, [policy.processor.end_id])
    ids = torch.from_numpy(sample.token_ids[: sample.branch.response_start])[None]
    features = study.features
    out = policy.core.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=features.pixel_values,
        video_grid_thw=features.grid_thw[None],
        video_second_per_grid=torch.tensor([features.second_per_grid]),
        input_features=features.mel[None],
        feature_attention_mask=torch.ones(1, features.mel.shape[1], dtype=torch.long),
        max_new_tokens=_LONGEST,
        do_sample=False,
    )
    return policy.processor.hf.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
