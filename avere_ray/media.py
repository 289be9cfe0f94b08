"""The one door to PyAV for reading: frames and waveform of one clip, on one time axis that starts at 0 s.

One demux pass collects the packets of the first video and the first audio stream. The video packets' timestamps say
which frames are wanted and how long the clip is; only wanted frames are converted, with one reused reformatter. The
waveform is resampled with its channels kept and averaged afterwards, because FFmpeg's own downmix changes the gain.

Whatever is wrong with a file ends as a ClipDecodeError with one of these reason codes:

    file_missing, not_a_file, unreadable, empty_file, too_large        before the file is opened
    corrupt, unsupported_codec, no_video_stream, no_audio_stream       when it is opened
    too_long, too_many_pixels                                          before or while decoding
    no_frames, no_audio_samples, timeout                               while decoding

Hostile files can also hang or crash FFmpeg itself; `avere_ray.data` therefore decodes in a child process.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import digest, file_digest

DECODER_VERSION = 1
"""Raised whenever the same file and spec give other frames or samples."""
SAMPLE_RATE = 16_000
"""Hz of every waveform."""

# Only these containers, and nothing but the file itself: a playlist in disguise must not make FFmpeg open other files.
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,h264,hevc,m4v,"
    "wav,mp3,aac,flac",
}
_RUN_GAP_S = 0.04
"""Audio frames further apart than this are placed by their timestamps instead of joined."""
_FRAME_SLACK_S = 0.2
"""How far a decoded frame may be from the one its timestamp promised before the clip counts as corrupt."""
_FALLBACK_FRAME_S = 0.04
"""Length of a frame where the file tells none (25 per second)."""
_DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError, RuntimeError)


def spec_digest(spec: DecodeConfig) -> str:
    """Digest of everything that decides the decoded result: sampling fields and decoder version, but no limits."""
    return digest("decode", DECODER_VERSION, SAMPLE_RATE, spec.frames, spec.height, spec.width)


def decode_clip(clip: Clip, path: Path, spec: DecodeConfig) -> DecodedClip:
    """Frames and waveform of one clip.

    Frames: `spec.frames` times at the centres of equal parts of the video span, and for each the frame with the
    nearest timestamp, rotated as the file says and resized to uint8 [T, H, W, 3] RGB. Waveform: float32 [S], 16 kHz,
    mean of the channels, S = round(duration * 16000), cut or padded with silence to the video span.

    Raises:
        ClipDecodeError: see the module's list of reasons.
    """
    _check_file(path, spec)
    try:
        with av.open(
            f"file:{path}", options=_OPEN_OPTIONS, timeout=spec.timeout_s, metadata_errors="replace"
        ) as container:
            return _Decoder(path, spec, container).decode(clip)
    except ClipDecodeError:
        raise
    except (av.error.TimeoutError, av.error.ExitError) as error:
        raise _timeout(path, spec) from error
    except _DECODE_ERRORS as error:
        raise _error(
            "corrupt",
            path,
            f"FFmpeg cannot read it ({_reason(error)})",
            "The file is damaged or no video file; copy it again or re-encode it",
        ) from error


def decode_with_digest(clip: Clip, path: Path, spec: DecodeConfig) -> tuple[DecodedClip, str]:
    """`decode_clip`, and the SHA-256 (hex) of the file."""
    decoded = decode_clip(clip, path, spec)
    return decoded, file_digest(path)


def _check_file(path: Path, spec: DecodeConfig) -> None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _error(
            "file_missing", path, "the file does not exist", "Put it there, or correct the uri in the clip table"
        ) from error
    except (OSError, ValueError) as error:
        raise _error(
            "unreadable", path, f"the file cannot be examined ({error})", "Check its name and rights"
        ) from error
    if path.is_dir():
        raise _error("not_a_file", path, "this is a folder", "Correct the uri in the clip table")
    if path.is_file() and size == 0:
        raise _error("empty_file", path, "the file has 0 bytes", "Copy it again")
    if size > spec.max_bytes:
        raise _error(
            "too_large",
            path,
            f"the file has {size} bytes, allowed are {spec.max_bytes}",
            "Cut it, or raise data.decode.max_bytes",
        )


@dataclass(frozen=True, slots=True)
class _Span:
    """The clip's time axis in the file's own time: start and length of the video, and its frame times, ascending."""

    start: float
    duration: float
    times: np.ndarray


class _Decoder:
    """One pass over one opened file."""

    def __init__(self, path: Path, spec: DecodeConfig, container: InputContainer) -> None:
        self.path = path
        self.spec = spec
        self.container = container
        self.deadline = time.monotonic() + spec.timeout_s

    def decode(self, clip: Clip) -> DecodedClip:
        video, audio = self._streams()
        video_packets, audio_packets = self._demux(video, audio)
        span = self._span(video, video_packets)
        self._check_complete(_declared_seconds(video), span.duration, "video")
        self._check_complete(_declared_seconds(audio), _extent(audio_packets), "audio")
        if video.duration is None and len(self.container.streams) == 2:  # Matroska declares one length for both
            self._check_complete(_container_seconds(self.container), _extent([*video_packets, *audio_packets]), "media")
        times, frames = self._sample(self._decoded(video, video_packets), span)
        waveform = self._waveform(audio, audio_packets, span)
        return DecodedClip(
            clip_id=clip.clip_id,
            spec=spec_digest(self.spec),
            frames=frames,
            frame_times_s=times,
            waveform=waveform,
            duration_s=span.duration,
        )

    def _streams(self) -> tuple[Stream, Stream]:
        """First video stream that is no cover picture and first audio stream, within the limits, one thread each."""
        video = next((s for s in self.container.streams.video if not s.disposition & Disposition.attached_pic), None)
        audio = next(iter(self.container.streams.audio), None)
        if video is None:
            raise self._error("no_video_stream", "the file has no video", "Remove the clip or add the video track")
        if audio is None:
            raise self._error("no_audio_stream", "the file has no audio", "Remove the clip or add the audio track")
        for kind, stream in (("video", video), ("audio", audio)):
            if stream.codec_context is None:
                raise self._error("unsupported_codec", f"no decoder for its {kind}", "Re-encode it, e.g. H.264 and AAC")
            stream.codec_context.thread_count = 1
        self._check_pixels(video.codec_context.width, video.codec_context.height)
        self._check_length(_declared_seconds(video) or 0.0)
        return video, audio

    def _demux(self, video: Stream, audio: Stream) -> tuple[list[Packet], list[Packet]]:
        """All packets of the two streams. A read error ends the file there; what is missing shows in its length."""
        packets: dict[int, list[Packet]] = {video.index: [], audio.index: []}
        try:
            for packet in self.container.demux(video, audio):
                self._check_clock()
                if packet.size > 0 and packet.stream_index in packets:
                    packets[packet.stream_index].append(packet)
        except (av.error.TimeoutError, av.error.ExitError) as error:
            raise _timeout(self.path, self.spec) from error
        except av.FFmpegError as error:
            if not packets[video.index]:
                raise self._error(
                    "corrupt",
                    f"no video data can be read ({_reason(error)})",
                    "The file is damaged; copy it again or re-encode it",
                ) from error
        return packets[video.index], packets[audio.index]

    def _span(self, video: Stream, packets: Sequence[Packet]) -> _Span:
        shown = [(at, p) for p in packets if not p.is_discard and (at := _seconds(p, video)) is not None]
        if not shown:
            self._check_complete(_declared_seconds(video), 0.0, "video")
            raise self._error("no_frames", "its video has no frames", "Remove the clip or record it again")
        times = np.unique([at for at, _ in shown])
        _, last = max(shown, key=lambda pair: pair[0])
        duration = float(times[-1] - times[0]) + (_length(last) or _frame_length(video, times))
        self._check_length(duration)
        return _Span(start=float(times[0]), duration=duration, times=times)

    def _decoded(self, stream: Stream, packets: Sequence[Packet]) -> Iterator[tuple[float | None, Any]]:
        """Times (s, None where the file tells none) and frames in presentation order.

        Packets that cannot be decoded and frames known to be damaged are left out. Times are taken from the stream's
        time base: the last frames, which the decoder gives back when it is flushed, carry none of their own.
        """
        for packet in [*packets, None]:
            self._check_clock()
            try:
                frames = stream.codec_context.decode(packet)
            except av.FFmpegError:  # the gap it leaves is judged by _sample and _waveform
                continue
            yield from ((_seconds(f, stream), f) for f in frames if not f.is_corrupt)

    def _sample(self, decoded: Iterator[tuple[float | None, VideoFrame]], span: _Span) -> tuple[np.ndarray, np.ndarray]:
        """Times float32 [T] and frames uint8 [T, H, W, 3] nearest to the centres of T equal parts of the span."""
        spec = self.spec
        targets = span.start + (np.arange(spec.frames) + 0.5) * span.duration / spec.frames
        times = np.empty(spec.frames, dtype=np.float32)
        frames = np.empty((spec.frames, spec.height, spec.width, 3), dtype=np.uint8)
        reformatter = VideoReformatter()
        found = 0
        for frame, at, until in _with_midpoints(decoded):
            wanted = int(np.searchsorted(targets, until, side="right"))
            if wanted > found:
                self._check_place(at, targets[found:wanted], span)
                frames[found:wanted] = self._picture(frame, reformatter)
                times[found:wanted] = at - span.start
                found = wanted
            if found == spec.frames:
                return times, frames
        raise self._error(
            "no_frames", "none of its video frames can be decoded", "The file is damaged; copy it again or re-encode it"
        )

    def _check_place(self, at: float, targets: np.ndarray, span: _Span) -> None:
        promised = np.abs(span.times[None, :] - targets[:, None]).min(axis=1)
        if (np.abs(at - targets) > promised + _FRAME_SLACK_S).any():
            raise self._error(
                "corrupt",
                f"its video cannot be decoded around {targets[0] - span.start:.2f} s",
                "The file is damaged; copy it again or re-encode it",
            )

    def _picture(self, frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
        self._check_pixels(frame.width, frame.height)
        turns = round(frame.rotation / 90) % 4
        height, width = self.spec.height, self.spec.width
        if turns % 2:
            height, width = width, height
        rgb = reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1
        )
        return np.rot90(rgb.to_ndarray(), turns)

    def _waveform(self, audio: Stream, packets: Sequence[Packet], span: _Span) -> np.ndarray:
        """Mono float32 [S] over the video span; silence where the file has no audio."""
        waveform = np.zeros(round(span.duration * SAMPLE_RATE), dtype=np.float32)
        decoded, heard = 0, 0
        for at, samples in _resampled_runs(self._decoded(audio, packets), span.start):
            first = round((at - span.start) * SAMPLE_RATE)
            low, high = max(first, 0), min(first + len(samples), len(waveform))
            decoded += len(samples)
            if high > low:
                waveform[low:high] = samples[low - first : high - first]
                heard += high - low
        if heard == 0:
            raise self._error(
                "no_audio_samples", "its audio has no samples within the video", "Remove the clip or record it again"
            )
        promised = sum(_length(p) for p in packets if not p.is_discard)
        if decoded / SAMPLE_RATE < 0.9 * promised - 0.1 or not np.isfinite(waveform).all():
            raise self._error(
                "corrupt",
                f"only {decoded / SAMPLE_RATE:.2f} s of its {promised:.2f} s of audio can be decoded",
                "The file is damaged; copy it again or re-encode it",
            )
        return np.clip(waveform, -1.0, 1.0)

    def _check_complete(self, declared: float | None, seconds: float, kind: str) -> None:
        if declared is not None and seconds < 0.98 * declared - 0.25:
            raise self._error(
                "corrupt",
                f"it holds {seconds:.2f} s of the {declared:.2f} s of {kind} that it declares",
                "It was probably cut off; copy it again",
            )

    def _check_length(self, seconds: float) -> None:
        if seconds > self.spec.max_duration_s:
            raise self._error(
                "too_long",
                f"it is {seconds:.1f} s long, allowed are {self.spec.max_duration_s:g} s",
                "Cut it, or raise data.decode.max_duration_s",
            )

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self.spec.max_pixels:
            raise self._error(
                "too_many_pixels",
                f"its frames have {width} x {height} pixels, allowed are {self.spec.max_pixels} in all",
                "Scale it down, or raise data.decode.max_pixels",
            )

    def _check_clock(self) -> None:
        if time.monotonic() > self.deadline:
            raise _timeout(self.path, self.spec)

    def _error(self, reason: str, what: str, remedy: str) -> ClipDecodeError:
        return _error(reason, self.path, what, remedy)


def _with_midpoints(decoded: Iterator[tuple[float | None, VideoFrame]]) -> Iterator[tuple[VideoFrame, float, float]]:
    """Each frame with its time and the time until which it is the nearest one."""
    previous: VideoFrame | None = None
    at = 0.0
    for seconds, frame in decoded:
        if seconds is None:
            continue
        if previous is not None:
            yield previous, at, (at + seconds) / 2
        previous, at = frame, seconds
    if previous is not None:
        yield previous, at, float("inf")


def _resampled_runs(
    decoded: Iterator[tuple[float | None, AudioFrame]], start: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Unbroken runs of audio: the time of the first sample and the mono 16 kHz samples, float32 [n]."""
    run: list[AudioFrame] = []
    began = end = start
    for seconds, frame in decoded:
        at = end if seconds is None else seconds
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
    """Mono 16 kHz samples [n]: channels kept by the resampler and averaged here, its tail flushed."""
    resampler = AudioResampler(format="fltp", layout=None, rate=SAMPLE_RATE)
    pieces = [out.to_ndarray() for frame in [*run, None] for out in resampler.resample(frame)]
    if not pieces:
        return np.zeros(0, dtype=np.float32)
    return np.concatenate(pieces, axis=1).mean(axis=0, dtype=np.float32)


