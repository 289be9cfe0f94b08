"""The engine's figures about an answer as one record, and as the JSON of POST /v1/emotion and `avere-ray ask`.

    {"emotion", "answer",
     "cues": [{"text", "modality", "confidence", "span": [begin, end], "use"}],
     "agreement": {"face", "voice", "agree", "confidence"},
     "grounding": {"audio": {"removed", "swapped", "removed_per_token", "swapped_per_token"}, "video": {...},
                   "text_only", "text_only_per_token", "logp", "tokens", "references"} or null,
     "cost": {"passes", "tokens"}}

Shifts are nats by which the whole answer gets less likely; negative where it gets likelier. "swapped" is the mean over
the reference clips, null where there are none.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avere_ray.insight.cues import AnswerReading, Use
from avere_ray.insight.probes import EMOTIONS, MEDIA, Probe, Scored
from avere_ray.records import CueModality


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundCue:
    """One cue of the answer."""

    text: str
    """Its words in the answer."""
    modality: CueModality
    """"audio" or "video"."""
    confidence: float
    """Share of Yes against No when the model itself is asked whether it is in the clip, 0 to 1."""
    span: tuple[int, int]
    """Begin and end (exclusive) in the answer, characters."""
    use: Use
    """What the answer does with it; see `AnswerCue.use`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Whether face and voice, each shown alone, show the same emotion."""

    face: str
    """The likeliest emotion of the face."""
    voice: str
    """The likeliest emotion of the voice."""
    agree: bool
    """Whether they are the same."""
    confidence: float
    """Probability of that, face and voice taken as independent, 0 to 1; below 0.5 where the model is undecided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediumShift:
    """What the answer owes to one medium."""

    removed: float
    """Nats lost when it is silenced or blanked."""
    swapped: float | None
    """Nats lost when it comes from a reference clip, mean over references; None without references."""
    removed_per_token: float
    swapped_per_token: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounding:
    """What the answer owes to sound and picture."""

    audio: MediumShift
    video: MediumShift
    text_only: float
    """Nats lost when no clip is shown at all."""
    text_only_per_token: float
    logp: float
    """Log-probability (nats) of the answer's words with the clip as it is."""
    tokens: int
    """Tokens of the answer."""
    references: int
    """Reference clips swapped in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What it took."""

    passes: int
    """Requests to the engine: the answer, and one for each response scored."""
    tokens: int
    """Tokens read and written by them, media included, nothing deducted for what the engine caches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Insight:
    """An answer and what it rests on."""

    emotion: str
    """The emotion the answer names; empty when it names none."""
    answer: str
    """The answer."""
    cues: tuple[FoundCue, ...]
    """Cues it names, in order."""
    agreement: Agreement
    """Face and voice."""
    grounding: Grounding | None
    """None when it was not asked for or the answer is empty."""
    cost: Cost
    """What it took."""


def to_json(insight: Insight) -> dict[str, Any]:
    """The record as plain values; see the module's docstring."""
    return _listed(dataclasses.asdict(insight))


def found_cues(reading: AnswerReading, scores: Mapping[tuple[str | int, ...], Scored]) -> tuple[FoundCue, ...]:
    """The cues of a reading with the engine's confidence in each."""
    return tuple(
        FoundCue(
            text=cue.text,
            modality=cue.modality,
            confidence=float(_shares(scores["cue", cue.question].logps)[0]),
            span=cue.span,
            use=cue.use,
        )
        for cue in reading.cues
    )


def agreement_of(face: Scored, voice: Scored) -> Agreement:
    """Face and voice compared, by the shares of `EMOTIONS` in each."""
    seen, heard = _shares(face.logps), _shares(voice.logps)
    first, second = int(seen.argmax()), int(heard.argmax())
    same = float(seen @ heard)
    agree = first == second
    return Agreement(
        face=EMOTIONS[first], voice=EMOTIONS[second], agree=agree, confidence=same if agree else 1.0 - same
    )


def grounding_of(probes: Sequence[Probe], scores: Mapping[tuple[str | int, ...], Scored]) -> Grounding | None:
    """How much the answer loses in each changed view; None when its views were not asked about."""
    if ("plain",) not in scores:
        return None
    plain = scores["plain",]
    tokens = max(1, plain.tokens[0])
    lost = {about: plain.logps[0] - scored.logps[0] for about, scored in scores.items()}
    swaps = {m: [lost[p.about] for p in probes if p.about[:2] == ("swapped", m)] for m in MEDIA}

    def shift(medium: CueModality) -> MediumShift:
        removed = lost["removed", medium]
        swapped = float(np.mean(swaps[medium])) if swaps[medium] else None
        return MediumShift(
            removed=removed,
            swapped=swapped,
            removed_per_token=removed / tokens,
            swapped_per_token=None if swapped is None else swapped / tokens,
        )

    return Grounding(
        audio=shift("audio"),
        video=shift("video"),
        text_only=lost["text_only",],
        text_only_per_token=lost["text_only",] / tokens,
        logp=plain.logps[0],
        tokens=plain.tokens[0],
        references=len(swaps["audio"]),
    )


def _shares(logps: Sequence[float]) -> np.ndarray:
    """Probabilities among the options."""
    values = np.asarray(logps, dtype=np.float64)
    return np.exp(values - np.logaddexp.reduce(values))


def _listed(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
