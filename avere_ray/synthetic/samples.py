"""A few drawn clips to try a model on, and the default references for `avere_ray.insight`: three of them, decoded.

They are drawn when they are needed (some 30 ms each), so that nothing binary is shipped. Persons are of no split.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.insight import Reference
from avere_ray.media import decode_clip
from avere_ray.records import Clip
from avere_ray.synthetic.clips import write_clip
from avere_ray.synthetic.scene import Scene


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleClip:
    """One drawn clip."""

    name: str
    """Key, also of its file."""
    title: str
    """What a person reads before choosing it."""
    questions: tuple[str, ...]
    """What is worth asking about it."""
    emotion: str
    """What face and voice show; empty when they differ."""
    media: bytes
    """The mp4 file."""


_OPEN = "How does the person feel, and how can you tell?"
_AGREE = "Do the face and the voice show the same emotion? (A) Yes (B) No"
# Seeds at which the tiny base sees the face; at one in ten or so it does not.
_PLANS: tuple[tuple[str, str, tuple[str, ...], Scene], ...] = (
    (
        "delight",
        "Delighted, in a blue shirt",
        (_OPEN, "Is the blue shirt a sign that the person is happy? (A) Yes (B) No", _AGREE),
        Scene(scene_id="delight", split="test", identity=901, face="happiness", voice="happiness",
              body=("clapping_hands",), events=("laughter",), shirt="blue_shirt", background="lamp", sound="rain",
              intensity=1.0, seed=1),
    ),
    (
        "grief",
        "In tears, with flute music",
        (_OPEN, "Are the tears a sign that the person is sad? (A) Yes (B) No", _AGREE),
        Scene(scene_id="grief", split="test", identity=902, face="sadness", voice="sadness", body=("tears",),
              events=("sobbing",), shirt="green_shirt", background="clock", sound="flute", intensity=1.0, seed=3),
    ),
    (
        "two-minds",
        "A smile with an angry voice",
        (_OPEN, _AGREE, "How does the person sound, and what shows it?"),
        Scene(scene_id="two-minds", split="test", identity=903, face="happiness", voice="anger", body=(),
              events=("growling",), shirt="purple_shirt", background="window", sound="birds", intensity=1.0, seed=3),
    ),
    (
        "no-fists",
        "Angry, with empty hands",
        (_OPEN, "Are the clenched fists a sign that the person is angry? (A) Yes (B) No", _AGREE),
        Scene(scene_id="no-fists", split="test", identity=904, face="anger", voice="anger", body=(), events=(),
              shirt="yellow_shirt", background="plant", sound="drums", intensity=1.0, seed=5),
    ),
)  # fmt: skip
_REFERENCES = ("delight", "grief", "no-fists")


def sample_clips(names: Sequence[str] = ()) -> list[SampleClip]:
    """The clips, or those named, drawn now.

    Raises:
        StorageError: the temporary folder cannot be written.
    """
    samples = []
    with tempfile.TemporaryDirectory(prefix="samples-") as folder:
        for name, title, questions, scene in _PLANS:
            if names and name not in names:
                continue
            write_clip(scene, path := Path(folder) / f"{name}.mp4")
            emotion = scene.face if scene.face == scene.voice else ""
            samples.append(SampleClip(name=name, title=title, questions=questions, emotion=emotion,
                                      media=path.read_bytes()))  # fmt: skip
    return samples


def default_references(spec: DecodeConfig) -> list[Reference]:
    """Clips of joy, grief and anger, decoded as `spec` says; none where it cannot sample clips of two seconds.

    Two remain for an answer that names one of these emotions, since it is held against the others.

    Raises:
        StorageError: the temporary folder cannot be written.
    """
    references = []
    with tempfile.TemporaryDirectory(prefix="references-") as folder:
        for sample in sample_clips(_REFERENCES):
            (path := Path(folder) / f"{sample.name}.mp4").write_bytes(sample.media)
            clip = Clip(clip_id=f"reference/{sample.name}", uri=str(path))
            try:
                references.append(Reference(clip=decode_clip(clip, path, spec), emotion=sample.emotion))
            except ClipDecodeError:
                return []
    return references
