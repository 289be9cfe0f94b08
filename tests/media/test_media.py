"""Decoding against real files whose right answer is known, and against files that are broken on purpose."""

import errno
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clipmaker import Recipe, number_of, numbered, write_clip

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.media import SAMPLE_RATE, decode_clip, decode_unless_known, decode_with_digest, spec_digest
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import digest, file_digest

SPEC = DecodeConfig(frames=4, height=56, width=84)


def decode(path: Path, spec: DecodeConfig = SPEC) -> DecodedClip:
    return decode_clip(Clip(clip_id="c", uri=path.name), path, spec)


def made(folder: Path, name: str = "clip.mp4", **recipe: object) -> DecodedClip:
    return decode(write_clip(folder / name, Recipe(**recipe)))  # type: ignore[arg-type]


def refused(path: Path, spec: DecodeConfig = SPEC) -> str:
    with pytest.raises(ClipDecodeError) as caught:
        decode(path, spec)
    assert str(path) in str(caught.value)
    return caught.value.reason


def loud(waveform: np.ndarray, threshold: float = 0.1) -> tuple[float, float]:
    """Seconds of the first and last sample above the threshold."""
    above = np.flatnonzero(np.abs(waveform) > threshold)
    return above[0] / SAMPLE_RATE, above[-1] / SAMPLE_RATE


def pitch(waveform: np.ndarray) -> float:
    """Strongest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax()) * SAMPLE_RATE / len(waveform)


def test_record_is_complete(tmp_path: Path) -> None:
    clip = made(tmp_path)
    assert clip.clip_id == "c"
    assert clip.spec == spec_digest(SPEC)
    assert clip.frames.shape == (4, 56, 84, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.frame_times_s.dtype == np.float32
    assert clip.waveform.dtype == np.float32
    assert clip.waveform.shape == (round(clip.duration_s * SAMPLE_RATE),)
    assert clip.duration_s == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(1, [10]), (4, [2, 7, 12, 17]), (5, [2, 6, 10, 14, 18]), (20, list(range(20)))],
)
def test_frames_nearest_to_the_bin_centres(tmp_path: Path, frames: int, expected: list[int]) -> None:
    clip = decode(write_clip(tmp_path / "clip.mp4"), SPEC.model_copy(update={"frames": frames}))
    numbers = [number_of(frame) for frame in clip.frames]
    nearest = [abs(n / 10 - (i + 0.5) * 2.0 / frames) for i, n in enumerate(numbers)]
    assert max(nearest) <= 0.0501  # on a tie either neighbour is nearest
    assert np.abs(np.array(numbers) - expected).max() <= 1
    assert clip.frame_times_s == pytest.approx(np.array(numbers) / 10)


def test_more_frames_wanted_than_there_are(tmp_path: Path) -> None:
    clip = decode(write_clip(tmp_path / "clip.mp4", Recipe(frame_times_s=[0.0, 0.5])), SPEC)
    assert [number_of(frame) for frame in clip.frames] == [0, 0, 1, 1]


def test_a_single_frame(tmp_path: Path) -> None:
    clip = made(tmp_path, frame_times_s=[0.0], audio_s=1.0)
    assert {number_of(frame) for frame in clip.frames} == {0}
    assert clip.duration_s > 0


def test_variable_frame_rate_follows_timestamps(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 1.3, 1.7, 1.9]
    clip = made(tmp_path, frame_times_s=times)
    assert [number_of(frame) for frame in clip.frames] == [2, 4, 5, 6]  # targets 0.25, 0.75, 1.25, 1.75
    assert clip.frame_times_s == pytest.approx([0.2, 0.4, 1.3, 1.7])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".ts"])
def test_containers(tmp_path: Path, suffix: str) -> None:
    clip = made(tmp_path, f"clip{suffix}", options={}, codec="mpeg4" if suffix == ".avi" else "libx264")
    expected = np.array([2, 7, 12, 17])
    assert np.abs(np.array([number_of(frame) for frame in clip.frames]) - expected).max() <= 1
    assert pitch(clip.waveform) == pytest.approx(440, abs=2)


def test_wrong_extension_is_read_by_content(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4").rename(tmp_path / "clip.txt")
    assert decode(path).frames.shape[0] == 4


@pytest.mark.parametrize(("codec", "suffix"), [("libx265", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "mkv")])
def test_other_codecs(tmp_path: Path, codec: str, suffix: str) -> None:
    audio = {"audio_codec": "libopus", "rate": 48_000} if suffix == "webm" else {}
    clip = made(
        tmp_path, f"clip.{suffix}", codec=codec, frame_times_s=[i / 10 for i in range(10)], audio_s=1.0, **audio
    )
    assert [number_of(frame) for frame in clip.frames] == [1, 4, 6, 9]


def test_ten_bit_video(tmp_path: Path) -> None:
    clip = made(tmp_path, pixels="yuv420p10le")
    assert [number_of(frame) for frame in clip.frames] == [2, 7, 12, 17]


@pytest.mark.parametrize(("width", "height"), [(65, 47), (3, 5), (1, 1), (200, 16)])
def test_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    clip = made(tmp_path, width=width, height=height, pixels="yuv444p")
    assert clip.frames.shape == (4, 56, 84, 3)
    assert np.abs(np.array([number_of(frame) for frame in clip.frames]) - [2, 7, 12, 17]).max() <= 1


def corner(number: int, height: int, width: int) -> np.ndarray:
    """Black, with a white upper left quarter."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = 255
    return picture


