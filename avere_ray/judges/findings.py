"""What a model finds out about a response, and the label that follows from it by rule.

A judging model reports facts (which cues, are they there, do they matter, which emotion); it never gives the label.
So a response that names its own label changes nothing, and the llm and the omni judge share one rubric: that of
`avere_ray.verdicts`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from avere_ray.errors import VerdictParseError
from avere_ray.records import CitedCue, Clip, Cue, Query, Rollout, Verdict, VerdictLabel
from avere_ray.responses import find_cues, is_yes_no, leading_letter, split_choice, yes_or_no

Known = Literal["yes", "no", "unknown"]
Use = Literal["relied_on", "denied", "set_aside", "supposed"]
_UNSURE = 0.5
"""Confidence of a faithful verdict about cues of which nobody knows whether they are there."""


@dataclass(frozen=True, slots=True)
class FoundCue:
    """One cue that a response names."""

    span: str
    """Its words in the response."""
    modality: Literal["audio", "video", "unknown"]
    """Where it is perceived."""
    use: Use
    """What the response does with it."""
    present: Known
    """Whether the clip has it."""
    relevant: Known
    """Whether it tells how the person feels."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about one response."""

    answer: Literal["answer", "off_topic", "nothing"]
    """Whether it answers at all."""
    cues: tuple[FoundCue, ...]
    """The cues it names."""
    emotion: str
    """The emotion it ascribes to the person; empty for none."""
    emotion_right: Literal["yes", "no", "unknown", "none"]
    """Whether that is what the clip conveys."""
    confidence: float
    """0 to 1."""


