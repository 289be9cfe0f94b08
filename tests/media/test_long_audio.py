"""Audio that is much longer than its video, or a lot of data: the same waveform, with bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from clipmaker import Recipe, write_clip

from avere_ray.config import DecodeConfig
from avere_ray.media import SAMPLE_RATE, audio, decode_clip, packets
from avere_ray.records import Clip, DecodedClip


def part(path: Path, start_s: float = 0.0, end_s: float | None = None) -> DecodedClip:
    clip = Clip(clip_id="c", uri=path.name, start_s=start_s, end_s=end_s)
    return decode_clip(clip, path, DecodeConfig(frames=4, height=56, width=84))


def all_at_once(path: Path, samples: int) -> np.ndarray:
    """The waveform by way of the whole file's audio in memory, for files without gaps whose streams begin together."""
    joined, resampler = av.AudioFifo(), av.AudioResampler(format="fltp", layout=None, rate=SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    first = round(frames[0].pts * frames[0].time_base * SAMPLE_RATE)
    for frame in frames:
        frame.pts = None
        joined.write(frame)
    resampled = []
    while (part := joined.read(1 << 18, partial=True)) is not None:
        resampled += resampler.resample(part)
    resampled += resampler.resample(None)
    heard = np.concatenate([frame.to_ndarray() for frame in resampled], axis=1).mean(axis=0, dtype=np.float32)
    assert first <= 0
    return np.clip(heard[-first : samples - first], -1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("clip.mp4", {}),
        ("clip.mp4", {"audio_s": 9.0, "rate": 48_000, "layout": "5.1", "tones_hz": (440.0,) * 6}),
        ("clip.mkv", {"audio_s": 4.0, "rate": 96_000, "audio_codec": "flac"}),
        (
            "clip.mkv",
            {
                "audio_s": 60.0,
                "rate": 22_050,
                "layout": "stereo",
                "tones_hz": (440.0, 300.0),
                "audio_codec": "pcm_s16le",
            },
        ),
        ("clip.mkv", {"audio_s": 9.0, "rate": 44_100, "frame_times_s": [i / 2 for i in range(16)]}),
    ],
)
def test_audio_in_pieces_is_bit_for_bit_the_audio_in_one(tmp_path: Path, name: str, recipe: dict[str, object]) -> None:
    path = write_clip(tmp_path / name, Recipe(**recipe))  # type: ignore[arg-type]
    waveform = part(path).waveform
    assert np.array_equal(waveform, all_at_once(path, len(waveform)))


def test_audio_well_after_the_video_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, pieces = [], audio.resampled

    def counted(frames: Iterator[tuple[float | None, av.AudioFrame]], start: float) -> Iterator[audio.Piece]:
        def count() -> Iterator[tuple[float | None, av.AudioFrame]]:
            for time, frame in frames:
                decoded.append(frame.samples / frame.sample_rate)
                yield time, frame

        return pieces(count(), start)

    monkeypatch.setattr(audio, "resampled", counted)
    heard = np.flatnonzero(np.abs(part(write_clip(tmp_path / "clip.mp4", Recipe(audio_s=90.0))).waveform) > 0.1)
    assert (heard[0], heard[-1]) == pytest.approx((0, 2 * SAMPLE_RATE), abs=500)
    assert 2.0 < sum(decoded) < 3.2


def test_long_audio_is_decoded_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_JOINED", 1 << 14)
    path = write_clip(tmp_path / "clip.mkv", Recipe(audio_s=30.0, audio_codec="flac", rate=32_000))
    with av.open(str(path)) as container:
        frames = [(frame.time, frame) for frame in container.decode(audio=0)]
    pieces = list(audio.resampled(iter(frames), 0.0))
    assert len(pieces) > 50
    assert max(len(piece.samples) for piece in pieces) <= 1 << 14
    assert [piece.before for piece in pieces] == np.cumsum([0, *(len(piece.samples) for piece in pieces[:-1])]).tolist()
    assert sum(len(piece.samples) for piece in pieces) == pytest.approx(30 * SAMPLE_RATE, abs=2)


@pytest.mark.parametrize("start", [0.0, 4.0])
def test_a_file_with_much_audio_data_is_read_again_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float
) -> None:
    times = [i * 0.4 for i in range(20)]
    path = write_clip(tmp_path / "clip.mp4", Recipe(frame_times_s=times, audio_s=8.0))
    held = part(path, start, start + 2)
    monkeypatch.setattr(packets, "HELD_BYTES", 100)
    again = part(path, start, start + 2)
    assert np.array_equal(held.waveform, again.waveform)
    assert np.array_equal(held.frames, again.frames)
    assert np.abs(again.waveform[8_000:24_000]).max() > 0.4
