"""Finds the language of a response and exchanges its words."""

import bisect
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.responses.languages import chinese, dutch, french, german, italian, portuguese, spanish
from avere_ray.responses.words import REACH

TABLES = {
    "de": german.WORDS, "fr": french.WORDS, "es": spanish.WORDS, "it": italian.WORDS, "pt": portuguese.WORDS,
    "nl": dutch.WORDS, "zh": chinese.WORDS,
}  # fmt: skip
_ENGLISH = frozenset(
    [
        "the",
        "is",
        "are",
        "was",
        "were",
        "a",
        "an",
        "of",
        "to",
        "and",
        "in",
        "on",
        "it",
        "he",
        "she",
        "they",
        "i",
        "you",
        "we",
        "this",
        "that",
        "with",
        "for",
        "not",
        "no",
        "yes",
        "there",
        "his",
        "her",
        "as",
        "by",
        "at",
        "be",
        "has",
        "have",
        "do",
        "does",
        "because",
        "so",
        "but",
        "what",
        "which",
        "who",
        "from",
        "person",
        "see",
        "hear",
        "shows",
        "show",
        "feels",
        "looks",
    ]
)
_LONGEST = 4
"""Words of the longest phrase in a table."""


@dataclass(frozen=True, slots=True)
class Gloss:
    """A response in English words, and where each comes from."""

    text: str
    """English words in the order of the response."""
    language: str
    """"en" when nothing was exchanged."""
    spans: tuple[tuple[int, int, int, int], ...] = ()
    """(start, end) in `text` and (start, end) in the response, in order; empty for English."""

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Offsets in the response of a run of `text`."""
        if not self.spans:
            return start, end
        first = bisect.bisect_right(self.spans, start, key=lambda span: span[1])
        last = bisect.bisect_left(self.spans, end, key=lambda span: span[0])
        hit = [(a, b) for _, _, a, b in self.spans[first:last]]
        return (min(a for a, _ in hit), max(b for _, b in hit)) if hit else (0, 0)


@dataclass(frozen=True, slots=True)
class _Table:
    exact: dict[tuple[str, ...], str]
    prefixes: dict[str, str]
    longest: int
    """Characters of the longest prefix."""

    def find(self, words: Sequence[str]) -> tuple[str, int] | None:
        """English for the longest phrase that the words begin with, and how many words it takes."""
        for size in range(min(_LONGEST, len(words)), 0, -1):
            if (found := self.exact.get(tuple(words[:size]))) is not None:
                return found, size
        for size in range(min(len(words[0]), self.longest), 2, -1):
            if (found := self.prefixes.get(words[0][:size])) is not None:
                return found, 1
        return None


def in_english(text: str) -> Gloss:
    """The response with its words exchanged; as it is when it is in English or in a language without a table."""
    if re.search(r"[\u4e00-\u9fff]", text):
        return _chinese(text)
    words = _words(text)
    language = _language([w for w, _, _ in words if w.isalpha()])
    return Gloss(text, "en") if language is None else _exchange(words, language)


def _words(text: str) -> list[tuple[str, int, int]]:
    plain = text.replace("’", "'").replace("‘", "'")
    pattern = r"[^\W_]+'(?=[^\W\d_])|[^\W_]+|[.,;:!?¡¿()\n]"
    return [(m.group().lower(), m.start(), m.end()) for m in re.finditer(pattern, plain)]


def _language(words: Sequence[str]) -> str | None:
    """The language whose table knows most of the words; None for English and for too few of them."""
    english = sum(w in _ENGLISH for w in words)
    best, known = None, max(1, english)
    for language in TABLES:
        if language == "zh":
            continue
        table = _table(language)
        hits = sum(table.find([w]) is not None and w not in _ENGLISH for w in words)
        if hits > known:
            best, known = language, hits
    return best if 2 * known >= len(words) and known >= 2 else None


def _exchange(words: Sequence[tuple[str, int, int]], language: str) -> Gloss:
    table, at = _table(language), 0
    pieces: list[tuple[str, int, int]] = []
    while at < len(words):
        found = table.find([w for w, _, _ in words[at : at + _LONGEST]])
        english, size = found if found is not None else (words[at][0], 1)
        pieces.append((english, words[at][1], words[at + size - 1][2]))
        at += size
    return _joined(_negation(pieces), language)


def _negation(pieces: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """ "ne ... pas" keeps one "not"; "er lächelt nicht" becomes "er nicht lächelt"."""
    out: list[tuple[str, int, int]] = []
    for i, piece in enumerate(pieces):
        english, start, end = piece
        if english == "~pas":
            behind = pieces[i + 1][0] if i + 1 < len(pieces) else "."
            clause = _clause(out)
            alone = "no" if behind in {"of", ""} else "not"
            english = "" if any(e == "not" for e, _, _ in clause) else alone
        elif english == "~nicht":
            last = i + 1 == len(pieces) or pieces[i + 1][0] in {".", ",", ";", "!", "but", "and", ""}
            clause = _clause(out)
            if last and clause:
                verb = next((j for j in range(len(out) - len(clause), len(out)) if out[j][0] not in _OPENING), None)
                out.insert(verb if verb is not None else len(out), ("not", start, end))
                continue
            english = "not"
        out.append((english, start, end))
    return out


_OPENING = frozenset({"", "i", "he", "she", "it", "they", "the", "a", "person", "one", "also", "but", "and", "because"})


def _clause(pieces: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """The pieces behind the last punctuation mark or contrast."""
    least = max(0, len(pieces) - REACH)
    for i in range(len(pieces) - 1, least - 1, -1):
        if pieces[i][0] in {".", ",", ";", ":", "!", "?", "but", "although"}:
            return list(pieces[i + 1 :])
    return list(pieces[least:])


def _chinese(text: str) -> Gloss:
    """The longest entries first, from left to right; what no entry knows is left out."""
    table = {key[0]: english for key, english in _table("zh").exact.items()}
    longest = max(map(len, table))
    pieces: list[tuple[str, int, int]] = []
    at = 0
    while at < len(text):
        size = next((n for n in range(min(longest, len(text) - at), 0, -1) if text[at : at + n] in table), 0)
        if size:
            pieces.append((table[text[at : at + size]], at, at + size))
        elif text[at].isascii() and not text[at].isspace():
            pieces.append((text[at], at, at + 1))
        at += size or 1
    return _joined(pieces, "zh")


def _joined(pieces: Sequence[tuple[str, int, int]], language: str) -> Gloss:
    text, spans = "", []
    for english, start, end in pieces:
        if not english:
            continue
        text += "" if not text or english in ".,;:!?)" or text.endswith("(") else " "
        spans.append((len(text), len(text) + len(english), start, end))
        text += english
    return Gloss(text, language, tuple(spans))


@functools.cache
def _table(language: str) -> _Table:
    exact: dict[tuple[str, ...], str] = {}
    prefixes: dict[str, str] = {}
    for entry in TABLES[language].replace("\n", ";").split(";"):
        keys, _, english = entry.partition("=")
        for key in (k.strip() for k in keys.split("|")):
            if key.endswith("*"):
                prefixes[key[:-1]] = english.strip()
            elif key:
                exact[tuple(key.split())] = english.strip()
    return _Table(exact, prefixes, max(map(len, prefixes), default=0))
