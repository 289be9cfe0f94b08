"""Rejects written by rules: a minimal edit of the chosen response, or another answer to a choice question.

Every text has one failure: an irrelevant cue that is in the clip, or a fitting one that is not, exchanged for a cue of
the chosen response or added to it. It is held against the rules judge before it is used. Clips without cues offer
nothing to exchange; there only the other choices of a question are wrong for certain.
"""

import dataclasses
import re
from collections.abc import Mapping

from avere_ray import prompts
from avere_ray.records import Clip, Cue, CueModality, Query, RejectKind, VerdictLabel
from avere_ray.responses import Citation, Stance, find_cues, in_english, is_yes_no, split_choice
from avere_ray.verdicts import judge_text

_LABEL_OF = {
    RejectKind.SPURIOUS: VerdictLabel.SPURIOUS_ASSOCIATION,
    RejectKind.HALLUCINATED: VerdictLabel.HALLUCINATION,
}
_GRAVE = (*_LABEL_OF.values(), VerdictLabel.WRONG_EMOTION)
_NUMBER = (("shows", "show"), ("says", "say"), ("tells", "tell"), ("is", "are"), ("suggests", "suggest"))


def written(kind: RejectKind, query: Query, clip: Clip, chosen: str) -> list[str]:
    """Texts with one failure of the kind, as far as the rules judge finds them wrong.

    In a choice question the letter itself may be the graver failure, so there any failure will do.
    """
    if not clip.cues:
        return _other_letters(kind, query, chosen) if query.choices else []
    texts = _other_answers(kind, query, clip, chosen) if query.choices else _edits(kind, query, clip, chosen)
    accepted = set(_GRAVE) if query.choices else {_LABEL_OF[kind]}
    return [t for t in texts if judge_text(t, query, clip).label in accepted]


def _other_letters(kind: RejectKind, query: Query, chosen: str) -> list[str]:
    """Wrong choices in the style of the right one, where nothing but the key says that they are wrong."""
    meant = {"spurious": RejectKind.SPURIOUS, "hallucination": RejectKind.HALLUCINATED}.get(query.subtype)
    if query.answer == "" or (meant is not None and kind is not meant):
        return []
    wrong = [(k, v) for k, v in map(split_choice, query.choices) if k != query.answer]
    mine = wrong[list(RejectKind).index(kind) :: len(RejectKind)] if meant is None else wrong
    end = "." if chosen.rstrip().endswith(".") else ""
    bare = len(chosen.split()) == 1
    return [f"({k})" if bare else f"({k}) {v.rstrip('.')}{end}" for k, v in mine]


def _other_answers(kind: RejectKind, query: Query, clip: Clip, chosen: str) -> list[str]:
    options = dict(split_choice(c) for c in query.choices)
    if not is_yes_no(options.values()):
        return _other_options(kind, query, clip, options, chosen)
    said = {text.strip(" .").lower(): letter for letter, text in options.items()}
    cue = next((c for c in clip.cues if c.name == query.about_cue), None)
    if query.about_cue:
        texts = _other_stress(kind, query, clip, cue, right_is_yes=query.answer == said["yes"])
    else:
        texts = _other_agreement(kind, clip, right_is_yes=query.answer == said["yes"])
    return [_with_letter(text, said) for text in texts]


def _with_letter(text: str, letters: Mapping[str, str]) -> str:
    """The templates say "(A) Yes" and "(B) No"; a query may have them the other way round."""
    words = text[4:]
    return f"({letters['yes' if words.startswith('Yes') else 'no']}) {words}"


def _other_stress(kind: RejectKind, query: Query, clip: Clip, cue: Cue | None, *, right_is_yes: bool) -> list[str]:
    """Against Yes: the cue dismissed (spurious) or denied (hallucinated). Against No: the cue affirmed, where it is of
    the kind; else the No with another unfit cue added, since nobody would affirm one that was not asked about."""
    if right_is_yes:
        seen = kind is RejectKind.SPURIOUS
        return [prompts.no_answer(dataclasses.replace(cue, present=seen))] if cue is not None else []
    if cue is not None and _is_of_kind(kind, cue):
        return [prompts.yes_answer(cue, prompts.asked_emotion(clip, query.modality, cue))]
    emotion = prompts.shown_emotion(clip, query.modality)
    said = prompts.no_answer(cue).rstrip(".") if cue is not None else "(B) No"
    pool = _unfit(kind, clip, cue.modality if cue is not None else _modalities(query)[0])
    return [f"{said}, but {prompts.evidence(c, emotion)}." for c in pool]


