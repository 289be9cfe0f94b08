"""What a response is that gives no answer: words about something else, or nothing that can be made out."""

import re

from avere_ray.responses.languages import in_english

_EVASIVE = re.compile(
    r"""\b(?:can\ ?not|can't|cant|could\ not|couldn't|unable|impossible|not\ possible|not\ able|hard|difficult|tough)\b
    [^.;]*\b(?:tell|say|determined?|answer\w*|judged?|decided?|know|help|see|sure|make\ out|identify|assess|do\ that)\b
    |\b(?:do\ not|don't|dont|doesn't|does\ not)\ (?:really\ )?(?:know|understand)\b
    |\bno\ (?:idea|clue|comment|answer|opinion)\b|\bnot\ (?:really\ |quite\ |entirely\ )?(?:sure|certain|clear)\b
    |\b(?:unsure|uncertain|unclear|unknown|undecided|sorry|apologi[sz]e)\b|\bas\ an?\ (?:ai|language\ model)\b
    |\b(?:it|that)\ depends\b|\bneed\ more\ (?:information|context|time)\b|\bi\ pass\b|\bwould\ rather\ not\b
    |\b(?:not\ enough|insufficient)\ (?:information|context|evidence)\b|\brepeat\ the\ question\b
    |\bgreat\ question\b|\blet\ me\ (?:think|see|check)\b|\bnext\ question\b""",
    re.IGNORECASE | re.VERBOSE,
)
_DANGLING = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "is",
        "are",
        "was",
        "were",
        "be",
        "and",
        "or",
        "but",
        "with",
        "to",
        "in",
        "on",
        "at",
        "as",
        "so",
        "because",
        "that",
        "very",
        "seems",
        "seem",
        "looks",
        "sounds",
        "feels",
        "i",
        "he",
        "she",
        "it",
        "they",
        "his",
        "her",
        "their",
        "which",
        "who",
        "there",
    ]
)
_FUNCTION = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "and",
        "or",
        "but",
        "with",
        "to",
        "in",
        "on",
        "at",
        "as",
        "for",
        "by",
        "from",
        "this",
        "that",
        "these",
        "those",
        "it",
        "i",
        "you",
        "he",
        "she",
        "they",
        "we",
        "his",
        "her",
        "their",
        "its",
        "my",
        "your",
        "our",
        "not",
        "no",
        "if",
        "can",
        "will",
        "would",
        "should",
        "must",
        "may",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "than",
        "then",
        "there",
        "here",
        "who",
        "which",
        "what",
        "when",
        "where",
        "how",
        "all",
        "any",
        "every",
        "some",
        "only",
        "please",
    ]
)
_UNLIKELY = re.compile(
    r"[^aeiouyäöüáéíóúàèâêîôûãõåæœøß]{5}|^[^aeiouy]+$|q(?!u)|[jvwxqz]{2}|^([bcdfghjkmnpqrstvwxz])\1"
    r"|^(?:fd|lk|kj|jh|sd|df|gh(?!o)|hj|zm|xn|mn(?!e)|bn|vb|cv|xc)|[jqv]$"
)

# Words about the person asked about: then an answer was meant, and none can be made out.
_SUBJECT = re.compile(r"\b(?:person|speaker|face|facial|voice|emotions?|feelings?|mood)\b", re.IGNORECASE)


def is_evasive(text: str) -> bool:
    """Whether the words say that no answer is given."""
    gloss = in_english(text)
    return bool(_EVASIVE.search(text.replace("’", "'")) or _EVASIVE.search(gloss.text))


def is_prose(text: str) -> bool:
    """Whether the words are a readable sentence, whatever it is about: no fragment, no single word, no noise."""
    if re.search(r"[\u3040-\u30ff\u4e00-\u9fff\u0400-\u04ff\u0600-\u06ff\uac00-\ud7af]{4,}", text):
        return True
    words = [w.lower() for w in re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)]
    if len(set(words)) < 3 or (not re.search(r"[.!?:)\"}]\s*$", text) and words[-1] in _DANGLING):
        return False
    strange = sum(bool(_UNLIKELY.search(w)) and w not in _FUNCTION for w in words)
    sentence = bool(re.match(r"\W*[A-ZÄÖÜÀ-Ý]", text)) and bool(re.search(r"[.!?]\s*$", text))
    return strange <= len(words) // 4 and (sentence or bool(set(words) & _FUNCTION))


def is_off_topic(text: str) -> bool:
    """Whether a response that gives no answer is about something else, rather than no answer that can be made out."""
    return is_prose(text) and not is_evasive(text) and not _SUBJECT.search(in_english(text).text)
