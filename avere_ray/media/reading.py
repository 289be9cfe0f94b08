"""Opens and demuxes a file once: the packets of its first video and first audio stream, and the span of the clip.

The video packets' timestamps say how long the clip is. The data of both streams is kept while it is little; a large
file is read a second time for its pictures or its sound, so that memory stays bounded. The sound may be a file of its
own; its first sample then belongs to the video's first frame.
"""

import collections
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream

from avere_ray.errors import ClipDecodeError
from avere_ray.media.limits import Guard, out_of_time
from avere_ray.media.packets import (
    EDGE_S,
    AudioPackets,
    Span,
    Tick,
    VideoPackets,
    declared_length,
    extent,
    frame_length,
    shown_time,
    start_of,
)
from avere_ray.records import Clip

LEAD_S = 1.0
"""A part of a longer file is read from this much before it, so that the audio decoder has warmed up."""
# Only these containers, and nothing but the file itself: a playlist in disguise must not make FFmpeg open other files.
FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "nut", "mxf")
"""Containers that are opened."""
_BARE = ("mpegvideo", "h264", "hevc", "m4v", "wav", "mp3", "aac", "flac")  # opened to say which stream is missing
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join((*FORMATS, *_BARE))}


class Misplaced(Exception):
    """After a jump the file goes on too late for the clip; it has to be read from its start."""


