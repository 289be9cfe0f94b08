"""Which basic emotion a description claims, strictly: one class or none.

Read in order, the first that gives exactly one class wins: the whole text, the clauses that say what the person feels
("the person is ...", "overall, ..."), the first sentence. A negated word ("not angry", "no sign of fear") is no claim;
neither is a word in a comparison ("rather than sad"). Words of all forms count: nouns, adjectives, adverbs, and the
phrases that name no emotion at all as neutral. Nothing is guessed: a text that claims two classes, or none, is
unparsable.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from avere_ray.evaluation.negation import negated, plain_text

CLASSES = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
"""The seven basic classes, in DFEW's order."""


def _forms(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORDS: dict[str, frozenset[str]] = {
    "happiness": _forms(
        "happiness happy happier happily joy joyful joyfully joyous cheer cheerful cheerfully cheerfulness delight "
        "delighted delightedly glad gladness pleased elated elation merry ecstatic ecstasy euphoric euphoria amused "
        "amusement jubilant jolly gleeful glee overjoyed thrilled contented contentment"
    ),
    "sadness": _forms(
        "sadness sad sadder sadly unhappy unhappiness unhappily sorrow sorrowful sorrowfully grief grieving miserable "
        "misery depressed depression heartbroken heartbreak gloomy gloom mournful melancholy melancholic dejected "
        "despair despairing despondent downcast anguish anguished distraught"
    ),
    "neutral": _forms(
        "neutral neutrality neutrally calm calmly calmness emotionless unemotional expressionless impassive composed "
        "composure indifferent indifference stoic stoically"
    ),
    "anger": _forms(
        "anger angry angrier angrily angered mad madly furious furiously fury rage raging enraged irate irritated "
        "irritation annoyed annoyance outraged outrage infuriated livid wrath wrathful hostile hostility exasperated "
        "exasperation"
    ),
    "surprise": _forms(
        "surprise surprised surprisedly astonished astonishment amazed amazement startled astounded stunned shocked "
        "shock dumbfounded flabbergasted bewildered bewilderment"
    ),
    "disgust": _forms(
        "disgust disgusted disgustedly revolted revulsion repulsed repulsion nauseated loathing contempt "
        "contemptuous contemptuously distaste"
    ),
    "fear": _forms(
        "fear fearful fearfully fearing afraid scared scary frightened fright terrified terror horrified horror panic "
        "panicked panicking panicky anxious anxiously anxiety dread petrified apprehensive apprehension"
    ),
}
"""Words that claim a class."""
_WORDS = frozenset().union(*WORDS.values())

_PHRASES = (
    (re.compile(r"\b(?:no|without|lacks?|lacking|lack of|absence of|devoid of)\s+(?:any\s+)?(?:(?:a|an)\s+)?"
                r"(?:(?:strong|clear|visible|obvious|particular|specific|apparent|discernible|noticeable)\s+)*"
                r"(?:emotion|emotions|feeling|feelings|expression|facial expression)\b"), "neutral"),
    (re.compile(r"\bin (?:a )?(?:bad|foul) mood\b"), "anger"),
    (re.compile(r"\bin tears of joy\b|\btears of joy\b"), "happiness"),
    (re.compile(r"\btaken aback\b"), "surprise"),
    (re.compile(r"\bgrossed out\b"), "disgust"),
    (re.compile(r"\bfed up\b|\bpissed off\b|\bticked off\b"), "anger"),
    (re.compile(r"\bin a good mood\b|\bin high spirits\b"), "happiness"),
    (re.compile(r"\bfeeling (?:down|blue)\b|\bheavy hearted\b|\bin low spirits\b"), "sadness"),
)  # fmt: skip
"""Phrases that claim a class; they are taken before single words."""

_CLAIM = re.compile(
    r"\b(?:(?:the|his|her|their|overall|main|primary|dominant|predominant|prevailing)\s+)*"
    r"(?:emotion|emotional state|feeling|mood)\b[^.;]*?\b(?:is|appears to be|seems to be|would be|:)|"
    r"\b(?:person|man|woman|he|she|they|boy|girl|speaker|individual|character)\b\s+"
    r"(?:is|are|feels?|appears?|seems?|looks?|sounds?|looks to be)\b|"
    r"^\W*(?:overall|in (?:conclusion|summary)|therefore|thus|so)\b|\b(?:primarily|mainly|mostly|predominantly)\b"
)


@dataclass(frozen=True, slots=True)
class _Mention:
    emotion: str
    start: int
    negated: bool


def parse_emotion(text: str) -> str | None:
    """The class of `CLASSES` that a response claims, or None when it claims none or more than one."""
    plain = plain_text(text)
    if (found := _one(_mentions(plain))) is not None:
        return found
    sentences = list(_sentences(plain))
    claims = [m for s in sentences if (claim := _CLAIM.search(s)) for m in _mentions(s) if m.start >= claim.start()]
    if (found := _one(claims)) is not None:
        return found
    return _one(_mentions(sentences[0])) if sentences and not claims else None


def claimed_emotions(text: str) -> frozenset[str]:
    """Every class of `CLASSES` that a text names without denying it."""
    return frozenset(mention.emotion for mention in _mentions(plain_text(text)) if not mention.negated)


def _sentences(text: str) -> Iterator[str]:
    yield from (s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip())


def _one(mentions: Sequence[_Mention]) -> str | None:
    claimed = {mention.emotion for mention in mentions if not mention.negated}
    return claimed.pop() if len(claimed) == 1 else None


def _mentions(text: str) -> list[_Mention]:
    found: list[_Mention] = []
    left = text
    for pattern, emotion in _PHRASES:
        for match in pattern.finditer(left):
            denied = emotion != "neutral" and negated(text, match.start(), _WORDS)
            found.append(_Mention(emotion, match.start(), denied))
        left = pattern.sub(lambda match: " " * len(match.group()), left)
    for match in re.finditer(r"[a-z]+", left):
        for emotion, words in WORDS.items():
            if match.group() in words:
                found.append(_Mention(emotion, match.start(), negated(left, match.start(), _WORDS)))
    return found