def _is_of_kind(kind: RejectKind, cue: Cue) -> bool:
    """Whether to affirm the cue is a failure of the kind."""
    return not cue.present if kind is RejectKind.HALLUCINATED else cue.present and not cue.emotions


def _other_agreement(kind: RejectKind, clip: Clip, *, right_is_yes: bool) -> list[str]:
    """Spurious: the face's emotion carried over to the voice. Hallucinated: an emotion in one that is not there."""
    face, voice = clip.face_emotion, clip.voice_emotion
    if not {face, voice} <= set(prompts.EMOTION_ADJECTIVES):
        return []
    if not right_is_yes:
        both = face if kind is RejectKind.SPURIOUS else voice
        return [prompts.agreement_answer(dataclasses.replace(clip, face_emotion=both, voice_emotion=both))]
    if kind is RejectKind.SPURIOUS:
        return []
    others = sorted({e for c in clip.cues for e in c.emotions} & set(prompts.EMOTION_ADJECTIVES) - {face, voice})
    return [prompts.agreement_answer(dataclasses.replace(clip, voice_emotion=e)) for e in others]


def _other_options(kind: RejectKind, query: Query, clip: Clip, options: Mapping[str, str], chosen: str) -> list[str]:
    names = {c.name for m in _modalities(query) for c in _unfit(kind, clip, m)}
    if kind is RejectKind.HALLUCINATED:
        names |= {c.name for c in clip.cues if not c.present}
    texts = []
    for letter, text in options.items():
        cited = {c.cue.name for c in find_cues(text, clip.cues, query.modality) if c.cue is not None}
        if letter != query.answer and cited & names:
            texts.append(f"({letter}) {text}" + ("." if chosen.endswith(".") and not text.endswith(".") else ""))
    return texts


def _edits(kind: RejectKind, query: Query, clip: Clip, chosen: str) -> list[str]:
    """The chosen response with one of its cues exchanged for an unfit one, or with one added when it cites none."""
    if in_english(chosen).language != "en":
        return []  # the cues have English names
    cited = [c for c in find_cues(chosen, clip.cues, query.modality) if c.stance is Stance.AFFIRMED]
    texts = []
    for citation in cited:
        for cue in _unfit(kind, clip, citation.cue.modality if citation.cue else "video"):
            if not any(c.cue is not None and c.cue.name == cue.name for c in cited):
                texts.append(_exchange(chosen, citation, cue))
    if not cited:
        stem = chosen.rstrip(" .")
        texts = [
            f"{stem} because of {prompts.definite(c.text)}." for m in _modalities(query) for c in _unfit(kind, clip, m)
        ]
    return texts


def _exchange(text: str, citation: Citation, cue: Cue) -> str:
    """The text with one cited cue replaced, its article and the number of its verb kept in order."""
    before, after = text[: citation.start], text[citation.end :]
    article = re.search(r"\b(a|an|the) $", before, re.IGNORECASE)
    phrase = cue.text
    if article is not None:
        before = before[: article.start()]
        phrase = prompts.definite(cue.text) if article.group(1).lower() == "the" else cue.text
    if not before or before.endswith((". ", "! ", "? ")):
        phrase = phrase[0].upper() + phrase[1:]
    for singular, plural in _NUMBER:
        wanted = plural if prompts.is_plural(cue.text) else singular
        after = re.sub(rf"^ (?:{singular}|{plural})\b", f" {wanted}", after)
    return before + phrase + after


def _unfit(kind: RejectKind, clip: Clip, modality: CueModality) -> list[Cue]:
    pool = prompts.irrelevant_cues if kind is RejectKind.SPURIOUS else prompts.absent_cues
    return pool(clip, modality)


def _modalities(query: Query) -> tuple[CueModality, ...]:
    return ("video", "audio") if query.modality == "audio_video" else (query.modality,)
