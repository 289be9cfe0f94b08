"""Which modality a question asks about, read from its words: for data of others, whose rows do not say it.

Rules, with the confidence of their answer:

- 0.95 the question names the channel: "in the audio", "what you hear" or "visually", "facial expression";
- 0.9  it asks about both: channels of both kinds are named, or "audio-visual", "face and voice";
- 0.75 words that belong to one channel occur, such as "tone" or "gesture", and none of the other;
- 0.6  words of both channels occur, and at most one channel is named;
- 0.3  neither occurs: a question about the clip as a whole ("What does the person feel?"), so both.

"video" and "clip" mean the whole clip here, as such questions use them, and count for neither channel. Choices are not
read: they name cues of both kinds. Whoever takes the answer decides how sure is sure enough; see `formats`.
"""

import re
from dataclasses import dataclass

from avere_ray.records import Modality

SURE_ENOUGH = 0.7
"""Confidence from which an answer is taken without being asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks about, by the rules."""

    modality: Modality
    confidence: float
    """0 to 1."""
    why: str
    """The words that decided."""


def _pattern(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)


_BOTH = _pattern(
    r"audio[- ]?visual(?:ly)?", r"face and (?:the )?voice", r"voice and (?:the )?face", r"audio and (?:the )?video",
    r"video and (?:the )?audio", r"(?:seen|see) and (?:heard|hear)", r"(?:look|sound)s? and (?:sound|look)s?",
    r"both modalities", r"modalit(?:y|ies)",
)  # fmt: skip
_CHANNELS: dict[Modality, re.Pattern[str]] = {
    "audio": _pattern(
        r"audio", r"hear", r"hears", r"heard", r"listen(?:ing)?", r"acoustic(?:ally)?", r"auditory", r"audible",
        r"voices?", r"vocal(?:ly|ization|isation)?s?", r"sound track", r"soundtrack", r"sounds? like",
        r"paralinguistic", r"tone of (?:voice|speech)",
    ),
    "video": _pattern(
        r"visual(?:ly)?", r"see", r"sees", r"seen", r"facial(?:ly)?", r"face", r"looks? like", r"visible",
        r"body language", r"on screen", r"appearance",
    ),
}  # fmt: skip
_WORDS: dict[Modality, re.Pattern[str]] = {
    "audio": _pattern(
        r"tone", r"pitch", r"intonation", r"prosody", r"speech", r"spoken", r"speaks?", r"speaking", r"says?", r"said",
        r"sounds?", r"sounding", r"music", r"noises?", r"loud(?:ly|ness)?", r"laughter", r"laugh(?:s|ing)?",
        r"sob(?:s|bing)?",
        r"shout(?:s|ing)?", r"yell(?:s|ing)?", r"scream(?:s|ing)?", r"whisper(?:s|ing)?", r"sigh(?:s|ing)?", r"words",
        r"volume", r"growl(?:s|ing)?", r"gasp(?:s|ing)?", r"breathing", r"sentence", r"dialogue",
    ),
    "video": _pattern(
        r"expression", r"gestures?", r"posture", r"eyes?", r"eyebrows?", r"brows?", r"mouth", r"lips?",
        r"smil(?:e|es|ing)",
        r"frown(?:s|ing)?", r"tears?", r"hands?", r"fists?", r"clothes", r"clothing", r"shirt", r"jacket", r"wearing",
        r"wears?", r"background", r"scene", r"lighting", r"color", r"colour", r"body", r"gaze", r"looks?", r"looking",
        r"movements?", r"arms?", r"head", r"shoulders?", r"jaw",
    ),
}  # fmt: skip


def asked_modality(prompt: str) -> Asked:
    """The modality that a question asks about, how sure that is, and by which words."""
    question = _without_choices(prompt)
    both = _BOTH.search(question)
    if both:
        return Asked("audio_video", 0.9, f"{both.group()!r}")
    for patterns, one, two in ((_CHANNELS, 0.95, 0.9), (_WORDS, 0.75, 0.6)):
        found: dict[Modality, str] = {m: hit.group() for m, p in patterns.items() if (hit := p.search(question))}
        if len(found) == 2:
            return Asked("audio_video", two, f"{found['video']!r} and {found['audio']!r}")
        for modality, word in found.items():
            other: Modality = "audio" if modality == "video" else "video"
            hit = _WORDS[other].search(question) if patterns is _CHANNELS else None
            return Asked(modality, 0.6 if hit else one, f"{word!r}")
    return Asked("audio_video", 0.3, "no word of either channel")


def _without_choices(prompt: str) -> str:
    """The question up to its first choice, "(A)" or "A)" or "A." at the start of a line."""
    return re.split(r"\(A\)|(?:^|\n)[^\S\n]*A[).]", prompt, maxsplit=1)[0]
