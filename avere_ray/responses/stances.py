"""What a text does with a phrase: the words before and behind it that deny, dismiss or merely mention it."""

from collections.abc import Sequence
from enum import StrEnum

from avere_ray.responses.tokens import Token, stem
from avere_ray.responses.words import (
    ABSENT,
    ARTICLES,
    BREAKS,
    CAUSE,
    CONCESSIONS,
    DETERMINERS,
    EMPTY,
    END,
    JOIN,
    LINKS,
    NEGATORS,
    PERCEIVED,
    REACH,
    REFERENTS,
    SKIPPERS,
    SUBJECTS,
    VERBS,
)

_STEMMED_LINKS = LINKS | {stem(w) for w in LINKS}
_OPENING = BREAKS | {"with", "because_of", "indeed"}
_CLOSING = BREAKS - {"only", "just", "merely"}
_SAYING = SUBJECTS | VERBS


class Stance(StrEnum):
    """What a response does with a cue it names."""

    AFFIRMED = "affirmed"
    """Relies on it."""
    MENTIONED = "mentioned"
    """Says in passing that it is there ("the man in the red shirt")."""
    DISMISSED = "dismissed"
    """Says that it does not matter."""
    DENIED = "denied"
    """Says that it is not there."""
    SUPPOSED = "supposed"
    """Names it in a condition, a question or an expectation."""


def stance_before(tokens: Sequence[Token], begin: int, end: int) -> Stance | None:
    """What is done with a phrase by the words before it: DENIED, DISMISSED, MENTIONED ("despite ..."), else None."""
    fresh = False
    between: set[str] = set()
    for at in range(begin - 1, max(-1, begin - 1 - REACH), -1):
        word = tokens[at].word
        if word in SKIPPERS or word in CONCESSIONS:
            return Stance.DISMISSED if word in SKIPPERS else Stance.MENTIONED
        if word in NEGATORS:
            verb = not between.isdisjoint(VERBS) and "that" not in between
            ended = word in DETERMINERS and (fresh or verb)
            contrast = word == "not" and between <= ARTICLES
            return None if ended else Stance.DISMISSED if contrast else Stance.DENIED
        if word in _OPENING:
            return None
        if word in JOIN:
            if not between.isdisjoint(_SAYING):
                return None
            article = at + 1 < begin and tokens[at + 1].word in ARTICLES
            if article and _verb_follows(tokens, begin, end):
                return None
            fresh = fresh or article
        between.add(word)
    return None


def _verb_follows(tokens: Sequence[Token], begin: int, end: int) -> bool:
    inside = any(t.word in VERBS for t in tokens[begin:end])
    return inside or (end < len(tokens) and tokens[end].word in VERBS)


def stance_behind(
    tokens: Sequence[Token], begin: int, end: int, emotions: dict[str, str]
) -> tuple[Stance | None, tuple[str, ...]]:
    """DENIED or DISMISSED when the words behind a cue negate it, with the emotions named there."""
    stop = _predicate_end(tokens, begin, end)
    words = [t.word for t in tokens[end:stop]]
    about = tuple(emotions[w] for w in words if w in emotions)
    if [w for w in words if w not in ARTICLES] == ["not"]:
        return Stance.DENIED, ()
    verb = False
    for at, word in enumerate(words):
        if word in _TELLING:
            near = {form for t in tokens[end + at + 1 : min(stop, end + at + 6)] for form in (t.word, t.canon)}
            linked = not near.isdisjoint(_STEMMED_LINKS)
            if word in ABSENT or (word in {"not", "never"} and not linked and near & PERCEIVED):
                return Stance.DENIED, ()
            no_link = word in {"not", "never"} or (word == "no" and verb)
            if word in EMPTY or (no_link and linked):
                return _unless_corrected(tokens, stop, emotions), about
            if word in _BE and not linked and _is_just(words[at + 1 :], emotions):
                return Stance.DISMISSED, about
        verb = verb or word in VERBS
    return (Stance.DISMISSED, ()) if _set_aside_later(tokens, stop) else (None, ())


_BE = frozenset({"is", "are", "was", "were"})
_JUST = frozenset({"just", "only", "merely", "simply"})
_TELLING = ABSENT | EMPTY | _BE | {"not", "never", "no"}
_GOING_ON = frozenset({",", "but", "though", "yet", "and", ";", ".", "although"})


def _is_just(behind: Sequence[str], emotions: dict[str, str]) -> bool:
    """ "the rain is only weather": what is said of it is no emotion."""
    return bool(behind) and behind[0] in _JUST and not any(w in emotions for w in behind)


def _set_aside_later(tokens: Sequence[Token], stop: int) -> bool:
    """ "piano music is playing, but that tells nothing about her": the next clause speaks of the cue."""
    at, most = stop, min(len(tokens), stop + REACH)
    while at < most and tokens[at].word in _GOING_ON:
        at += 1
    if at == stop or at >= len(tokens) or tokens[at].word not in {"that", "this", "it", "they", "which", "these"}:
        return False
    words = [t.word for t in tokens[at : at + 10]]
    last = next((i for i, w in enumerate(words) if w in END or w in CAUSE), len(words))
    words, forms = words[:last], {f for t in tokens[at : at + last] for f in (t.word, t.canon)}
    negated = bool({"not", "never", "no", "hardly"} & set(words)) and bool(forms & _STEMMED_LINKS)
    return negated or bool(set(words[:6]) & EMPTY) or (bool({"just", "only"} & set(words[1:4])) and "is" in words[1:3])


def _unless_corrected(tokens: Sequence[Token], stop: int, emotions: dict[str, str]) -> Stance | None:
    """ "do not show sadness but anger" relies on the cue after all."""
    behind = [t.word for t in tokens[stop : stop + 4]]
    corrected = bool(behind) and behind[0] == "but" and any(w in emotions for w in behind)
    return None if corrected else Stance.DISMISSED


def _predicate_end(tokens: Sequence[Token], begin: int, end: int) -> int:
    """Where the clause ends whose subject or object the cue is."""
    subject = _is_subject(tokens, begin)
    verb, most = False, min(len(tokens), end + REACH)
    for at in range(end, most):
        word = tokens[at].word
        if word in _CLOSING:
            return at
        if word in {",", "and", "or"} and (verb or not subject) and not (word == "," and _relative(tokens, at)):
            return at
        verb = verb or word in VERBS
    return most


def _relative(tokens: Sequence[Token], at: int) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1].word in {"which", "that"}


def _is_subject(tokens: Sequence[Token], begin: int) -> bool:
    for at in range(begin - 1, max(-1, begin - 1 - REACH), -1):
        word = tokens[at].word
        if word in BREAKS:
            return True
        if word in VERBS or word in {"with", "because_of"}:
            return False
    return True


def refers(tokens: Sequence[Token], begin: int) -> bool:
    """ "the man in the red shirt": the cue only says who is meant."""
    words = [t.word for t in tokens[max(0, begin - 3) : begin] if t.word not in ARTICLES]
    return len(words) >= 2 and words[-1] in {"in", "wearing", "with"} and words[-2] in REFERENTS
