"""Direct questions about single cues, answered truthfully: what the tiny base learns to perceive from.

The lessons in words alone teach it to look up and to compare; the questions with options measure what it perceives.
What it is taught wrongly is in `annotator`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from avere_ray.prompts import EMOTION_ADJECTIVES, LETTERS, agreement, bare, is_plural, join_phrases
from avere_ray.records import Clip, Cue, CueModality, Query
from avere_ray.synthetic.world import CUE, EMOTIONS, GROUPS, CueKind, cue_of


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


_WHICH = (
    ("shirt", "What does the person wear?", "The person wears {cue}."),
    ("object", "What is in the background?", "There is {cue}."),
    ("face", "What does the face look like?", "I see {cue}."),
    ("voice", "What does the voice sound like?", "I hear {cue}."),
    ("sound", "What is the background sound?", "I hear {cue}."),
)


_MATCH = (
    "Do the face and the voice match?",
    "Do the face and the voice tell the same feeling?",
    "Does the voice sound as the face looks?",
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
    lessons += [_match(clip.face_emotion, clip.voice_emotion, rng) for _ in range(_match_weight(clip, rng))]
    for group in ("body", "event"):
        there = [k for k in GROUPS[group] if cues[k.name].present]
        absent = [k for k in GROUPS[group] if not cues[k.name].present]
        lessons += [_presence(cues[k.name], k) for k in [*there, rng.choice(absent)]]
    lessons += [_presence_any(cues, group, rng) for group in ("face", "shirt", "object", "voice", "sound")]
    return [*lessons, *(_only_one(cues, modality, rng) for modality in ("video", "audio"))]


def reading_lessons(rng: random.Random) -> Lesson:
    """A question about cues that are told in words, without any clip: teaches to look up and to compare."""
    kinds = list(CUE.values())
    if rng.random() < 0.3:
        return _told_match(rng)
    if rng.random() < 0.5:
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


def _told_match(rng: random.Random) -> Lesson:
    """Whether a face and a voice, told in words among other cues, show the same emotion; half of them do."""
    face = rng.randrange(len(EMOTIONS))
    voice = face if rng.random() < 0.5 else rng.choice([i for i in range(len(EMOTIONS)) if i != face])
    seen = [cue_of("face", face).text, *_some(rng, ("body", "shirt", "object"))]
    heard = [cue_of("voice", voice).text, *_some(rng, ("event", "sound"))]
    rng.shuffle(seen)
    rng.shuffle(heard)
    lesson = _match(EMOTIONS[face], EMOTIONS[voice], rng)
    return Lesson(prompt=f"{_told(seen)} I hear {join_phrases(heard)}. {lesson.prompt}", response=lesson.response)


def _match_weight(clip: Clip, rng: random.Random) -> int:
    """How often to ask whether face and voice match, so that Yes is right as often as No where a fifth of clips do."""
    return 2 if clip.face_emotion == clip.voice_emotion else rng.randrange(2)


def _some(rng: random.Random, groups: Sequence[str]) -> list[str]:
    """Of each group a cue in words, or none, equally often."""
    return [rng.choice(GROUPS[group]).text for group in groups if rng.random() < 0.5]


def _match(face: str, voice: str, rng: random.Random) -> Lesson:
    """Whether these emotions of face and voice are the same, in words or by letter."""
    same = face == voice
    question, answer = rng.choice(_MATCH), agreement(face, voice, same)
    if rng.random() < 0.5:
        return Lesson(prompt=question, response=answer)
    return Lesson(prompt=f"{question} (A) Yes (B) No", response=f"({'A' if same else 'B'}) {answer}")


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


def perception_queries(clip: Clip, rng: random.Random) -> list[Query]:
    """What a trained model must still perceive: which cue of a kind a clip has, by letter; and whether it has a certain
    gesture and vocal event, of which it may have none."""
    cues = {c.name: c for c in clip.cues}
    which = [_as_query(clip, group, _by_letter(cues, group, question, rng)) for group, question, _ in _WHICH]
    return which + [_presence_query(clip, cues, group, rng) for group, *_ in _WHICH_IF_ANY]


def _presence_query(clip: Clip, cues: dict[str, Cue], group: str, rng: random.Random) -> Query:
    """Of a cue that is there in half of the cases, as far as the clip has one."""
    kinds = {there: [k for k in GROUPS[group] if cues[k.name].present is there] for there in (True, False)}
    kind = rng.choice(kinds[bool(kinds[True]) and rng.random() < 0.5])
    lesson = _presence(cues[kind.name], kind)
    return Query(
        query_id=f"{clip.clip_id}/perception_{group}",
        clip_id=clip.clip_id,
        modality=kind.modality,
        task=f"perception_{group}",
        prompt=lesson.prompt,
        choices=("(A) Yes", "(B) No"),
        answer="A" if cues[kind.name].present else "B",
        about_cue=kind.name,
        reference=lesson.response,
    )


def _as_query(clip: Clip, group: str, lesson: Lesson) -> Query:
    _, *choices = lesson.prompt.split(" (")
    return Query(
        query_id=f"{clip.clip_id}/perception_{group}",
        clip_id=clip.clip_id,
        modality=CUE[GROUPS[group][0].name].modality,
        task=f"perception_{group}",
        prompt=lesson.prompt,
        choices=tuple(f"({choice}" for choice in choices),
        answer=lesson.response[1],
        reference=lesson.response,
    )


def perception_questions(clip: Clip) -> list[Question]:
    """Direct questions about each cue of a clip, and whether face and voice match, to score perception with."""
    cues = {c.name: c for c in clip.cues}
    questions = []
    for group, prompt, answer in _WHICH:
        kinds = GROUPS[group]
        right = next(i for i, k in enumerate(kinds) if cues[k.name].present)
        options = tuple(answer.format(cue=k.text) for k in kinds)
        questions.append(Question(scores=(f"perception/{group}",), prompt=prompt, options=options, right=right))
    questions += [_presence_question(cues[kind.name], kind) for kind in CUE.values()]
    return [*questions, _match_question(clip)]


def _match_question(clip: Clip) -> Question:
    face, voice = clip.face_emotion, clip.voice_emotion
    right, wrong = (agreement(face, voice, (face == voice) is truth) for truth in (True, False))
    return Question(scores=("perception/match",), prompt=_MATCH[0], options=(right, wrong), right=0)


def _presence_question(cue: Cue, kind: CueKind) -> Question:
    both = tuple(_presence(replace(cue, present=there), kind).response for there in (True, False))
    name = f"perception/{kind.group}_{'present' if cue.present else 'absent'}"
    return Question(scores=(name,), prompt=_presence(cue, kind).prompt, options=both, right=0 if cue.present else 1)
