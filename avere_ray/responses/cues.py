"""Cues named in a text: the longest wording first, each with what the text does with it."""

import bisect
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avere_ray.records import Cue
from avere_ray.responses.emotions import emotion_map
from avere_ray.responses.phrases import EXPRESSIONS, PHRASES, SIMPLE_MODIFIERS
from avere_ray.responses.stances import Stance, refers, stance_before, stance_behind
from avere_ray.responses.tokens import Token, canonical, tokenize
from avere_ray.responses.words import (
    BREAKS,
    CONTRAST,
    END,
    FILLERS,
    GENERIC,
    JOIN,
    LOOSE,
    NEGATORS,
    PARAPHRASES,
    REACH,
)


@dataclass(frozen=True, slots=True)
class Citation:
    """One cue named in a text: where, and what the text does with it."""

    cue: Cue | None
    """The cue, or None when the words match no known cue."""
    start: int
    """Offset of its first character."""
    end: int
    """Offset behind its last character."""
    stance: Stance
    """What the text does with it."""
    about: tuple[str, ...] = ()
    """For a dismissed cue: the emotions it is said not to show; empty when none is named."""


class Covered:
    """The parts of a text that citations stand in."""

    def __init__(self, citations: Iterable[Citation]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted((c.start, c.end) for c in citations):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def meets(self, start: int, end: int) -> bool:
        """Whether a citation has a character from `start` to `end` (exclusive)."""
        last = bisect.bisect_left(self._starts, end) - 1
        return last >= 0 and self._ends[last] > start


def find_cues(text: str, cues: Sequence[Cue], modality: str = "audio_video") -> list[Citation]:
    """Cues named in a text, in order, with what the text does with each.

    The longest wording wins. Words that fit two cues ("crying") mean the one of the asked modality, else a present one.
    """
    return [c for c in cite_all(tokenize(text), cues, emotion_map(cues), modality) if c.cue is not None]


def cite_all(tokens: Sequence[Token], cues: Sequence[Cue], emotions: dict[str, str], modality: str,
             unreal: frozenset[int] = frozenset()) -> list[Citation]:  # fmt: skip
    """Known cues in order, then evidence that matches no known cue; `unreal` are the places of suppositions."""
    spans = _spans(tokens, cues, modality)
    found = [_cite(tokens, span, cue, emotions) for span, cue in spans]
    found = [dataclasses.replace(c, stance=Stance.SUPPOSED) if begin in unreal else c
             for c, ((begin, _), _) in zip(found, spans, strict=True)]  # fmt: skip
    return found + _unknown(tokens, spans, emotions)


def _spans(tokens: Sequence[Token], cues: Sequence[Cue], modality: str) -> list[tuple[tuple[int, int], Cue]]:
    places: dict[str, list[int]] = {}
    for at, token in enumerate(tokens):
        places.setdefault(token.canon, []).append(at)
    hits = [(bag, cue) for cue in cues for bag in _phrases(cue.name, cue.text) if bag <= places.keys()]
    hits.sort(key=lambda h: (-len(h[0]), h[1].modality != modality, not h[1].present))
    taken: set[int] = set()
    spans: list[tuple[tuple[int, int], Cue]] = []
    for bag, cue in hits:
        for begin in sorted(at for word in bag for at in places[word]):
            end = _window(tokens, begin, bag)
            if end is not None and not taken & set(range(begin, end)):
                taken |= set(range(begin, end))
                spans.append(((begin, end), cue))
    return sorted(spans, key=lambda s: s[0])


def _window(tokens: Sequence[Token], begin: int, bag: frozenset[str]) -> int | None:
    """End of the shortest run from `begin` that holds all words of the bag and otherwise only fillers."""
    missing = set(bag)
    for at in range(begin, min(begin + len(bag) + 4, len(tokens))):
        token = tokens[at]
        if token.canon in missing:
            missing.discard(token.canon)
            if not missing:
                return at + 1
        elif at == begin or not (token.word in _INSIDE or (len(bag) > 2 and token.word in JOIN)):
            return None
    return None


_INSIDE = FILLERS | LOOSE


@functools.lru_cache(maxsize=8192)
def _phrases(name: str, text: str) -> tuple[frozenset[str], ...]:
    """Every way to name a cue, as sets of canonical content words."""
    texts = (text, text.partition(" in the ")[0], name.replace("_", " "), *PARAPHRASES.get(name, ()))
    own = [bag for bag in map(_bag, texts) if bag]
    others = [other for bag in own[:1] for group in _groups() if any(m <= bag for m in group) for other in group]
    return tuple(dict.fromkeys([*own, *(e for bag in own[:1] for e in _expression(bag)), *others]))


def _bag(text: str) -> frozenset[str]:
    return frozenset(t.canon for t in tokenize(text) if t.word not in FILLERS)


@functools.cache
def _groups() -> tuple[tuple[frozenset[str], ...], ...]:
    return tuple(tuple(_bag(member) for member in group) for group in PHRASES)


@functools.cache
def _heads() -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(map(canonical, EXPRESSIONS)), frozenset(map(canonical, SIMPLE_MODIFIERS))


def _expression(bag: frozenset[str]) -> list[frozenset[str]]:
    """The word that names the cue alone: "sigh" of "a deep sigh"."""
    heads, modifiers = _heads()
    found = bag & heads
    return [found] if len(found) == 1 and bag - found <= modifiers else []


@functools.lru_cache(maxsize=4096)
def with_aliases(own: tuple[Cue, ...], lexicon: tuple[Cue, ...]) -> tuple[Cue, ...]:
    """The cues of a clip, and those of its corpus: absent, or another name for a cue that the clip has.

    "Tears" of another clip and "teary eyes" of this one are one thing, so the clip is not said to lack the former.
    """
    names = {c.name for c in own}
    others = [c for c in lexicon if c.name not in names]
    return (*own, *(_alias(other, own) or dataclasses.replace(other, present=False) for other in others))


def _alias(other: Cue, own: Sequence[Cue]) -> Cue | None:
    for cue in own:
        if cue.present and cue.modality == other.modality and bool(cue.emotions) == bool(other.emotions):
            mine, theirs = _phrases(cue.name, cue.text), _bag(other.text)
            if any(bag <= theirs or theirs <= bag for bag in mine):
                return dataclasses.replace(cue, text=other.text)
    return None


def _cite(tokens: Sequence[Token], span: tuple[int, int], cue: Cue, emotions: dict[str, str]) -> Citation:
    begin, end = span
    start, stop = tokens[begin].start, tokens[end - 1].end
    inside = any(t.word in {"not", "never"} for t in tokens[begin:end])
    left = Stance.DENIED if inside else stance_before(tokens, begin, end)
    if left is not None:
        return Citation(cue, start, stop, left)
    right, about = stance_behind(tokens, begin, end, emotions)
    if right is not None:
        return Citation(cue, start, stop, right, about)
    referring = not cue.emotions and refers(tokens, begin)
    return Citation(cue, start, stop, Stance.MENTIONED if referring else Stance.AFFIRMED)


_SHOWING = frozenset(map(canonical, (
    "show", "mean", "suggest", "indicate", "express", "reveal", "tell", "prove", "convey", "betray", "signal",
)))  # fmt: skip
_CITING = frozenset({"because_of", "see", "hear"})
_RUN_ENDS = END | JOIN | CONTRAST
_SUBJECT_ENDS = BREAKS | JOIN


def subjects(tokens: Sequence[Token], known: Sequence[Citation], emotions: dict[str, str]) -> list[Citation]:
    """Things said to show something ("the crooked hat shows joy") that match no known cue."""
    found = []
    cited = Covered(known)
    for at, token in enumerate(tokens):
        if token.canon not in _SHOWING:
            continue
        begin, least = at, max(0, at - REACH)
        while begin > least and tokens[begin - 1].word not in _SUBJECT_ENDS:
            begin -= 1
        content = [t for t in tokens[begin:at] if t.word not in GENERIC]
        plain = not any(t.word in emotions or t.word in NEGATORS for t in tokens[begin:at])
        if content and plain and not cited.meets(content[0].start, content[-1].end):
            found.append(Citation(None, content[0].start, content[-1].end, Stance.AFFIRMED))
    return found


def _unknown(tokens: Sequence[Token], spans: Sequence[tuple[tuple[int, int], Cue]],
             emotions: dict[str, str]) -> list[Citation]:  # fmt: skip
    """Things cited as evidence that match no known cue: behind "because of", "see" and "hear"."""
    taken = {i for (begin, end), _ in spans for i in range(begin, end)}
    found = []
    for at, token in enumerate(tokens):
        if token.word not in _CITING:
            continue
        most = min(len(tokens), at + 1 + REACH)
        run = range(at + 1, next((i for i in range(at + 1, most) if tokens[i].word in _RUN_ENDS), most))
        content = [i for i in run if tokens[i].word not in GENERIC]
        known = any(i in taken or tokens[i].word in emotions or tokens[i].word in NEGATORS for i in run)
        if content and not known:
            found.append(Citation(None, tokens[content[0]].start, tokens[content[-1]].end, Stance.AFFIRMED))
    return found
