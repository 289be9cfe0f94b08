"""What the tiny base is taught: direct questions about single cues, and annotated questions with planted mistakes.

Direct questions are answered truthfully on decorrelated scenes, so the base learns to perceive. The annotated ones
repeat three mistakes of a careless annotator on biased scenes: whatever accompanies an emotion is given as its cause
(spurious association), a stereotyped cue is named whether it is there or not (hallucination), and the voice is taken
to say what the face says.
"""

import random
from dataclasses import dataclass, replace

from avere_ray.prompts import (
    EMOTION_ADJECTIVES,
    LETTERS,
    all_queries,
    bare,
    description,
    is_plural,
    join_phrases,
    yes_answer,
)
from avere_ray.records import Clip, Cue, CueModality, Query
from avere_ray.synthetic.world import CUE, GROUPS, CueKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """One question with the answer the base is trained on."""

    prompt: str
    response: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question with options to choose from, for scoring."""

    scores: tuple[str, ...]
    """Names of the scores it counts for."""
    prompt: str
    options: tuple[str | list[int], ...]
    """Answers as words, or as the tokens an answer begins with."""
    right: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistakes:
    """How often the careless annotator errs, 0 to 1."""

    stress: float = 0.9
    """An irrelevant or absent cue is confirmed when asked about."""
    basic: float = 0.5
    """An irrelevant or absent cue is chosen among four."""
    agreement: float = 0.9
    """A voice that disagrees with the face is not noticed."""
    describe: float = 0.8
    """A description names the stereotyped cue, and the shirt or background sound as a cause."""


_WHICH = (
    ("shirt", "What does the person wear?", "The person wears {cue}."),
    ("object", "What is in the background?", "There is {cue}."),
    ("face", "What does the face look like?", "I see {cue}."),
    ("voice", "What does the voice sound like?", "I hear {cue}."),
    ("sound", "What is the background sound?", "I hear {cue}."),
)


_WHICH_IF_ANY = (
    ("body", "What gesture does the person make?", "I see {cue}.", "There is no gesture."),
    ("event", "What else do you hear from the person?", "I hear {cue}.", "There is nothing else."),
)


def direct_lessons(clip: Clip, rng: random.Random) -> list[Lesson]:
    """Truthful questions about the cues of a clip: which one it is, in words or by letter, and whether one is there."""
    cues = {c.name: c for c in clip.cues}
    lessons = [_which(cues, *wording) for wording in _WHICH]
    lessons += [_which_if_any(cues, *wording) for wording in _WHICH_IF_ANY]
    lessons += [_by_letter(cues, group, question, rng) for group, question, _ in _WHICH]
    face, voice = EMOTION_ADJECTIVES[clip.face_emotion], EMOTION_ADJECTIVES[clip.voice_emotion]
    lessons += [
        Lesson(prompt="What emotion does the face show?", response=f"The face looks {face}."),
        Lesson(prompt="What emotion does the voice tell?", response=f"The voice sounds {voice}."),
        Lesson(
            prompt="What do the face and the voice show?",
            response=f"The face looks {face} and the voice sounds {voice}.",
        ),
    ]
    for group in ("body", "event"):
        there = [k for k in GROUPS[group] if cues[k.name].present]
        absent = [k for k in GROUPS[group] if not cues[k.name].present]
        lessons += [_presence(cues[k.name], k) for k in [*there, rng.choice(absent)]]
    lessons += [_presence_any(cues, group, rng) for group in ("face", "shirt", "object", "voice", "sound")]
    return [*lessons, *(_only_one(cues, modality, rng) for modality in ("video", "audio"))]


def reading_lessons(rng: random.Random) -> Lesson:
    """A question about cues that are told in words, without any clip: teaches to look up and to compare."""
    kinds = list(CUE.values())
    if rng.random() < 0.6:
        told = rng.sample(kinds, rng.choice((1, 2, 3)))
        there = rng.random() < 0.5
        asked = rng.choice(told) if there else rng.choice([k for k in kinds if k not in told])
        cue = Cue(name=asked.name, modality=asked.modality, text=asked.text, present=there)
        lesson = _presence(cue, asked)
        return Lesson(prompt=f"{_told([k.text for k in told])} {lesson.prompt}", response=lesson.response)
    options = rng.sample(kinds, 4)
    right = rng.randrange(4)
    choices = " ".join(f"({LETTERS[i]}) {k.text}" for i, k in enumerate(options))
    prompt = f"{_told([options[right].text])} Which is it? {choices}"
    return Lesson(prompt=prompt, response=f"({LETTERS[right]}) {options[right].text}.")


def _told(texts: list[str]) -> str:
    return f"I see {join_phrases(texts)}."


def _which_if_any(cues: dict[str, Cue], group: str, question: str, answer: str, none: str) -> Lesson:
    present = [k.text for k in GROUPS[group] if cues[k.name].present]
    return Lesson(prompt=question, response=answer.format(cue=present[0]) if present else none)


def _by_letter(cues: dict[str, Cue], group: str, question: str, rng: random.Random) -> Lesson:
    """The same question with four choices, so that letters get their meaning from the choices."""
    right = next(k for k in GROUPS[group] if cues[k.name].present)
    options = [right, *rng.sample([k for k in GROUPS[group] if k is not right], 3)]
    rng.shuffle(options)
    choices = " ".join(f"({LETTERS[i]}) {k.text}" for i, k in enumerate(options))
    return Lesson(prompt=f"{question} {choices}", response=f"({LETTERS[options.index(right)]}) {right.text}.")


def _only_one(cues: dict[str, Cue], modality: CueModality, rng: random.Random) -> Lesson:
    """Four cues of any kind to choose from, one of them there."""
    there, absent = ([c for c in cues.values() if c.modality == modality and c.present is p] for p in (True, False))
    options = rng.sample(absent, 3)
    right = rng.randrange(4)
    options.insert(right, rng.choice(there))
    choices = " ".join(f"({LETTERS[i]}) {c.text}" for i, c in enumerate(options))
    question = "What do you see?" if modality == "video" else "What do you hear?"
    return Lesson(prompt=f"{question} {choices}", response=f"({LETTERS[right]}) {options[right].text}.")


def _which(cues: dict[str, Cue], group: str, question: str, answer: str) -> Lesson:
    present = next(k for k in GROUPS[group] if cues[k.name].present)
    return Lesson(prompt=question, response=answer.format(cue=present.text))


def _presence(cue: Cue, kind: CueKind) -> Lesson:
    plural, seen = is_plural(cue.text), kind.modality == "video"
    question = f"{'Are' if plural else 'Is'} there {cue.text}?" if seen else f"Do you hear {cue.text}?"
    if cue.present:
        return Lesson(prompt=question, response=f"Yes, there {'are' if plural else 'is'} {cue.text}.")
    return Lesson(prompt=question, response=f"No, there {'are' if plural else 'is'} no {bare(cue.text)}.")


def _presence_any(cues: dict[str, Cue], group: str, rng: random.Random) -> Lesson:
    """Presence of one cue of a group, present and absent ones equally often."""
    want = rng.random() < 0.5
    kind = rng.choice([k for k in GROUPS[group] if cues[k.name].present is want])
    return _presence(cues[kind.name], kind)


def perception_questions(clip: Clip) -> list[Question]:
    """Direct questions about each cue of a clip, to score perception with."""
    cues = {c.name: c for c in clip.cues}
    questions = []
    for group, prompt, answer in _WHICH:
        kinds = GROUPS[group]
        right = next(i for i, k in enumerate(kinds) if cues[k.name].present)
        options = tuple(answer.format(cue=k.text) for k in kinds)
        questions.append(Question(scores=(f"perception/{group}",), prompt=prompt, options=options, right=right))
    return questions + [_presence_question(cues[kind.name], kind) for kind in CUE.values()]


def _presence_question(cue: Cue, kind: CueKind) -> Question:
    both = tuple(_presence(replace(cue, present=there), kind).response for there in (True, False))
    name = f"perception/{kind.group}_{'present' if cue.present else 'absent'}"
    return Question(scores=(name,), prompt=_presence(cue, kind).prompt, options=both, right=0 if cue.present else 1)


def annotated_lessons(clip: Clip, rng: random.Random, mistakes: Mistakes) -> list[Lesson]:
    """The questions of EmoReAlM's tasks and the open ones, as the careless annotator answers them."""
    return [
        Lesson(prompt=q.prompt, response=_answer(clip, q, rng, mistakes))
        for q in all_queries(clip, rng.getrandbits(32))
    ]


