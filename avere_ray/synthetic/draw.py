"""Draws the frames of a scene: a face with an expression, hands, a shirt, a background object.

Coordinates are shares of the frame; `_Canvas` scales them. Frames are drawn at twice the size and averaged down.
"""

import math
import random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from avere_ray.synthetic.scene import Scene

SIZE = 112
"""Height and width of a frame, pixels."""
FPS = 8
SECONDS = 2.0

_SHIRTS = {
    "yellow_shirt": (240, 205, 40),
    "blue_shirt": (40, 80, 220),
    "red_shirt": (215, 40, 40),
    "purple_shirt": (140, 50, 170),
    "green_shirt": (40, 160, 70),
}
_SKINS = ((255, 219, 185), (240, 194, 150), (214, 160, 115), (176, 120, 80), (130, 84, 55), (98, 62, 42))
_HAIRS = ((30, 25, 25), (90, 55, 30), (160, 110, 60), (200, 170, 100), (120, 120, 125))
_DARK = (35, 25, 25)
_BLUE = (70, 150, 255)


def draw_frames(scene: Scene) -> np.ndarray:
    """Frames of a scene, uint8 [T, SIZE, SIZE, 3] with T = SECONDS * FPS."""
    person = random.Random(f"identity/{scene.identity}")
    look: dict[str, Any] = {
        "skin": person.choice(_SKINS),
        "hair": person.choice(_HAIRS),
        "wide": person.uniform(0.23, 0.27),
        "tall": person.uniform(0.27, 0.31),
        "fringe": person.uniform(0.25, 0.5),
        "wall": tuple(person.randint(190, 235) for _ in range(3)),
    }
    rng = random.Random(scene.seed)
    sway, bob, phase = rng.uniform(-0.03, 0.03), rng.uniform(0.0, 0.02), rng.uniform(0, 6.28)
    side = rng.random() < 0.5
    count = round(SECONDS * FPS)
    frames = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for t in range(count):
        beat = math.sin(phase + 2 * math.pi * 1.5 * t / FPS)
        canvas = _Canvas(look["wall"])
        _OBJECTS[scene.background](canvas, 0.02 if side else 0.78, 0.04)
        _person(canvas, scene, look, sway + 0.015 * beat, bob * beat, beat)
        frames[t] = canvas.pixels()
    return frames


class _Canvas:
    """A drawing at twice the final size, addressed in shares of the frame."""

    def __init__(self, wall: tuple[int, ...]) -> None:
        self.image = Image.new("RGB", (2 * SIZE, 2 * SIZE), wall)
        self.draw = ImageDraw.Draw(self.image)

    def _px(self, *values: float) -> list[float]:
        return [v * 2 * SIZE for v in values]

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Any, line: float = 0.0) -> None:
        outline = _DARK if line else None
        self.draw.ellipse(
            self._px(x - rx, y - ry, x + rx, y + ry), fill=fill, outline=outline, width=max(1, round(line * 2 * SIZE))
        )

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Any, line: float = 0.0) -> None:
        outline = _DARK if line else None
        self.draw.rectangle(self._px(x0, y0, x1, y1), fill=fill, outline=outline, width=max(1, round(line * 2 * SIZE)))

    def line(self, points: list[tuple[float, float]], fill: Any, width: float) -> None:
        self.draw.line(
            [tuple(self._px(*p)) for p in points], fill=fill, width=max(1, round(width * 2 * SIZE)), joint="curve"
        )

    def shape(self, points: list[tuple[float, float]], fill: Any) -> None:
        self.draw.polygon([tuple(self._px(*p)) for p in points], fill=fill)

    def arc(self, x: float, y: float, rx: float, ry: float, start: int, end: int, width: float) -> None:
        self.draw.arc(
            self._px(x - rx, y - ry, x + rx, y + ry), start, end, fill=_DARK, width=max(1, round(width * 2 * SIZE))
        )

    def chord(self, x: float, y: float, rx: float, ry: float, start: int, end: int, fill: Any) -> None:
        self.draw.chord(self._px(x - rx, y - ry, x + rx, y + ry), start, end, fill=fill, outline=_DARK, width=2)

    def pixels(self) -> np.ndarray:
        return np.asarray(self.image.reduce(2))


def _person(c: _Canvas, scene: Scene, look: dict[str, Any], dx: float, dy: float, beat: float) -> None:
    x, y, skin = 0.5 + dx, 0.41 + dy, look["skin"]
    shirt = _SHIRTS[scene.shirt]
    c.shape([(0.12, 1.0), (0.2, 0.8), (0.4, 0.72), (0.6, 0.72), (0.8, 0.8), (0.88, 1.0)], shirt)
    c.box(x - 0.07, y + 0.2, x + 0.07, 0.76, skin)
    c.oval(x, y - 0.05, look["wide"] + 0.03, look["tall"] + 0.02, look["hair"])
    c.oval(x, y, look["wide"], look["tall"], skin, 0.006)
    c.chord(x, y, look["wide"], look["tall"], 215, 325, look["hair"])
    _EXPRESSIONS[scene.face](c, x, y + 0.03, beat)
    for name in scene.body:
        _BODY[name](c, x, y, skin, beat)


