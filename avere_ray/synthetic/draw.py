"""Draws the frames of a scene: a face with an expression, hands, a shirt, a background object.

Coordinates are shares of the frame; `_Canvas` scales them. Frames are drawn at twice the size and averaged down. What
is no cue varies too: who it is, where and how large the person stands, the light, what stands before the camera, and
how the head moves.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from avere_ray.synthetic.scene import Scene

SIZE = 112
"""Height and width of a frame, pixels."""
FPS = 8
SECONDS = 2.0
_COUNT = round(SECONDS * FPS)

_SHIRTS = {
    "yellow_shirt": (240, 205, 40),
    "blue_shirt": (40, 80, 220),
    "red_shirt": (215, 40, 40),
    "purple_shirt": (140, 50, 170),
    "green_shirt": (40, 160, 70),
    "brown_shirt": (110, 62, 25),
    "white_shirt": (248, 248, 248),
}
_SKINS = ((255, 219, 185), (240, 194, 150), (214, 160, 115), (176, 120, 80), (130, 84, 55), (98, 62, 42))
_HAIRS = ((30, 25, 25), (90, 55, 30), (160, 110, 60), (200, 170, 100), (120, 120, 125))
_DARK = (35, 25, 25)
_WHITE = (250, 250, 250)
_BLUE = (70, 150, 255)
_MOVEMENTS = ("still", "nod", "shake", "sway")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Person:
    """What an identity always looks like."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    wide: float
    tall: float
    wall: tuple[int, ...]
    long_hair: bool
    glasses: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shot:
    """What is no cue and differs from clip to clip."""

    scale: float
    dx: float
    dy: float
    movement: str
    phase: float
    speed: float
    """Movements per second."""
    object_left: bool
    light: float
    """Brightness, 1 as drawn."""
    slant: float
    """How much brighter the right edge is than the left one."""
    pole: float
    """Where a pole before the camera stands, share of the width; 0: there is none."""


def draw_frames(scene: Scene) -> np.ndarray:
    """Frames of a scene, uint8 [T, SIZE, SIZE, 3] with T = SECONDS * FPS."""
    person, shot = _person_of(scene.identity), _shot_of(scene.seed)
    frames = np.empty((_COUNT, SIZE, SIZE, 3), np.uint8)
    back = _Canvas(Image.new("RGB", (2 * SIZE, 2 * SIZE), person.wall))
    _OBJECTS[scene.background](back, 0.02 if shot.object_left else 0.78, 0.04)
    for t in range(_COUNT):
        beat = math.sin(shot.phase + 2 * math.pi * shot.speed * t / FPS)
        canvas = _Canvas(back.image.copy())
        canvas.place(shot.scale, shot.dx, shot.dy)
        _draw_person(canvas, scene, person, shot.movement, beat)
        canvas.place(1.0, 0.0, 0.0)
        if shot.pole:
            canvas.box(shot.pole - 0.03, 0.0, shot.pole + 0.03, 1.0, (90, 90, 95))
        frames[t] = canvas.pixels()
    return _lit(frames, shot)


def _person_of(identity: int) -> _Person:
    rng = random.Random(f"identity/{identity}")
    return _Person(
        skin=rng.choice(_SKINS),
        hair=rng.choice(_HAIRS),
        wide=rng.uniform(0.23, 0.27),
        tall=rng.uniform(0.27, 0.31),
        wall=tuple(rng.randint(170, 230) for _ in range(3)),
        long_hair=rng.random() < 0.4,
        glasses=rng.random() < 0.2,
    )


def _shot_of(seed: int) -> _Shot:
    rng = random.Random(seed)
    return _Shot(
        scale=rng.uniform(0.88, 1.08),
        dx=rng.uniform(-0.05, 0.05),
        dy=rng.uniform(-0.015, 0.03),
        movement=rng.choice(_MOVEMENTS),
        phase=rng.uniform(0, 6.28),
        speed=rng.uniform(1.0, 1.8),
        object_left=rng.random() < 0.5,
        light=rng.uniform(0.75, 1.08),
        slant=rng.uniform(-0.25, 0.25),
        pole=rng.uniform(0.25, 0.75) if rng.random() < 0.12 else 0.0,
    )


def _lit(frames: np.ndarray, shot: _Shot) -> np.ndarray:
    """The light falls from one side."""
    gain = shot.light * (1 + shot.slant * np.linspace(-0.5, 0.5, SIZE, dtype=np.float32))
    return np.minimum(frames * gain[None, None, :, None], 255.0).astype(np.uint8)


