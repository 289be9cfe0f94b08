"""Whether a text denies what it names: "not angry", "no sign of tears", "rather than a smile"."""

import itertools
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONTRACTIONS = re.compile(r"\b(\w+?)n['’]t\b")
_NEGATORS = _words("not no never neither nor without hardly barely lacks lack lacking nothing none absent devoid")
_COMPARED = re.compile(r"\b(?:rather than|instead of|as opposed to|other than|apart from|far from|unlike)\b")
_THOUGHTS = _words("think believe say suppose guess feel see know")
_SCOPE_END = _words("but however although though because since so while whereas yet and is are was were rather instead")
_JOINS = frozenset(("or", "nor", "and", ","))
_REACH = 7
"""Words that a negator reaches at most."""


def plain_text(text: str) -> str:
    """Lower case; "isn't" as "is not", hyphens as spaces."""
    lower = text.lower().replace("can't", "can not").replace("won't", "will not").replace("cannot", "can not")
    return re.sub(r"[-_*]", " ", _CONTRACTIONS.sub(r"\1 not", lower))


def negated(text: str, at: int, listed: AbstractSet[str] = frozenset()) -> bool:
    """Whether the words before an offset of a plain text deny what stands there, in the same clause.

    Args:
        listed: words that may stand between a comma and that place, for it to go on a list ("no fear, or anger").
    """
    clause = re.split(r"[.;:!?\n]", text[:at])[-1]
    if (compared := list(_COMPARED.finditer(clause))) and not _ended(clause[compared[-1].end() :]):
        return True
    words = re.findall(r"[a-z]+|,", clause)
    for reach, word in enumerate(reversed(words)):
        if word == "," and not (_JOINS | listed).issuperset(words[len(words) - reach :]):
            return False
        if reach >= _REACH or word in _SCOPE_END - {"and"}:
            return _copula_negated(words[: len(words) - reach], word)
        if word in _NEGATORS:
            return not (reach and words[len(words) - reach] in {"only", "just", "merely", "doubt", "wonder"})
    return False


def _copula_negated(before: Sequence[str], word: str) -> bool:
    """ "neither is he angry", "I do not think he is angry": the negator stands before the verb."""
    if word not in {"is", "are", "was", "were"}:
        return False
    clause = before[-_REACH:-1]
    thought = any(a in _NEGATORS and b in _THOUGHTS for a, b in itertools.pairwise(clause))
    return thought or (bool(clause) and clause[-1] in {"neither", "nor"})


def _ended(between: str) -> bool:
    return bool(re.search(r"[,]|\b(?:but|and)\b", between))
