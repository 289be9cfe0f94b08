"""Emotions claimed in a text: of the face, the voice or the person, and whether they are denied."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.records import Modality
from avere_ray.responses.cues import Citation, Covered
from avere_ray.responses.stances import Stance, stance_before
from avere_ray.responses.tokens import Token
from avere_ray.responses.words import ARTICLES, BREAKS, END, FACE, HEARING, JOIN, REACH, SEEING, VOICE


@dataclass(frozen=True, slots=True)
class Claim:
    """One emotion named in a text."""

    emotion: str
    """Its noun, for instance "anger"."""
    negated: bool
    """Whether the text says that it is not felt."""
    sources: frozenset[Modality]
    """Whether it is said of the face ("video"), the voice ("audio"), both, or (empty) of the person."""
    explicit: bool
    """Whether a noun says so ("face", "voice") rather than a verb ("looks", "sounds")."""
    with_cue: bool
    """For a negated emotion: it is a cue that does not show it, not the person who does not feel it."""

    @property
    def about_both(self) -> bool:
        """Whether it is said of face and voice alike."""
        return len(self.sources) > 1


def claims_of(tokens: Sequence[Token], citations: Sequence[Citation], emotions: dict[str, str],
              unreal: frozenset[int] = frozenset()) -> list[Claim]:  # fmt: skip
    """Emotions claimed in a text, in order, without those inside a cue's name or a dismissal."""
    claims: list[Claim] = []
    cited, cues = Covered(citations), Covered(c for c in citations if c.cue)
    dismissals = sorted(c.end for c in citations if c.stance is Stance.DISMISSED)
    previous, parted = 0, -1
    for at, token in enumerate(tokens):
        if token.word in emotions and at not in unreal and not cues.meets(token.start, token.start + 1):
            sources, explicit = _sources(tokens, previous, at)
            previous = at + 1
            if not _in_dismissal(token, dismissals, parted) and not _no_sign_of(tokens, at):
                negated = stance_before(tokens, at, at + 1) in {Stance.DENIED, Stance.DISMISSED}
                with_cue = negated and _cue_in_clause(tokens, at, cited)
                claims.append(Claim(emotions[token.word], negated, sources, explicit, with_cue))
        if token.word in _PARTING:
            parted = token.start
    return claims


_PARTING = BREAKS | JOIN


def _sources(tokens: Sequence[Token], previous: int, at: int) -> tuple[frozenset[Modality], bool]:
    """Face, voice or both, as far as the words around an emotion say; and whether a noun says it."""
    words = [t.word for t in tokens[at + 1 : at + 4]]
    place = bool(words) and words[0] in {"in", "on", "of"}  # "grief in the voice"
    behind = next((w for w in words[1:] if w not in ARTICLES), "") if place else next(iter(words), "")
    if behind in FACE or behind in VOICE:
        return frozenset({"video" if behind in FACE else "audio"}), True
    before: list[str] = []
    for token in reversed(tokens[previous:at]):
        if token.word in END:
            break
        before.append(token.word)
    nouns = _modalities(before, FACE, VOICE)
    verbs = _modalities(before, SEEING, HEARING)
    return nouns or verbs, bool(nouns)


def _modalities(words: Sequence[str], video: frozenset[str], audio: frozenset[str]) -> frozenset[Modality]:
    found: list[Modality] = []
    found += ["video"] if video & set(words) else []
    found += ["audio"] if audio & set(words) else []
    return frozenset(found)


def _in_dismissal(token: Token, dismissals: Sequence[int], parted: int) -> bool:
    """Whether an emotion is only named as what a dismissed cue does not show.

    `dismissals`: where such cues end, in order; `parted`: where the last word starts that parts the emotion from them.
    """
    last = bisect.bisect_right(dismissals, token.start) - 1
    return last >= 0 and dismissals[last] > parted


def _no_sign_of(tokens: Sequence[Token], at: int) -> bool:
    """ "clothes are not evidence of anger" says nothing of the person; "there is no sign of anger" does."""
    words = [t.word for t in tokens[max(0, at - 9) : at]]
    ends = [i for i, w in enumerate(words) if w in BREAKS]
    words = words[ends[-1] + 1 :] if ends else words
    negator = next((i for i, w in enumerate(words) if w in {"not", "no", "nothing", "hardly"}), None)
    if negator is None or negator < 2 or {"there", "i", "we", "you", "see", "hear"} & set(words[:negator]):
        return False
    links = {"evidence", "sign", "proof", "indication", "indicator", "say", "mean", "show", "prove", "tell", "reason",
             "link", "linked", "related"}  # fmt: skip
    if words[negator - 1] in {"says", "say", "means", "mean", "proves", "prove", "tells", "tell"}:
        return True
    person = {"person", "he", "she", "they", "man", "woman", "speaker"} & set(words[:negator])
    return not person and bool(links & set(words[negator + 1 :]))


def _cue_in_clause(tokens: Sequence[Token], at: int, cited: Covered) -> bool:
    for i in range(at - 1, max(-1, at - 1 - REACH), -1):
        if tokens[i].word in BREAKS:
            return False
        if cited.meets(tokens[i].start, tokens[i].start + 1):
            return True
    return False
