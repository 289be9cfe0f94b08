"""Media made from a clip's own: noise, blank, crop, diffusion. Pure functions of the medium, a seed and a level.

They serve as mismatched inputs where a corpus has no partner to offer, and as baselines:

- noise: uniform random pixels (as VistaDPO's released loader); white noise as loud as the clip.
- blank: black frames; silence.
- crop: one window of 1 to 20 % of the area, the same in every frame, stretched back to the frame (as mDPO, arXiv
  2406.11839); of the waveform, a window of 1 to 20 % stays in place and the rest is silent.
- diffusion: the forward process of DDPM (arXiv 2006.11239, linear betas 1e-4 to 0.02, 1,000 steps) stopped at
  `level` of its steps, as visual contrastive decoding does it (arXiv 2311.16922). Pixels count as [-1, 1]; noise on
  the waveform is scaled to the clip's own loudness.

Random numbers come from PCG64's raw output, which numpy guarantees to stay the same, so a seed means the same bytes in
every process and version.
"""

import math
from typing import Literal

import numpy as np

Corruption = Literal["noise", "blank", "crop", "diffusion"]
CORRUPTIONS: tuple[Corruption, ...] = ("noise", "blank", "crop", "diffusion")

CROP_AREA = (0.01, 0.2)
"""Smallest and largest share of the area (of the waveform: of its length) that a crop keeps."""
STEPS = 1000
"""Steps of the diffusion schedule."""
_BETAS = (1e-4, 0.02)
_QUIET_RMS = 0.1
"""Loudness of noise for a clip that is silent itself."""
_DOUBLE = 2.0**-53


def corrupt_frames(frames: np.ndarray, kind: Corruption, *, seed: int, level: float = 0.0) -> np.ndarray:
    """Frames of the same shape, uint8 [T, H, W, 3]; the given ones stay untouched."""
    if kind == "blank":
        return np.zeros_like(frames)
    if kind == "noise":
        words = np.random.PCG64(seed).random_raw(-(-frames.size // 8))
        return words.astype("<u8").view(np.uint8)[: frames.size].reshape(frames.shape)
    if kind == "crop":
        return _crop_frames(frames, seed)
    kept, noise = _mix(level)
    noisy = kept * (frames.astype(np.float32) / 127.5 - 1) + noise * _normal(seed, frames.size).reshape(frames.shape)
    return ((noisy.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def corrupt_waveform(waveform: np.ndarray, kind: Corruption, *, seed: int, level: float = 0.0) -> np.ndarray:
    """A waveform of the same length, float32 [S] in [-1, 1]; the given one stays untouched."""
    if kind == "blank" or waveform.size == 0:
        return np.zeros_like(waveform)
    if kind == "crop":
        return _crop_waveform(waveform, seed)
    rms = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64)))) or _QUIET_RMS
    kept, noise = (0.0, 1.0) if kind == "noise" else _mix(level)
    noisy = kept * waveform.astype(np.float64) + noise * rms * _normal(seed, waveform.size)
    return noisy.clip(-1, 1).astype(waveform.dtype)


def _mix(level: float) -> tuple[float, float]:
    """Weights of signal and noise, sqrt(alpha_bar) and sqrt(1 - alpha_bar), at a share of the schedule."""
    step = max(1, min(STEPS, round(level * STEPS)))
    alpha_bar = float(np.prod(1 - np.linspace(*_BETAS, STEPS)[:step]))
    return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)


def _uniform(seed: int, count: int) -> np.ndarray:
    """Float64 [count] in [0, 1)."""
    return (np.random.PCG64(seed).random_raw(count) >> np.uint64(11)) * _DOUBLE


def _normal(seed: int, count: int) -> np.ndarray:
    """Standard normal float64 [count], by Box and Muller."""
    half = -(-count // 2)
    u = _uniform(seed, 2 * half)
    radius, angle = np.sqrt(-2 * np.log1p(-u[:half])), 2 * np.pi * u[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _crop_frames(frames: np.ndarray, seed: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    share, across, down = _uniform(seed, 3)
    side = math.sqrt(CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * share)
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
    window = frames[:, top : top + rows, left : left + columns]
    return _stretch(_stretch(window, height, axis=1), width, axis=2).round().astype(np.uint8)


def _stretch(images: np.ndarray, size: int, *, axis: int) -> np.ndarray:
    """Linear interpolation along one axis, pixel centres aligned; float32."""
    have = images.shape[axis]
    at = ((np.arange(size) + 0.5) * have / size - 0.5).clip(0, have - 1)
    low = at.astype(int)
    shape = [1] * images.ndim
    shape[axis] = size
    share = (at - low).astype(np.float32).reshape(shape)
    below = images.take(low, axis=axis).astype(np.float32)
    above = images.take(np.minimum(low + 1, have - 1), axis=axis).astype(np.float32)
    return below * (1 - share) + above * share


def _crop_waveform(waveform: np.ndarray, seed: int) -> np.ndarray:
    share, where = _uniform(seed, 2)
    length = max(1, round(len(waveform) * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * share)))
    start = int(where * (len(waveform) - length + 1))
    cropped = np.zeros_like(waveform)
    cropped[start : start + length] = waveform[start : start + length]
    return cropped
