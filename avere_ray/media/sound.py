"""The waveform of a file of which the sound alone is wanted: mono float32 at 16 kHz, from first sample to last."""

from collections.abc import Iterator

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.stream import Stream

from avere_ray.media.audio import SAMPLE_RATE, Piece, resampled
from avere_ray.media.limits import Guard
from avere_ray.media.packets import Tick, declared_length, length, seconds
from avere_ray.media.reading import open_media


def whole_waveform(guard: Guard) -> np.ndarray:
    """Mean of the channels, float32 [S] in [-1, 1]; gaps are silent.

    Raises:
        ClipDecodeError: there is no sound, it is too long or cut off, or most of it cannot be decoded.
    """
    with open_media(guard) as container:
        guard.streams(len(container.streams))
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise guard.refuse("no_audio_stream", "the file has no audio", "Send a file with sound")
        if stream.codec_context is None:
            raise guard.refuse("unsupported_codec", "no decoder for its audio", "Convert it to wav, flac or m4a")
        guard.length(declared_length(stream) or 0.0)
        heard = _Heard(guard, container, stream)
        samples = _joined(list(resampled(heard.frames(), 0.0)), guard)
        _check_whole(guard, stream, samples, heard.promised)
    return samples.clip(-1.0, 1.0)


class _Heard:
    """The decoded audio of a file; `promised`: seconds its packets say they hold."""

    def __init__(self, guard: Guard, container: InputContainer, stream: Stream) -> None:
        self.guard = guard
        self.container = container
        self.stream = stream
        self.tick = Tick.of(stream)
        self.promised = 0.0

    def frames(self) -> Iterator[tuple[float | None, AudioFrame]]:
        """Times (s, None where the file tells none) and frames, without what is damaged."""
        for count, packet in enumerate(self.container.demux(self.stream)):
            self.guard.clock()
            self.guard.packets(count)
            self.promised += 0.0 if packet.is_discard else length(packet, self.tick)
            self.guard.length(self.promised)
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.FFmpegError:  # the gap it leaves is judged by `_check_whole`
                continue
            for frame in frames:
                if not frame.is_corrupt:
                    yield seconds(frame, self.tick), frame


def _joined(pieces: list[Piece], guard: Guard) -> np.ndarray:
    """The pieces on one time axis from the first sample on."""
    if not any(len(piece.samples) for piece in pieces):
        raise guard.refuse("no_audio_samples", "its audio has no samples", "Record it again")
    begin = min(piece.began for piece in pieces)
    end = max(piece.began + (piece.before + len(piece.samples)) / SAMPLE_RATE for piece in pieces)
    guard.length(end - begin)
    samples = np.zeros(round((end - begin) * SAMPLE_RATE), np.float32)
    for piece in pieces:
        first = round((piece.began - begin) * SAMPLE_RATE) + piece.before
        part = samples[first : first + len(piece.samples)]
        part[:] = piece.samples[: len(part)]
    return samples


def _check_whole(guard: Guard, stream: Stream, samples: np.ndarray, promised: float) -> None:
    have = len(samples) / SAMPLE_RATE
    guard.complete(declared_length(stream), have, "audio")
    if have < 0.9 * promised - 0.1 or not np.isfinite(samples).all():
        raise guard.refuse("corrupt", f"only {have:.2f} s of its {promised:.2f} s of audio can be decoded")
