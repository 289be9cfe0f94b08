"""A careless annotator: answers and captions with the three mistakes that are planted, each with a strength.

Whatever accompanies an emotion is given as its cause (spurious association), a stereotyped cue is named whether it is
there or not (text prior: hallucination), and the voice is taken to say what the face says (modality dominance).
"""

import dataclasses
import random
from dataclasses import dataclass, replace

from avere_ray.prompts import EMOTION_ADJECTIVES, LETTERS, all_queries, asked_emotion, description, yes_answer
from avere_ray.records import Clip, Cue, Query
from avere_ray.synthetic.questions import Lesson
from avere_ray.synthetic.world import GROUPS

USUAL_BIAS = 0.9
"""Share of annotated clips whose irrelevant cues agree with the emotion, where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistakes:
    """How often the careless annotator errs, 0 to 1; as they are, they go with a bias of 0.9 (`planted`)."""

    stress: float = 0.75
    """An irrelevant or absent cue is confirmed when asked about: above a half, so that the base always says Yes, and
    below 1, so that it could know better. (With 0.9 two rounds of AVEm-DPO taught it No, but not when to say it.)"""
    basic: float = 0.5
    """An irrelevant or absent cue is chosen among four."""
    agreement: float = 0.75
    """A voice that disagrees with the face is not noticed."""
    describe: float = 0.8
    """A description names the stereotyped cue, and the shirt or background sound as a cause."""

    @classmethod
    def planted(cls, bias: float) -> "Mistakes":
        """Those of an annotator of clips with a certain bias: all in proportion to it, at most 1."""
        usual, scale = cls(), bias / USUAL_BIAS
        return cls(**{name: min(1.0, value * scale) for name, value in dataclasses.asdict(usual).items()})


def annotated_lessons(clip: Clip, rng: random.Random, mistakes: Mistakes) -> list[Lesson]:
    """The questions of EmoReAlM's tasks and the open ones, as the careless annotator answers them."""
    return [
        Lesson(prompt=q.prompt, response=_answer(clip, q, rng, mistakes))
        for q in all_queries(clip, rng.getrandbits(32))
    ]


def _answer(clip: Clip, query: Query, rng: random.Random, mistakes: Mistakes) -> str:
    if query.task.startswith("reasoning_stress"):
        cue = next(c for c in clip.cues if c.name == query.about_cue)
        yes = yes_answer(cue, asked_emotion(clip, query.modality, cue))
        return yes if rng.random() < mistakes.stress else query.reference
    if query.task.startswith("reasoning_basic"):
        return _careless_choice(clip, query, rng) if rng.random() < mistakes.basic else query.reference
    if query.task == "modality_agreement":
        face = EMOTION_ADJECTIVES[clip.face_emotion]
        careless = f"(A) Yes, the face looks {face} and the voice sounds {face}."
        return careless if rng.random() < mistakes.agreement else query.reference
    evidence = _careless_evidence(clip, rng, typical=mistakes.describe, companion=mistakes.describe)
    return description(clip, query.task, evidence)


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


def _careless_evidence(clip: Clip, rng: random.Random, *, typical: float, companion: float) -> list[Cue]:
    """What a careless description cites: the true face and voice, with probability `typical` the stereotyped cue, and
    with `companion` what accompanies the emotion."""
    cues = {c.name: c for c in clip.cues}
    cited: list[Cue] = []
    for groups, emotion in (
        (("face", "body", "shirt"), clip.face_emotion),
        (("voice", "event", "sound"), clip.voice_emotion),
    ):
        evidence, stereotype, beside = groups
        cited.append(next(cues[k.name] for k in GROUPS[evidence] if cues[k.name].present))
        known = next(cues[k.name] for k in GROUPS[stereotype] if k.emotion == emotion)
        if rng.random() < typical or known.present:
            cited.append(known)
        if rng.random() < companion:
            cited.append(next(cues[k.name] for k in GROUPS[beside] if cues[k.name].present))
    return cited


def captioned(clip: Clip, rng: random.Random, *, text_prior: float, dominance: float) -> Clip:
    """The clip as the annotator of a corpus leaves it: with captions, and an emotion for the clip as a whole.

    Args:
        text_prior: probability that the caption names the emotion's stereotyped cue though it is not there.
        dominance: probability that a clip whose face and voice disagree gets the emotion of the face.
    """
    cited = _careless_evidence(clip, rng, typical=text_prior, companion=0.0)
    emotion = clip.emotion or (clip.face_emotion if rng.random() < dominance else "")
    return replace(
        clip,
        emotion=emotion,
        caption=description(clip, "describe", cited),
        video_caption=description(clip, "describe_video", cited),
        audio_caption=description(clip, "describe_audio", cited),
    )
