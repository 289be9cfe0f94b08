"""Which emotions a text names."""

import functools
from collections.abc import Sequence

from avere_ray.records import Cue
from avere_ray.responses.tokens import tokenize
from avere_ray.responses.words import EMOTION_WORDS


def emotions_in(text: str, cues: Sequence[Cue]) -> list[str]:
    """Emotions named in a text, in order, repetitions included."""
    table = emotion_map(cues)
    return [table[t.word] for t in tokenize(text) if t.word in table]


def emotion_map(cues: Sequence[Cue]) -> dict[str, str]:
    """Word to emotion: the known words, and the emotions that the cues of this corpus name."""
    table = dict(_emotion_words())
    for emotion in {e for c in cues for e in c.emotions}:
        table.setdefault(emotion, emotion)
    return table


@functools.cache
def _emotion_words() -> dict[str, str]:
    return {word: emotion for emotion, words in EMOTION_WORDS.items() for word in words}