@pytest.mark.parametrize(
    ("rotation", "where"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (-90, (0, 1))], ids=["0", "ccw", "180", "cw"]
)
def test_rotation_is_applied_counterclockwise(tmp_path: Path, rotation: int, where: tuple[int, int]) -> None:
    frame = made(tmp_path, paint=corner, rotation=rotation).frames[0].astype(int)
    quarters = [[q.mean() for q in np.array_split(half, 2, axis=1)] for half in np.array_split(frame, 2, axis=0)]
    assert np.unravel_index(np.argmax(quarters), (2, 2)) == where
    assert frame.shape == (56, 84, 3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_audio_rates_and_layouts(tmp_path: Path, rate: int, layout: str) -> None:
    tones = (440.0,) * (2 if layout == "stereo" else 1)
    clip = made(tmp_path, rate=rate, layout=layout, tones_hz=tones)
    assert clip.waveform.shape == (32_000,)
    assert pitch(clip.waveform) == pytest.approx(440, abs=2)
    assert np.sqrt((clip.waveform**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_downmix_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    lossless = {"audio_codec": "flac", "layout": "stereo", "rate": 16_000, "amplitude": 0.8}
    both = made(tmp_path, "both.mkv", tones_hz=(500.0, 500.0), **lossless).waveform
    left = made(tmp_path, "left.mkv", tones_hz=(500.0, 0.0), **lossless).waveform
    tone = 0.8 * np.sin(2 * np.pi * 500 * np.arange(32_000) / 16_000)
    assert np.abs(both - tone).max() < 1e-3  # FFmpeg's own downmix gives 1.13 and clips
    assert np.abs(left - tone / 2).max() < 1e-3


def test_surround_sound(tmp_path: Path) -> None:
    clip = made(tmp_path, layout="5.1", rate=48_000, tones_hz=(300.0,) * 6)
    assert pitch(clip.waveform) == pytest.approx(300, abs=2)


def test_samples_are_where_they_were(tmp_path: Path) -> None:
    clip = made(tmp_path, "clip.mkv", audio_codec="flac", rate=48_000)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(clip.waveform - tone)[100:-100].max() < 5e-3


def test_late_audio_keeps_its_place(tmp_path: Path) -> None:
    clip = made(tmp_path, audio_start_s=0.5, audio_s=1.0)
    assert loud(clip.waveform) == pytest.approx((0.5, 1.5), abs=0.03)


def test_late_video_starts_the_clip(tmp_path: Path) -> None:
    clip = made(tmp_path, "clip.mkv", frame_times_s=[0.5 + i / 10 for i in range(10)], audio_s=1.0)
    assert clip.duration_s == pytest.approx(1.0, abs=0.01)
    assert clip.frame_times_s[0] == pytest.approx(0.1, abs=0.011)
    assert loud(clip.waveform) == pytest.approx((0.0, 0.5), abs=0.03)


def test_a_video_that_starts_before_zero_keeps_its_frames_and_the_sound_its_place(tmp_path: Path) -> None:
    times = [i / 10 - 0.5 for i in range(20)]
    clip = made(tmp_path, "clip.ts", frame_times_s=times, options={"avoid_negative_ts": "disabled"})
    assert [number_of(frame) for frame in clip.frames] == [2, 7, 12, 17]
    assert clip.duration_s == pytest.approx(2.0, abs=0.01)
    assert loud(clip.waveform) == pytest.approx((0.5, 2.0), abs=0.03)


def test_audio_longer_and_shorter_than_video(tmp_path: Path) -> None:
    longer = made(tmp_path, "longer.mp4", audio_s=3.0)
    shorter = made(tmp_path, "shorter.mp4", audio_s=0.7)
    assert len(longer.waveform) == len(shorter.waveform) == 32_000
    assert loud(shorter.waveform)[1] == pytest.approx(0.7, abs=0.03)


def test_a_gap_in_the_audio_stays_silent(tmp_path: Path) -> None:

    whole = write_clip(tmp_path / "whole.mkv", Recipe(audio_codec="flac", rate=16_000))
    with av.open(str(whole)) as source, av.open(str(tmp_path / "gap.mkv"), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "audio" and 0.8 <= packet.pts * packet.time_base < 1.2):
                continue
            packet.stream = streams[packet.stream_index]
            target.mux(packet)
    waveform = decode(tmp_path / "gap.mkv").waveform
    assert np.abs(waveform[14_500:18_000]).max() < 0.01
    assert pitch(waveform[20_000:30_000]) == pytest.approx(440, abs=5)


def test_digest_of_the_file_comes_along(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    _, sha256 = decode_with_digest(Clip(clip_id="c", uri="clip.mp4"), path, SPEC)
    assert sha256 == file_digest(path)


def test_spec_digest_covers_sampling_but_no_limits() -> None:
    limits = {"timeout_s": 1.0, "max_bytes": 5, "max_pixels": 6, "max_duration_s": 7.0, "threads": 3, "hwaccel": "cuda"}
    assert spec_digest(SPEC.model_copy(update=limits)) == spec_digest(SPEC)
    updates = [{"frames": 5}, {"height": 84}, {"width": 56}, {"fps": 4.0}, {"fps": 4.0, "max_frames": 4}]
    changed = [spec_digest(SPEC.model_copy(update=u)) for u in [*updates, {"times_s": (4.0,)}]]
    assert len({spec_digest(SPEC), *changed}) == 7
    assert spec_digest(SPEC.model_copy(update={"max_frames": 5})) == spec_digest(SPEC)


def test_the_digest_of_a_plain_spec_is_the_one_it_always_was() -> None:
    assert spec_digest(DecodeConfig()) == digest("decode", 1, 16_000, 4, 84, 84)


@pytest.mark.parametrize(
    ("reason", "limit"),
    [
        ("too_large", {"max_bytes": 1000}),
        ("too_many_pixels", {"max_pixels": 63 * 48}),
        ("too_long", {"max_duration_s": 1.9}),
        ("too_many_streams", {"max_streams": 1}),
        ("timeout", {"timeout_s": 1e-9}),
    ],
)
def test_limits(tmp_path: Path, reason: str, limit: dict[str, float]) -> None:
    assert refused(write_clip(tmp_path / "clip.mp4"), SPEC.model_copy(update=limit)) == reason


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "other.ts")
    path = tmp_path / "clip.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n")
    assert refused(path) == "corrupt"


def numbers(clip: DecodedClip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def test_frames_per_second(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    five = decode(path, SPEC.model_copy(update={"fps": 2.5}))
    assert np.abs(np.array(numbers(five)) - [2, 6, 10, 14, 18]).max() <= 1
    capped = decode(path, SPEC.model_copy(update={"fps": 10.0, "max_frames": 4}))
    np.testing.assert_array_equal(capped.frames, decode(path, SPEC).frames)


def test_explicit_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    clip = decode(path, SPEC.model_copy(update={"times_s": (0.0, 0.31, 1.94)}))
    assert numbers(clip) == [0, 3, 19]
    assert clip.frame_times_s == pytest.approx([0.0, 0.3, 1.9])
    assert refused(path, SPEC.model_copy(update={"times_s": (0.0, 2.0)})) == "outside_clip"


LONG = Recipe(frame_times_s=[i / 10 for i in range(60)], audio_s=6.0, paint=lambda n, h, w: numbered(n % 20, h, w))
"""6 s; the numbers begin anew every 2 s."""


@pytest.fixture(scope="module", params=["mp4", "mkv", "ts", "avi"])
def long_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = replace(LONG, codec="mpeg4" if request.param == "avi" else "libx264", tones_hz=(440.0,))
    return write_clip(tmp_path_factory.mktemp("long") / f"clip.{request.param}", recipe)


def part(path: Path, start_s: float, end_s: float | None, **spec: object) -> DecodedClip:
    clip = Clip(clip_id="c", uri=path.name, start_s=start_s, end_s=end_s)
    return decode_clip(clip, path, SPEC.model_copy(update=spec))


def refused_part(path: Path, start_s: float, end_s: float | None, **spec: object) -> str:
    with pytest.raises(ClipDecodeError) as caught:
        part(path, start_s, end_s, **spec)
    return caught.value.reason


@pytest.mark.parametrize(("start", "end"), [(0.0, 2.0), (1.0, 3.0), (3.0, 5.0), (4.0, None), (4.0, 99.0)])
def test_a_part_of_a_longer_file(long_path: Path, start: float, end: float | None) -> None:
    clip = part(long_path, start, end)
    assert clip.duration_s == pytest.approx(2.0, abs=0.11)
    assert clip.waveform.shape == (round(clip.duration_s * SAMPLE_RATE),)
    expected = (np.array([2, 7, 12, 17]) + round(start * 10)) % 20
    assert np.abs(np.array(numbers(clip)) - expected).max() <= 1
    assert clip.frame_times_s == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=0.06)
    assert pitch(clip.waveform) == pytest.approx(440, abs=3)
    assert loud(clip.waveform) == pytest.approx((0.0, clip.duration_s), abs=0.07)


def test_a_part_sounds_as_it_does_in_the_whole(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", replace(LONG, rate=16_000))
    whole = decode(path).waveform
    assert np.abs(part(path, 3.5, 5.0).waveform - whole[56_000:80_000]).max() < 1e-3


def test_the_frames_of_a_part_begin_within_it(long_path: Path) -> None:
    clip = part(long_path, 3.0, 3.5, frames=10)
    assert set(numbers(clip)) <= {10, 11, 12, 13, 14, 15}
    assert min(numbers(clip)) in (10, 11)


def test_between_two_frames_the_one_on_display_is_taken(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", Recipe(frame_times_s=[0.0, 0.5, 1.0, 1.5]))
    clip = part(path, 0.6, 0.9)
    assert set(numbers(clip)) == {1}
    assert set(clip.frame_times_s.tolist()) == {0.0}


@pytest.mark.parametrize(("start", "end"), [(6.5, None), (60.0, 61.0), (-1.0, None), (2.0, 2.0), (3.0, 1.0)])
def test_a_part_that_does_not_exist_is_refused(tmp_path: Path, start: float, end: float | None) -> None:
    assert refused_part(write_clip(tmp_path / "clip.mp4", LONG), start, end) == "outside_clip"


def test_limits_are_those_of_the_part(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", LONG)
    assert part(path, 3.0, 4.0, max_duration_s=1.5).duration_s == pytest.approx(1.0)
    assert refused_part(path, 1.0, 4.0, max_duration_s=1.5) == "too_long"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_part_of_a_cut_file_is_refused_where_it_is_cut(tmp_path: Path, suffix: str) -> None:
    path = write_clip(
        tmp_path / f"clip.{suffix}", replace(LONG, options={"movflags": "faststart"} if suffix == "mp4" else {})
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert refused_part(path, 1.0, 5.5) == "corrupt"
    assert refused_part(path, 5.5, 5.9) in ("corrupt", "no_frames", "outside_clip")
    assert part(path, 0.0, 1.5).duration_s == pytest.approx(1.5)


@pytest.mark.parametrize("options", [{"threads": 2}, {"hwaccel": "cuda"}], ids=["threads", "no GPU"])
def test_speed_settings_change_nothing(tmp_path: Path, options: dict[str, object]) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    one, other = decode(path), decode(path, SPEC.model_copy(update=options))
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.waveform, other.waveform)


def test_a_known_file_is_not_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    clip, sha256 = Clip(clip_id="c", uri="clip.mp4"), file_digest(path)
    assert decode_unless_known(clip, path, SPEC, frozenset({sha256})) == (None, sha256)
    decoded, same = decode_unless_known(clip, path, SPEC, frozenset({"another"}))
    assert (decoded is not None, same) == (True, sha256)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "v.mp4", Recipe())

    def denied(*_: object, **__: object) -> None:
        raise av.error.PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(av, "open", denied)
    assert refused(path) == "unreadable"


def test_a_decoder_without_memory_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("avere_ray.media.sample_frames", starve)
    assert refused(write_clip(tmp_path / "clip.mp4")) == "out_of_memory"