def _setup(frame: AudioFrame) -> tuple[str, int, int]:
    return frame.format.name, frame.layout.nb_channels, frame.sample_rate


def _seconds(item: Packet | VideoFrame | AudioFrame, stream: Stream) -> float | None:
    """Presentation time, or decoding time in files that have no other (AVI); None when there is neither."""
    stamp = item.pts if item.pts is not None else item.dts
    return None if stamp is None or stream.time_base is None else float(stamp * stream.time_base)


def _length(packet: Packet) -> float:
    return float((packet.duration or 0) * (packet.time_base or 0))


def _extent(packets: Sequence[Packet]) -> float:
    """Seconds from the first timestamp of the packets to the end of the last."""
    stamped = [(at, at + _length(p)) for p in packets if (at := _seconds(p, p.stream)) is not None]
    return max(end for _, end in stamped) - min(at for at, _ in stamped) if stamped else 0.0


def _declared_seconds(stream: Stream) -> float | None:
    return None if stream.duration is None else float(stream.duration * (stream.time_base or 0))


def _container_seconds(container: InputContainer) -> float | None:
    return None if container.duration is None else container.duration / av.time_base


def _frame_length(video: Stream, times: np.ndarray) -> float:
    if len(times) > 1:
        return float(np.median(np.diff(times)))
    return float(1 / video.average_rate) if video.average_rate else _FALLBACK_FRAME_S


def _timeout(path: Path, spec: DecodeConfig) -> ClipDecodeError:
    return _error(
        "timeout",
        path,
        f"decoding took longer than {spec.timeout_s:g} s",
        "The file or its disk is unusually slow; cut or re-encode it, or raise data.decode.timeout_s",
    )


def _error(reason: str, path: Path, what: str, remedy: str) -> ClipDecodeError:
    return ClipDecodeError(reason, f"{path}: {what}. {remedy}.")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
