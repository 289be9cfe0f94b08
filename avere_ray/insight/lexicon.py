"""Cues that answers about any clip name, with the medium in which each is perceived.

A table for clips that nobody annotated: it says where a cue belongs, never whether it is there. Other wordings of an
entry are those of `responses.phrases` and `responses.words`. Things said to show something that are not in the table
are found all the same; their medium is then read from the words around them.
"""

import functools

from avere_ray.records import Cue, CueModality

_SEEN = """
a wide smile; a smile; a smirk; a grin; a frown; lowered brows; raised eyebrows; a drooping mouth; an open round mouth;
an open mouth; tight lips; a curled lip; bared teeth; a clenched jaw; a dropped jaw; a wrinkled nose; wide eyes;
frightened eyes; narrowed eyes; tears; teary eyes; a lowered gaze; a steady gaze; a blank stare; a glare; a grimace;
a blush; a relaxed face; darting eyes; clenched fists; clapping hands; hands at the cheeks; a hand over the mouth;
raised palms; trembling hands; a pointing finger; crossed arms; slumped shoulders; a shrug; a nod; a shiver;
a turned-away head; cold sweat; backing away; fidgeting hands; a tense posture; a relaxed posture
"""
_HEARD = """
laughter; a chuckle; a giggle; sobbing; a whimper; a sigh; a gasp; a groan; a moan; a growl; growling; a scream;
a shout; a whisper; a hum; rapid breathing; heavy breathing; a lively voice; a cheerful voice; a slow low voice;
a loud harsh voice; a raised voice; a harsh voice; a soft voice; a trembling voice; a rising high voice;
a sudden high voice; a monotone voice; a calm voice; a high pitch; a low pitch; a loud tone; an even tone; a warm tone;
a cheerful tone; a sad tone; an angry tone;
fast speech; slow speech; a nervous stutter; a pause; a sudden exclamation
"""
_SEEN_BESIDE = """
a yellow shirt; a blue shirt; a red shirt; a purple shirt; a green shirt; a white shirt; a black shirt; a shirt;
a jacket; a coat; a suit; a dress; a hat; a scarf; glasses; a plant; a window; a clock; a lamp; a painting; a desk;
a bookshelf; a balloon; dim lighting; bright lighting
"""
_HEARD_BESIDE = """
piano music; drum music; flute music; background music; music; rain; birds; traffic noise; a barking dog;
a ringing phone; a ticking clock; footsteps; applause; background noise
"""


@functools.cache
def common_cues() -> tuple[Cue, ...]:
    """The table; `present` means nothing here. Cues beside the person are evidence of no emotion."""
    parts: tuple[tuple[CueModality, str, tuple[str, ...]], ...] = (
        ("video", _SEEN, ("any",)),
        ("audio", _HEARD, ("any",)),
        ("video", _SEEN_BESIDE, ()),
        ("audio", _HEARD_BESIDE, ()),
    )
    return tuple(
        Cue(name=_name(text), modality=modality, text=text, present=True, emotions=emotions)
        for modality, table, emotions in parts
        for text in " ".join(table.split()).split("; ")
    )


def _name(text: str) -> str:
    words = text.split()
    return "_".join(words[1:] if words[0] in ("a", "an", "the") else words)
