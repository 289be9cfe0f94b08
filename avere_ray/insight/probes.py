"""What the engine is asked about an answer, as probes that can all be scored in one call.

- Each cue, once: is it in the clip, Yes or No, the clip shown as it is.
- Face and voice, each alone (the other medium silenced or blanked): which of seven emotions.
- Grounding: the answer itself, with the clip as it is; with the sound silenced or the frames blanked ("removed"); with
  the sound or the frames of each reference clip ("swapped"); and without any clip ("text_only").

Silence and black frames stand for a medium that is removed, as in the evaluation's modes: the prompt keeps its form,
so the shift is owed to what is shown and not to a prompt the model never saw.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from avere_ray.insight.cues import AnswerReading
from avere_ray.modality import apply_swap, made_swap
from avere_ray.prompts import EMOTION_ADJECTIVES
from avere_ray.records import CueModality, DecodedClip, ModalitySwap

EMOTIONS = tuple(EMOTION_ADJECTIVES)
"""Emotions that face and voice are asked about."""
FACE_QUESTION, VOICE_QUESTION = "What emotion does the face show?", "What emotion does the voice tell?"
MEDIA: tuple[CueModality, ...] = ("audio", "video")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A clip whose sound or frames are put in place of another clip's."""

    clip: DecodedClip
    """Decoded with the same settings as the clips it is swapped into."""
    emotion: str = ""
    """What it shows, a noun; an answer that names this emotion is held against other references where there are any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One prompt, and the responses to it whose log-probabilities are wanted."""

    about: tuple[str | int, ...]
    """("cue", its question), ("face",), ("voice",), ("plain",), ("removed", medium), ("swapped", medium, i) or
    ("text_only",)."""
    prompt: str
    """The words of the question."""
    clip: DecodedClip | None
    """What is shown; None asks with words alone."""
    options: tuple[str, ...]
    """Responses to be scored, one engine pass each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What an engine says of one probe."""

    logps: tuple[float, ...]
    """Log-probability (nats) of each option's words, summed over its tokens."""
    tokens: tuple[int, ...]
    """Tokens of each option."""
    prompt_tokens: int
    """Tokens of the prompt with its media; read once for each option."""


def make_probes(
    reading: AnswerReading, clip: DecodedClip, references: Sequence[Reference] = (), *, grounding: bool = True
) -> list[Probe]:
    """Everything the engine is asked about an answer; nothing about the grounding of an empty one.

    Raises:
        InputError: a reference has frames of another size than the clip.
    """
    probes = [
        Probe(about=("cue", question), prompt=question, clip=clip, options=("Yes", "No"))
        for question in dict.fromkeys(cue.question for cue in reading.cues)
    ]
    faces = tuple(f"The face looks {adjective}." for adjective in EMOTION_ADJECTIVES.values())
    voices = tuple(f"The voice sounds {adjective}." for adjective in EMOTION_ADJECTIVES.values())
    probes.append(Probe(about=("face",), prompt=FACE_QUESTION, clip=_without(clip, "audio"), options=faces))
    probes.append(Probe(about=("voice",), prompt=VOICE_QUESTION, clip=_without(clip, "video"), options=voices))
    if grounding and reading.answer.strip():
        shown = _changed(clip, _fitting(references, reading.emotion))
        probes += [
            Probe(about=about, prompt=reading.question, clip=view, options=(reading.answer,)) for about, view in shown
        ]
    return probes


def _changed(
    clip: DecodedClip, references: Sequence[Reference]
) -> Iterator[tuple[tuple[str | int, ...], DecodedClip | None]]:
    yield ("plain",), clip
    for medium in MEDIA:
        yield ("removed", medium), _without(clip, medium)
        for i, reference in enumerate(references):
            yield ("swapped", medium, i), _swapped(clip, medium, reference.clip)
    yield ("text_only",), None


def _fitting(references: Sequence[Reference], emotion: str) -> Sequence[Reference]:
    """Those that show another emotion than the answer names; all when none does."""
    return [r for r in references if not emotion or r.emotion != emotion] or references


def _without(clip: DecodedClip, medium: CueModality) -> DecodedClip:
    return apply_swap(clip, made_swap(medium, "blank", clip.clip_id, seed=0, level=0.0), None, None)


def _swapped(clip: DecodedClip, medium: CueModality, partner: DecodedClip) -> DecodedClip:
    swap = ModalitySwap(
        modality=medium,
        strategy="reference",
        audio_clip_id=partner.clip_id if medium == "audio" else clip.clip_id,
        video_clip_id=partner.clip_id if medium == "video" else clip.clip_id,
    )
    return apply_swap(clip, swap, partner, partner)