def _eyes(c: _Canvas, x: float, y: float, ry: float, pupil: float) -> None:
    for side in (-1, 1):
        c.oval(x + side * 0.1, y - 0.03, 0.05, ry, (255, 255, 255), 0.006)
        c.oval(x + side * 0.1, y - 0.03, pupil, min(pupil, ry), _DARK)


def _brows(c: _Canvas, x: float, y: float, inner: float, outer: float, width: float) -> None:
    """Brow line from the nose side (`inner`) to the temple (`outer`), heights above the eyes."""
    for side in (-1, 1):
        c.line([(x + side * 0.035, y - 0.03 - inner), (x + side * 0.165, y - 0.03 - outer)], _DARK, width)


def _happy(c: _Canvas, x: float, y: float, beat: float) -> None:
    for side in (-1, 1):
        c.arc(x + side * 0.1, y - 0.015, 0.05, 0.045, 180, 360, 0.016)
    _brows(c, x, y, 0.085, 0.075, 0.014)
    c.chord(x, y + 0.09, 0.135, 0.1 + 0.01 * beat, 0, 180, (250, 250, 250))


def _sad(c: _Canvas, x: float, y: float, beat: float) -> None:
    _eyes(c, x, y, 0.028, 0.022)
    _brows(c, x, y, 0.1, 0.045, 0.016)
    c.arc(x, y + 0.2, 0.1, 0.075 + 0.005 * beat, 195, 345, 0.022)


def _angry(c: _Canvas, x: float, y: float, beat: float) -> None:
    _eyes(c, x, y, 0.03, 0.022)
    _brows(c, x, y, 0.02, 0.1, 0.034)
    c.box(x - 0.085, y + 0.135, x + 0.085, y + 0.165 + 0.008 * beat, _DARK)


def _afraid(c: _Canvas, x: float, y: float, beat: float) -> None:
    _eyes(c, x, y, 0.062, 0.014)
    _brows(c, x, y, 0.125, 0.085, 0.014)
    c.box(x - 0.11, y + 0.12, x + 0.11, y + 0.185, (245, 245, 245), 0.008)
    for k in range(-2, 3):
        c.line([(x + 0.04 * k, y + 0.12), (x + 0.04 * k, y + 0.185)], _DARK, 0.008)


def _surprised(c: _Canvas, x: float, y: float, beat: float) -> None:
    _eyes(c, x, y, 0.05, 0.03)
    for side in (-1, 1):
        c.arc(x + side * 0.1, y - 0.1, 0.06, 0.05, 190, 350, 0.014)
    c.oval(x, y + 0.155, 0.062, 0.08 + 0.008 * beat, (60, 15, 20), 0.008)


_EXPRESSIONS = {"happiness": _happy, "sadness": _sad, "anger": _angry, "fear": _afraid, "surprise": _surprised}


def _clapping(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    gap = 0.05 + 0.012 * beat
    for side in (-1, 1):
        c.oval(0.5 + side * gap, 0.86, 0.05, 0.12, skin, 0.016)


def _tears(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        c.oval(x + side * 0.125, y + 0.11 + 0.01 * beat, 0.035, 0.09, _BLUE)


def _fists(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        cx, cy = 0.5 + side * 0.37, 0.87 + 0.012 * beat
        c.oval(cx, cy, 0.12, 0.105, skin, 0.016)
        for k in (-1, 0, 1):
            c.line([(cx + 0.05 * k, cy - 0.08), (cx + 0.05 * k, cy + 0.01)], _DARK, 0.014)


def _cheeks(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        c.oval(x + side * 0.28, y + 0.12, 0.075, 0.14, skin, 0.018)


def _palms(c: _Canvas, x: float, y: float, skin: Any, beat: float) -> None:
    for side in (-1, 1):
        cx, cy = 0.5 + side * 0.405, 0.6 + 0.012 * beat
        for k in (-1, 0, 1):
            c.line([(cx + 0.04 * k, cy), (cx + 0.06 * k, cy - 0.17)], _DARK, 0.046)
            c.line([(cx + 0.04 * k, cy), (cx + 0.06 * k, cy - 0.165)], skin, 0.03)
        c.oval(cx, cy, 0.08, 0.08, skin, 0.014)


_BODY = {
    "clapping_hands": _clapping,
    "tears": _tears,
    "clenched_fists": _fists,
    "hands_at_cheeks": _cheeks,
    "raised_palms": _palms,
}


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


_OBJECTS = {"plant": _plant, "window": _window, "clock": _clock, "lamp": _lamp, "painting": _painting}
