"""What a media file may be: checks before and while it is decoded, each with a reason that a person understands.

The reason codes, as stored in the ledger:

    file_missing, not_a_file, unreadable, empty_file, too_large          before the file is opened
    corrupt, unsupported_codec, no_video_stream, no_audio_stream,
    too_many_streams, outside_clip                                       when it is opened
    too_long, too_many_pixels, too_many_packets                          before or while decoding
    no_frames, no_audio_samples, out_of_memory, timeout                  while decoding
    decoder_crashed                                                      from `avere_ray.data`, when the process died
"""

import time
from pathlib import Path

from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError

MAX_PACKETS = 1_000_000
"""Packets of one file, over its two streams; an hour of 60 frames per second has less than half of that."""
_DAMAGED = "The file is damaged; copy it again or re-encode it"


def refusal(reason: str, path: Path, what: str, remedy: str = _DAMAGED) -> ClipDecodeError:
    """The error for one file: `what` is wrong with it, and what to do about it."""
    return ClipDecodeError(reason, f"{path}: {what}. {remedy}.")


def out_of_time(path: Path, spec: DecodeConfig) -> ClipDecodeError:
    """The error for a file that took too long."""
    return refusal(
        "timeout",
        path,
        f"decoding took longer than {spec.timeout_s:g} s",
        "The file or its disk is unusually slow; cut or re-encode it, or raise data.decode.timeout_s",
    )


def out_of_memory(path: Path, spec: DecodeConfig) -> ClipDecodeError:
    """The error for a file whose decoder asked for more memory than its process may have."""
    return refusal(
        "out_of_memory",
        path,
        f"decoding needs more memory than the {spec.max_memory_mb} MiB that are allowed",
        "The file is damaged or unusually large; re-encode it, or raise data.decode.max_memory_mb",
    )


def check_file(path: Path, spec: DecodeConfig) -> int:
    """Bytes of a file that may be opened.

    Raises:
        ClipDecodeError: file_missing, not_a_file, unreadable, empty_file or too_large.
    """
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        remedy = "Put it there, or correct the uri in the clip table"
        raise refusal("file_missing", path, "the file does not exist", remedy) from error
    except (OSError, ValueError) as error:
        what = f"the file cannot be examined ({error})"
        raise refusal("unreadable", path, what, "Check its name and rights") from error
    if path.is_dir():
        raise refusal("not_a_file", path, "this is a folder", "Correct the uri in the clip table")
    if path.is_file() and size == 0:
        raise refusal("empty_file", path, "the file has 0 bytes", "Copy it again")
    if size > spec.max_bytes:
        what = f"the file has {size} bytes, allowed are {spec.max_bytes}"
        raise refusal("too_large", path, what, "Cut it, or raise data.decode.max_bytes")
    return size


class Guard:
    """The limits of one file while it is decoded; `clock` and the others raise ClipDecodeError past them."""

    def __init__(self, path: Path, spec: DecodeConfig) -> None:
        self.path = path
        self.spec = spec
        self._deadline = time.monotonic() + spec.timeout_s

    def refuse(self, reason: str, what: str, remedy: str = _DAMAGED) -> ClipDecodeError:
        """The error to raise for this file."""
        return refusal(reason, self.path, what, remedy)

    def clock(self) -> None:
        """Whether there is time left."""
        if time.monotonic() > self._deadline:
            raise out_of_time(self.path, self.spec)

    def streams(self, count: int) -> None:
        """Whether the number of streams is allowed."""
        if count > self.spec.max_streams:
            what = f"it has {count} streams, allowed are {self.spec.max_streams}"
            raise self.refuse("too_many_streams", what, "Keep one video and one audio stream")

    def packets(self, count: int) -> None:
        """Whether the number of packets is allowed."""
        if count > MAX_PACKETS:
            what = f"it has more than {MAX_PACKETS} packets"
            raise self.refuse("too_many_packets", what, "Cut it, or re-encode it")

    def length(self, seconds: float) -> None:
        """Whether the length of the clip is allowed."""
        if seconds > self.spec.max_duration_s:
            what = f"it is {seconds:.1f} s long, allowed are {self.spec.max_duration_s:g} s"
            raise self.refuse("too_long", what, "Cut it, or raise data.decode.max_duration_s")

    def pixels(self, width: int, height: int) -> None:
        """Whether the size of a frame is allowed."""
        if width * height > self.spec.max_pixels:
            what = f"its frames have {width} x {height} pixels, allowed are {self.spec.max_pixels} in all"
            raise self.refuse("too_many_pixels", what, "Scale it down, or raise data.decode.max_pixels")

    def complete(self, declared: float | None, seconds: float, kind: str) -> None:
        """Whether a medium holds as much as the file declares."""
        if declared is not None and seconds < 0.98 * declared - 0.25:
            what = f"it holds {seconds:.2f} s of the {declared:.2f} s of {kind} that it declares"
            raise self.refuse("corrupt", what, "It was probably cut off; copy it again")

    def listed(self, listed: int, read: int, kind: str) -> None:
        """Whether a medium holds the packets that the file's index lists."""
        if read < 0.99 * listed:
            what = f"it holds {read} of the {listed} {kind} packets that its index lists"
            raise self.refuse("corrupt", what, "It was probably cut off; copy it again")
