"""The waveform of a clip: mono float32 at 16 kHz over the span of its video, silent where the file has no audio.

The resampler keeps the channels and they are averaged afterwards, because FFmpeg's own downmix changes the gain.
"""

from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from avere_ray.media.packets import length, seconds
from avere_ray.media.reading import Reading

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
    decoded, heard = 0, 0
    for at, run in resampled_runs(_decoded(reading), span.start):
        first = round((at - span.start) * SAMPLE_RATE)
        low, high = max(first, 0), min(first + len(run), len(samples))
        decoded += len(run)
        if high > low:
            samples[low:high] = run[low - first : high - first]
            heard += high - low
    if heard == 0:
        what = "its audio has no samples within the video"
        raise guard.refuse("no_audio_samples", what, "Remove the clip or record it again")
    promised = sum(length(p, reading.audio_tick) for p in reading.heard if not p.is_discard)
    if decoded / SAMPLE_RATE < 0.9 * promised - 0.1 or not np.isfinite(samples).all():
        what = f"only {decoded / SAMPLE_RATE:.2f} s of its {promised:.2f} s of audio can be decoded"
        raise guard.refuse("corrupt", what)
    return np.clip(samples, -1.0, 1.0)


def _decoded(reading: Reading) -> Iterator[tuple[float | None, AudioFrame]]:
    """Times (s, None where the file tells none) and frames, without what is damaged."""
    shift = reading.sound_shift()
    for packet in [*reading.heard, None]:
        reading.guard.clock()
        try:
            frames = reading.audio.codec_context.decode(packet)
        except av.FFmpegError:  # the gap it leaves is judged by `waveform`
            continue
        for frame in frames:
            if not frame.is_corrupt:
                at = seconds(frame, reading.audio_tick)
                yield (None if at is None else at + shift), frame


def resampled_runs(
    decoded: Iterator[tuple[float | None, AudioFrame]], start: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Unbroken runs of decoded audio: the time of the first sample and the mono 16 kHz samples, float32 [n]."""
    run: list[AudioFrame] = []
    began = end = start
    for time, frame in decoded:
        at = end if time is None else time
        if run and (abs(at - end) > _RUN_GAP_S or _setup(frame) != _setup(run[0])):
            yield began, _resample(run)
            run = []
        if not run:
            began = end = at
        run.append(frame)
        end += frame.samples / frame.sample_rate
    if run:
        yield began, _resample(run)


def _resample(run: Sequence[AudioFrame]) -> np.ndarray:
    """Mono 16 kHz samples [n]: channels kept by the resampler and averaged here, its tail flushed.

    The frames, 1024 samples or so each, are joined before: the resampler takes long for each call.
    """
    joined, resampler = AudioFifo(), AudioResampler(format="fltp", layout=None, rate=SAMPLE_RATE)
    for frame in run:
        frame.pts = None  # the run has no gaps, and rounded timestamps may seem to
        joined.write(frame)
    pieces: list[np.ndarray] = []
    while (part := joined.read(_JOINED, partial=True)) is not None:
        pieces += [out.to_ndarray() for out in resampler.resample(part)]
    pieces += [out.to_ndarray() for out in resampler.resample(None)]
    if not pieces:
        return np.zeros(0, dtype=np.float32)
    return np.concatenate(pieces, axis=1).mean(axis=0, dtype=np.float32)


def _setup(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate
