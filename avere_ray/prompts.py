"""Question templates: what can be asked about a clip, given its cue inventory, and the faithful answer to each.

The five task names are EmoReAlM's; "describe*" are open questions. The template decides which modality a query asks
about, and so what a modality swap replaces. References: EmoReAlM (arXiv 2602.07054), task definitions in section 3.
"""

import itertools
import random
from collections.abc import Callable, Sequence

from avere_ray.records import Clip, Cue, CueModality, Modality, Query

EMOTION_ADJECTIVES = {
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "afraid",
    "surprise": "surprised",
    "disgust": "disgusted",
    "neutral": "neutral",
}
LETTERS = "ABCDEFGH"
TASKS = (
    "reasoning_basic_audio",
    "reasoning_basic_video",
    "modality_agreement",
    "reasoning_stress_audio",
    "reasoning_stress_video",
)
"""The five tasks of EmoReAlM."""
OPEN_TASKS = ("describe", "describe_audio", "describe_video")

_STRESS = ("Does {cue} show that the person is {adjective}?", "Is {cue} a sign that the person is {adjective}?")
_STRESS_PLURAL = ("Do {cue} show that the person is {adjective}?", "Are {cue} a sign that the person is {adjective}?")
_BASIC = {
    "video": ("Which visual cue shows how the person feels?", "What do you see that tells the emotion?"),
    "audio": ("Which sound shows how the person feels?", "What do you hear that tells the emotion?"),
}
_AGREEMENT = ("Do the face and the voice show the same emotion?", "Is the emotion of the voice that of the face?")
_DESCRIBE: dict[str, tuple[str, ...]] = {
    "describe": ("Describe the emotion of the person and why.", "How does the person feel, and how can you tell?"),
    "describe_video": ("How does the person look, and what shows it?",),
    "describe_audio": ("How does the person sound, and what shows it?",),
}
_ASKED_ABOUT: dict[str, Modality] = {
    "describe": "audio_video", "describe_video": "video", "describe_audio": "audio"
}  # fmt: skip


def definite(cue_text: str) -> str:
    """ "a wide smile" -> "the wide smile"; "clenched fists" -> "the clenched fists"."""
    return "the " + bare(cue_text)


def bare(cue_text: str) -> str:
    """The phrase without its article."""
    for article in ("a ", "an ", "the "):
        if cue_text.startswith(article):
            return cue_text[len(article) :]
    return cue_text


def is_plural(cue_text: str) -> bool:
    """Whether the phrase takes "are": no article, and its head noun ends in s."""
    head = cue_text.split(" at ")[0]
    return head == bare(head) and head.endswith("s") and not head.endswith("ss")


