"""A separate audio file beside a video: its place in time, its part in the medium's address, and what can be wrong."""

from pathlib import Path

import numpy as np
import pytest
from clipmaker import Recipe, number_of, write_clip

from avere_ray.av_store import AvStore
from avere_ray.clip_files import decode_media
from avere_ray.config import DecodeConfig
from avere_ray.decoding import DecodePlan, decode_rows
from avere_ray.errors import ClipDecodeError
from avere_ray.media import SAMPLE_RATE, decode_clip, spec_digest
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import file_digest

SPEC = DecodeConfig(frames=4, height=56, width=56)
CLIP = Clip(clip_id="c", uri="v.mp4", audio_uri="a.wav")


def sound(path: Path, *, hz: float = 300.0, seconds: float = 2.0, rate: int = 16_000, **more: object) -> Path:
    codec = {".wav": "pcm_s16le", ".flac": "flac", ".m4a": "aac", ".mp3": "mp3"}[path.suffix]
    recipe = Recipe(with_video=False, audio_codec=codec, rate=rate, tones_hz=(hz,), audio_s=seconds, **more)  # type: ignore[arg-type]
    return write_clip(path, recipe)


def pitch(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax()) * SAMPLE_RATE / len(waveform)


def part(video: Path, audio: Path, start_s: float, end_s: float | None) -> DecodedClip:
    return decode_clip(Clip(clip_id="c", uri="v", start_s=start_s, end_s=end_s), video, SPEC, audio)


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a", "mp3"])
@pytest.mark.parametrize("own_sound", [True, False])
def test_the_separate_file_is_heard_and_the_video_seen(tmp_path: Path, suffix: str, own_sound: bool) -> None:
    video = write_clip(tmp_path / "v.mp4", Recipe(with_audio=own_sound, tones_hz=(700.0,)))
    clip = decode_clip(CLIP, video, SPEC, sound(tmp_path / f"a.{suffix}"))
    assert pitch(clip.waveform) == pytest.approx(300, abs=3)
    assert clip.waveform.shape == (round(clip.duration_s * SAMPLE_RATE),)
    assert [number_of(f) for f in clip.frames] == [2, 7, 12, 17]


def test_a_separate_file_sounds_as_the_same_sound_within_the_video(tmp_path: Path) -> None:
    recipe = Recipe(audio_codec="flac", rate=16_000)
    inside = decode_clip(CLIP, write_clip(tmp_path / "both.mkv", recipe), SPEC)
    video = write_clip(tmp_path / "v.mp4", Recipe(with_audio=False))
    beside = decode_clip(CLIP, video, SPEC, sound(tmp_path / "a.flac", hz=440.0))
    assert np.abs(inside.waveform - beside.waveform).max() < 1e-3


def test_a_video_that_starts_late_and_a_sound_that_is_short(tmp_path: Path) -> None:
    times = [0.5 + i / 10 for i in range(10)]
    video = write_clip(tmp_path / "v.mkv", Recipe(with_audio=False, frame_times_s=times))
    waveform = decode_clip(CLIP, video, SPEC, sound(tmp_path / "a.wav", seconds=0.6)).waveform
    above = np.flatnonzero(np.abs(waveform) > 0.1) / SAMPLE_RATE
    assert (above[0], above[-1]) == pytest.approx((0.0, 0.6), abs=0.01)
    assert len(waveform) == SAMPLE_RATE


@pytest.mark.parametrize(("start", "end"), [(1.0, 2.0), (3.5, 5.0), (4.0, None)])
def test_a_part_takes_the_same_part_of_both(tmp_path: Path, start: float, end: float | None) -> None:
    frames = [i / 10 for i in range(60)]
    video = write_clip(tmp_path / "v.mp4", Recipe(with_audio=False, frame_times_s=frames, paint=_grey))
    audio = sound(tmp_path / "a.wav", seconds=6.0, hz=440.3)  # no whole number of waves in these parts
    clip = part(video, audio, start, end)
    whole = decode_clip(CLIP, video, SPEC, audio).waveform
    first = round(start * SAMPLE_RATE)
    assert np.abs(clip.waveform - whole[first : first + len(clip.waveform)]).max() < 1e-3
    assert np.abs(clip.waveform).max() > 0.05


def _grey(number: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 20 + number, dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "file_missing"), (b"", "empty_file"), (b"RIFF no sound here" * 40, "corrupt")]
)
def test_what_is_wrong_with_the_audio_file_is_said_of_it(tmp_path: Path, content: bytes | None, reason: str) -> None:
    video = write_clip(tmp_path / "v.mp4", Recipe())
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ClipDecodeError, match=r"a\.wav") as caught:
        decode_clip(CLIP, video, SPEC, tmp_path / "a.wav")
    assert caught.value.reason == reason


def test_a_picture_file_as_sound_and_a_cut_sound_are_refused(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "v.mp4", Recipe())
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    whole = sound(tmp_path / "a.m4a", options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    for path, reason in ((silent, "no_audio_stream"), (tmp_path / "cut.m4a", "corrupt")):
        with pytest.raises(ClipDecodeError, match=path.name) as caught:
            decode_clip(CLIP, video, SPEC, path)
        assert caught.value.reason == reason


def test_one_video_with_two_sounds_is_two_media_and_each_is_decoded_once(tmp_path: Path) -> None:
    write_clip(tmp_path / "v.mp4", Recipe())
    files = {n: sound(tmp_path / f"{n}.wav", hz=hz) for n, hz in (("low", 300.0), ("high", 600.0))}
    clips = [Clip(clip_id=n, uri="v.mp4", audio_uri=f"{n}.wav") for n in files] + [Clip(clip_id="own", uri="v.mp4")]
    store, video = AvStore(tmp_path / "store"), file_digest(tmp_path / "v.mp4")
    for decoded in (True, False):
        plan = DecodePlan(clips, tmp_path, store.places(spec_digest(SPEC)), SPEC)
        outcomes = decode_rows(plan.rows, store, SPEC, decode_media)
        assert [(o.reason, o.decoded) for o in outcomes] == [("", decoded)] * 3
    keys = [o.place.medium.key for o in outcomes if o.place]
    assert keys == [*(f"{video}+{file_digest(path)}" for path in files.values()), video]
