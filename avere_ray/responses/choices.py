"""The answer a response gives: the letter it opens with, and yes or no."""

import re
from collections.abc import Iterable, Sequence

from avere_ray.errors import InputError
from avere_ray.responses.tokens import Token
from avere_ray.responses.words import NEGATORS


def split_choice(choice: str) -> tuple[str, str]:
    """Letter and text of a choice: "(A) Yes" gives ("A", "Yes").

    Raises:
        InputError: the choice does not begin with a letter A to H in brackets or with a dot.
    """
    match = re.match(r"\s*[(\[]?([A-Ha-h])[)\].:]\s*(.*)$", choice, re.DOTALL)
    if match is None:
        raise InputError(f'choice {choice!r} has no letter; choices look like "(A) Yes"')
    return match.group(1).upper(), match.group(2).strip()


def is_yes_no(texts: Iterable[str]) -> bool:
    """Whether the choices are just Yes and No."""
    return {t.strip(" .").lower() for t in texts} == {"yes", "no"}


_LEAD = re.compile(
    r"\W*(?:(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*:?\s*)?", re.IGNORECASE
)
_LETTER = re.compile(
    r"[(\[*]*([A-Ha-h])(?:\s*[)\]*]+[.:,]?|[.:,)](?=\s|$)|(?=\s*$)|(?=\s*\n)|(?=\s+(?:yes|no)\b))", re.IGNORECASE
)


def leading_letter(text: str, letters: Iterable[str]) -> tuple[str | None, int]:
    """The letter a response opens with, and the offset of the words behind it.

    "(B) No", "b.", "[C]", "B: ...", "The answer is (D)" and "A yes" open with a letter; "A man smiles" does not.
    """
    lead = _LEAD.match(text)
    start = lead.end() if lead else 0
    while start > 0 and text[start - 1] in "([*":
        start -= 1
    match = _LETTER.match(text, start)
    if match is None and start:
        match = _LETTER.match(text)
    if match is None:
        match = re.compile(r"([B-H])\s").match(text, start)
    if match is None or match.group(1).upper() not in set(letters):
        return None, 0
    return match.group(1).upper(), match.end()


def yes_or_no(text: str) -> bool | None:
    """True for yes, False for no, None for neither or both: as first word, or set off by punctuation."""
    words = re.sub(
        r"\b(?:no|without(?: a)?) (?:doubt|question|wonder|denying)\b", "indeed", text.lower().replace("’", "'")
    )
    first = re.match(r"\W*(yes|no)\b(?!\s+(?:one|longer)\b)", words)
    found = {first.group(1)} if first else set()
    found |= set(re.findall(r"(?:^|[^\w'-])(yes|no)(?=\s*(?:[.,;:!)\n]|$))", words))
    found |= {"yes", "no"} if re.match(r"\W*(?:yes\s+(?:and|or)\s+no|no\s+(?:and|or)\s+yes)\b", words) else set()
    return found == {"yes"} if len(found) == 1 else None


_SAME = frozenset(
    {
        "match",
        "same",
        "agree",
        "align",
        "consistent",
        "congruent",
        "coincide",
        "identical",
        "equal",
        "alike",
        "correspond",
    }
)
_OTHER = frozenset(
    {
        "differ",
        "different",
        "mismatch",
        "disagree",
        "conflict",
        "contradict",
        "inconsistent",
        "diverge",
        "clash",
        "opposite",
    }
)


def same_or_not(tokens: Sequence[Token]) -> bool | None:
    """True where the words say that two things agree ("they match"), False where not; None when they say neither."""
    for at, token in enumerate(tokens):
        found = next((v for group, v in ((_SAME, True), (_OTHER, False)) if {token.word, token.canon} & group), None)
        if found is not None:
            return found != bool({t.word for t in tokens[max(0, at - 4) : at]} & NEGATORS)
    return None


def short_answer(tokens: Sequence[Token]) -> bool | None:
    """True for "it does" and "they are indeed", False for "it does not"; None for anything longer."""
    words = [t.word for t in tokens if t.word.isalpha()]
    opening = len(words) in {2, 3, 4} and words[0] in {"it", "they", "he", "she", "that", "this", "of", "sure"}
    if not opening or not set(words) & {"does", "do", "is", "are", "did", "course"}:
        return None
    rest = set(words[1:]) - {"does", "do", "is", "are", "did", "course", "indeed", "not", "definitely", "certainly"}
    return None if rest else "not" not in words
