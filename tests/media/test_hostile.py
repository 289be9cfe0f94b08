"""Every kind of odd or broken file ends right or with a reason; nothing hangs, nothing takes the process down.

The files go through the child process that decodes in production.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clipmaker import number_of
from corpus import KINDS, Kind, plain

from avere_ray import decoder_child
from avere_ray.config import DecodeConfig, RemoteConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.media import SAMPLE_RATE
from avere_ray.records import Clip, DecodedClip

SPEC = DecodeConfig(frames=4, height=28, width=28, timeout_s=20.0, max_memory_mb=1024)
REASONS = {
    "corrupt",
    "no_video_stream",
    "no_audio_stream",
    "no_frames",
    "no_audio_samples",
    "unsupported_codec",
    "too_long",
    "too_many_pixels",
    "too_many_streams",
    "out_of_memory",
}
"""What a damaged file may be refused for; not among them: timeout, decoder_crashed."""


@pytest.fixture(scope="module", autouse=True)
def _child_ends() -> Iterator[None]:
    yield
    decoder_child._decoder_child(SPEC.max_memory_mb).close()


def outcome(path: Path) -> DecodedClip | ClipDecodeError:
    try:
        return decoder_child.decode_one(Clip(clip_id="c", uri=path.name), path.parent, SPEC, RemoteConfig())
    except ClipDecodeError as error:
        return error


def assert_well_formed(clip: DecodedClip) -> None:
    assert clip.frames.shape == (4, 28, 28, 3)
    assert clip.waveform.shape == (round(clip.duration_s * SAMPLE_RATE),)
    assert np.isfinite(clip.waveform).all()
    assert np.abs(clip.waveform).max() <= 1
    assert (np.diff(clip.frame_times_s) >= 0).all()


def assert_right(clip: DecodedClip, kind: Kind) -> None:
    assert_well_formed(clip)
    numbers = [number_of(frame) for frame in clip.frames]
    assert np.abs(np.array(numbers) - kind.numbers).max() <= 1, numbers
    assert clip.duration_s == pytest.approx(kind.duration_s, abs=0.101)
    heard = np.flatnonzero(np.abs(clip.waveform) > 0.1) / SAMPLE_RATE
    assert (heard[0], heard[-1]) == pytest.approx(kind.tone_s, abs=0.101)
    middle = clip.waveform[int((kind.tone_s[1] - 0.2) * SAMPLE_RATE) :][: SAMPLE_RATE // 10]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16_000))
    assert spectrum.argmax() == pytest.approx(440, abs=12)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.12)


def test_the_corpus_has_at_least_forty_kinds() -> None:
    assert len(KINDS) >= 40
    assert sum(not kind.reasons for kind in KINDS.values()) >= 30
    assert sum(bool(kind.reasons) for kind in KINDS.values()) >= 30


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_right_or_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = tmp_path / (f"clip.{kind.suffix}" if kind.suffix else "clip")
    kind.make(path)
    result = outcome(path)
    if isinstance(result, ClipDecodeError):
        assert result.reason in kind.reasons, result.message
        assert result.message.startswith(f"{path}: ")
        assert result.message.count(". ") >= 1  # what is wrong, and what to do
        assert result.message.endswith(".")
    else:
        assert not kind.reasons
        assert_right(result, kind)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "avi", "webm", "mov"])
@pytest.mark.parametrize("part", range(4))
def test_flipped_bits_decode_or_have_a_reason(tmp_path: Path, container: str, part: int) -> None:
    """10 files a time, 240 in all; in each 1 to 60 bits are flipped, anywhere."""
    source = plain(container, "faststart" if container in ("mp4", "mov") else "")
    for seed in range(part * 10, part * 10 + 10):
        rng = np.random.default_rng(seed)
        flipped = bytearray(source)
        for position in rng.integers(0, len(flipped), size=rng.integers(1, 60)):
            flipped[position] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{seed}.{container}"
        path.write_bytes(flipped)
        result = outcome(path)
        if isinstance(result, ClipDecodeError):
            assert result.reason in REASONS, result.message
        else:
            assert_well_formed(result)


def test_a_file_cut_at_every_twentieth_never_passes_for_whole(tmp_path: Path) -> None:
    source = plain("mp4", "faststart")
    for share in range(1, 20):
        path = tmp_path / f"{share}.mp4"
        path.write_bytes(source[: len(source) * share // 20])
        result = outcome(path)
        assert isinstance(result, ClipDecodeError), f"{share / 20:.0%} of the file passed for all of it"
        assert result.reason in REASONS
