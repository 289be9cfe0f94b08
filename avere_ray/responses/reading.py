"""All that is read in one response: letters, yes or no, cues and claims."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.records import Cue, Query
from avere_ray.responses.choices import (
    is_yes_no,
    leading_letter,
    same_or_not,
    short_answer,
    split_choice,
    yes_or_no,
)
from avere_ray.responses.claims import Claim, claims_of
from avere_ray.responses.cues import Citation, cite_all, subjects
from avere_ray.responses.emotions import emotion_map
from avere_ray.responses.languages import Gloss, in_english
from avere_ray.responses.suppositions import supposed
from avere_ray.responses.tokens import Token, tokenize
from avere_ray.responses.words import ARTICLES, NEGATORS, SUBJECTS


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is read in one response."""

    letters: tuple[str, ...]
    """Letters of choices it names, the leading one first."""
    polarities: tuple[bool, ...]
    """True for yes, False for no, by letter and by word; both when they contradict each other."""
    citations: tuple[Citation, ...]
    """Cues it names, in order; those that match no known cue last."""
    claims: tuple[Claim, ...]
    """Emotions it names, in order."""
    language: str = "en"
    """What it is written in."""


def read_response(text: str, query: Query, cues: Sequence[Cue], *, any_evidence: bool = False) -> Reading:
    """Reads one response to a query, in terms of the given cues.

    `any_evidence` also cites, as unknown cues, whatever is said to show something: for clips whose cues are not listed.

    Raises:
        InputError: a choice of the query has no letter.
    """
    gloss = in_english(text)
    text = gloss.text
    options = dict(split_choice(c) for c in query.choices)
    letter, start = leading_letter(text, options)
    others = [m for m in re.findall(r"\(([A-H])\)", text[start:]) if m in options]
    letters = tuple(dict.fromkeys(([letter] if letter else []) + others))
    tokens = tokenize(text, start)
    word = yes_or_no(text[start:])
    skip = _answer_particle(tokens) if word is not None else 0
    tokens = tokens[skip:]
    if word is None and is_yes_no(options.values()):
        word = short_answer(tokens) if query.about_cue else same_or_not(tokens)
    emotions = emotion_map(cues)
    unreal = supposed(tokens)
    citations = cite_all(tokens, cues, emotions, query.modality, unreal)
    if any_evidence:
        citations += subjects(tokens, citations, emotions)
    claims = claims_of(tokens, citations, emotions, unreal)
    sourced = tuple(_in_source(c, gloss) for c in citations)
    return Reading(letters, _polarities(letters, options, word), sourced, tuple(claims), gloss.language)


def _in_source(citation: Citation, gloss: Gloss) -> Citation:
    start, end = gloss.source(citation.start, citation.end)
    return dataclasses.replace(citation, start=start, end=end)


def _polarities(letters: Sequence[str], options: dict[str, str], word: bool | None) -> tuple[bool, ...]:
    found = [] if word is None else [word]
    if is_yes_no(options.values()):
        found += [options[letter].strip(" .").lower() == "yes" for letter in letters]
    return tuple(dict.fromkeys(found))


def _answer_particle(tokens: Sequence[Token]) -> int:
    """How many opening tokens are a bare "yes" or "no" and not the determiner of a noun."""
    words = [t.word for t in tokens[:3]]
    lead = next((i for i, w in enumerate(words) if w.isalpha()), 0)
    if not words or words[lead] not in {"yes", "no"}:
        return 0
    behind = words[lead + 1] if len(words) > lead + 1 else "."
    free = words[lead] == "yes" or not behind.isalpha() or behind in SUBJECTS | ARTICLES | NEGATORS
    return lead + 1 if free else 0
