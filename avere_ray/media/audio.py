"""The waveform of a clip: mono float32 at 16 kHz over the span of its video, silent where the file has no audio.

The resampler keeps the channels and they are averaged afterwards, because FFmpeg's own downmix changes the gain. It
gets a piece at a time, and nothing well after the end of the clip is decoded, so that memory stays bounded however
long a file's audio is.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from avere_ray.media.packets import seconds
from avere_ray.media.reading import LEAD_S, Reading

SAMPLE_RATE = 16_000
"""Hz of every waveform."""
_JOINED = 1 << 18
"""Samples given to the resampler at a time."""
_RUN_GAP_S = 0.04
"""Audio frames further apart than this are placed by their timestamps instead of joined."""


def waveform(reading: Reading) -> np.ndarray:
    """Mean of the channels, float32 [S] in [-1, 1], S = round(duration * 16000).

    Raises:
        ClipDecodeError: there is no audio within the clip, most of it cannot be decoded, or there is no time left.
    """
    span, guard = reading.span, reading.sound_guard
    samples = np.zeros(round(span.duration * SAMPLE_RATE), dtype=np.float32)
    count = reading.heard.count_until(span.start + span.duration + LEAD_S - reading.sound_shift())
    decoded, heard = 0, 0
    for piece in resampled(_decoded(reading, count), span.start):
        first = round((piece.began - span.start) * SAMPLE_RATE) + piece.before
        low, high = max(first, 0), min(first + len(piece.samples), len(samples))
        decoded += len(piece.samples)
        if high > low:
            samples[low:high] = piece.samples[low - first : high - first]
            heard += high - low
    if heard == 0:
        what = "its audio has no samples within the video"
        raise guard.refuse("no_audio_samples", what, "Remove the clip or record it again")
    promised = sum(reading.heard.promised)
    good = decoded / SAMPLE_RATE + sum(reading.heard.promised[count:])  # what is not decoded is not doubted
    if good < 0.9 * promised - 0.1 or not np.isfinite(samples).all():
        what = f"only {good:.2f} s of its {promised:.2f} s of audio can be decoded"
        raise guard.refuse("corrupt", what)
    return np.clip(samples, -1.0, 1.0)


def _decoded(reading: Reading, count: int) -> Iterator[tuple[float | None, AudioFrame]]:
    """Times (s, None where the file tells none) and frames of the first `count` packets, without what is damaged."""
    shift = reading.sound_shift()
    for packet in itertools.chain(reading.audio_packets(count), [None]):
        reading.guard.clock()
        try:
            frames = reading.audio.codec_context.decode(packet)
        except av.FFmpegError:  # the gap it leaves is judged by `waveform`
            continue
        for frame in frames:
            if not frame.is_corrupt:
                at = seconds(frame, reading.audio_tick)
                yield (None if at is None else at + shift), frame


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an unbroken run of decoded audio."""

    began: float
    """Time of the run's first sample, seconds."""
    before: int
    """Samples of the run before this piece."""
    samples: np.ndarray
    """Mono 16 kHz, float32 [n]."""


def resampled(decoded: Iterator[tuple[float | None, AudioFrame]], start: float) -> Iterator[Piece]:
    """Unbroken runs of decoded audio, a piece at a time, in order; `start`: the time of a first frame without one."""
    run: _Run | None = None
    end = start
    for time, frame in decoded:
        at = end if time is None else time
        if run is not None and (abs(at - end) > _RUN_GAP_S or _setup(frame) != run.setup):
            yield run.rest()
            run = None
        if run is None:
            run, end = _Run(at, _setup(frame)), at
        end += frame.samples / frame.sample_rate
        yield from run.add(frame)
    if run is not None:
        yield run.rest()


class _Run:
    """Frames without a gap on their way through a resampler that keeps the channels, which are averaged here.

    The frames, 1024 samples or so each, are joined before: the resampler takes long for each call.
    """

    def __init__(self, began: float, setup: tuple[str, int, int]) -> None:
        self.began = began
        self.setup = setup
        self._given = 0
        self._joined = AudioFifo()
        self._resampler = AudioResampler(format="fltp", layout=None, rate=SAMPLE_RATE)

    def add(self, frame: AudioFrame) -> Iterator[Piece]:
        """The pieces that are complete with this frame."""
        frame.pts = None  # the run has no gaps, and rounded timestamps may seem to
        self._joined.write(frame)
        while self._joined.samples > _JOINED:
            yield self._piece(self._resampler.resample(self._joined.read(_JOINED)))

    def rest(self) -> Piece:
        """The last piece, with the resampler's tail."""
        last = self._joined.read(partial=True)
        frames = self._resampler.resample(last) if last is not None else []
        return self._piece(frames + self._resampler.resample(None))

    def _piece(self, frames: list[AudioFrame]) -> Piece:
        before = self._given
        if not frames:
            return Piece(self.began, before, np.zeros(0, dtype=np.float32))
        samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).mean(axis=0, dtype=np.float32)
        self._given += len(samples)
        return Piece(self.began, before, samples)


def _setup(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate
