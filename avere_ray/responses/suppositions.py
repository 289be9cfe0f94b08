"""Words that only suppose something: conditions, questions, expectations. What they name is not claimed.

"If she were sad there would be tears", "were his fists clenched", "is he sad? no", "one might expect laughter".
"""

from collections.abc import Sequence

from avere_ray.responses.tokens import Token
from avere_ray.responses.words import ARTICLES, CONTRAST, END, REACH, SUBJECTS

_ASKING = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "can",
        "could",
        "will",
        "would",
        "has",
        "have",
        "had",
        "should",
        "isn",
        "aren",
        "don",
        "doesn",
    ]
)
_GUESS = frozenset(["guess", "choose", "decide", "say", "judge", "bet", "name", "pick"])
_STATED = frozenset(["true", "right", "correct", "mistaken", "wrong"])


def supposed(tokens: Sequence[Token]) -> frozenset[int]:
    """Places of the words that stand in a condition, a question or an expectation."""
    found: set[int] = set()
    words = [t.word for t in tokens]
    for begin, end in _sentences(tokens):
        if end < len(tokens) and tokens[end].word == "?" and tokens[begin].word in _ASKING:
            if not _confirmed(tokens, end):
                found |= set(range(begin, end))
            continue
        found |= _conditions(words, begin, end)
    return frozenset(found)


def _sentences(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    spans, begin = [], 0
    for at, token in enumerate(tokens):
        if token.word in END and token.word != ":":
            spans.append((begin, at))
            begin = at + 1
    return [(a, b) for a, b in [*spans, (begin, len(tokens))] if a < b]


def _confirmed(tokens: Sequence[Token], end: int) -> bool:
    behind = next((t.word for t in tokens[end + 1 : end + 1 + REACH] if t.word.isalpha()), "")
    return behind in {"yes", "indeed", "definitely", "certainly"}


_CONDITION_ENDS = CONTRAST | {",", "then"}


def _conditions(words: Sequence[str], begin: int, end: int) -> set[int]:
    found: set[int] = set()
    for at in range(begin, end):
        if not _opens(words, at, begin, end):
            continue
        stop = _first(words, _CONDITION_ENDS, at + 1, end)
        inside = words[at:stop]
        if set(inside) & _GUESS:
            continue
        found |= set(range(at, stop))
        unreal = bool(set(inside) & {"were", "had", "would"})
        main = _first(words, CONTRAST, stop + 1, end)
        if unreal and words[at] in {"if", "were", "had"} and "would" in words[stop:main]:
            found |= set(range(stop, main))
        if unreal and words[at] in {"if", "were", "had"}:
            found |= _before(words, begin, at)
    return found


def _first(words: Sequence[str], wanted: frozenset[str], begin: int, end: int) -> int:
    """Where the first of some words stands in a part of a sentence; else where that ends, or is read no further."""
    most = min(end, begin + REACH)
    return next((i for i in range(begin, most) if words[i] in wanted), most)


def _before(words: Sequence[str], begin: int, at: int) -> set[int]:
    """ "There would be tears if she were sad": the main clause in front."""
    least = max(begin, at - REACH)
    start = max((i + 1 for i in range(least, at) if words[i] in CONTRAST), default=least)
    return set(range(start, at)) if "would" in words[start:at] else set()


def _opens(words: Sequence[str], at: int, begin: int, end: int) -> bool:
    word, before = words[at], words[at - 1] if at > begin else ""
    behind = words[at + 1] if at + 1 < end else ""
    if word == "if":
        return before not in {"as", "even"}
    if word in {"whether", "unless"}:
        return True
    if word in {"expect", "expected", "imagine"}:
        return bool({"might", "would", "could", "may"} & set(words[max(begin, at - 3) : at]))
    first = at == begin or before in {",", "and", "but"}
    return first and word in {"were", "had", "should"} and behind in SUBJECTS | ARTICLES