class _Canvas:
    """A drawing at twice the final size, addressed in shares of the frame."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.place(1.0, 0.0, 0.0)

    def place(self, scale: float, dx: float, dy: float) -> None:
        """From here on all is drawn larger about the lower middle of the frame, and moved."""
        self._unit = 2 * SIZE * scale
        self._x0 = 2 * SIZE * (0.5 + dx - 0.5 * scale)
        self._y0 = 2 * SIZE * (1.0 + dy - scale)

    def _px(self, *values: float) -> list[float]:
        """Pairs x, y."""
        return [v * self._unit + (self._y0 if i % 2 else self._x0) for i, v in enumerate(values)]

    def _width(self, line: float) -> int:
        return max(1, round(line * self._unit))

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Any, line: float = 0.0) -> None:
        outline = _DARK if line else None
        self.draw.ellipse(self._px(x - rx, y - ry, x + rx, y + ry), fill=fill, outline=outline, width=self._width(line))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Any, line: float = 0.0) -> None:
        outline = _DARK if line else None
        self.draw.rectangle(self._px(x0, y0, x1, y1), fill=fill, outline=outline, width=self._width(line))

    def line(self, points: list[tuple[float, float]], fill: Any, width: float) -> None:
        self.draw.line([tuple(self._px(*p)) for p in points], fill=fill, width=self._width(width), joint="curve")

    def shape(self, points: list[tuple[float, float]], fill: Any, line: bool = False) -> None:
        self.draw.polygon([tuple(self._px(*p)) for p in points], fill=fill, outline=_DARK if line else None)

    def arc(self, x: float, y: float, rx: float, ry: float, start: int, end: int, width: float) -> None:
        self.draw.arc(self._px(x - rx, y - ry, x + rx, y + ry), start, end, fill=_DARK, width=self._width(width))

    def chord(self, x: float, y: float, rx: float, ry: float, start: int, end: int, fill: Any) -> None:
        self.draw.chord(self._px(x - rx, y - ry, x + rx, y + ry), start, end, fill=fill, outline=_DARK, width=2)

    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.reduce(2))


def _draw_person(c: _Canvas, scene: Scene, person: _Person, movement: str, beat: float) -> None:
    x = 0.5 + (0.025 * beat if movement in ("shake", "sway") else 0.0)
    y = 0.41 + (0.02 * beat if movement == "nod" else 0.0)
    lean = 0.02 * beat if movement == "sway" else 0.0
    shrug = -0.1 if "shrug" in scene.body else 0.0
    if person.long_hair:
        c.oval(x, y + 0.1, person.wide + 0.05, person.tall + 0.04, person.hair)
    c.shape(_shoulders(lean, shrug), _SHIRTS[scene.shirt], line=True)
    c.box(x - 0.07, y + 0.2, x + 0.07, 0.76, person.skin)
    c.oval(x, y - 0.05, person.wide + 0.03, person.tall + 0.02, person.hair)
    c.oval(x, y, person.wide, person.tall, person.skin, 0.006)
    c.chord(x, y, person.wide, person.tall, 215, 325, person.hair)
    _EXPRESSIONS[scene.face](c, x, y + 0.03, beat, scene.intensity)
    if person.glasses:
        for side in (-1, 1):
            c.oval(x + side * 0.1, y, 0.065, 0.06, None, 0.008)
    for name in scene.body:
        _BODY[name](c, x, y, person.skin, beat)


def _shoulders(lean: float, shrug: float) -> list[tuple[float, float]]:
    """Outline of the trunk; with a shrug the shoulders are up."""
    return [
        (0.1, 1.0),
        (0.14 + lean, 0.82 + 1.8 * shrug),
        (0.24 + lean, 0.77 + 1.8 * shrug),
        (0.4 + lean, 0.72),
        (0.6 + lean, 0.72),
        (0.76 + lean, 0.77 + 1.8 * shrug),
        (0.86 + lean, 0.82 + 1.8 * shrug),
        (0.9, 1.0),
    ]


# Expressions: k is the intensity, 0.6 to 1 -------------------------------------------------------------------------


def _eyes(c: _Canvas, x: float, y: float, ry: float, pupil: float) -> None:
    for side in (-1, 1):
        c.oval(x + side * 0.1, y - 0.03, 0.05, ry, (255, 255, 255), 0.006)
        c.oval(x + side * 0.1, y - 0.03, pupil, min(pupil, ry), _DARK)


def _brows(c: _Canvas, x: float, y: float, inner: float, outer: float, width: float) -> None:
    """Brow line from the nose side (`inner`) to the temple (`outer`), heights above the eyes."""
    for side in (-1, 1):
        c.line([(x + side * 0.035, y - 0.03 - inner), (x + side * 0.165, y - 0.03 - outer)], _DARK, width)


def _happy(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    for side in (-1, 1):
        c.arc(x + side * 0.1, y - 0.015, 0.05, 0.045, 180, 360, 0.016)
    _brows(c, x, y, 0.085, 0.075, 0.014)
    c.chord(x, y + 0.09, 0.06 + 0.075 * k, 0.04 + 0.06 * k + 0.01 * beat, 0, 180, _WHITE)


def _sad(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    _eyes(c, x, y, 0.028, 0.022)
    _brows(c, x, y, 0.06 + 0.04 * k, 0.06 - 0.015 * k, 0.016)
    c.arc(x, y + 0.2, 0.1, 0.035 + 0.04 * k + 0.005 * beat, 195, 345, 0.022)


def _angry(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    _eyes(c, x, y, 0.03, 0.022)
    _brows(c, x, y, 0.05 - 0.03 * k, 0.07 + 0.03 * k, 0.034)
    c.box(x - 0.085, y + 0.135, x + 0.085, y + 0.165 + 0.008 * beat, _DARK)


def _afraid(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    _eyes(c, x, y, 0.04 + 0.022 * k, 0.014)
    _brows(c, x, y, 0.085 + 0.04 * k, 0.085, 0.014)
    jaw = y + 0.145 + 0.04 * k + 0.01 * beat
    c.box(x - 0.11, y + 0.12, x + 0.11, jaw, (245, 245, 245), 0.008)
    for j in range(-2, 3):
        c.line([(x + 0.04 * j, y + 0.12), (x + 0.04 * j, jaw)], _DARK, 0.008)


def _surprised(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    _eyes(c, x, y, 0.05, 0.03)
    for side in (-1, 1):
        c.arc(x + side * 0.1, y - 0.07 - 0.03 * k, 0.06, 0.05, 190, 350, 0.014)
    c.oval(x, y + 0.155, 0.062, 0.04 + 0.04 * k + 0.008 * beat, (60, 15, 20), 0.008)


def _disgusted(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    for side in (-1, 1):
        c.line([(x + side * 0.05, y - 0.02), (x + side * 0.15, y - 0.035)], _DARK, 0.02)
    _brows(c, x, y, 0.045, 0.055, 0.022)
    for j in range(3):
        c.line([(x - 0.05, y + 0.02 + 0.028 * j), (x, y + 0.035 + 0.028 * j)], _DARK, 0.012)
        c.line([(x + 0.05, y + 0.02 + 0.028 * j), (x, y + 0.035 + 0.028 * j)], _DARK, 0.012)
    lip = y + 0.01 * beat
    c.line([(x - 0.09, lip + 0.15 + 0.03 * k), (x, y + 0.14), (x + 0.09, lip + 0.19 + 0.03 * k)], _DARK, 0.02)


def _relaxed(c: _Canvas, x: float, y: float, beat: float, k: float) -> None:
    _eyes(c, x, y, 0.036, 0.024)
    _brows(c, x, y, 0.075, 0.075, 0.014)
    c.line([(x - 0.075, y + 0.15), (x + 0.075, y + 0.15 + 0.003 * beat)], (150, 60, 60), 0.02)


_EXPRESSIONS = {
    "happiness": _happy,
    "sadness": _sad,
    "anger": _angry,
    "fear": _afraid,
    "surprise": _surprised,
    "disgust": _disgusted,
    "neutral": _relaxed,
}

# Bodily cues --------------------------------------------------------------------------------------------------------


def _clapping(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    gap = 0.05 + 0.012 * beat
    for side in (-1, 1):
        c.oval(0.5 + side * gap, 0.86, 0.05, 0.12, skin, 0.016)


def _tears(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        c.oval(x + side * 0.125, y + 0.11 + 0.01 * beat, 0.035, 0.09, _BLUE)


def _fists(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        cx, cy = 0.5 + side * 0.33, 0.87 + 0.012 * beat
        c.oval(cx, cy, 0.12, 0.105, skin, 0.016)
        for j in (-1, 0, 1):
            c.line([(cx + 0.05 * j, cy - 0.08), (cx + 0.05 * j, cy + 0.01)], _DARK, 0.014)


def _cheeks(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        c.oval(x + side * 0.28, y + 0.12, 0.075, 0.14, skin, 0.018)


def _palms(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        cx, cy = 0.5 + side * 0.375, 0.6 + 0.012 * beat
        for j in (-1, 0, 1):
            c.line([(cx + 0.04 * j, cy), (cx + 0.06 * j, cy - 0.17)], _DARK, 0.046)
            c.line([(cx + 0.04 * j, cy), (cx + 0.06 * j, cy - 0.165)], skin, 0.03)
        c.oval(cx, cy, 0.08, 0.08, skin, 0.014)


def _covered_mouth(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    c.line([(0.78, 1.0), (x + 0.08, y + 0.25)], _DARK, 0.15)
    c.line([(0.78, 1.0), (x + 0.08, y + 0.25)], skin, 0.12)
    c.oval(x, y + 0.215 + 0.006 * beat, 0.16, 0.065, skin, 0.016)
    for j in (-1, 0, 1):
        c.line([(x - 0.13, y + 0.215 + 0.022 * j), (x - 0.02, y + 0.215 + 0.022 * j)], _DARK, 0.008)


def _shrug(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    """The shoulders are up already; open hands at the sides."""
    for side in (-1, 1):
        c.line([(0.5 + side * 0.34, 0.84), (0.5 + side * 0.46, 0.8)], _DARK, 0.09)
        c.line([(0.5 + side * 0.34, 0.84), (0.5 + side * 0.46, 0.8)], skin, 0.066)


_BODY = {
    "clapping_hands": _clapping,
    "tears": _tears,
    "clenched_fists": _fists,
    "hands_at_cheeks": _cheeks,
    "raised_palms": _palms,
    "covered_mouth": _covered_mouth,
    "shrug": _shrug,
}

# Background objects -------------------------------------------------------------------------------------------------


def _plant(c: _Canvas, x: float, y: float) -> None:
    c.box(x + 0.05, y + 0.18, x + 0.15, y + 0.28, (150, 80, 40))
    for dx, dy in ((-0.05, 0.0), (0.0, -0.05), (0.05, 0.0)):
        c.oval(x + 0.1 + dx, y + 0.11 + dy, 0.045, 0.08, (30, 130, 40))


def _window(c: _Canvas, x: float, y: float) -> None:
    c.box(x, y, x + 0.2, y + 0.28, (150, 210, 250), 0.014)
    c.line([(x + 0.1, y), (x + 0.1, y + 0.28)], _DARK, 0.014)
    c.line([(x, y + 0.14), (x + 0.2, y + 0.14)], _DARK, 0.014)


def _clock(c: _Canvas, x: float, y: float) -> None:
    c.oval(x + 0.1, y + 0.12, 0.1, 0.1, (255, 255, 255), 0.016)
    c.line([(x + 0.1, y + 0.12), (x + 0.1, y + 0.05)], _DARK, 0.014)
    c.line([(x + 0.1, y + 0.12), (x + 0.15, y + 0.14)], _DARK, 0.014)


def _lamp(c: _Canvas, x: float, y: float) -> None:
    c.shape([(x + 0.04, y + 0.14), (x + 0.07, y), (x + 0.13, y), (x + 0.16, y + 0.14)], (255, 150, 40))
    c.box(x + 0.09, y + 0.14, x + 0.11, y + 0.3, (80, 80, 80))


def _painting(c: _Canvas, x: float, y: float) -> None:
    c.box(x, y + 0.02, x + 0.2, y + 0.24, (120, 85, 40))
    c.box(x + 0.03, y + 0.05, x + 0.17, y + 0.21, (235, 130, 170))
    c.shape([(x + 0.03, y + 0.21), (x + 0.1, y + 0.1), (x + 0.17, y + 0.21)], (90, 60, 140))


def _bookshelf(c: _Canvas, x: float, y: float) -> None:
    for row in range(2):
        for j, colour in enumerate(((200, 60, 50), (60, 110, 200), (240, 200, 70), (60, 150, 90))):
            c.box(x + 0.05 * j, y + 0.14 * row, x + 0.05 * j + 0.04, y + 0.14 * row + 0.11, colour)
        c.box(x - 0.01, y + 0.14 * row + 0.11, x + 0.21, y + 0.14 * row + 0.135, (95, 60, 30))


def _door(c: _Canvas, x: float, y: float) -> None:
    c.box(x + 0.02, y - 0.04, x + 0.19, y + 0.46, (120, 40, 45), 0.014)
    c.oval(x + 0.16, y + 0.24, 0.018, 0.018, (250, 220, 80))


_OBJECTS = {
    "plant": _plant,
    "window": _window,
    "clock": _clock,
    "lamp": _lamp,
    "painting": _painting,
    "bookshelf": _bookshelf,
    "door": _door,
}
