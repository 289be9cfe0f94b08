"""Which choice a response means, strictly: one choice or none.

In order: a leading letter; a leading or set-off "yes" or "no"; the one choice whose text the response contains and does
not deny ("no tears" names no tears). A letter in brackets that the other words contradict, or two letters, are
unparsable. "a" as an article is never a letter.
"""

import re
from collections.abc import Mapping, Sequence

from avere_ray.evaluation.negation import negated, plain_text
from avere_ray.responses import is_yes_no, leading_letter, split_choice, yes_or_no

_BRACKETED = re.compile(r"[(\[]([A-H])[)\]]")
_SECOND_LETTER = re.compile(r"^\W*(?:(?:or|and)\s+\W*([A-Ha-h])\b|([A-Ha-h])\W*$)")


def parse_answer(text: str, choices: Sequence[str]) -> str | None:
    """Letter of the choice that a response means, or None when it is unparsable.

    Args:
        text: the response.
        choices: as shown, "(A) ..." first.

    Raises:
        InputError: a choice has no letter.
    """
    options = dict(split_choice(choice) for choice in choices)
    letter, behind = leading_letter(text, options)
    rest = text[behind:]
    if letter is None:
        meant = _by_words(text, options)
        bracketed = {m for m in _BRACKETED.findall(text) if m in options}
        return meant if bracketed <= {meant} else None
    others = [m for m in _BRACKETED.findall(rest) if m in options and m != letter]
    others += [m for pair in _SECOND_LETTER.findall(rest) if (m := pair[0] or pair[1]).upper() != letter]
    if others:
        return None
    meant = _yes_no_letter(rest, options) if is_yes_no(options.values()) else _contradicting(letter, rest, options)
    return letter if meant in {None, letter} else None


def _by_words(text: str, options: Mapping[str, str]) -> str | None:
    if is_yes_no(options.values()):
        return _yes_no_letter(text, options)
    named = _named(text, options)
    return named[0] if len(named) == 1 else None


def _yes_no_letter(text: str, options: Mapping[str, str]) -> str | None:
    said = yes_or_no(text)
    if said is None:
        return None
    return next(letter for letter, option in options.items() if (_plain(option) == "yes") == said)


def _contradicting(letter: str, rest: str, options: Mapping[str, str]) -> str | None:
    """Another choice that the words behind a letter name, unless they name the letter's own as well."""
    named = _named(rest, options)
    return None if not named or letter in named else named[0]


def _named(text: str, options: Mapping[str, str]) -> list[str]:
    """Letters of the choices that a text names without denying them; one whose words are part of a longer one found is
    left out."""
    words = plain_text(text)
    named = {letter: _plain(option) for letter, option in options.items()}
    listed = frozenset(word for option in named.values() for word in option.split())
    found = {letter: option for letter, option in named.items() if option and _claimed(words, option, listed)}
    return [letter for letter, option in found.items()
            if not any(option != other and f" {option} " in f" {other} " for other in found.values())]  # fmt: skip


def _claimed(text: str, option: str, listed: frozenset[str]) -> bool:
    mention = re.compile(r"(?<![^\W_])" + r"[\W_]+".join(map(re.escape, option.split())) + r"(?![^\W_])")
    return any(not negated(text, match.start(), listed) for match in mention.finditer(text))


def _plain(text: str) -> str:
    """Lower-case words without articles at the start or punctuation."""
    words = re.findall(r"[^\W_]+", plain_text(text))
    return " ".join(words[1:] if words and words[0] in {"a", "an", "the"} and len(words) > 1 else words)
