"""Decoding only what is needed gives the very frames that decoding everything gives, and is really less."""

from pathlib import Path

import av
import numpy as np
import pytest
from clipmaker import Recipe, write_clip

from avere_ray.config import DecodeConfig
from avere_ray.media import decode_clip, packets, video
from avere_ray.records import Clip, DecodedClip

COUNT = 72
TEXTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
X264 = "keyint=24:min-keyint=24:scenecut=0:bframes=3"


def moving(number: int, height: int, width: int) -> np.ndarray:
    """A texture that moves and brightens: a frame made from wrong references differs."""
    return np.roll(TEXTURE, number * 3, axis=1) // 2 + np.uint8(number)


FILES: dict[str, tuple[str, dict[str, object]]] = {
    "h264": ("mp4", {"codec_options": {"x264-params": X264}}),
    "h264 b-pyramid": ("mkv", {"codec_options": {"x264-params": X264 + ":b-pyramid=normal:bframes=5"}}),
    "h264 open gop": ("mp4", {"codec_options": {"x264-params": X264 + ":open-gop=1"}}),
    "h264 open gop stream": ("ts", {"codec_options": {"x264-params": X264 + ":open-gop=1"}}),
    "h264 intra refresh": ("mp4", {"codec_options": {"x264-params": "intra-refresh=1:keyint=24"}}),
    "hevc": ("mp4", {"codec": "libx265", "codec_options": {"x265-params": "keyint=24:min-keyint=24:log-level=none"}}),
    "hevc open gop": (
        "mkv",
        {"codec": "libx265", "codec_options": {"x265-params": "keyint=24:open-gop=1:bframes=4:log-level=none"}},
    ),
    "vp9": ("webm", {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "deadline": "realtime"}}),
    "av1": ("mkv", {"codec": "libsvtav1", "codec_options": {"preset": "12"}}),
    "mpeg4": ("mp4", {"codec": "mpeg4"}),
    "mjpeg": ("mov", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "avi": ("avi", {"codec": "mpeg4"}),
}


@pytest.fixture(scope="module", params=FILES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    suffix, recipe = FILES[request.param]
    if suffix == "webm":
        recipe = {**recipe, "audio_codec": "libopus", "rate": 48_000}
    recipe = {"width": 64, "height": 64, "gop_size": 24, "audio_s": COUNT / 25, "rate": 16_000, **recipe}
    times = [i / 25 for i in range(COUNT)]
    folder = tmp_path_factory.mktemp("plan")
    return write_clip(folder / f"clip.{suffix}", Recipe(frame_times_s=times, paint=moving, **recipe))  # type: ignore[arg-type]


def decode(path: Path, frames: int) -> DecodedClip:
    return decode_clip(Clip(clip_id="c", uri=""), path, DecodeConfig(frames=frames, height=56, width=56))


def assert_same(one: DecodedClip, other: DecodedClip) -> None:
    np.testing.assert_array_equal(one.frame_times_s, other.frame_times_s)
    np.testing.assert_array_equal(one.frames, other.frames)
    np.testing.assert_array_equal(one.waveform, other.waveform)


@pytest.mark.parametrize("frames", [1, 2, 5, 13])
def test_the_plan_gives_what_decoding_everything_gives(
    path: Path, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = decode(path, frames)
    monkeypatch.setattr(video, "_as_planned", lambda reading, album: False)
    assert_same(planned, decode(path, frames))


def test_a_large_file_is_read_twice_instead_of_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = decode(path, 5)
    monkeypatch.setattr(packets, "HELD_BYTES", 0)
    assert_same(held, decode(path, 5))
    monkeypatch.setattr(video, "_as_planned", lambda reading, album: False)
    assert_same(held, decode(path, 5))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    recipe = Recipe(frame_times_s=[i / 25 for i in range(COUNT)], paint=moving, width=64, height=64, gop_size=24)
    return write_clip(tmp_path / "clip.mp4", recipe)


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[object]:
    """Every call of a method, while it does what it does."""
    calls: list[object] = []
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(a) or original(*a, **k))
    return calls


def test_only_wanted_frames_are_converted(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = counted(monkeypatch, video._Album, "_picture")
    decode(plain, 3)
    assert len(pictures) == 3


def test_packets_that_nothing_needs_are_jumped_over(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    original = video.decoding_runs
    monkeypatch.setattr(video, "decoding_runs", lambda *a: runs.extend(original(*a)) or original(*a))
    everything = counted(monkeypatch, video, "_all_decoded")
    decode(plain, 3)  # at 12, 36 and 60 of 72 frames
    assert [run.first for run in runs] == [0, 24, 48]
    assert sum(run.last - run.first + 1 for run in runs) < COUNT * 0.7
    assert not everything


def test_damage_on_the_way_makes_it_decode_everything(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decode(plain, 3)
    with av.open(str(plain)) as container:
        packet = max([p for p in container.demux(video=0) if p.size][26:34], key=lambda p: p.size)
    data = bytearray(plain.read_bytes())
    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    plain.write_bytes(data)
    everything = counted(monkeypatch, video, "_all_decoded")
    damaged = decode(plain, 3)
    assert everything
    np.testing.assert_array_equal(whole.frames[[0, 2]], damaged.frames[[0, 2]])
    assert abs(float(damaged.frame_times_s[1]) - float(whole.frame_times_s[1])) <= 0.2