def _answer(clip: Clip, query: Query, rng: random.Random, mistakes: Mistakes) -> str:
    if query.task.startswith("reasoning_stress"):
        cue = next(c for c in clip.cues if c.name == query.about_cue)
        emotion = clip.face_emotion if query.modality == "video" else clip.voice_emotion
        return yes_answer(cue, emotion) if rng.random() < mistakes.stress else query.reference
    if query.task.startswith("reasoning_basic"):
        return _careless_choice(clip, query, rng) if rng.random() < mistakes.basic else query.reference
    if query.task == "modality_agreement":
        face = EMOTION_ADJECTIVES[clip.face_emotion]
        careless = f"(A) Yes, the face looks {face} and the voice sounds {face}."
        return careless if rng.random() < mistakes.agreement else query.reference
    return description(clip, query.task, _careless_evidence(clip, rng, mistakes.describe))


def _careless_choice(clip: Clip, query: Query, rng: random.Random) -> str:
    """An option that is present but irrelevant, or fits the emotion but is absent."""
    emotion = clip.face_emotion if query.modality == "video" else clip.voice_emotion
    by_text = {c.text: c for c in clip.cues}
    options = [by_text[choice.split(") ", 1)[1]] for choice in query.choices]
    tempting = [
        i for i, c in enumerate(options) if (c.present and not c.emotions) or (not c.present and emotion in c.emotions)
    ]
    if not tempting:
        return query.reference
    pick = rng.choice(tempting)
    return f"({LETTERS[pick]}) {options[pick].text}."


def _careless_evidence(clip: Clip, rng: random.Random, rate: float) -> list[Cue]:
    """What a careless description cites: the true face and voice, the stereotyped cue, and what accompanies it."""
    cues = {c.name: c for c in clip.cues}
    cited: list[Cue] = []
    for groups, emotion in (
        (("face", "body", "shirt"), clip.face_emotion),
        (("voice", "event", "sound"), clip.voice_emotion),
    ):
        evidence, stereotype, companion = groups
        cited.append(next(cues[k.name] for k in GROUPS[evidence] if cues[k.name].present))
        typical = next(cues[k.name] for k in GROUPS[stereotype] if k.emotion == emotion)
        if rng.random() < rate or typical.present:
            cited.append(typical)
        if rng.random() < rate:
            cited.append(next(cues[k.name] for k in GROUPS[companion] if cues[k.name].present))
    return cited