def join_phrases(phrases: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def shown_emotion(clip: Clip, modality: Modality) -> str:
    """The emotion a question about that modality is held against."""
    return {"video": clip.face_emotion, "audio": clip.voice_emotion}.get(modality, clip.emotion) or clip.emotion


def evidence_cues(clip: Clip, modality: CueModality) -> list[Cue]:
    """Present cues of the modality that are evidence for the emotion it shows."""
    emotion = shown_emotion(clip, modality)
    return [c for c in clip.cues if c.modality == modality and c.present and emotion in c.emotions]


def irrelevant_cues(clip: Clip, modality: CueModality) -> list[Cue]:
    """Present cues of the modality that say nothing about any emotion."""
    return [c for c in clip.cues if c.modality == modality and c.present and not c.emotions]


def absent_cues(clip: Clip, modality: CueModality) -> list[Cue]:
    """Cues of the modality that would fit the emotion it shows but are not in the clip."""
    emotion = shown_emotion(clip, modality)
    return [c for c in clip.cues if c.modality == modality and not c.present and emotion in c.emotions]


def foreign_cues(clip: Clip, modality: CueModality) -> dict[str, list[Cue]]:
    """Cues of the modality that are not in the clip and fit other emotions than it shows, by their first emotion, in
    the order of the inventory."""
    emotion, found = shown_emotion(clip, modality), dict[str, list[Cue]]()
    for cue in clip.cues:
        if cue.modality == modality and not cue.present and cue.emotions and emotion not in cue.emotions:
            found.setdefault(cue.emotions[0], []).append(cue)
    return {e: cues for e, cues in found.items() if e in EMOTION_ADJECTIVES}


def asked_emotion(clip: Clip, modality: Modality, cue: Cue) -> str:
    """The emotion that a stress question about a cue names: the shown one, or for a cue of others, the cue's first."""
    emotion = shown_emotion(clip, modality)
    return emotion if emotion in cue.emotions or not cue.emotions else cue.emotions[0]


# Faithful answers -----------------------------------------------------------------------------------------------


def yes_answer(cue: Cue, emotion: str) -> str:
    """Says that a cue is evidence for an emotion."""
    return f"(A) Yes, {evidence(cue, emotion)}."


def evidence(cue: Cue, emotion: str) -> str:
    """ "the wide smile shows happiness"."""
    return f"{definite(cue.text)} {'show' if is_plural(cue.text) else 'shows'} {emotion}"


def no_answer(cue: Cue) -> str:
    """Says that a cue is absent, or present but no evidence."""
    if not cue.present:
        return f"(B) No, there {'are' if is_plural(cue.text) else 'is'} no {bare(cue.text)}."
    return f"(B) No, {definite(cue.text)} {'say' if is_plural(cue.text) else 'says'} nothing about the emotion."


def agreement_answer(clip: Clip) -> str:
    """The letter of the right answer to whether face and voice agree, and `agreement`."""
    same = clip.face_emotion == clip.voice_emotion
    return f"({'A' if same else 'B'}) {agreement(clip.face_emotion, clip.voice_emotion, same)}"


def agreement(face: str, voice: str, same: bool) -> str:
    """Says that the emotions of face and voice are the same, or that they are not, with both named."""
    looks, sounds = f"the face looks {EMOTION_ADJECTIVES[face]}", f"the voice sounds {EMOTION_ADJECTIVES[voice]}"
    return f"Yes, {looks} and {sounds}." if same else f"No, {looks} but {sounds}."


def description(clip: Clip, task: str, cues: Sequence[Cue] | None = None) -> str:
    """The answer to an open question that names the emotion and its evidence.

    Args:
        cues: what to cite; the clip's evidence when None.
    """
    overall = _overall_alone(clip)
    parts = [f"The person is {EMOTION_ADJECTIVES[clip.emotion]}."] if overall else []
    media: list[tuple[str, CueModality, str, str]] = [
        ("describe_audio", "video", "looks", "see"), ("describe_video", "audio", "sounds", "hear")
    ]  # fmt: skip
    for without, medium, shows, perceive in media:
        if task == without:
            continue
        cited = [c for c in cues if c.modality == medium] if cues is not None else evidence_cues(clip, medium)
        if not overall:
            parts.append(f"The person {shows} {EMOTION_ADJECTIVES[shown_emotion(clip, medium)]}.")
        if cited:
            parts.append(f"I {perceive} {join_phrases([c.text for c in cited])}.")
    return " ".join(parts)


def _overall_alone(clip: Clip) -> bool:
    """Whether a clip has one emotion for both media, as most corpora annotate it."""
    return bool(clip.emotion) and not (clip.face_emotion or clip.voice_emotion)


# Queries --------------------------------------------------------------------------------------------------------


def stress_query(clip: Clip, modality: CueModality, subtype: str, rng: random.Random) -> Query | None:
    """A Yes/No question whether one cue shows an emotion that it fits.

    `subtype`: "no_hallucination" (a present, relevant cue), "spurious" (present, irrelevant; the emotion is the shown
    one), "hallucination" (absent; see `_invented_cue`). None when the clip has no such cue.
    """
    if shown_emotion(clip, modality) not in EMOTION_ADJECTIVES:
        return None
    if subtype == "hallucination":
        cue = _invented_cue(clip, modality, rng)
    else:
        cues = (evidence_cues if subtype == "no_hallucination" else irrelevant_cues)(clip, modality)
        cue = rng.choice(cues) if cues else None
    if cue is None:
        return None
    emotion = asked_emotion(clip, modality, cue)
    template = rng.choice(_STRESS_PLURAL if is_plural(cue.text) else _STRESS)
    question = template.format(cue=definite(cue.text), adjective=EMOTION_ADJECTIVES[emotion])
    right = subtype == "no_hallucination"
    return _choice_query(
        clip,
        modality,
        f"reasoning_stress_{modality}",
        question,
        ("Yes", "No"),
        0 if right else 1,
        reference=yes_answer(cue, emotion) if right else no_answer(cue),
        subtype=subtype,
        about=cue.name,
    )


def _invented_cue(clip: Clip, modality: CueModality, rng: random.Random) -> Cue | None:
    """An absent cue to be asked about: one that fits the shown emotion, or the first of another emotion.

    An inventory lists first what a clip that shows an emotion always has (the face, the voice). Such a cue is present
    in every clip of its own emotion, so if only absent ones of the shown emotion were asked about, its name alone would
    tell the answer. Where both kinds exist, each is taken in half of the clips.
    """
    fitting, foreign = absent_cues(clip, modality), foreign_cues(clip, modality)
    if fitting and (not foreign or rng.random() < 0.5):
        return rng.choice(fitting)
    return foreign[rng.choice(list(foreign))][0] if foreign else None


def basic_query(clip: Clip, modality: CueModality, rng: random.Random) -> Query | None:
    """A question with four cues to choose from: one present and relevant; the others irrelevant or absent.

    None when the clip has too few cues.
    """
    evidence, wrong = evidence_cues(clip, modality), _wrong_cues(clip, modality, rng)
    if not evidence or len(wrong) < 3:
        return None
    right = rng.choice(evidence)
    options = [*wrong, right]
    rng.shuffle(options)
    gold = options.index(right)
    return _choice_query(
        clip,
        modality,
        f"reasoning_basic_{modality}",
        rng.choice(_BASIC[modality]),
        [c.text for c in options],
        gold,
        reference=f"({LETTERS[gold]}) {right.text}.",
        about=right.name,
    )


def _wrong_cues(clip: Clip, modality: CueModality, rng: random.Random) -> list[Cue]:
    """An irrelevant cue of the clip and absent ones, in one of three arrangements, so that the options tell little.

    Two options of one emotion are as often the right one and an absent one of its emotion ("rival") as two wrong ones
    of another emotion ("pair"), each in a quarter of the questions; else all are of different emotions.
    """
    irrelevant, absent, foreign = (
        irrelevant_cues(clip, modality),
        absent_cues(clip, modality),
        foreign_cues(clip, modality),
    )
    pairs = [cues for cues in foreign.values() if len(cues) > 1]
    beside = [rng.choice(irrelevant)] if irrelevant else []
    singles = [rng.choice(cues) for cues in foreign.values()]
    rng.shuffle(singles)
    draw = rng.random()
    if draw < 0.25 and pairs:
        beside += rng.sample(rng.choice(pairs), 2)
    elif draw >= 0.5 and absent:
        beside += [rng.choice(absent)]
    emotions = {e for cue in beside for e in cue.emotions}
    return (beside + [c for c in singles if not emotions & set(c.emotions)])[:3]


def agreement_query(clip: Clip, rng: random.Random) -> Query | None:
    """Whether face and voice show the same emotion; None when either is unknown."""
    if not (clip.face_emotion in EMOTION_ADJECTIVES and clip.voice_emotion in EMOTION_ADJECTIVES):
        return None
    gold = 0 if clip.face_emotion == clip.voice_emotion else 1
    return _choice_query(
        clip,
        "audio_video",
        "modality_agreement",
        rng.choice(_AGREEMENT),
        ("Yes", "No"),
        gold,
        reference=agreement_answer(clip),
    )


def open_query(clip: Clip, task: str, rng: random.Random) -> Query | None:
    """An open question about the emotion and its evidence; None when the emotion asked about is unknown."""
    modality = _ASKED_ABOUT[task]
    needed = [clip.face_emotion] * (modality != "audio") + [clip.voice_emotion] * (modality != "video")
    if modality == "audio_video" and _overall_alone(clip):
        needed = [clip.emotion]
    if not all(e in EMOTION_ADJECTIVES for e in needed):
        return None
    return Query(
        query_id=f"{clip.clip_id}/{task}",
        clip_id=clip.clip_id,
        modality=modality,
        task=task,
        prompt=rng.choice(_DESCRIBE[task]),
        reference=description(clip, task),
    )


def plain_queries(clip: Clip) -> list[Query]:
    """One open question per modality, for clips of which nothing is known: to compare what two models make of them."""
    return [
        Query(
            query_id=f"{clip.clip_id}/{task}/plain",
            clip_id=clip.clip_id,
            modality=modality,
            task=task,
            prompt=_DESCRIBE[task][0],
        )
        for task, modality in _ASKED_ABOUT.items()
    ]


def _choice_query(
    clip: Clip,
    modality: Modality,
    task: str,
    question: str,
    options: Sequence[str],
    gold: int,
    *,
    reference: str,
    subtype: str = "",
    about: str = "",
) -> Query:
    choices = tuple(f"({LETTERS[i]}) {text}" for i, text in enumerate(options))
    suffix = f"/{subtype}" if subtype else ""
    return Query(
        query_id=f"{clip.clip_id}/{task}{suffix}",
        clip_id=clip.clip_id,
        modality=modality,
        task=task,
        prompt=question + " " + " ".join(choices),
        choices=choices,
        answer=LETTERS[gold],
        subtype=subtype,
        about_cue=about,
        reference=reference,
    )


_BUILDERS: tuple[Callable[[Clip, random.Random], Query | None], ...] = (
    *(
        lambda c, r, m=m, s=s: stress_query(c, m, s, r)
        for m in ("video", "audio")
        for s in ("no_hallucination", "spurious", "hallucination")
    ),
    *(lambda c, r, m=m: basic_query(c, m, r) for m in ("video", "audio")),
    agreement_query,
    *(lambda c, r, t=t: open_query(c, t, r) for t in OPEN_TASKS),
)


def all_queries(clip: Clip, seed: int) -> list[Query]:
    """Every query that can be asked about a clip, one per template; wording and cues follow from the seed."""
    queries = [build(clip, random.Random(f"{seed}/{clip.clip_id}/{i}")) for i, build in enumerate(_BUILDERS)]
    return [q for q in queries if q is not None]


def training_queries(clip: Clip, count: int, seed: int, round_: int) -> list[Query]:
    """`count` of the queries that can be asked about a clip, another choice each round; fewer when it allows fewer.

    Every task is as likely as another, however many questions it has about a clip, and the open ones count as one; a
    second query of a task comes after one of each. What a query asks depends on clip and seed alone, so its id means
    the same in every round.
    """
    rng = random.Random(f"{seed}/{clip.clip_id}/round{round_}")
    tasks: dict[str, list[Query]] = {}
    for query in rng.sample(queries := all_queries(clip, seed), len(queries)):
        tasks.setdefault("open" if query.task in OPEN_TASKS else query.task, []).append(query)
    order = rng.sample(list(tasks), len(tasks))
    in_turn = [q for turn in itertools.zip_longest(*(tasks[name] for name in order)) for q in turn if q is not None]
    return sorted(in_turn[:count], key=lambda q: q.query_id)
