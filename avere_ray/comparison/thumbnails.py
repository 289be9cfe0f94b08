"""A small picture of a clip as a data URI, so that a page needs no other file."""

import base64
from pathlib import Path

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.records import Clip
from avere_ray.strip import png

SIDE = 84
"""Pixels."""


def thumbnail(path: Path) -> str | None:
    """The frame in the middle of a clip as a PNG data URI; None when the file cannot be decoded."""
    from avere_ray.media import decode_clip

    spec = DecodeConfig(frames=1, height=SIDE, width=SIDE)
    try:
        decoded = decode_clip(Clip(clip_id=path.stem, uri=path.name), path, spec)
    except ClipDecodeError:
        return None
    return "data:image/png;base64," + base64.b64encode(png(decoded.frames[0])).decode("ascii")