def _choice(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


SCHEMA: Mapping[str, Any] = _object(
    answer=_choice("answer", "off_topic", "nothing"),
    cues={"type": "array", "maxItems": 16, "items": _object(
        span={"type": "string", "maxLength": 200}, modality=_choice("audio", "video", "unknown"),
        use=_choice("relied_on", "denied", "set_aside", "supposed"), present=_choice("yes", "no", "unknown"),
        relevant=_choice("yes", "no", "unknown"))},
    emotion={"type": "string", "maxLength": 40}, emotion_right=_choice("yes", "no", "unknown", "none"),
    confidence={"type": "number", "minimum": 0, "maximum": 1},
)  # fmt: skip
"""JSON schema that a model's reply is held to."""
_TYPE: TypeAdapter[Findings] = TypeAdapter(Findings)


def read_findings(reply: str) -> Findings:
    """A model's reply.

    Raises:
        VerdictParseError: it is not JSON of SCHEMA.
    """
    try:
        found = _TYPE.validate_python(json.loads(reply, parse_constant=_no_number))
    except (ValueError, ValidationError, RecursionError) as error:
        raise VerdictParseError(f"the judge's reply is not JSON of its schema: {reply[:200]!r}") from error
    if not 0 <= found.confidence <= 1:
        raise VerdictParseError(f"the judge's confidence {found.confidence} is not between 0 and 1")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def to_verdict(findings: Findings, rollout: Rollout, query: Query, clip: Clip, judge: str) -> Verdict:
    """The label that follows, with its evidence; cues whose words are not in the response are left out."""
    text = rollout.text
    cues = [c for c in findings.cues if c.span.strip() and c.span.lower() in text.lower()]
    label, why = _decide(findings, cues, text, query, clip)
    doubtful = label is VerdictLabel.FAITHFUL and any(c.use == "relied_on" and c.present == "unknown" for c in cues)
    return Verdict(
        rollout_id=rollout.rollout_id,
        query_id=rollout.query_id,
        label=label,
        cited=tuple(_cited(c, text, query, clip.cues) for c in cues if c.use != "supposed"),
        emotion=findings.emotion.strip().lower(),
        confidence=min(findings.confidence, _UNSURE) if doubtful else findings.confidence,
        evidence=why,
        judge=judge,
    )


def unread(rollout: Rollout, why: str, judge: str) -> Verdict:
    """The verdict about a response that its judge did not manage to judge: of confidence 0, and of no use for pairs."""
    return Verdict(rollout_id=rollout.rollout_id, query_id=rollout.query_id, label=VerdictLabel.UNPARSEABLE, cited=(),
                   emotion="", confidence=0.0, evidence=f"Not judged: {why}.", judge=judge)  # fmt: skip


def _decide(findings: Findings, cues: Sequence[FoundCue], text: str, query: Query,
            clip: Clip) -> tuple[VerdictLabel, str]:  # fmt: skip
    if not text.strip() or findings.answer == "nothing":
        return VerdictLabel.UNPARSEABLE, "No answer can be made out."
    if findings.answer == "off_topic":
        return VerdictLabel.OFF_TOPIC, "It is about something else."
    chosen = _choice_fault(text, query, clip)
    invented = [c for c in cues if c.use == "relied_on" and c.present == "no"]
    if invented:
        return VerdictLabel.HALLUCINATION, f'It relies on "{invented[0].span}", which is not in the clip.'
    if chosen is not None and chosen[0] is VerdictLabel.HALLUCINATION:
        return chosen
    idle = [c for c in cues if c.use == "relied_on" and c.relevant == "no"]
    if idle:
        return VerdictLabel.SPURIOUS_ASSOCIATION, f'It relies on "{idle[0].span}", which says nothing about emotion.'
    if chosen is not None:
        return chosen
    return _conclusion(findings, cues)


def _conclusion(findings: Findings, cues: Iterable[FoundCue]) -> tuple[VerdictLabel, str]:
    gone = [c for c in cues if c.use in {"denied", "set_aside"} and c.present == "yes" and c.relevant == "yes"]
    if gone:
        return VerdictLabel.WRONG_EMOTION, f'It denies or sets aside "{gone[0].span}", which is evidence in the clip.'
    if findings.emotion_right == "no":
        return (
            VerdictLabel.WRONG_EMOTION,
            f"It claims {findings.emotion or 'an emotion'}, which the clip does not show.",
        )
    held = [f'"{c.span}"' for c in cues if c.use == "relied_on"]
    return VerdictLabel.FAITHFUL, f"It relies on {', '.join(held)}." if held else "Its answer is right."


def _choice_fault(text: str, query: Query, clip: Clip) -> tuple[VerdictLabel, str] | None:
    """What choosing a wrong option amounts to: affirming the cue it stands for, or else a wrong conclusion."""
    options = dict(split_choice(c) for c in query.choices)
    letter, start = leading_letter(text, options)
    if letter is None and is_yes_no(options.values()) and (said := yes_or_no(text[start:])) is not None:
        letter = next(k for k, v in options.items() if (v.strip(" .").lower() == "yes") is said)
    if letter is None or not query.answer or letter == query.answer:
        return None
    why = f"It chooses ({letter}); right is ({query.answer})."
    if is_yes_no(options.values()):
        yes = options[letter].strip(" .").lower() == "yes"
        kinds = {"spurious": VerdictLabel.SPURIOUS_ASSOCIATION, "hallucination": VerdictLabel.HALLUCINATION}
        return (kinds.get(query.subtype, VerdictLabel.WRONG_EMOTION) if yes else VerdictLabel.WRONG_EMOTION), why
    cue = next((c.cue for c in find_cues(options[letter], clip.cues, query.modality) if c.cue is not None), None)
    if cue is not None and not cue.present:
        return VerdictLabel.HALLUCINATION, why
    idle = cue is not None and not cue.emotions
    return (VerdictLabel.SPURIOUS_ASSOCIATION if idle else VerdictLabel.WRONG_EMOTION), why


def _cited(cue: FoundCue, text: str, query: Query, known: Sequence[Cue]) -> CitedCue:
    at = text.lower().index(cue.span.lower())
    match = next((c.cue for c in find_cues(cue.span, known, query.modality) if c.cue is not None), None)
    return CitedCue(
        name=match.name if match is not None else "",
        text=text[at : at + len(cue.span)],
        modality="" if cue.modality == "unknown" else cue.modality,
        present=cue.present == "yes",
        relevant=cue.relevant == "yes",
        affirmed=cue.use == "relied_on",
    )
