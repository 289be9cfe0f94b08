"""Made media: each kind does what it says, and a seed means the same bytes everywhere."""

import math

import numpy as np
import pytest

from avere_ray.corruptions import CORRUPTIONS, CROP_AREA, corrupt_frames, corrupt_waveform
from avere_ray.emotions import canonical_emotion

FRAMES = np.repeat(np.linspace(0, 255, 56).astype(np.uint8)[None, None, :, None], 3 * 56 * 3, 0).reshape(3, 56, 3, 56)
FRAMES = np.ascontiguousarray(FRAMES.transpose(0, 1, 3, 2))
TONE = (0.3 * np.sin(np.arange(16_000) / 7)).astype(np.float32)


def test_a_seed_means_these_bytes() -> None:
    noise = corrupt_frames(np.zeros((1, 1, 2, 3), np.uint8), "noise", seed=7)
    assert noise.ravel().tolist() == list(int(np.random.PCG64(7).random_raw()).to_bytes(8, "little")[:6])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_empty_and_tiny_media_keep_their_shape(kind: str) -> None:
    for shape in ((0, 4, 4, 3), (1, 1, 1, 3), (2, 1, 5, 3)):
        assert corrupt_frames(np.ones(shape, np.uint8), kind, seed=1, level=0.5).shape == shape
    for samples in (0, 1, 3):
        assert corrupt_waveform(np.ones(samples, np.float32), kind, seed=1, level=0.5).shape == (samples,)


def test_blank_is_black_and_silent() -> None:
    assert not corrupt_frames(FRAMES, "blank", seed=1).any()
    assert not corrupt_waveform(TONE, "blank", seed=1).any()


def test_noise_has_every_level_and_the_loudness_of_the_clip() -> None:
    noise = corrupt_frames(FRAMES, "noise", seed=1)
    assert len(np.unique(noise)) == 256
    assert abs(np.corrcoef(noise.ravel(), FRAMES.ravel())[0, 1]) < 0.05
    heard = corrupt_waveform(TONE, "noise", seed=1)
    assert math.isclose(heard.std(), TONE.std(), rel_tol=0.05)
    assert abs(np.corrcoef(heard, TONE)[0, 1]) < 0.05
    assert corrupt_waveform(np.zeros(1000, np.float32), "noise", seed=1).std() > 0.05


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_keeps_a_small_window(seed: int) -> None:
    cropped = corrupt_frames(FRAMES, "crop", seed=seed)
    span = int(cropped.max()) - int(cropped.min())  # FRAMES is a ramp from left to right, so this is the window's width
    assert span <= 255 * math.sqrt(CROP_AREA[1]) + 8
    assert np.array_equal(cropped[0], cropped[2])
    heard = corrupt_waveform(TONE, "crop", seed=seed)
    kept = np.flatnonzero(heard)
    assert CROP_AREA[0] * 0.9 <= len(kept) / len(TONE) <= CROP_AREA[1]
    assert np.array_equal(heard[kept], TONE[kept])


def test_diffusion_keeps_less_the_higher_its_level() -> None:
    def likeness(level: float) -> tuple[float, float]:
        seen = corrupt_frames(FRAMES, "diffusion", seed=3, level=level)
        heard = corrupt_waveform(TONE, "diffusion", seed=3, level=level)
        return np.corrcoef(seen.ravel(), FRAMES.ravel())[0, 1], np.corrcoef(heard, TONE)[0, 1]

    values = [likeness(level) for level in (0.02, 0.2, 0.5, 1.0)]
    for medium in zip(*values, strict=True):
        assert list(medium) == sorted(medium, reverse=True)
        assert medium[0] > 0.97
        assert abs(medium[-1]) < 0.1


@pytest.mark.parametrize(
    ("label", "noun"),
    [("Happy", "happiness"), (" ANGRY ", "anger"), ("worried", "worry"), ("Awe  struck", "awe struck"), ("", "")],
)
def test_labels_become_nouns(label: str, noun: str) -> None:
    assert canonical_emotion(label) == noun
