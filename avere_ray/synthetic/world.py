"""Emotions and cues of the world.

Each emotion has one facial cue, one kind of voice, one bodily cue and one vocal event that are evidence for it.
Shirts, background objects and background sounds are evidence for nothing; in biased data the one with the same
index as the emotion accompanies it.
"""

from dataclasses import dataclass

from avere_ray.records import CueModality

EMOTIONS = ("happiness", "sadness", "anger", "fear", "surprise", "disgust", "neutral")


@dataclass(frozen=True, kw_only=True, slots=True)
class CueKind:
    """One kind of cue: its key, where it is perceived, how it is named in a sentence, what it is evidence for."""

    name: str
    modality: CueModality
    text: str
    group: str
    """"face", "body", "voice", "event" (relevant) or "shirt", "object", "sound" (irrelevant)."""
    emotion: str = ""
    """The emotion it is evidence for; empty for irrelevant cues."""


def _row(group: str, modality: CueModality, emotion: str, name: str, text: str) -> CueKind:
    return CueKind(name=name, modality=modality, text=text, group=group, emotion=emotion)


CUES: tuple[CueKind, ...] = (
    _row("face", "video", "happiness", "wide_smile", "a wide smile"),
    _row("face", "video", "sadness", "drooping_mouth", "a drooping mouth"),
    _row("face", "video", "anger", "lowered_brows", "lowered brows"),
    _row("face", "video", "fear", "frightened_eyes", "frightened eyes"),
    _row("face", "video", "surprise", "open_round_mouth", "an open round mouth"),
    _row("face", "video", "disgust", "wrinkled_nose", "a wrinkled nose"),
    _row("face", "video", "neutral", "relaxed_face", "a relaxed face"),
    _row("body", "video", "happiness", "clapping_hands", "clapping hands"),
    _row("body", "video", "sadness", "tears", "tears"),
    _row("body", "video", "anger", "clenched_fists", "clenched fists"),
    _row("body", "video", "fear", "hands_at_cheeks", "hands at the cheeks"),
    _row("body", "video", "surprise", "raised_palms", "raised palms"),
    _row("body", "video", "disgust", "covered_mouth", "a hand over the mouth"),
    _row("body", "video", "neutral", "shrug", "a shrug"),
    _row("voice", "audio", "happiness", "lively_voice", "a lively voice"),
    _row("voice", "audio", "sadness", "slow_low_voice", "a slow low voice"),
    _row("voice", "audio", "anger", "loud_harsh_voice", "a loud harsh voice"),
    _row("voice", "audio", "fear", "trembling_voice", "a trembling voice"),
    _row("voice", "audio", "surprise", "rising_high_voice", "a rising high voice"),
    _row("voice", "audio", "disgust", "drawling_voice", "a drawling voice"),
    _row("voice", "audio", "neutral", "even_voice", "an even voice"),
    _row("event", "audio", "happiness", "laughter", "laughter"),
    _row("event", "audio", "sadness", "sobbing", "sobbing"),
    _row("event", "audio", "anger", "growling", "growling"),
    _row("event", "audio", "fear", "rapid_breathing", "rapid breathing"),
    _row("event", "audio", "surprise", "gasp", "a gasp"),
    _row("event", "audio", "disgust", "retching", "retching"),
    _row("event", "audio", "neutral", "yawn", "a yawn"),
    _row("shirt", "video", "", "yellow_shirt", "a yellow shirt"),
    _row("shirt", "video", "", "blue_shirt", "a blue shirt"),
    _row("shirt", "video", "", "red_shirt", "a red shirt"),
    _row("shirt", "video", "", "purple_shirt", "a purple shirt"),
    _row("shirt", "video", "", "green_shirt", "a green shirt"),
    _row("shirt", "video", "", "brown_shirt", "a brown shirt"),
    _row("shirt", "video", "", "white_shirt", "a white shirt"),
    _row("object", "video", "", "plant", "a plant"),
    _row("object", "video", "", "window", "a window"),
    _row("object", "video", "", "clock", "a clock"),
    _row("object", "video", "", "lamp", "a lamp"),
    _row("object", "video", "", "painting", "a painting"),
    _row("object", "video", "", "bookshelf", "a bookshelf"),
    _row("object", "video", "", "door", "a door"),
    _row("sound", "audio", "", "piano", "piano music"),
    _row("sound", "audio", "", "rain", "rain"),
    _row("sound", "audio", "", "drums", "drum music"),
    _row("sound", "audio", "", "flute", "flute music"),
    _row("sound", "audio", "", "birds", "birds"),
    _row("sound", "audio", "", "bells", "bells"),
    _row("sound", "audio", "", "siren", "a siren"),
)
CUE = {c.name: c for c in CUES}
GROUPS: dict[str, tuple[CueKind, ...]] = {
    group: tuple(c for c in CUES if c.group == group)
    for group in ("face", "body", "voice", "event", "shirt", "object", "sound")
}


def cue_of(group: str, index: int) -> CueKind:
    """The cue of a group that goes with the emotion of that index: by evidence, or by bias for irrelevant groups."""
    return GROUPS[group][index]
