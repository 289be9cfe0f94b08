"""What a file's packets tell of time (units, begins, lengths), and the packets themselves while they are few."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from av.audio.frame import AudioFrame
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

from avere_ray.media.keyframes import starts_decoding

HELD_BYTES = 64 * 1024 * 1024
"""Packets of a stream are kept in memory up to this much."""
_FALLBACK_FRAME_S = 0.04
"""Length of a frame where the file tells none (25 per second)."""
EDGE_S = 1e-6
"""Seconds by which two times that mean the same may differ."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The unit of a stream's timestamps, as a fraction of a second; plain whole numbers, since Fraction is slow."""

    numerator: int
    denominator: int

    @classmethod
    def of(cls, stream: Stream) -> "Tick":
        base = stream.time_base
        return cls(base.numerator, base.denominator) if base else cls(0, 1)

    def seconds(self, ticks: int) -> float:
        """A timestamp in seconds, correctly rounded."""
        return ticks * self.numerator / self.denominator


@dataclass(slots=True)
class Packets:
    """The packets of a stream in file order: what the file says of each, and their data while that is little."""

    times: list[float] = field(default_factory=list)
    """Presentation time, seconds; decoding time in files that have no other (AVI); NaN where there is neither."""
    lengths: list[float] = field(default_factory=list)
    """Seconds; 0 where the file tells none."""
    shown: list[bool] = field(default_factory=list)
    """Has a time, and is not cut away by an edit list."""
    held: list[Packet] | None = field(default_factory=list)
    held_bytes: int = 0

    def note(self, packet: Packet, tick: Tick) -> None:
        """Notes the next packet."""
        at = seconds(packet, tick)
        self.times.append(float("nan") if at is None else at)
        self.lengths.append(length(packet, tick))
        self.shown.append(at is not None and not packet.is_discard)
        self.held_bytes += packet.size
        if self.held is not None and self.held_bytes <= HELD_BYTES:
            self.held.append(packet)
        else:
            self.held = None

    def spans(self) -> list[tuple[float, float]]:
        """Begin and end of every packet that has a time."""
        return [(at, at + n) for at, n in zip(self.times, self.lengths, strict=True) if at == at]


@dataclass(slots=True)
class VideoPackets(Packets):
    """The packets of the video."""

    stamps: list[int | None] = field(default_factory=list)
    """Presentation timestamp as written."""
    keyframes: list[bool] = field(default_factory=list)
    """Decoding may start here."""

    def add(self, packet: Packet, stream: Stream, tick: Tick) -> None:
        """Notes the next packet."""
        self.note(packet, tick)
        self.stamps.append(packet.pts)
        self.keyframes.append(starts_decoding(packet, stream))

    def shown_times(self) -> list[float]:
        """Times of the frames that are shown, in file order."""
        return [at for at, shown in zip(self.times, self.shown, strict=True) if shown]


@dataclass(slots=True)
class AudioPackets(Packets):
    """The packets of the audio."""

    promised: list[float] = field(default_factory=list)
    """Seconds of sound that are to be heard of each; 0 where an edit list cuts them away."""

    def add(self, packet: Packet, tick: Tick) -> None:
        """Notes the next packet."""
        self.note(packet, tick)
        self.promised.append(0.0 if packet.is_discard else self.lengths[-1])

    def count_until(self, end: float) -> int:
        """How many packets, from the first, there are up to the last that begins by `end`, seconds, or at no known
        time; none of those after it does."""
        return next((i + 1 for i in reversed(range(len(self.times))) if not self.times[i] > end), 0)


@dataclass(frozen=True, slots=True)
class Span:
    """The clip in the file's own time: start and length, seconds, and the times of its frames, ascending."""

    start: float
    duration: float
    times: np.ndarray
    whole: bool
    """Whether the clip is the whole file."""

    def holds(self, at: float) -> bool:
        """Whether a frame at this time belongs to the clip."""
        return self.whole or bool(self.times[0] - EDGE_S <= at <= self.times[-1] + EDGE_S)


def seconds(item: Packet | VideoFrame | AudioFrame, tick: Tick) -> float | None:
    """Presentation time, or decoding time in files that have no other (AVI); None when there is neither."""
    stamp = item.pts if item.pts is not None else item.dts
    return None if stamp is None else tick.seconds(stamp)


def length(packet: Packet, tick: Tick) -> float:
    """Seconds a packet lasts; 0 where the file tells nothing."""
    return tick.seconds(packet.duration or 0)


def extent(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds from the first begin to the last end."""
    return max(end for _, end in spans) - min(at for at, _ in spans) if spans else 0.0


def start_of(stream: Stream) -> float | None:
    """Time of the stream's first frame, as the file tells it."""
    return None if stream.start_time is None or not stream.time_base else float(stream.start_time * stream.time_base)


def declared_length(stream: Stream) -> float | None:
    return None if stream.duration is None else float(stream.duration * (stream.time_base or 0))


def shown_time(packet: tuple[float, float, bool]) -> float:
    at, _, shown = packet
    return at if shown else float("-inf")


def frame_length(video: Stream, times: np.ndarray) -> float:
    if len(times) > 1:
        return float(np.median(np.diff(times)))
    return float(1 / video.average_rate) if video.average_rate else _FALLBACK_FRAME_S
