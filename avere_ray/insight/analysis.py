"""Answer, probes, report: the whole analysis of one question about one clip.

A server whose engine answers asynchronously takes the three steps itself: `read_answer`, `make_probes`, `conclude`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from avere_ray.errors import StageError
from avere_ray.insight.cues import AnswerReading, read_answer
from avere_ray.insight.probes import Probe, Reference, Scored, make_probes
from avere_ray.insight.report import Cost, Insight, agreement_of, found_cues, grounding_of
from avere_ray.records import DecodedClip


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One answer as an engine gives it."""

    text: str
    prompt_tokens: int
    """Tokens of the prompt with its media."""
    tokens: int
    """Tokens of the answer."""


class Face(Protocol):
    """What the analysis asks of an engine; each call is one batch."""

    def answer(self, question: str, clip: DecodedClip, *, max_tokens: int) -> Answered:
        """The greedy answer to a question about a clip."""

    def score(self, probes: Sequence[Probe]) -> list[Scored]:
        """Log-probabilities of every option of every probe, in order."""


def analyse(
    face: Face,
    clip: DecodedClip,
    question: str,
    references: Sequence[Reference] = (),
    *,
    answer: str | None = None,
    grounding: bool = True,
    max_tokens: int = 128,
) -> Insight:
    """Answers a question about a clip and says what the answer rests on.

    Args:
        face: the engine.
        references: clips to swap in, decoded like `clip`; without any nothing is swapped.
        answer: what was answered already, for instance streamed; None asks the engine.
        grounding: whether to score the answer with media removed and swapped, the larger part of the cost.
        max_tokens: longest answer.

    Raises:
        InputError: a reference has frames of another size than the clip.
    """
    answered = face.answer(question, clip, max_tokens=max_tokens) if answer is None else None
    reading = read_answer(question, answered.text if answered is not None else (answer or ""))
    probes = make_probes(reading, clip, references, grounding=grounding)
    return conclude(reading, probes, face.score(probes), answered)


def conclude(
    reading: AnswerReading, probes: Sequence[Probe], scored: Sequence[Scored], answered: Answered | None = None
) -> Insight:
    """The record that follows from what the engine says of the probes of `make_probes`, in their order.

    Raises:
        StageError: a probe or one of its options has no score.
    """
    if [len(probe.options) for probe in probes] != [len(s.logps) for s in scored]:
        raise StageError(f"the engine scored {len(scored)} of {len(probes)} probes, or not every option of each")
    scores = {probe.about: s for probe, s in zip(probes, scored, strict=True)}
    return Insight(
        emotion=reading.emotion,
        answer=reading.answer,
        cues=found_cues(reading, scores),
        agreement=agreement_of(scores["face",], scores["voice",]),
        grounding=grounding_of(probes, scores),
        cost=_cost(scored, answered),
    )


def _cost(scored: Sequence[Scored], answered: Answered | None) -> Cost:
    passes = sum(len(s.logps) for s in scored)
    tokens = sum(s.prompt_tokens * len(s.logps) + sum(s.tokens) for s in scored)
    if answered is None:
        return Cost(passes=passes, tokens=tokens)
    return Cost(passes=passes + 1, tokens=tokens + answered.prompt_tokens + answered.tokens)
