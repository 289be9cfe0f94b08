"""Cues named in a text: the longest wording first, each with what the text does with it."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.records import Cue
from avere_ray.responses.emotions import emotion_map
from avere_ray.responses.phrases import EXPRESSIONS, PHRASES, SIMPLE_MODIFIERS
from avere_ray.responses.stances import Stance, refers, stance_before, stance_behind
from avere_ray.responses.tokens import Token, canonical, tokenize
from avere_ray.responses.words import CAUSE, CONTRAST, END, FILLERS, GENERIC, JOIN, LOOSE, NEGATORS, PARAPHRASES


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
    words = {t.canon for t in tokens}
    hits = [(bag, cue) for cue in cues for bag in _phrases(cue.name, cue.text) if bag <= words]
    hits.sort(key=lambda h: (-len(h[0]), h[1].modality != modality, not h[1].present))
    taken: set[int] = set()
    spans: list[tuple[tuple[int, int], Cue]] = []
    for bag, cue in hits:
        for begin in range(len(tokens)):
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
        elif at == begin or not (token.word in FILLERS | LOOSE or (len(bag) > 2 and token.word in JOIN)):
            return None
    return None


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


_SHOWING = "show mean suggest indicate express reveal tell prove convey betray signal"


def subjects(tokens: Sequence[Token], known: Sequence[Citation], emotions: dict[str, str]) -> list[Citation]:
    """Things said to show something ("the crooked hat shows joy") that match no known cue."""
    found = []
    showing = {canonical(word) for word in _SHOWING.split()}
    for at, token in enumerate(tokens):
        if token.canon not in showing:
            continue
        begin = at
        while begin and tokens[begin - 1].word not in END | JOIN | CONTRAST | CAUSE:
            begin -= 1
        content = [t for t in tokens[begin:at] if t.word not in GENERIC]
        plain = not any(t.word in emotions or t.word in NEGATORS for t in tokens[begin:at])
        cited = content and any(c.start < content[-1].end and c.end > content[0].start for c in known)
        if content and plain and not cited:
            found.append(Citation(None, content[0].start, content[-1].end, Stance.AFFIRMED))
    return found


def _unknown(tokens: Sequence[Token], spans: Sequence[tuple[tuple[int, int], Cue]],
             emotions: dict[str, str]) -> list[Citation]:  # fmt: skip
    """Things cited as evidence that match no known cue: behind "because of", "see" and "hear"."""
    taken = {i for (begin, end), _ in spans for i in range(begin, end)}
    found = []
    for at, token in enumerate(tokens):
        if token.word not in {"because_of", "see", "hear"}:
            continue
        run = []
        for i in range(at + 1, len(tokens)):
            if tokens[i].word in END or tokens[i].word in JOIN or tokens[i].word in CONTRAST:
                break
            run.append(i)
        content = [i for i in run if tokens[i].word not in GENERIC]
        known = taken & set(run) or any(tokens[i].word in emotions or tokens[i].word in NEGATORS for i in run)
        if content and not known:
            found.append(Citation(None, tokens[content[0]].start, tokens[content[-1]].end, Stance.AFFIRMED))
    return found
