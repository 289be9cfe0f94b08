"""Emotions and cues of the world.

Each emotion has one facial cue, one kind of voice, one bodily cue and one vocal event that are evidence for it.
Shirts, background objects and background sounds are evidence for nothing; in biased data the one with the same
index as the emotion accompanies it.
"""

from dataclasses import dataclass

from avere_ray.records import CueModality

EMOTIONS = ("happiness", "sadness", "anger", "fear", "surprise")
ADJECTIVES = {"happiness": "happy", "sadness": "sad", "anger": "angry", "fear": "afraid", "surprise": "surprised"}


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
    plural: bool = False
    """Whether the noun takes "are"."""


def _row(group: str, modality: CueModality, emotion: str, name: str, text: str, plural: bool = False) -> CueKind:
    return CueKind(name=name, modality=modality, text=text, group=group, emotion=emotion, plural=plural)


CUES: tuple[CueKind, ...] = (
    _row("face", "video", "happiness", "wide_smile", "a wide smile"),
    _row("face", "video", "sadness", "drooping_mouth", "a drooping mouth"),
    _row("face", "video", "anger", "lowered_brows", "lowered brows", True),
    _row("face", "video", "fear", "frightened_eyes", "frightened eyes", True),
    _row("face", "video", "surprise", "open_round_mouth", "an open round mouth"),
    _row("body", "video", "happiness", "clapping_hands", "clapping hands", True),
    _row("body", "video", "sadness", "tears", "tears", True),
    _row("body", "video", "anger", "clenched_fists", "clenched fists", True),
    _row("body", "video", "fear", "hands_at_cheeks", "hands at the cheeks", True),
    _row("body", "video", "surprise", "raised_palms", "raised palms", True),
    _row("voice", "audio", "happiness", "lively_voice", "a lively voice"),
    _row("voice", "audio", "sadness", "slow_low_voice", "a slow low voice"),
    _row("voice", "audio", "anger", "loud_harsh_voice", "a loud harsh voice"),
    _row("voice", "audio", "fear", "trembling_voice", "a trembling voice"),
    _row("voice", "audio", "surprise", "rising_high_voice", "a rising high voice"),
    _row("event", "audio", "happiness", "laughter", "laughter"),
    _row("event", "audio", "sadness", "sobbing", "sobbing"),
    _row("event", "audio", "anger", "growling", "growling"),
    _row("event", "audio", "fear", "rapid_breathing", "rapid breathing"),
    _row("event", "audio", "surprise", "gasp", "a gasp"),
    _row("shirt", "video", "", "yellow_shirt", "a yellow shirt"),
    _row("shirt", "video", "", "blue_shirt", "a blue shirt"),
    _row("shirt", "video", "", "red_shirt", "a red shirt"),
    _row("shirt", "video", "", "purple_shirt", "a purple shirt"),
    _row("shirt", "video", "", "green_shirt", "a green shirt"),
    _row("object", "video", "", "plant", "a plant"),
    _row("object", "video", "", "window", "a window"),
    _row("object", "video", "", "clock", "a clock"),
    _row("object", "video", "", "lamp", "a lamp"),
    _row("object", "video", "", "painting", "a painting"),
    _row("sound", "audio", "", "piano", "piano music"),
    _row("sound", "audio", "", "rain", "rain"),
    _row("sound", "audio", "", "drums", "drum music"),
    _row("sound", "audio", "", "flute", "flute music"),
    _row("sound", "audio", "", "birds", "birds", True),
)
CUE = {c.name: c for c in CUES}
GROUPS: dict[str, tuple[CueKind, ...]] = {
    group: tuple(c for c in CUES if c.group == group)
    for group in ("face", "body", "voice", "event", "shirt", "object", "sound")
}


def cue_of(group: str, index: int) -> CueKind:
    """The cue of a group that goes with the emotion of that index: by evidence, or by bias for irrelevant groups."""
    return GROUPS[group][index]
