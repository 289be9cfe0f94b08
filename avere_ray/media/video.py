"""The wanted frames of a clip, rotated, resized and converted; nothing else is converted, and little else decoded.

First as planned from the keyframe index (`sampling.decoding_runs`): jump to the keyframe before each wanted frame, and
within H.264 skip pictures that no other needs. The frames are the very ones that decoding everything gives. Where
timestamps are incomplete or anything does not decode, everything is decoded instead, and what is missing is judged by
the gap it leaves.
"""

from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from avere_ray.media.limits import Guard
from avere_ray.media.packets import seconds
from avere_ray.media.reading import Reading
from avere_ray.media.sampling import Run, decoding_runs, nearest, wanted_times

_SLACK_S = 0.2
"""How far a decoded frame may be from the one its timestamp promised before the clip counts as corrupt."""


def sample_frames(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Times float32 [T], seconds from the start of the clip, and frames uint8 [T, H, W, 3].

    Raises:
        ClipDecodeError: a wanted time is outside the clip, the frames cannot be decoded, or there is no time left.
    """
    span, spec = reading.span, reading.guard.spec
    wanted = wanted_times(spec, span.duration)
    if wanted[-1] >= span.duration:
        what = f"a frame is wanted at {wanted[-1]:g} s, but the clip is {span.duration:.2f} s long"
        raise reading.guard.refuse("outside_clip", what, "Remove the clip, or correct data.decode.times_s")
    album = _Album(reading, span.start + wanted)
    if not _as_planned(reading, album):
        reading.video.codec_context.flush_buffers()
        reading.video.codec_context.skip_frame = "DEFAULT"
        _all_decoded(reading, album)
    return album.times, album.frames


class _Album:
    """The frames found so far, in order of their targets: times float32 [T], frames uint8 [T, H, W, 3]."""

    def __init__(self, reading: Reading, targets: np.ndarray) -> None:
        self.guard: Guard = reading.guard
        self.start = reading.span.start
        self.targets = targets
        spec = reading.guard.spec
        self.times = np.empty(len(targets), dtype=np.float32)
        self.frames = np.empty((len(targets), spec.height, spec.width, 3), dtype=np.uint8)
        self._reformatter = VideoReformatter()

    def put(self, places: slice | Sequence[int], frame: VideoFrame, at: float) -> None:
        """Converts a frame once, for all the places where it is wanted."""
        self.frames[places] = self._picture(frame)
        self.times[places] = max(at - self.start, 0.0)

    def _picture(self, frame: VideoFrame) -> np.ndarray:
        self.guard.pixels(frame.width, frame.height)
        turns = round(frame.rotation / 90) % 4
        height, width = self.guard.spec.height, self.guard.spec.width
        if turns % 2:
            height, width = width, height
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        return np.rot90(rgb.to_ndarray(), turns)


def _as_planned(reading: Reading, album: _Album) -> bool:
    """Fills the album by decoding what is needed only; False where timestamps or data do not allow it."""
    packets, span = reading.packets, reading.span
    index = {at: i for i, (at, shown) in enumerate(zip(packets.times, packets.shown, strict=True)) if shown}
    if None in packets.stamps or len(index) != sum(packets.shown):
        return False
    chosen = [index[at] for at in span.times[nearest(span.times, album.targets)]]
    places: dict[int | None, list[int]] = {}
    for place, packet in enumerate(chosen):
        places.setdefault(packets.stamps[packet], []).append(place)
    runs = decoding_runs(np.array(packets.times), np.array(packets.keyframes), np.array(chosen))
    try:
        for frame in _decoded_runs(reading, runs, set(chosen)):
            if frame.pts in places:
                album.put(places.pop(frame.pts), frame, seconds(frame, reading.video_tick) or 0.0)
            if not places:
                return True
    except av.FFmpegError:
        return False
    return False


def _decoded_runs(reading: Reading, runs: Sequence[Run], kept: set[int]) -> Iterator[VideoFrame]:
    """Undamaged frames of the runs; the decoder is emptied after each."""
    context = reading.video.codec_context
    sparing = context.name == "h264" and reading.guard.spec.threads == 1 and not context.is_hwaccel
    packets = enumerate(reading.video_packets())
    for run in runs:
        context.flush_buffers()
        for index, packet in packets:
            reading.guard.clock()
            if index < run.first:
                continue
            if sparing:
                context.skip_frame = "DEFAULT" if index in kept else "NONREF"
            yield from (f for f in context.decode(packet) if not f.is_corrupt)
            if index == run.last:
                break
        yield from (f for f in context.decode(None) if not f.is_corrupt)


def _all_decoded(reading: Reading, album: _Album) -> None:
    """Fills the album from everything that decodes: for each target the nearest frame there is."""
    found = 0
    for frame, at, until in _with_midpoints(_decoded(reading)):
        wanted = int(np.searchsorted(album.targets, until, side="right"))
        if wanted > found:
            _check_place(reading, at, album.targets[found:wanted])
            album.put(slice(found, wanted), frame, at)
            found = wanted
        if found == len(album.targets):
            return
    raise reading.guard.refuse("no_frames", "none of its video frames can be decoded")


def _decoded(reading: Reading) -> Iterator[tuple[float, VideoFrame]]:
    """Times and frames of the clip in presentation order, without what cannot be decoded or is known to be damaged.

    Times are taken from the stream's time base: the last frames, which the decoder gives back when it is flushed,
    carry none of their own.
    """
    for packet in _and_flush(reading):
        reading.guard.clock()
        try:
            frames = reading.video.codec_context.decode(packet)
        except av.FFmpegError:  # the gap it leaves is judged by _check_place
            continue
        for frame in frames:
            at = seconds(frame, reading.video_tick)
            if at is not None and not frame.is_corrupt and reading.span.holds(at):
                yield at, frame


def _and_flush(reading: Reading) -> Iterator["av.Packet | None"]:
    yield from reading.video_packets()
    yield None


def _with_midpoints(decoded: Iterator[tuple[float, VideoFrame]]) -> Iterator[tuple[VideoFrame, float, float]]:
    """Each frame with its time and the time until which it is the nearest one."""
    previous: VideoFrame | None = None
    at = 0.0
    for time, frame in decoded:
        if previous is not None:
            yield previous, at, (at + time) / 2
        previous, at = frame, time
    if previous is not None:
        yield previous, at, float("inf")


def _check_place(reading: Reading, at: float, targets: np.ndarray) -> None:
    span = reading.span
    promised = np.abs(span.times[None, :] - targets[:, None]).min(axis=1)
    if (np.abs(at - targets) > promised + _SLACK_S).any():
        what = f"its video cannot be decoded around {targets[0] - span.start:.2f} s"
        raise reading.guard.refuse("corrupt", what)
