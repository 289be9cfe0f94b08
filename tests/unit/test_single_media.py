"""Pictures without sound, sound without pictures: each decodes as it does within a clip."""

import wave
from pathlib import Path

import numpy as np
import pytest
from clipmaker import Recipe, write_clip

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.media import SAMPLE_RATE, decode_clip, decode_pictures, decode_sound
from avere_ray.records import Clip

SPEC = DecodeConfig(frames=4, height=28, width=28)


def write_wav(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def test_pictures_are_those_of_the_clip_with_or_without_sound(tmp_path: Path) -> None:
    both = write_clip(tmp_path / "both.mp4")
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    whole = decode_clip(Clip(clip_id="c", uri=str(both)), both, SPEC)
    for path in (both, silent):
        alone = decode_pictures("c", path, SPEC)
        assert (alone.frames == whole.frames).all()
        assert (alone.frame_times_s == whole.frame_times_s).all()
        assert alone.waveform.shape == (0,)
        assert alone.duration_s == pytest.approx(whole.duration_s, abs=0.05)


def test_sound_is_read_from_its_first_sample_to_its_last(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    heard = decode_sound("c", write_wav(tmp_path / "tone.wav", tone), SPEC)
    assert heard.waveform == pytest.approx(tone, abs=1e-3)
    assert heard.frames.shape == (0, 28, 28, 3)
    assert heard.duration_s == 1.0
    slow = decode_sound("c", write_wav(tmp_path / "slow.wav", np.repeat(tone, 3), 48_000), SPEC)
    assert slow.duration_s == pytest.approx(1.0, abs=0.01)


def test_the_sound_of_a_video_can_be_had_alone(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    within = decode_clip(Clip(clip_id="c", uri=str(path)), path, SPEC).waveform
    alone = decode_sound("c", path, SPEC).waveform
    assert len(alone) == pytest.approx(len(within), abs=0.1 * SAMPLE_RATE)
    assert np.abs(alone).max() == pytest.approx(np.abs(within).max(), abs=0.05)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [("empty.wav", b"", "empty_file"), ("text.wav", b"no sound at all", "corrupt")],
)
def test_files_without_media_are_refused(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    for decode in (decode_sound, decode_pictures):
        with pytest.raises(ClipDecodeError) as caught:
            decode("c", tmp_path / name, SPEC)
        assert caught.value.reason == reason


def test_the_wrong_medium_and_the_limits_are_named(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "tone.wav", np.zeros(2 * SAMPLE_RATE))
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    cases = [
        (decode_pictures, sound, SPEC, "no_video_stream"),
        (decode_sound, silent, SPEC, "no_audio_stream"),
        (decode_sound, sound, SPEC.model_copy(update={"max_duration_s": 1.0}), "too_long"),
        (decode_pictures, silent, SPEC.model_copy(update={"max_pixels": 10}), "too_many_pixels"),
        (decode_sound, tmp_path / "none.wav", SPEC, "file_missing"),
    ]
    for decode, path, spec, reason in cases:
        with pytest.raises(ClipDecodeError) as caught:
            decode("c", path, spec)
        assert caught.value.reason == reason
