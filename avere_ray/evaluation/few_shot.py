"""Few-shot examples: clips with a question of the same task and its answer, shown before the question that counts.

They follow from seed and question alone. An example never shows a person, a source video or a file that any held-out
clip shows; where nobody knows who is in a clip this cannot be promised, and nothing is shown.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from avere_ray.errors import InputError
from avere_ray.evaluation.showing import Example
from avere_ray.prompts import all_queries
from avere_ray.records import Clip, Query
from avere_ray.stages import digest

Examples = Mapping[str, Sequence[Example]]
"""Examples by task."""


def cue_examples(clips: Iterable[Clip], seed: int) -> dict[str, list[Example]]:
    """Examples by task from the annotated cues of clips, in EmoReAlM's form."""
    found: dict[str, list[Example]] = {}
    for clip in clips:
        for query in all_queries(clip, seed):
            if query.choices:
                found.setdefault(query.task, []).append(Example(query=query, answer=query.reference))
    return found


def example_clips(
    clips: Sequence[Clip],
    held_out: Sequence[Clip],
    *,
    wanted: str = "few-shot examples",
    instead: str = "set evaluation.few_shot to 0",
) -> list[Clip]:
    """Clips that examples may be taken from.

    Args:
        wanted, instead: what they are for, and the way out, for the message of an error.

    Raises:
        InputError: nobody knows who is in a held-out clip, or no clip is left.
    """
    unknown = [clip.clip_id for clip in held_out if not clip.identity]
    if unknown:
        raise InputError(
            f"{wanted} must show other persons than the held-out clips, and nobody knows who is in {len(unknown)} of "
            f"these, for instance {unknown[0]}. Fill in `identity`, or {instead}."
        )
    taken = {mark for clip in held_out for mark in _marks(clip)}
    left = [c for c in clips if c.identity and c.split != "test" and not taken.intersection(_marks(c))]
    if not left:
        raise InputError(
            f"none of the {len(clips)} clips shows a known person who is in none of the held-out clips, so there are "
            f"no {wanted}. Add training clips with `identity`, or {instead}."
        )
    return left


def chooser(examples: Examples, k: int, seed: int) -> Callable[[Query], tuple[Example, ...]]:
    """Gives the `k` examples of a question: of its task, about different clips.

    Raises (when called):
        InputError: there are fewer.
    """

    def choose(query: Query) -> tuple[Example, ...]:
        rng = random.Random(digest("few_shot", seed, query.query_id))
        pool = list(examples.get(query.task, ()))
        rng.shuffle(pool)
        chosen = list({example.query.clip_id: example for example in pool}.values())[:k]
        if len(chosen) < k:
            raise InputError(
                f"question {query.query_id} (task {query.task}) needs {k} few-shot examples, and there are "
                f"{len(chosen)}. Lower evaluation.few_shot, or add annotated training clips."
            )
        return tuple(chosen)

    return choose


def _marks(clip: Clip) -> list[tuple[str, str]]:
    """What tells that two clips show the same."""
    named = (("clip", clip.clip_id), ("identity", clip.identity), ("video", clip.source_video), ("file", clip.sha256))
    return [(kind, value) for kind, value in named if value]
