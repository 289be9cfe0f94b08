"""When two responses say the same, and whether they are of like length."""

import difflib
import re

from avere_ray.responses import leading_letter
from avere_ray.responses.tokens import tokenize

_IDLE = frozenset(
    [
        "a",
        "an",
        "the",
        "his",
        "her",
        "their",
        "its",
        "very",
        "really",
        "quite",
        "so",
        "also",
        "just",
        "indeed",
        "clearly",
    ]
)
_SLACK = 4


def normalise(text: str) -> str:
    """The form in which two texts count as the same: lower case, words only."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def saying(text: str) -> str:
    """The form in which two texts are near-duplicates: the letter, then content words in their common form."""
    letter, start = leading_letter(text, "ABCDEFGH")
    words = [t.canon for t in tokenize(text, start) if t.word not in _IDLE and t.word.isalnum()]
    return " ".join([f"({letter})" if letter else "", *words]).strip() or normalise(text)


def word_share(a: str, b: str) -> float:
    """Share of equal words in the same order, 0 to 1."""
    return difflib.SequenceMatcher(None, normalise(a).split(), normalise(b).split(), autojunk=False).ratio()


def length_ratio(a: str, b: str) -> float:
    """Words of the longer text by those of the shorter, at least 1."""
    x, y = sorted((max(1, len(a.split())), max(1, len(b.split()))))
    return y / x


def close_in_length(a: str, b: str, ratio: float = 2.0) -> bool:
    """Whether two texts are of similar length: within four words, or within the ratio."""
    return abs(len(a.split()) - len(b.split())) <= _SLACK or length_ratio(a, b) <= ratio
