"""The corpus of odd and broken media files: a maker for each kind, and what must come of it.

A kind either decodes, then its numbered frames, tone and loudness are right, or is refused with one of its reasons.
"""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clipmaker import Recipe, write_clip

FRAMES = 10
BASE = Recipe(frame_times_s=[i / 10 for i in range(FRAMES)], width=32, height=32, audio_s=1.0, rate=16_000)
"""A 1 s clip of 10 numbered frames with a 440 Hz tone."""
EVEN = (1, 3, 6, 8)
"""Frames nearest to the centres of 4 equal parts: 0.125, 0.375, 0.625, 0.875 s."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of file."""

    make: Callable[[Path], object]
    suffix: str = "mp4"
    reasons: frozenset[str] = frozenset()
    """Why it is refused; empty: it decodes."""
    numbers: tuple[int, ...] = EVEN
    """Which frames are right (each may be one off where two are equally near)."""
    tone_s: tuple[float, float] = (0.0, 1.0)
    """When the tone is heard."""
    duration_s: float = 1.0


def good(suffix: str = "mp4", *, recipe: dict | None = None, **expected) -> Kind:
    """A kind that decodes."""
    made = replace(BASE, **(recipe or {}))
    return Kind(make=lambda path: write_clip(path, made), suffix=suffix, **expected)


def bad(*reasons: str, make: Callable[[Path], object] | None = None, suffix: str = "mp4", **recipe) -> Kind:
    """A kind that is refused."""
    made = replace(BASE, **recipe)
    return Kind(make=make or (lambda path: write_clip(path, made)), suffix=suffix, reasons=frozenset(reasons))


@functools.cache
def plain(suffix: str = "mp4", flags: str = "") -> bytes:
    """The bytes of the plain clip in a container."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(BASE, options={"movflags": flags} if flags else {}, codec=_codec(suffix))
        if suffix == "webm":
            recipe = replace(recipe, audio_codec="libopus", rate=48_000)
        return write_clip(Path(folder) / f"clip.{suffix}", recipe).read_bytes()


def _codec(suffix: str) -> str:
    return {"webm": "libvpx", "avi": "mpeg4"}.get(suffix, "libx264")


def cut(share: float, suffix: str = "mp4", flags: str = "") -> Callable[[Path], object]:
    """The first part of the plain clip."""
    return lambda path: path.write_bytes(plain(suffix, flags)[: max(1, int(len(plain(suffix, flags)) * share))])


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def patched(flags: str, change: Callable[[bytearray], None]) -> Callable[[Path], object]:
    """The plain mp4 with some bytes changed."""

    def make(path: Path) -> None:
        data = bytearray(plain("mp4", flags))
        change(data)
        path.write_bytes(data)

    return make


def without_moov(data: bytearray) -> None:
    at = data.rindex(b"moov") - 4
    del data[at:]


def absurd_size(data: bytearray) -> None:
    at = data.index(b"avc1", data.index(b"stsd")) + 4 + 24
    data[at : at + 4] = b"\xff\xff\xff\xff"


def absurd_track_size(data: bytearray) -> None:
    at = data.index(b"tkhd") + 4 + 76
    data[at : at + 8] = b"\xff\xff\x00\x00" * 2


def absurd_sample_count(data: bytearray) -> None:
    at = data.index(b"stsz") + 12
    data[at : at + 4] = b"\x7f\xff\xff\xff"


def absurd_duration(data: bytearray) -> None:
    at = data.index(b"mdhd") + 4 + 16
    data[at : at + 4] = b"\x7f\xff\xff\xff"


def zeroed_media(data: bytearray) -> None:
    at = data.index(b"mdat") + 4
    end = data.rindex(b"moov") - 4
    data[at:end] = bytes(end - at)


def shifted_offsets(data: bytearray) -> None:
    at = data.index(b"stco") + 12
    data[at : at + 4] = (2**31).to_bytes(4, "big")


def unknown_codec(data: bytearray) -> None:
    at = data.index(b"avc1", data.index(b"stsd"))
    data[at : at + 4] = b"zzzz"


def remuxed(path: Path, keep: Callable[[av.Packet], bool], *, source: str = "mkv", audio_copies: int = 1) -> None:
    """The plain clip with the packets that `keep` accepts."""
    whole = path.with_name("whole." + source)
    whole.write_bytes(plain(source))
    with av.open(str(whole)) as reader, av.open(str(path), "w") as writer:
        targets = {s.index: [writer.add_stream_from_template(s)] for s in reader.streams}
        for _ in range(audio_copies - 1):
            targets[1].append(writer.add_stream_from_template(reader.streams[1]))
        for packet in reader.demux():
            if packet.dts is None or not keep(packet):
                continue
            data, stamps = bytes(packet), (packet.pts, packet.dts, packet.duration, packet.time_base)
            for target in targets[packet.stream_index]:
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.duration, copy.time_base = stamps
                copy.is_keyframe = packet.is_keyframe
                copy.stream = target
                writer.mux(copy)
    whole.unlink()


def absurd_picture(path: Path) -> None:
    """PNG pictures that say of themselves that they are 30,000 pixels wide and high."""
    write_clip(path, replace(BASE, codec="png", pixels="rgb24"))
    data = bytearray(path.read_bytes())
    at = 0
    while (at := data.find(b"IHDR", at + 1)) >= 0:
        data[at + 4 : at + 12] = (30_000).to_bytes(4, "big") * 2
    path.write_bytes(data)


def size_change(path: Path) -> None:
    """A transport stream whose pictures become larger halfway."""
    later = replace(
        BASE, width=64, height=64, frame_times_s=[i / 10 for i in range(10, 20)], audio_start_s=1.0, audio_s=1.0
    )
    parts = []
    for number, recipe in enumerate((BASE, later)):
        part = path.with_name(f"part{number}.ts")
        parts.append(write_clip(part, recipe).read_bytes())
        part.unlink()
    path.write_bytes(b"".join(parts))


def with_cover(path: Path) -> None:
    """The plain clip behind a cover picture."""
    whole = path.with_name("whole.mp4")
    whole.write_bytes(plain())
    with av.open(str(whole)) as reader, av.open(str(path), "w") as writer:
        cover = writer.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        streams = {s.index: writer.add_stream_from_template(s) for s in reader.streams}
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8), format="rgb24")
        picture.pts, picture.time_base = 0, Fraction(1)
        writer.mux(cover.encode(picture.reformat(format="yuvj420p")) + cover.encode(None))
        for packet in reader.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                writer.mux(packet)
    whole.unlink()


def picture(path: Path) -> None:
    """A still picture under a video's name."""
    with av.open(str(path), "w", format="image2") as writer:
        stream = writer.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "rgb24"
        writer.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), dtype=np.uint8), format="rgb24")))


