"""Clips as a picture: sampled frames side by side, the waveform beneath; written as PNG without an image library."""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from avere_ray.records import DecodedClip
from avere_ray.stages import atomic_path

WAVE_HEIGHT = 48
"""Pixels of the waveform's row."""
GAP = 4
"""Pixels between frames and between clips."""
_PAPER, _INK, _AXIS = 255, (40, 70, 140), (200, 200, 200)


def strip_image(clips: Sequence[DecodedClip]) -> np.ndarray:
    """The clips one below the other, uint8 [H, W, 3]: of each its frames from left to right, then its waveform."""
    rows = [part for clip in clips for part in (_frames_row(clip.frames), _wave_row(clip))]
    width = max(row.shape[1] for row in rows)
    image: list[np.ndarray] = []
    for row in rows:
        padded = np.full((row.shape[0], width, 3), _PAPER, np.uint8)
        padded[:, : row.shape[1]] = row
        image += [padded, np.full((GAP, width, 3), _PAPER, np.uint8)]
    return np.concatenate(image[:-1])


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as PNG, atomically.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(png(image))


def png(image: np.ndarray) -> bytes:
    """A PNG file of uint8 RGB pixels [H, W, 3]."""
    height, width = image.shape[:2]
    lines = np.zeros((height, 1 + width * 3), np.uint8)  # each line begins with its filter, 0: none
    lines[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + pixels + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _frames_row(frames: np.ndarray) -> np.ndarray:
    gap = np.full((frames.shape[1], GAP, 3), _PAPER, np.uint8)
    parts = [part for frame in frames for part in (frame, gap)][:-1]
    return np.concatenate(parts, axis=1)


def _wave_row(clip: DecodedClip) -> np.ndarray:
    """The waveform's envelope over the width of the frames; full height is full scale."""
    count, _, width = clip.frames.shape[:3]
    width = count * width + (count - 1) * GAP
    row = np.full((WAVE_HEIGHT, width, 3), _PAPER, np.uint8)
    middle = WAVE_HEIGHT // 2
    row[middle] = _AXIS
    edges = np.linspace(0, len(clip.waveform), width + 1).astype(int)
    for x, (start, end) in enumerate(pairwise(edges)):
        part = clip.waveform[start : max(end, start + 1)]
        if part.size and np.any(part):
            top, bottom = (round(middle - float(v) * (middle - 1)) for v in (part.max(), part.min()))
            row[max(top, 0) : bottom + 1, x] = _INK
    return row
