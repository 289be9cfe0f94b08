"""The one door to PyAV for reading: frames and waveform of one clip, on one time axis that starts at 0 s.

    limits     what a file may be, and every reason for which it is refused
    sampling   which frames are wanted, and which packets have to be decoded for them
    keyframes  where decoding may start
    reading    opens and demuxes a file once: packets, timestamps, the span of the clip
    video      the wanted frames
    audio      the waveform
    sound      the waveform of a file without pictures

Whatever is wrong with a file ends as a ClipDecodeError. Hostile files can also hang or crash FFmpeg itself;
`avere_ray.data` therefore decodes in a child process.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError
from avere_ray.media.audio import SAMPLE_RATE, waveform
from avere_ray.media.limits import Guard, check_file, out_of_memory, out_of_time, refusal
from avere_ray.media.reading import FORMATS, LEAD_S, Misplaced, Reading, Sound, open_media, words
from avere_ray.media.sound import whole_waveform
from avere_ray.media.video import sample_frames
from avere_ray.records import Clip, DecodedClip
from avere_ray.stages import digest, file_digest

__all__ = [
    "DECODER_VERSION",
    "SAMPLE_RATE",
    "content_of",
    "decode_clip",
    "decode_pictures",
    "decode_sound",
    "decode_unless_known",
    "decode_with_digest",
    "spec_digest",
]

DECODER_VERSION = 1
"""Raised whenever the same file and spec give other frames or samples."""
_DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, RuntimeError)


def spec_digest(spec: DecodeConfig) -> str:
    """Digest of everything that decides the decoded result: sampling fields and decoder version, but no limits."""
    frames, sampling = spec.frames, list[Any]()
    if spec.times_s:
        frames, sampling = 0, ["times_s", list(spec.times_s)]
    elif spec.fps is not None:
        frames, sampling = 0, ["fps", spec.fps, spec.max_frames]
    return digest("decode", DECODER_VERSION, SAMPLE_RATE, frames, spec.height, spec.width, *sampling)


def decode_clip(clip: Clip, path: Path, spec: DecodeConfig, audio: Path | None = None) -> DecodedClip:
    """Frames and waveform of one clip.

    Frames: those with the timestamps nearest to `sampling.wanted_times`, rotated as the file says and resized to uint8
    [T, H, W, 3] RGB. Waveform: float32 [S], 16 kHz, mean of the channels, S = round(duration * 16000), cut or padded
    with silence to the span of the video. With `clip.start_s` and `clip.end_s`: the part [start, end) of the file, cut
    where the video ends; its frames are those that begin within it, or the one on display where none does.

    Args:
        audio: separate audio file, whose first sample belongs to the video's first frame; None: the sound is in `path`.

    Raises:
        ClipDecodeError: see `avere_ray.media.limits` for the reasons.
    """
    check_file(path, spec)
    guard, heard = Guard(path, spec), None
    if audio is not None:
        check_file(audio, spec)
        heard = Guard(audio, spec)
    with _failures_named(path, spec):
        try:
            return _decode(clip, guard, heard, jump=clip.start_s > 2 * LEAD_S)
        except Misplaced:
            return _decode(clip, guard, heard, jump=False)


def decode_pictures(clip_id: str, path: Path, spec: DecodeConfig) -> DecodedClip:
    """Frames of a video as `decode_clip` takes them, whether or not it has sound; waveform float32 [0].

    Raises:
        ClipDecodeError: as `decode_clip`.
    """
    check_file(path, spec)
    guard = Guard(path, spec)
    with _failures_named(path, spec), open_media(guard) as container:
        reading = Reading(Clip(clip_id=clip_id, uri=str(path)), guard, container, jump=False, silent=True)
        times, frames = sample_frames(reading)
        return DecodedClip(
            clip_id=clip_id,
            spec=spec_digest(spec),
            frames=frames,
            frame_times_s=times,
            waveform=np.zeros(0, np.float32),
            duration_s=reading.span.duration,
        )


def decode_sound(clip_id: str, path: Path, spec: DecodeConfig) -> DecodedClip:
    """Waveform of a sound file (or of a video's sound), float32 [S], 16 kHz, mean of the channels; frames [0, H, W, 3].

    Raises:
        ClipDecodeError: as `decode_clip`.
    """
    check_file(path, spec)
    with _failures_named(path, spec):
        samples = whole_waveform(Guard(path, spec))
    return DecodedClip(
        clip_id=clip_id,
        spec=spec_digest(spec),
        frames=np.zeros((0, spec.height, spec.width, 3), np.uint8),
        frame_times_s=np.zeros(0, np.float32),
        waveform=samples,
        duration_s=len(samples) / SAMPLE_RATE,
    )


@contextlib.contextmanager
def _failures_named(path: Path, spec: DecodeConfig) -> Iterator[None]:
    """Turns whatever FFmpeg and PyAV raise into a ClipDecodeError."""
    try:
        yield
    except ClipDecodeError:
        raise
    except (av.error.TimeoutError, av.error.ExitError) as error:
        raise out_of_time(path, spec) from error
    except MemoryError as error:
        raise out_of_memory(path, spec) from error
    except PermissionError as error:
        what = f"the file may not be read ({words(error)})"
        raise refusal("unreadable", path, what, "Change its rights, or those of its folder") from error
    except av.ArgumentError as error:
        what = "it is no video file, or of a format that is not opened here"
        raise refusal("corrupt", path, what, f"Allowed are {', '.join(FORMATS)}; convert it to mp4") from error
    except _DECODE_ERRORS as error:
        remedy = "The file is damaged or no video file; copy it again or re-encode it"
        raise refusal("corrupt", path, f"FFmpeg cannot read it ({words(error)})", remedy) from error


def decode_with_digest(
    clip: Clip, path: Path, spec: DecodeConfig, audio: Path | None = None
) -> tuple[DecodedClip, str]:
    """`decode_clip`, and its content: the SHA-256 (hex) of the file, and with a separate audio file "+" and its."""
    decoded = decode_clip(clip, path, spec, audio)
    return decoded, content_of(path, audio)


def decode_unless_known(
    clip: Clip, path: Path, spec: DecodeConfig, known: frozenset[str], audio: Path | None = None
) -> tuple[DecodedClip | None, str]:
    """`decode_with_digest`, but nothing is decoded when the content is among `known`."""
    for file in (path, audio):
        if file is not None:
            check_file(file, spec)
    if known and (content := content_of(path, audio)) in known:
        return None, content
    return decode_with_digest(clip, path, spec, audio)


def content_of(path: Path, audio: Path | None = None) -> str:
    """What the files of a clip hold: SHA-256 (hex), joined by "+" where the sound has a file of its own."""
    return "+".join(file_digest(file) for file in (path, audio) if file is not None)


def _decode(clip: Clip, guard: Guard, heard: Guard | None, *, jump: bool) -> DecodedClip:
    with contextlib.ExitStack() as opened:
        container = opened.enter_context(open_media(guard))
        sound = None if heard is None else Sound(opened.enter_context(_open_sound(heard)), heard)
        reading = Reading(clip, guard, container, jump=jump, sound=sound)
        times, frames = sample_frames(reading)
        return DecodedClip(
            clip_id=clip.clip_id,
            spec=spec_digest(guard.spec),
            frames=frames,
            frame_times_s=times,
            waveform=waveform(reading),
            duration_s=reading.span.duration,
        )


def _open_sound(heard: Guard) -> InputContainer:
    try:
        return open_media(heard)
    except (av.error.TimeoutError, av.error.ExitError) as error:
        raise out_of_time(heard.path, heard.spec) from error
    except _DECODE_ERRORS as error:
        what = f"FFmpeg cannot open this audio file ({words(error)})"
        raise heard.refuse("corrupt", what, "Convert it to wav, flac or m4a") from error
