"""The rule judge: reads a response, holds what it cites against the clip's cue inventory, and says why.

How a label is decided (`rules/2`), in EmoReAlM's terms (paper, section 3; sub-types of the stress questions):

1. `unparseable`: nothing can be made out (empty, garbled, broken off, refused), or a choice question is left open.
   `off_topic`: no answer, cue or emotion either, but readable words about something else.
2. `hallucination`: a cue is affirmed (in words, by the letter, or by Yes) that is not in the clip.
3. `spurious_association`: a cue is affirmed that is in the clip but says nothing about emotion.
4. `wrong_emotion`: no cue is invented or irrelevant, but the conclusion is wrong: another emotion, a cue of another
   emotion, the wrong letter, or a cue denied that is there.
5. `faithful`: an answer is found and none of the above holds.

The first that applies wins: an invented cue is graver than an irrelevant one, and that is graver than a wrong
conclusion from real evidence. A letter and a "yes" or "no" that contradict each other are both judged, so one of them
is wrong and the response cannot be faithful. Cues that the response denies ("no tears") or dismisses ("the red shirt
says nothing") are not held against it unless the denial itself is false. On clips whose face and voice disagree, a
question about video is held against the face and one about audio against the voice.

Only cues, emotions and answers are read: words addressed to the judge have no effect.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avere_ray.errors import InputError
from avere_ray.prompts import shown_emotion
from avere_ray.records import CitedCue, Clip, Cue, Modality, Query, Rollout, Verdict, VerdictLabel
from avere_ray.responses import (
    Citation,
    Claim,
    Reading,
    Stance,
    emotions_in,
    find_cues,
    is_off_topic,
    is_yes_no,
    read_response,
    split_choice,
    with_aliases,
)

JUDGE = "rules/2"

_GRAVITY = (VerdictLabel.HALLUCINATION, VerdictLabel.SPURIOUS_ASSOCIATION, VerdictLabel.WRONG_EMOTION)


@dataclass(frozen=True, slots=True)
class _Fault:
    label: VerdictLabel
    why: str


def judge_by_rules(rollout: Rollout, query: Query, clip: Clip, lexicon: Sequence[Cue] = ()) -> Verdict:
    """Labels one response by the rules of this module.

    Args:
        rollout: the response.
        query: its prompt.
        clip: the clip it was shown, with its cue inventory.
        lexicon: cues of the whole corpus (see `corpus_lexicon`); those the clip does not list count as absent from it.

    Raises:
        InputError: the clip has no annotated cues, so there is nothing to hold the response against.
    """
    check_annotated(clip)
    cues = _inventory(clip, lexicon)
    reading = read_response(rollout.text, query, cues)
    cited, asserted_faults, answered = _asserted(reading, query, clip, cues)
    faults = [*asserted_faults, *_cue_faults(reading, query, clip), *_claim_faults(reading, query, clip)]
    label, evidence = _decide(reading, faults, answered, query, clip, rollout.text)
    return Verdict(
        rollout_id=rollout.rollout_id,
        query_id=rollout.query_id,
        label=label,
        cited=(*cited, *(_cited(c, rollout.text, query, clip) for c in reading.citations)),
        emotion=next((c.emotion for c in reading.claims if not c.negated), ""),
        confidence=_confidence(reading, label),
        evidence=evidence,
        judge=JUDGE,
    )


def judge_text(text: str, query: Query, clip: Clip) -> Verdict:
    """`judge_by_rules` of words that nobody sampled."""
    rollout = Rollout(rollout_id=f"{query.query_id}#0", query_id=query.query_id, clip_id=clip.clip_id, index=0,
                      text=text, token_ids=(), finish_reason="stop", adapter_version=0, seed=0)  # fmt: skip
    return judge_by_rules(rollout, query, clip)


def check_annotated(clip: Clip) -> None:
    """Refuses a clip that the rules judge can say nothing about.

    Raises:
        InputError: it has no annotated cues; says which judges apply instead.
    """
    if not clip.cues:
        raise InputError(
            f"clip {clip.clip_id} has no annotated cues, against which the rules judge holds responses. Add a cue "
            f"inventory to the clip table, or set judge.backend: {_judges_for(clip)}."
        )


def _judges_for(clip: Clip) -> str:
    if clip.caption or clip.video_caption or clip.audio_caption:
        return "llm reads its captions, omni watches and listens itself"
    if clip.emotion or clip.face_emotion or clip.voice_emotion:
        return "it has labels alone, so llm (which then knows no cues) or omni (which watches and listens itself) apply"
    return "it has neither captions nor labels, so only omni applies, which watches and listens itself"


def corpus_lexicon(clips: Iterable[Clip]) -> tuple[Cue, ...]:
    """Every cue that occurs in a corpus, once, in order of name; `present` means nothing here."""
    by_name: dict[str, Cue] = {}
    for clip in clips:
        for cue in clip.cues:
            by_name.setdefault(cue.name, cue)
    return tuple(dataclasses.replace(by_name[name], present=False) for name in sorted(by_name))


def asked_emotions(query: Query, clip: Clip) -> frozenset[str]:
    """Emotions that a right answer may name: two when face and voice disagree and the question is about both."""
    modalities: tuple[Modality, ...] = ("video", "audio") if query.modality == "audio_video" else (query.modality,)
    return frozenset(e for m in modalities if (e := shown_emotion(clip, m)))


def is_relevant(cue: Cue, query: Query, clip: Clip) -> bool:
    """Whether a cue is evidence for the emotion asked about, be it present or not."""
    modality: Modality = cue.modality if query.modality == "audio_video" else query.modality
    emotion = shown_emotion(clip, modality)
    return emotion in cue.emotions if emotion else bool(cue.emotions)


def _inventory(clip: Clip, lexicon: Sequence[Cue]) -> tuple[Cue, ...]:
    return with_aliases(tuple(clip.cues), tuple(lexicon))


def _asserted(reading: Reading, query: Query, clip: Clip,
              cues: Sequence[Cue]) -> tuple[list[CitedCue], list[_Fault], bool]:  # fmt: skip
    """What the letter, the "yes" or the "no" says: cues so cited, faults, and whether the question is answered."""
    options = dict(split_choice(c) for c in query.choices)
    if options and not is_yes_no(options.values()):
        return _asserted_options(reading, query, clip, cues, options)
    if not options and not (query.about_cue and reading.polarities):
        content = bool(reading.letters or [c for c in reading.citations if c.cue] or reading.claims)
        return [], [], content
    return _asserted_polarity(reading, query, clip, cues, options)


def _asserted_polarity(reading: Reading, query: Query, clip: Clip, cues: Sequence[Cue],
                       options: dict[str, str]) -> tuple[list[CitedCue], list[_Fault], bool]:  # fmt: skip
    cue = _cue_named(query.about_cue, cues)
    gold = options[query.answer].strip(" .").lower() == "yes" if query.answer in options else None
    said = reading.polarities or _implied_polarity(reading, query.about_cue)
    faults = [f for p in said if (f := _polarity_fault(p, gold, cue, query, clip)) is not None]
    named = {c.cue.name for c in reading.citations if c.cue}
    cited = [_cited_cue(cue, cue.text, p, query, clip) for p in said if cue is not None and cue.name not in named]
    return cited, faults, bool(said)


def _implied_polarity(reading: Reading, about_cue: str) -> tuple[bool, ...]:
    stances = [c.stance for c in reading.citations if c.cue and c.cue.name == about_cue]
    return tuple(dict.fromkeys(s is Stance.AFFIRMED for s in stances if s not in {Stance.MENTIONED, Stance.SUPPOSED}))


def _polarity_fault(said: bool, gold: bool | None, cue: Cue | None, query: Query, clip: Clip) -> _Fault | None:
    if gold is None and cue is None:
        return None
    if gold is None and cue is not None:
        gold = cue.present and (is_relevant(cue, query, clip) or not (query.subtype or query.choices))
    if said == gold:
        return None
    if cue is None:
        return _Fault(VerdictLabel.WRONG_EMOTION, f"It answers {'Yes' if said else 'No'}; {_conveys(query, clip)}.")
    if not said:
        return _Fault(VerdictLabel.WRONG_EMOTION, f'It answers No about "{cue.text}"; right is Yes.')
    return _affirmation_fault(cue, query, clip) or _Fault(
        VerdictLabel.WRONG_EMOTION, f'It answers Yes, but "{cue.text}" is not evidence of what was asked.'
    )


def _asserted_options(reading: Reading, query: Query, clip: Clip, cues: Sequence[Cue],
                      options: dict[str, str]) -> tuple[list[CitedCue], list[_Fault], bool]:  # fmt: skip
    option_cues = {letter: _option_cue(text, cues, query) for letter, text in options.items()}
    worded = {c.cue.name: c for c in reading.citations if c.cue and c.stance is Stance.AFFIRMED}
    implied = tuple(letter for letter, cue in option_cues.items() if cue is not None and cue.name in worded)
    claimed = {c.emotion for c in reading.claims if not c.negated}
    implied += tuple(letter for letter, text in options.items() if claimed & set(emotions_in(text, cues)))
    wrong = [letter for letter in dict.fromkeys(reading.letters + implied) if letter != query.answer]
    faults = [_option_fault(letter, options[letter], option_cues[letter], query, clip) for letter in wrong]
    cited = [_cited_cue(cue, options[letter], True, query, clip) for letter in reading.letters
             if (cue := option_cues[letter]) is not None and cue.name not in worded]  # fmt: skip
    return cited, faults, bool(reading.letters or implied)


def _option_fault(letter: str, text: str, cue: Cue | None, query: Query, clip: Clip) -> _Fault:
    fault = _affirmation_fault(cue, query, clip) if cue is not None else None
    why = f'It chooses ({letter}) "{text}"; right is ({query.answer}).'
    return fault or _Fault(VerdictLabel.WRONG_EMOTION, why)


def _option_cue(text: str, cues: Sequence[Cue], query: Query) -> Cue | None:
    found = [c.cue for c in find_cues(text, cues, query.modality) if c.cue is not None]
    return found[0] if found else None


def _cue_faults(reading: Reading, query: Query, clip: Clip) -> list[_Fault]:
    faults = [_citation_fault(c, query, clip) for c in reading.citations if not _only_asked_for(c, reading, query)]
    return [f for f in faults if f is not None]


def _only_asked_for(citation: Citation, reading: Reading, query: Query) -> bool:
    """An open question whether a cue is there may be answered by naming it, as long as no emotion is tied to it."""
    asked = citation.cue is not None and citation.cue.name == query.about_cue and citation.cue.present
    return asked and citation.stance is Stance.AFFIRMED and not (query.choices or query.subtype or reading.claims)


def _citation_fault(citation: Citation, query: Query, clip: Clip) -> _Fault | None:
    cue = citation.cue
    if cue is None:
        return None
    if citation.stance is Stance.AFFIRMED:
        return _affirmation_fault(cue, query, clip)
    if citation.stance is Stance.MENTIONED:
        return None if cue.present else _affirmation_fault(cue, query, clip)
    if citation.stance is Stance.DENIED and cue.present:
        return _Fault(VerdictLabel.WRONG_EMOTION, f'It denies "{cue.text}", which is in the clip.')
    if citation.stance is Stance.DISMISSED and cue.present and _is_evidence(citation, query, clip):
        return _Fault(VerdictLabel.WRONG_EMOTION, f'It dismisses "{cue.text}", which is evidence in the clip.')
    return None


def _is_evidence(citation: Citation, query: Query, clip: Clip) -> bool:
    cue = citation.cue
    assert cue is not None
    return any(e in cue.emotions for e in citation.about) if citation.about else is_relevant(cue, query, clip)


def _affirmation_fault(cue: Cue, query: Query, clip: Clip) -> _Fault | None:
    if not cue.present:
        return _Fault(
            VerdictLabel.HALLUCINATION, f'It affirms "{cue.text}" ({cue.modality}), which is not in the clip.'
        )
    if not cue.emotions:
        return _Fault(
            VerdictLabel.SPURIOUS_ASSOCIATION,
            f'It relies on "{cue.text}" ({cue.modality}), which is in the clip but says nothing about emotion.',
        )
    if not is_relevant(cue, query, clip):
        return _Fault(
            VerdictLabel.WRONG_EMOTION,
            f'It relies on "{cue.text}", evidence of {_either(cue.emotions)}; {_conveys(query, clip)}.',
        )
    return None


def _claim_faults(reading: Reading, query: Query, clip: Clip) -> list[_Fault]:
    """Emotions held against the face, the voice or the clip, whichever the words are about."""
    answers = any(not c.negated and (not c.explicit or query.modality in c.sources) for c in reading.claims)
    faults = []
    for claim in reading.claims:
        expected = _expected(claim, query, clip, elsewhere=answers and claim.explicit)
        if claim.negated:
            wrong = expected == {claim.emotion} and not claim.with_cue
        else:
            wrong = bool(expected) and (claim.emotion not in expected or (claim.about_both and len(expected) > 1))
        if wrong:
            verb = "denies" if claim.negated else "claims"
            faults.append(_Fault(VerdictLabel.WRONG_EMOTION, f"It {verb} {claim.emotion}; {_conveys(query, clip)}."))
    return faults


def _expected(claim: Claim, query: Query, clip: Clip, *, elsewhere: bool) -> set[str]:
    """Emotions of which the claim must name one.

    A question about one modality is held against that modality, unless the words are plainly about the other one
    ("..., although the voice sounds sad") beside an answer about the asked one (`elsewhere`).
    """
    if query.modality != "audio_video" and not elsewhere:
        return set(asked_emotions(query, clip))
    emotions = {shown_emotion(clip, m) for m in claim.sources} or set(asked_emotions(query, clip))
    return {e for e in emotions if e}


def _decide(reading: Reading, faults: Sequence[_Fault], answered: bool, query: Query, clip: Clip,
            text: str) -> tuple[VerdictLabel, str]:  # fmt: skip
    if faults:
        worst = min(faults, key=lambda f: _GRAVITY.index(f.label))
        return worst.label, worst.why
    named = reading.citations or reading.claims or reading.polarities or reading.letters
    if not answered and not named and is_off_topic(text):
        return VerdictLabel.OFF_TOPIC, "It is about something else: it names no answer, no cue and no emotion."
    if not answered:
        asked = "one of the choices" if query.choices else "a cue or an emotion"
        return VerdictLabel.UNPARSEABLE, f"It names no answer: {asked} was asked for."
    return VerdictLabel.FAITHFUL, _praise(reading, query, clip)


def _praise(reading: Reading, query: Query, clip: Clip) -> str:
    affirmed = [f'"{c.cue.text}"' for c in reading.citations if c.cue and c.stance is Stance.AFFIRMED]
    denied = [f'"{c.cue.text}"' for c in reading.citations if c.cue and c.stance is Stance.DENIED]
    claims = [c.emotion for c in reading.claims if not c.negated]
    parts = [f"cites {', '.join(affirmed)}, in the clip as evidence"] if affirmed else []
    parts += [f"rightly denies {', '.join(denied)}"] if denied else []
    parts += [f"names {_either(claims)}, as {_conveys(query, clip)}"] if claims else []
    return f"It {'; '.join(parts)}." if parts else f"Its answer is right; {_conveys(query, clip)}."


def _conveys(query: Query, clip: Clip) -> str:
    if query.modality == "audio_video" and shown_emotion(clip, "video") != shown_emotion(clip, "audio"):
        return f"the face shows {shown_emotion(clip, 'video')} and the voice {shown_emotion(clip, 'audio')}"
    what = {"video": "the face shows", "audio": "the voice tells", "audio_video": "the clip conveys"}[query.modality]
    return f"{what} {_either(sorted(asked_emotions(query, clip))) or 'an unlabelled emotion'}"


def _either(words: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(words))


def _confidence(reading: Reading, label: VerdictLabel) -> float:
    """How far the words carry the label: 1 with a cue, less with a bare claim, denial or unknown words."""
    if label is not VerdictLabel.FAITHFUL:
        return 1.0
    if any(c.cue is None for c in reading.citations):
        return 0.5
    if any(c.cue and not c.cue.present and c.stance is Stance.DISMISSED for c in reading.citations):
        return 0.8
    if any(c.stance is Stance.AFFIRMED for c in reading.citations) or reading.letters:
        return 1.0
    return 0.9 if reading.claims else 0.8


def _cited(citation: Citation, text: str, query: Query, clip: Clip) -> CitedCue:
    words, affirmed = text[citation.start : citation.end], citation.stance is Stance.AFFIRMED
    if citation.cue is None:
        return CitedCue(name="", text=words, modality="", present=False, relevant=False, affirmed=affirmed)
    return _cited_cue(citation.cue, words, affirmed, query, clip)


def _cited_cue(cue: Cue, words: str, affirmed: bool, query: Query, clip: Clip) -> CitedCue:
    return CitedCue(name=cue.name, text=words, modality=cue.modality, present=cue.present,
                    relevant=is_relevant(cue, query, clip), affirmed=affirmed)  # fmt: skip


def _cue_named(name: str, cues: Sequence[Cue]) -> Cue | None:
    """The cue of that name; one that no inventory lists is absent and says nothing about emotion."""
    if not name:
        return None
    unknown = Cue(name=name, modality="video", text=name.replace("_", " "), present=False)
    return next((c for c in cues if c.name == name), unknown)
