"""A contact sheet: many scenes on one picture, each with a frame from its middle and what was planted in it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from avere_ray.synthetic.draw import SIZE, draw_frames
from avere_ray.synthetic.scene import Scene
from avere_ray.synthetic.world import CUE

COLUMNS = 8
MOST = 64
"""Scenes on a sheet at most."""
_LINES, _LINE_HEIGHT = 6, 11
_CELL = SIZE + _LINES * _LINE_HEIGHT + 6


def contact_sheet(scenes: Sequence[Scene]) -> np.ndarray:
    """The first MOST scenes, uint8 [H, W, 3], COLUMNS in a row; W is COLUMNS * (SIZE + 6)."""
    shown = scenes[:MOST]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIZE + 6), rows * _CELL), "white")
    pen = ImageDraw.Draw(sheet)
    for i, scene in enumerate(shown):
        x, y = (i % COLUMNS) * (SIZE + 6), (i // COLUMNS) * _CELL
        frames = draw_frames(scene)
        sheet.paste(Image.fromarray(frames[len(frames) // 2]), (x, y))
        for j, line in enumerate(_caption(scene)):
            pen.text((x, y + SIZE + 1 + j * _LINE_HEIGHT), line, fill="black")
    return np.asarray(sheet)


def _caption(scene: Scene) -> list[str]:
    cues = [*scene.body, *scene.events]
    lines = [
        scene.scene_id,
        f"face {scene.face}",
        f"voice {scene.voice}",
        CUE[scene.sound].text,
        *(CUE[name].text for name in cues[: _LINES - 4]),
    ]
    return [line[:19] for line in lines]
