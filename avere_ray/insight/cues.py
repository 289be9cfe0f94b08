"""The emotion and the cues of one answer, read from its words by the grammar of `avere_ray.responses`.

A cue's medium is the table's where the table knows it; else it follows from the words of the cue ("a hoarse tone"),
then from the last "see" or "hear" before it, then from its sentence, then from the question. A thing whose medium none
of them tells is left out: it can be marked as neither.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from avere_ray.asked import asked_modality
from avere_ray.insight.lexicon import common_cues
from avere_ray.prompts import bare, is_plural
from avere_ray.records import CueModality, Query
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
_SENTENCE_END = ".!?\n"
MOST_CUES = 24
"""Different cues of one answer that are looked at; a longer list is cut, since each costs two passes of an engine."""
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
    choices = _choices(question)
    query = Query(query_id="answer", clip_id="", modality=asked_modality(question).modality, task="answer",
                  prompt=question, choices=choices)  # fmt: skip
    reading = read_response(answer, query, common_cues(), any_evidence=True)
    options = dict(split_choice(choice) for choice in choices)
    chosen = [options[letter] for letter in reading.letters[:1] if letter in options]
    cues = [cue for citation in reading.citations if (cue := _cue(citation, question, answer)) is not None]
    return AnswerReading(
        question=question,
        answer=answer,
        emotion=_emotion(reading.claims) or next(iter(emotions_in(" ".join(chosen), ())), ""),
        cues=tuple(_at_most(MOST_CUES, _apart(cues))),
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


def _cue(citation: Citation, question: str, answer: str) -> AnswerCue | None:
    if citation.cue is None and (noun := _NOUN_BEHIND.match(answer, citation.end)) is not None:
        citation = replace(citation, end=noun.end())  # the grammar takes such nouns for no evidence by themselves
    modality = citation.cue.modality if citation.cue is not None else _medium(citation, question, answer)
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


def _medium(citation: Citation, question: str, answer: str) -> CueModality | None:
    words = answer[citation.start : citation.end]
    begin = max(answer.rfind(end, 0, citation.start) for end in _SENTENCE_END) + 1
    ends = [at for end in _SENTENCE_END if (at := answer.find(end, citation.end)) >= 0]
    if (medium := _single(words)) is not None:
        return medium
    before = list(_PERCEIVING.finditer(answer, begin, citation.start))
    if before:
        return "video" if before[-1].group(1) else "audio"
    return _single(answer[begin : min(ends, default=len(answer))]) or _single(question)


def _single(text: str) -> CueModality | None:
    """The one medium that a text is about, or None."""
    asked = asked_modality(text).modality
    return cast(CueModality, asked) if asked in ("audio", "video") else None


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


def _apart(cues: Sequence[AnswerCue]) -> list[AnswerCue]:
    """In order, without those whose words another one has taken."""
    kept: list[AnswerCue] = []
    for cue in sorted(cues, key=lambda c: (c.span[0], -c.span[1])):
        if not kept or cue.span[0] >= kept[-1].span[1]:
            kept.append(cue)
    return kept


def _at_most(count: int, cues: Sequence[AnswerCue]) -> list[AnswerCue]:
    """The cues among the first `count` different ones."""
    kept = set(list(dict.fromkeys(cue.question for cue in cues))[:count])
    return [cue for cue in cues if cue.question in kept]