def is_video(packet: av.Packet) -> bool:
    return packet.stream.type == "video"


VFR = [0.0, 0.05, 0.1, 0.15, 0.2, 0.6, 0.8, 0.9]

KINDS: dict[str, Kind] = {
    "plain mp4": good(),
    "index in front": good(recipe={"options": {"movflags": "faststart"}}),
    "fragmented mp4": good(recipe={"options": {"movflags": "frag_keyframe+empty_moov"}}),
    "matroska": good("mkv"),
    "quicktime": good("mov"),
    "transport stream": good("ts"),
    "flash video": good("flv", recipe={"rate": 44_100}),
    "avi without presentation times": good("avi", recipe={"codec": "mpeg4"}),
    "no extension": Kind(make=lambda path: path.write_bytes(plain()), suffix=""),
    "wrong extension": Kind(make=lambda path: path.write_bytes(plain("mkv")), suffix="txt"),
    "variable frame rate": good(recipe={"frame_times_s": VFR}, numbers=(2, 4, 5, 7)),
    "two frames": good(recipe={"frame_times_s": [0.0, 0.5]}, numbers=(0, 0, 1, 1), duration_s=0.6, tone_s=(0.0, 0.6)),
    "rotated 90": good(recipe={"rotation": 90}),
    "rotated 180": good(recipe={"rotation": 180}),
    "rotated 270": good(recipe={"rotation": -90}),
    "odd size": good(recipe={"width": 33, "height": 47, "pixels": "yuv444p"}),
    "one pixel": good(recipe={"width": 1, "height": 1, "pixels": "yuv444p"}),
    "very wide": good(recipe={"width": 512, "height": 4}),
    "ten bit": good(recipe={"pixels": "yuv420p10le"}),
    "hevc": good(recipe={"codec": "libx265", "width": 64, "height": 64}),
    "vp8": good("webm", recipe={"codec": "libvpx", "audio_codec": "libopus", "rate": 48_000}),
    "vp9": good("webm", recipe={"codec": "libvpx-vp9", "audio_codec": "libopus", "rate": 48_000}),
    "av1": good("mkv", recipe={"codec": "libsvtav1", "width": 64, "height": 64}),
    "motion jpeg": good("mov", recipe={"codec": "mjpeg", "pixels": "yuvj420p"}),
    "lossless": good("mkv", recipe={"codec": "ffv1"}),
    "stereo": good(recipe={"layout": "stereo", "tones_hz": (440.0, 440.0)}),
    "surround": good(recipe={"layout": "5.1", "tones_hz": (440.0,) * 6, "rate": 48_000}),
    "8 kHz": good(recipe={"rate": 8_000}),
    "22 kHz": good(recipe={"rate": 22_050}),
    "44 kHz": good(recipe={"rate": 44_100}),
    "48 kHz": good(recipe={"rate": 48_000}),
    "96 kHz": good(recipe={"rate": 96_000}),
    "flac": good("mkv", recipe={"audio_codec": "flac"}),
    "mp3": good("mkv", recipe={"audio_codec": "libmp3lame"}),
    "uncompressed sound": good("mkv", recipe={"audio_codec": "pcm_s16le"}),
    "longer audio": good(recipe={"audio_s": 1.6}),
    "much longer audio": good(recipe={"audio_s": 90.0}),
    "shorter audio": good(recipe={"audio_s": 0.5}, tone_s=(0.0, 0.5)),
    "late audio": good(recipe={"audio_start_s": 0.4, "audio_s": 0.6}, tone_s=(0.4, 1.0)),
    "late video": good("mkv", recipe={"frame_times_s": [0.5 + i / 10 for i in range(10)], "audio_s": 1.5}),
    "both late": good(
        "mkv", recipe={"frame_times_s": [3 + i / 10 for i in range(10)], "audio_start_s": 3.0, "audio_s": 1.0}
    ),
    "cover picture": Kind(make=with_cover),
    "pictures that grow": Kind(make=size_change, suffix="ts", numbers=(2, 7, 2, 7), duration_s=2.0, tone_s=(0.0, 2.0)),
    "three sound tracks": Kind(make=lambda path: remuxed(path, lambda p: True, audio_copies=3), suffix="mkv"),
    "lost sound in the middle": Kind(
        make=lambda path: remuxed(path, lambda p: is_video(p) or not 0.3 < p.pts * p.time_base < 0.5), suffix="mkv"
    ),
    "absurd size in the index": Kind(make=patched("faststart", absurd_size)),
    "absurd duration in the index": Kind(make=patched("faststart", absurd_duration)),
    "absurd track size": Kind(make=patched("faststart", absurd_track_size)),
    "zero bytes": bad("empty_file", make=lambda path: path.touch()),
    "zeros": bad("corrupt", make=written(bytes(20_000))),
    "noise": bad("corrupt", make=written(np.random.default_rng(0).bytes(20_000))),
    "text": bad("corrupt", make=written(b"not a clip\n" * 500)),
    "playlist": bad("corrupt", make=written(b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n")),
    "concat script": bad("corrupt", make=written(b"ffconcat version 1.0\nfile /etc/hostname\n")),
    "picture": bad("corrupt", "no_audio_stream", make=picture),
    "folder": bad("not_a_file", make=lambda path: path.mkdir()),
    "missing": bad("file_missing", make=lambda path: None),
    "no index": bad("corrupt", make=patched("", without_moov)),
    "no audio track": bad("no_audio_stream", with_audio=False),
    "no video track": bad("no_video_stream", with_video=False),
    "sound file": bad("no_video_stream", with_video=False, audio_codec="pcm_s16le", suffix="wav"),
    "zero frames": bad(
        "no_frames", "corrupt", make=lambda path: remuxed(path, lambda p: not is_video(p)), suffix="mkv"
    ),
    "zero-length audio": bad("no_audio_samples", "corrupt", make=lambda path: remuxed(path, is_video), suffix="mkv"),
    "audio after the video": bad("no_audio_samples", audio_start_s=2.0, audio_s=1.0),
    "lost end of the video": bad(
        "corrupt", make=lambda path: remuxed(path, lambda p: not is_video(p) or p.pts < 300), suffix="mkv"
    ),
    "zeroed media": bad("no_frames", "corrupt", make=patched("", zeroed_media)),
    "absurd picture inside": bad(
        "too_many_pixels", "no_frames", "corrupt", "out_of_memory", make=absurd_picture, suffix="mov"
    ),
    "absurd number of samples": bad(
        "corrupt", "no_frames", "no_audio_samples", "too_long", make=patched("faststart", absurd_sample_count)
    ),
    "media elsewhere": bad("corrupt", "no_frames", make=patched("faststart", shifted_offsets)),
    "unknown codec": bad("unsupported_codec", "corrupt", make=patched("faststart", unknown_codec)),
    "too many tracks": bad(
        "too_many_streams", make=lambda path: remuxed(path, lambda p: True, audio_copies=40), suffix="mkv"
    ),
    **{
        f"cut at {share:.1%}": bad("corrupt", "no_audio_stream", "no_video_stream", make=cut(share))
        for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.8)
    },
    **{
        f"index in front, cut at {share:.1%}": bad(
            "corrupt", "no_audio_stream", "no_video_stream", "no_audio_samples", make=cut(share, flags="faststart")
        )
        for share in (0.001, 0.05, 0.2, 0.4, 0.6, 0.8)
    },
    **{
        f"{suffix} cut in half": bad(
            "corrupt",
            "no_audio_stream",
            "no_video_stream",
            "no_frames",
            "no_audio_samples",
            make=cut(0.5, suffix),
            suffix=suffix,
        )
        for suffix in ("mkv", "webm", "mov")
    },
    "avi cut in half": Kind(
        make=cut(0.5, "avi"), suffix="avi", numbers=(1, 3, 5, 7), tone_s=(0.0, 0.8), duration_s=0.9
    ),
}
