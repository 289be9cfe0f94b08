"""One scene as a typed record, sampled with planted biases from a seed; and its cue inventory.

What is kept apart between training and held-out clips: persons, and cells of facial emotion and colour of the shirt.
Emotion and shirt have seven values each; the shirts that accompany an emotion in a split are those of certain offsets
from the one that agrees with it, so no held-out clip shows an emotion with a shirt that it has in training. The clips
that teach the tiny base to perceive ("direct") show every emotion with every shirt, since they teach each cue without
the bias; they share no whole combination with held-out clips, by the parity of object and sound.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from avere_ray.records import Clip, Cue
from avere_ray.synthetic.world import CUE, EMOTIONS, cue_of

Split = Literal["direct", "base", "train", "test", "validation"]

IDENTITIES: dict[Split, range] = {
    "direct": range(0, 400),
    "base": range(0, 400),
    "train": range(400, 480),
    "test": range(480, 540),
    "validation": range(540, 600),
}
"""Persons by split; only the two that make the tiny base share theirs."""
SHIRT_OFFSETS: dict[Split, tuple[int, ...]] = {
    "direct": (0, 1, 2, 3, 4, 5, 6),
    "base": (0, 1, 2, 3),
    "train": (0, 1, 2, 3),
    "test": (4, 5),
    "validation": (6,),
}
"""Shirts that an emotion of the face is seen with, as steps from the one that agrees with it."""
_PARITY: dict[Split, int] = {"direct": 0, "test": 1, "validation": 1}
"""Of the sum of the indices of object and sound, where shirts do not keep splits apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that is drawn and heard in one clip. Drawing the same record twice gives the same pixels."""

    scene_id: str
    split: Split
    identity: int
    face: str
    """Emotion the face shows."""
    voice: str
    """Emotion the voice tells."""
    body: tuple[str, ...]
    """Bodily cues shown, names of cues of group "body"."""
    events: tuple[str, ...]
    """Vocal events heard, names of cues of group "event"."""
    shirt: str
    background: str
    sound: str
    intensity: float
    """How strongly face and voice show their emotions, 0.6 to 1."""
    seed: int
    """Seed of what is no cue: place, size, light, occlusion, head movement, timing."""

    def combination(self) -> tuple[str, str, str, str]:
        """What the split by combinations is about."""
        return (self.face, self.shirt, self.background, self.sound)


def sample_scene(
    scene_id: str, split: Split, seed: int, *, bias: float, mismatch: float, free_extras: bool = False
) -> Scene:
    """Draws one scene.

    Args:
        bias: share of scenes in which an irrelevant cue is the one that agrees with the emotion, for each of the three
            on its own; below 1/7, which is chance, they are independent of the emotion. In held-out splits the shirt
            never agrees, whatever the bias.
        mismatch: share of scenes whose face and voice show different emotions.
        free_extras: bodily cues and vocal events are independent of the emotion, for teaching perception.
    """
    rng = random.Random(f"{seed}/{split}/{scene_id}")
    face = rng.randrange(len(EMOTIONS))
    voice = face if rng.random() >= mismatch else _another(rng, range(len(EMOTIONS)), face)
    everything = range(len(EMOTIONS))
    shirt = _companion(rng, face, [(face + offset) % len(EMOTIONS) for offset in SHIRT_OFFSETS[split]], bias)
    background = _companion(rng, face, everything, bias)
    sounds = [i for i in everything if split not in _PARITY or (background + i) % 2 == _PARITY[split]]
    sound = _companion(rng, voice, sounds, bias)
    return Scene(
        scene_id=scene_id,
        split=split,
        identity=rng.choice(IDENTITIES[split]),
        face=EMOTIONS[face],
        voice=EMOTIONS[voice],
        body=_extra(rng, "body", face, free=free_extras),
        events=_extra(rng, "event", voice, free=free_extras),
        shirt=cue_of("shirt", shirt).name,
        background=cue_of("object", background).name,
        sound=cue_of("sound", sound).name,
        intensity=round(rng.uniform(0.6, 1.0), 3),
        seed=rng.getrandbits(48),
    )


def _companion(rng: random.Random, emotion: int, allowed: Sequence[int], bias: float) -> int:
    """An irrelevant cue: with probability `bias` the one that agrees with the emotion, else another of those allowed.

    At chance level and below, and where the agreeing one is not allowed, all allowed ones are equally likely.
    """
    if bias <= 1 / len(EMOTIONS) or emotion not in allowed:
        return rng.choice(allowed)
    return emotion if rng.random() < bias else _another(rng, allowed, emotion)


def _another(rng: random.Random, values: Sequence[int], value: int) -> int:
    return rng.choice([v for v in values if v != value])


def _extra(rng: random.Random, group: str, emotion: int, *, free: bool) -> tuple[str, ...]:
    """The emotion's own bodily cue or vocal event in half of the scenes, now and then one of another emotion."""
    if free:
        return (cue_of(group, rng.randrange(len(EMOTIONS))).name,) if rng.random() < 0.8 else ()
    names = [cue_of(group, emotion).name] if rng.random() < 0.5 else []
    if not names and rng.random() < 0.3:
        names.append(cue_of(group, rng.randrange(len(EMOTIONS))).name)
    return tuple(names)


