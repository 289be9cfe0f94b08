"""A small picture of a clip as a data URI, so that a page needs no other file."""

import base64
import struct
import zlib
from pathlib import Path

import numpy as np

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.records import Clip

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


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 RGB pixels [H, W, 3]."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