class Reading:
    """One clip of an opened file, demuxed: `video` and `audio` streams, `packets`, `heard` (audio packets), `span`."""

    def __init__(
        self,
        clip: Clip,
        guard: Guard,
        container: InputContainer,
        *,
        jump: bool,
        sound: "Sound | None" = None,
        silent: bool = False,
    ) -> None:
        """`jump`: go to a keyframe before the clip instead of reading the file from its start. `sound`: the separate
        audio file, opened; None: the sound is in the file itself. `silent`: the pictures alone are read, and there
        need be no sound.

        Raises:
            ClipDecodeError: a limit is passed, a stream is missing, or the file is cut off.
            Misplaced: after a jump, the clip's beginning was not found.
        """
        self.clip = clip
        self.guard = guard
        self.container = container
        self.sound = sound
        self.silent = silent
        self.sound_guard = guard if sound is None else sound.guard
        self.whole = clip.start_s == 0.0 and clip.end_s is None
        self.video, self.audio = self._streams()
        self.video_tick = Tick.of(self.video)
        self.audio_tick: Any = None if silent else Tick.of(self.audio)
        self.jumped = jump and self._jump(container)
        self.packets, self.heard = self._demux()
        self.span = self._span()

    def sound_shift(self) -> float:
        """Seconds from the audio's time to that of the video; 0 where both are in one file."""
        if self.sound is None:
            return 0.0
        return self.span.start - self.clip.start_s - (start_of(self.audio) or 0.0)

    def video_packets(self) -> Iterator[Packet]:
        """The video packets, from memory or from a second reading of the file."""
        if self.packets.held is not None:
            return iter(self.packets.held)
        return self._read_again(self.video, "video", self.guard, len(self.packets.times))

    def audio_packets(self, count: int) -> Iterator[Packet]:
        """The first `count` audio packets, from memory or from a second reading of the file."""
        if self.heard.held is not None:
            return itertools.islice(self.heard.held, count)
        return self._read_again(self.audio, "audio", self.sound_guard, count)

    def _read_again(self, stream: Stream, kind: str, guard: Guard, count: int) -> Iterator[Packet]:
        with open_media(guard) as again:
            if self.jumped and guard is self.guard:  # a separate audio file is read from its start
                self._jump(again)
            packets = again.demux(again.streams[stream.index])
            yield from itertools.islice((p for p in packets if p.size > 0 and not self._is_before(p, kind)), count)

    def _streams(self) -> tuple[Stream, Any]:
        """First video stream that is no cover picture and first audio stream (None if silent), within the limits."""
        guard, streams = self.guard, self.container.streams
        heard = streams if self.sound is None else self.sound.container.streams
        guard.streams(len(streams))
        self.sound_guard.streams(len(heard))
        video = next((s for s in streams.video if not s.disposition & Disposition.attached_pic), None)
        audio = None if self.silent else next(iter(heard.audio), None)
        if video is None:
            raise guard.refuse("no_video_stream", "the file has no video", "Remove the clip or add the video track")
        if audio is None and not self.silent:
            remedy = "Remove the clip, add the audio track, or name a separate audio file (audio_uri)"
            raise self.sound_guard.refuse("no_audio_stream", "the file has no audio", remedy)
        for kind, stream in (("video", video), ("audio", audio)):
            if stream is None:
                continue
            if stream.codec_context is None:
                what = f"no decoder for its {kind}"
                raise guard.refuse("unsupported_codec", what, "Re-encode it, e.g. H.264 and AAC")
            stream.codec_context.thread_count = 1
        if guard.spec.threads > 1:
            video.codec_context.thread_count = guard.spec.threads
            video.codec_context.thread_type = "AUTO"
        guard.pixels(video.codec_context.width, video.codec_context.height)
        video.codec_context.options = {"max_pixels": str(guard.spec.max_pixels)}  # should the size change on the way
        self._check_part(declared_length(video))
        return video, audio

    def _check_part(self, declared: float | None) -> None:
        """Whether the part of the file that the clip names can exist and is not too long."""
        start, end = self.clip.start_s, self.clip.end_s
        if start < 0 or (end is not None and end <= start):
            what = f"the clip begins at {start:g} s and ends at {'the end' if end is None else f'{end:g} s'}"
            remedy = "Set start_s to 0 or more, and end_s above it or leave it out"
            raise self.guard.refuse("outside_clip", what, remedy)
        if declared is not None and start > 0 and start >= declared:
            raise self._outside(declared)
        if declared is not None:
            self.guard.length((declared if end is None else min(declared, end)) - start)

    def _outside(self, seconds: float) -> ClipDecodeError:
        what = f"the clip begins at {self.clip.start_s:g} s, but the video is {seconds:.2f} s long"
        return self.guard.refuse("outside_clip", what, "Correct start_s in the clip table")

    def _jump(self, container: InputContainer) -> bool:
        """Goes to a keyframe some time before the clip, where the file says when its video starts."""
        video = self.video
        if video.start_time is None or not video.time_base:
            return False
        offset = video.start_time + int((self.clip.start_s - LEAD_S) / video.time_base)
        container.seek(offset, stream=container.streams[video.index], backward=True)
        return True

    def _demux(self) -> tuple[VideoPackets, AudioPackets]:
        """The packets of both streams. A read error ends the file there; what is missing shows in its length."""
        packets, heard = VideoPackets(), AudioPackets()
        streams = {"video": self.video} if self.silent else {"video": self.video, "audio": self.audio}
        self._listed = {kind: len(stream.index_entries) for kind, stream in streams.items()}
        self._read: collections.Counter[str] = collections.Counter()
        if self.silent:
            self._demux_file(self.container, self.guard, {self.video.index: "video"}, packets, heard)
        elif self.sound is None:
            both = {self.video.index: "video", self.audio.index: "audio"}
            self._demux_file(self.container, self.guard, both, packets, heard)
        else:
            self._demux_file(self.container, self.guard, {self.video.index: "video"}, packets, heard)
            self._demux_file(self.sound.container, self.sound_guard, {self.audio.index: "audio"}, packets, heard)
        return packets, heard

    def _demux_file(
        self, container: InputContainer, guard: Guard, kinds: dict[int, str], packets: VideoPackets, heard: AudioPackets
    ) -> None:
        """Adds the packets of one file; `kinds` by stream index."""
        passed = set[int]()
        try:
            for count, packet in enumerate(container.demux([container.streams[index] for index in kinds])):
                guard.clock()
                guard.packets(count)
                kind = kinds.get(packet.stream_index)
                if kind is None:
                    continue
                self._read[kind] += packet.dts is not None and not packet.is_corrupt
                if packet.size == 0 or self._is_before(packet, kind):
                    continue
                if kind == "video":
                    packets.add(packet, self.video, self.video_tick)
                else:
                    heard.add(packet, self.audio_tick)
                if self.clip.end_s is not None and self._is_past(packet, kind, packets):
                    passed.add(packet.stream_index)
                    if len(passed) == len(kinds):
                        break
        except (av.error.TimeoutError, av.error.ExitError) as error:
            raise out_of_time(guard.path, guard.spec) from error
        except av.FFmpegError as error:
            kind = next(iter(kinds.values()))
            if not (packets if kind == "video" else heard).times:
                raise guard.refuse("corrupt", f"no {kind} data can be read ({words(error)})") from error

    def _is_before(self, packet: Packet, kind: str) -> bool:
        """Whether a packet of a separate audio file is well before the clip; such a file is read from its start."""
        if self.sound is None or kind == "video" or packet.pts is None:
            return False
        return self.audio_tick.seconds(packet.pts) < (start_of(self.audio) or 0.0) + self.clip.start_s - LEAD_S

    def _is_past(self, packet: Packet, kind: str, packets: VideoPackets) -> bool:
        """Whether a packet, and with it every later one of its stream, is well after the end of the clip."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or not packets.times or self.clip.end_s is None:
            return False
        if kind == "audio" and self.sound is not None:
            return self.audio_tick.seconds(stamp) > (start_of(self.audio) or 0.0) + self.clip.end_s + LEAD_S
        tick = self.video_tick if kind == "video" else self.audio_tick
        start = start_of(self.video)
        first = packets.times[0] if start is None else start
        return tick.seconds(stamp) > first + self.clip.end_s + LEAD_S

    def _span(self) -> Span:
        """Start, length and frame times of the clip."""
        times = np.unique(self.packets.shown_times())
        if not len(times):
            if self.jumped:
                raise Misplaced
            self.guard.complete(declared_length(self.video), 0.0, "video")
            raise self.guard.refuse("no_frames", "its video has no frames", "Remove the clip or record it again")
        last = max(zip(self.packets.times, self.packets.lengths, self.packets.shown, strict=True), key=shown_time)[1]
        duration = float(times[-1] - times[0]) + (last or frame_length(self.video, times))
        if not self.whole:
            return self._part(times, float(times[0]) + duration)
        self.guard.length(duration)
        self._check_complete(duration)
        return Span(start=float(times[0]), duration=duration, times=times, whole=True)

    def _part(self, times: np.ndarray, video_end: float) -> Span:
        """The part [start, end) of the file that is the clip."""
        origin = (start_of(self.video) or 0.0) if self.jumped else float(times[0])
        start = origin + self.clip.start_s
        if self.jumped and (times[0] > start or not self.packets.keyframes[0]):
            raise Misplaced
        end = video_end if self.clip.end_s is None else min(origin + self.clip.end_s, video_end)
        self._check_part_complete(origin, end - start)
        if end <= start:
            raise self._outside(video_end - origin)
        self.guard.length(end - start)
        within = times[(times >= start - EDGE_S) & (times < end - EDGE_S)]
        if not len(within):
            within = times[max(int(np.searchsorted(times, start, side="right")) - 1, 0)][None]
        return Span(start=start, duration=end - start, times=within, whole=False)

    def _check_part_complete(self, origin: float, duration: float) -> None:
        """Whether the file holds, of what it declares, all that belongs to the clip."""
        start, end = self.clip.start_s, float("inf") if self.clip.end_s is None else self.clip.end_s
        declared = declared_length(self.video)
        if declared is not None:
            self.guard.complete(min(declared, end) - start, duration, "video")
        elif self.container.duration is not None and self._alone():
            read = extent([(0.0, 0.0), *self.packets.spans(), *self._heard_beside()])
            self.guard.complete(min(self.container.duration / av.time_base, origin + end), read, "media")

    def _check_complete(self, duration: float) -> None:
        """Whether the files hold what they declare."""
        self.guard.complete(declared_length(self.video), duration, "video")
        if not self.silent:
            heard = extent(self.heard.spans())
            self.sound_guard.complete(declared_length(self.audio), heard, "audio")
        if self.video.duration is None and self._alone():  # Matroska declares one length for both
            declared = None if self.container.duration is None else self.container.duration / av.time_base
            read = extent([(0.0, 0.0), *self.packets.spans(), *self._heard_beside()])
            self.guard.complete(declared, read, "media")
        files = dict.fromkeys(self._listed, (self.container, self.guard))
        if self.sound is not None:
            files["audio"] = (self.sound.container, self.sound_guard)
        for kind, (container, guard) in files.items():
            if "mp4" in container.format.name:  # its index lists every packet
                guard.listed(self._listed[kind], self._read[kind], kind)

    def _alone(self) -> bool:
        """Whether the video's file holds nothing but what is read of it."""
        return len(self.container.streams) == (2 if self.sound is None and not self.silent else 1)

    def _heard_beside(self) -> list[tuple[float, float]]:
        """Begin and end of the audio packets in the video's file."""
        return self.heard.spans() if self.sound is None and not self.silent else []


@dataclass(frozen=True, slots=True)
class Sound:
    """A separate audio file, opened."""

    container: InputContainer
    guard: Guard


def open_media(guard: Guard) -> InputContainer:
    """The opened file; with the GPU's decoder where one is asked for and there is one."""
    spec = guard.spec

    def opened(hwaccel: HWAccel | None) -> InputContainer:
        name = f"file:{guard.path}"
        return av.open(name, options=_OPEN_OPTIONS, timeout=spec.timeout_s, metadata_errors="replace", hwaccel=hwaccel)

    if spec.hwaccel != "none":
        try:
            return opened(HWAccel(spec.hwaccel, allow_software_fallback=True))
        except (av.FFmpegError, OSError, RuntimeError, ValueError):
            pass  # no such device here, or the file itself is broken: then the next line says so
    return opened(None)


def words(error: BaseException) -> str:
    """What an exception says, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