_FIELD = {"face": "face", "voice": "voice", "shirt": "shirt", "object": "background", "sound": "sound"}
_LISTS = {"body": "body", "event": "events"}


def with_cue(scene: Scene, name: str) -> Scene:
    """The same scene with one cue brought in, in the place of the one of its kind where a scene always has one.

    Together with `scene` it is a counterfactual pair: all else is drawn and heard alike.

    Raises:
        KeyError: the world has no cue of that name.
    """
    kind = CUE[name]
    if kind.group in _LISTS:
        field = _LISTS[kind.group]
        value: object = (*(n for n in getattr(scene, field) if n != name), name)
    else:
        field, value = _FIELD[kind.group], kind.emotion or name
    return _renamed(scene, f"+{name}", field, value)


def without_cue(scene: Scene, name: str) -> Scene:
    """The same scene without one of its bodily cues or vocal events.

    Raises:
        KeyError: the scene does not have it, or it is of a kind that a scene always has one of.
    """
    field = _LISTS[CUE[name].group]
    if name not in getattr(scene, field):
        raise KeyError(name)
    return _renamed(scene, f"-{name}", field, tuple(n for n in getattr(scene, field) if n != name))


def _renamed(scene: Scene, suffix: str, field: str, value: object) -> Scene:
    changes: dict[str, object] = {"scene_id": scene.scene_id + suffix, field: value}
    return replace(scene, **changes)  # type: ignore[arg-type]


def present_cues(scene: Scene) -> frozenset[str]:
    """Names of all cues in the scene."""
    face, voice = EMOTIONS.index(scene.face), EMOTIONS.index(scene.voice)
    return frozenset(
        {
            cue_of("face", face).name,
            cue_of("voice", voice).name,
            scene.shirt,
            scene.background,
            scene.sound,
            *scene.body,
            *scene.events,
        }
    )


def inventory(scene: Scene) -> tuple[Cue, ...]:
    """Every cue of the world, present or absent in this scene, with what it is evidence for."""
    present = present_cues(scene)
    return tuple(
        Cue(
            name=c.name,
            modality=c.modality,
            text=c.text,
            present=c.name in present,
            emotions=(c.emotion,) if c.emotion else (),
        )
        for c in CUE.values()
    )


def clip_of(scene: Scene, uri: str) -> Clip:
    """The scene's Clip record."""
    agree = scene.face == scene.voice
    return Clip(
        clip_id=scene.scene_id,
        uri=uri,
        split=scene.split,
        identity=f"person{scene.identity:03d}",
        emotion=scene.face if agree else "",
        face_emotion=scene.face,
        voice_emotion=scene.voice,
        cues=inventory(scene),
    )
