"""Where decoding may start. A container calls more packets keyframes than those after which every picture is whole.

H.264 with periodic intra refresh marks packets from which a picture builds up over many frames; and a damaged or lying
index marks anything. So for H.264 and HEVC the packet itself is asked for a picture that needs no other (IDR; for HEVC
any random access point). NAL units: ITU-T H.264 section 7.3.1 and H.265 section 7.3.1, the framing of both in files:
ISO/IEC 14496-15.
"""

from collections.abc import Iterator

from av.packet import Packet
from av.stream import Stream

_START_CODE = b"\x00\x00\x01"


def starts_decoding(packet: Packet, stream: Stream) -> bool:
    """Whether every picture that follows this packet can be decoded without what came before it."""
    if not packet.is_keyframe:
        return False
    codec = stream.codec_context.name
    if codec not in ("h264", "hevc"):
        return True
    for header in _headers(bytes(packet), _length_bytes(codec, stream.codec_context.extradata or b"")):
        kind = header & 0x1F if codec == "h264" else header >> 1 & 0x3F
        if codec == "h264" and 1 <= kind <= 5:
            return kind == 5
        if codec == "hevc" and kind <= 31:
            return 16 <= kind <= 21
    return False


def _length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each NAL unit; 0 where start codes part them."""
    at = 4 if codec == "h264" else 21
    return (extradata[at] & 3) + 1 if len(extradata) > at and extradata[0] == 1 else 0


def _headers(data: bytes, length_bytes: int) -> Iterator[int]:
    """First byte of each NAL unit."""
    at = 0
    while length_bytes and at + length_bytes < len(data):
        yield data[at + length_bytes]
        at += length_bytes + int.from_bytes(data[at : at + length_bytes], "big")
    while not length_bytes and (at := data.find(_START_CODE, at)) >= 0 and at + 3 < len(data):
        yield data[at + 3]
        at += 3
