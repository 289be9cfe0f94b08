"""The emotion and the cues of one answer, read from its words by the grammar of `avere_ray.responses`.

A cue's medium is the table's where the table knows it; else it follows from the words of the cue ("a hoarse tone"),
then from the last "see" or "hear" before it, then from its sentence, then from the question. A thing whose medium none
of them tells is left out: it can be marked as neither.
"""

import bisect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from avere_ray.asked import asked_modality
from avere_ray.insight.lexicon import common_cues
from avere_ray.prompts import bare, is_plural
from avere_ray.records import CueModality, Modality, Query
from avere_ray.responses import Citation, Claim, Stance, emotions_in, read_response, split_choice

Use = Literal["relied_on", "mentioned", "set_aside", "denied", "supposed"]
_USE: Mapping[Stance, Use] = {
    Stance.AFFIRMED: "relied_on",
    Stance.MENTIONED: "mentioned",
    Stance.DISMISSED: "set_aside",
    Stance.DENIED: "denied",
    Stance.SUPPOSED: "supposed",
}
_PERCEIVING = re.compile(
    r"\b(?:(see|sees|seen|look|looks|visible)|(hear|hears|heard|sounds?|audible))\b", re.IGNORECASE
)
_ARTICLE = re.compile(r"\b(a|an)\s+(?:very\s+|rather\s+|quite\s+)?$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?\n]")
MOST_CUES = 24
"""Different cues of one answer that are looked at; a longer list is cut, since each costs two passes of an engine."""
MOST_CITATIONS = 500
"""Things that an answer names, the same ones again included, among which cues are looked for."""
_NOUN_BEHIND = re.compile(r" (?:tone|voice|face|expression|eyes|mouth|hands|body)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerCue:
    """One cue that an answer names."""

    text: str
    """Its words in the answer."""
    modality: CueModality
    """Where it is perceived."""
    span: tuple[int, int]
    """Where its words begin and end in the answer, characters; the end is exclusive."""
    use: Use
    """What the answer does with it: rely on it, mention it in passing, set it aside, deny or only suppose it."""
    question: str
    """Asks whether it is in the clip, to be answered with Yes or No."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerReading:
    """What an answer says."""

    question: str
    """What was asked."""
    answer: str
    """The answer."""
    emotion: str
    """The emotion it ascribes to the person (else to face or voice), a noun; empty when it names none."""
    cues: tuple[AnswerCue, ...]
    """In the order of their words; those that are named again are there again."""


def read_answer(question: str, answer: str) -> AnswerReading:
    """The emotion and the cues that an answer names.

    A question may hold its choices, "(A) ... (B) ..."; a bare letter then stands for the emotion of that choice.
    """
    choices, asked = _choices(question), asked_modality(question).modality
    query = Query(query_id="answer", clip_id="", modality=asked, task="answer", prompt=question, choices=choices)
    reading = read_response(answer, query, common_cues(), any_evidence=True)
    options = dict(split_choice(choice) for choice in choices)
    chosen = [options[letter] for letter in reading.letters[:1] if letter in options]
    cues = _apart(reading.citations, answer, _Media(answer, asked))
    return AnswerReading(
        question=question,
        answer=answer,
        emotion=_emotion(reading.claims) or next(iter(emotions_in(" ".join(chosen), ())), ""),
        cues=tuple(_at_most(MOST_CUES, cues)),
    )


def _choices(question: str) -> tuple[str, ...]:
    """The choices a question ends with, in order of their letters; none where letters are missing or twice there."""
    found = re.findall(r"\(([A-H])\)\s*([^()]+)", question)
    letters = "".join(letter for letter, _ in found)
    return (
        tuple(f"({letter}) {text.strip()}" for letter, text in found) if letters == "ABCDEFGH"[: len(letters)] else ()
    )


def _emotion(claims: Sequence[Claim]) -> str:
    said = [claim for claim in claims if not claim.negated]
    of_the_person = [claim for claim in said if not claim.sources]
    return (of_the_person or said)[0].emotion if said else ""


def _with_noun(citation: Citation, answer: str) -> Citation:
    """With the noun behind a thing that is in no table: the grammar takes such nouns for no evidence by themselves."""
    noun = _NOUN_BEHIND.match(answer, citation.end) if citation.cue is None else None
    return citation if noun is None else replace(citation, end=noun.end())


def _cue(citation: Citation, answer: str, media: "_Media") -> AnswerCue | None:
    modality = citation.cue.modality if citation.cue is not None else media.of(citation)
    text = answer[citation.start : citation.end]
    if modality is None or not text.strip():
        return None
    return AnswerCue(
        text=text,
        modality=modality,
        span=(citation.start, citation.end),
        use=_USE[citation.stance],
        question=_presence_question(citation, answer, modality),
    )


class _Media:
    """Which medium the words of an answer are about; question and sentences are looked through once."""

    def __init__(self, answer: str, asked: Modality) -> None:
        self._answer = answer
        self._asked = _one(asked)
        self._ends = [match.start() for match in _SENTENCE_END.finditer(answer)]
        self._perceiving = list(_PERCEIVING.finditer(answer))
        self._sentences: dict[tuple[int, int], CueModality | None] = {}

    def of(self, citation: Citation) -> CueModality | None:
        """The medium of a cue that is in no table; None when nothing tells it."""
        begin, end = self._sentence(citation)
        if (medium := _one(asked_modality(self._answer[citation.start : citation.end]).modality)) is not None:
            return medium
        last = bisect.bisect_right(self._perceiving, citation.start, key=re.Match.end) - 1
        if last >= 0 and self._perceiving[last].start() >= begin:
            return "video" if self._perceiving[last].group(1) else "audio"
        if (begin, end) not in self._sentences:
            self._sentences[begin, end] = _one(asked_modality(self._answer[begin:end]).modality)
        return self._sentences[begin, end] or self._asked

    def _sentence(self, citation: Citation) -> tuple[int, int]:
        """Where the sentence of a citation begins and ends."""
        before = bisect.bisect_left(self._ends, citation.start)
        behind = bisect.bisect_left(self._ends, citation.end)
        return (
            self._ends[before - 1] + 1 if before else 0,
            self._ends[behind] if behind < len(self._ends) else len(self._answer),
        )


def _one(modality: Modality) -> CueModality | None:
    """The medium, where there is one alone."""
    return None if modality == "audio_video" else modality


def _presence_question(citation: Citation, answer: str, modality: CueModality) -> str:
    phrase = _phrase(citation, answer)
    if modality == "audio":
        return f"Do you hear {phrase}?"
    return f"Are there {phrase}?" if is_plural(phrase) else f"Is there {phrase}?"


def _phrase(citation: Citation, answer: str) -> str:
    """The cue as a question names it: in the answer's words where they end in the same noun as the table's, else in
    the table's; with the article that these or those have."""
    words = bare(answer[citation.start : citation.end].lower())
    if citation.cue is not None and words.split()[-1:] != citation.cue.text.split()[-1:]:
        return citation.cue.text
    if is_plural(words):
        return words
    known = citation.cue.text if citation.cue is not None else ""
    own = _ARTICLE.search(answer, max(0, citation.start - 16), citation.start) is not None
    if not own and not known.startswith(("a ", "an ")):
        return words
    return f"{'an' if words[:1] in tuple('aeiou') else 'a'} {words}"


def _apart(citations: Iterable[Citation], answer: str, media: _Media) -> list[AnswerCue]:
    """Cues in order, without those whose words another one has taken."""
    kept: list[AnswerCue] = []
    whole = [_with_noun(citation, answer) for citation in citations]
    for citation in sorted(whole, key=lambda c: (c.start, -c.end))[:MOST_CITATIONS]:
        if kept and citation.start < kept[-1].span[1]:
            continue
        if (cue := _cue(citation, answer, media)) is not None:
            kept.append(cue)
    return kept


def _at_most(count: int, cues: Sequence[AnswerCue]) -> list[AnswerCue]:
    """The cues among the first `count` different ones."""
    kept = set(list(dict.fromkeys(cue.question for cue in cues))[:count])
    return [cue for cue in cues if cue.question in kept]
