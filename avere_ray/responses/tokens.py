"""Words and punctuation with their offsets, and the form under which words are compared."""

import functools
import re
from dataclasses import dataclass

from avere_ray.responses.words import EQUIVALENT_WORDS, IDIOMS


@dataclass(frozen=True, slots=True)
class Token:
    """One word or punctuation mark."""

    word: str
    """In lower case."""
    canon: str
    """See `canonical`."""
    start: int
    """Offset of its first character."""
    end: int
    """Offset behind its last character."""


def tokenize(text: str, start: int = 0) -> list[Token]:
    """Words and punctuation with their offsets; "isn't" becomes two words, idioms become one."""
    tokens: list[Token] = []
    plain = text.replace("’", "'").replace("‘", "'").replace("–", ",").replace("—", ",").replace(" - ", " , ")
    for match in re.finditer(r"[^\W_]+(?:'[^\W_]+)?|[.,;:!?\n]", plain[start:]):
        word, at, end = match.group().lower(), start + match.start(), start + match.end()
        parts = _contraction(word)
        tokens += [Token(part, canonical(part), at, end) for part in parts]
    return _merge_idioms(tokens)


def _contraction(word: str) -> list[str]:
    if word == "cannot":
        return ["can", "not"]
    if word.endswith("n't") and len(word) > 3:
        return [word[:-3], "not"]
    if word in {"isnt", "arent", "dont", "doesnt", "cant", "wasnt", "werent", "didnt"}:
        return [word[:-2], "not"]
    return [word.split("'")[0]] if "'" in word else [word]


def _merge_idioms(tokens: list[Token]) -> list[Token]:
    merged: list[Token] = []
    at = 0
    while at < len(tokens):
        for size in (3, 2):
            words = tuple(t.word for t in tokens[at : at + size])
            if words in IDIOMS:
                last = at + len(words) - 1  # at the end of a text there are fewer than `size`
                merged.append(Token(IDIOMS[words], IDIOMS[words], tokens[at].start, tokens[last].end))
                at = last + 1
                break
        else:
            merged.append(tokens[at])
            at += 1
    return merged


_LONGEST_KEPT = 32
"""Characters of the longest word whose form is kept: whoever writes a text decides how long its words are."""


def canonical(word: str) -> str:
    """The form under which a word is compared: lower case, stemmed, first of its group of equivalents."""
    return _kept_form(word) if len(word) <= _LONGEST_KEPT else _form(word)


def _form(word: str) -> str:
    groups = _equivalents()
    word = word.lower()
    stemmed = stem(word)
    plain = stem(_adjective(word))
    return groups.get(word) or groups.get(stemmed) or groups.get(plain) or plain


_kept_form = functools.lru_cache(maxsize=65536)(_form)


def _adjective(word: str) -> str:
    """ "deeply" -> "deep", "heavily" -> "heavy"; other words as they are."""
    if len(word) > 5 and word.endswith("ily"):
        return word[:-3] + "y"
    return word[:-2] if len(word) > 5 and word.endswith("ly") else word


@functools.cache
def _equivalents() -> dict[str, str]:
    table: dict[str, str] = {}
    for group in EQUIVALENT_WORDS:
        head, *rest = group.split()
        table.update({form: stem(head) for w in (head, *rest) for form in (w, stem(w))})
    return table


def stem(word: str) -> str:
    """The word without a plural s, -ing, -ed and a final e; both forms of a pair must come out alike, nothing more."""
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word
