"""Media for the benchmarks: real H.264 and AAC in mp4, of drawn scenes with camera movement and sensor noise."""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 25
RATE = 48_000


def write_clip(path: Path, *, seconds: int, width: int, height: int, repeats: int = 1, seed: int = 0) -> Path:
    """One clip with a keyframe every 2 s and 3 B-frames; `repeats` plays the same packets several times in a row."""
    with av.open(str(path), "w") as container:
        options = {"preset": "fast", "crf": "23", "threads": "0", "x264-params": f"keyint={2 * FPS}:scenecut=0"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        packets = [p for f in _frames(seconds, width, height, seed) for p in video.encode(f)] + video.encode(None)
        packets += [p for f in _sound(seconds, seed) for p in audio.encode(f)] + audio.encode(None)
        packets.sort(key=lambda p: p.dts * p.time_base)
        kept = [(bytes(p), p.pts, p.dts, p.duration, p.time_base, p.is_keyframe, p.stream) for p in packets]
        for turn in range(repeats):
            for data, pts, dts, duration, base, key, stream in kept:
                shift = round(turn * seconds / base)
                if stream is audio and turn and pts < 0:
                    continue
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.duration, packet.time_base = pts + shift, dts + shift, duration, base
                packet.is_keyframe, packet.stream = key, stream
                container.mux(packet)
    return path


def write_unlike(folder: Path, count: int, *, width: int, height: int) -> list[Path]:
    """So many clips of 2 s, no two of which show or sound the same: every pair of some different seconds."""
    parts = math.isqrt(max(count - 1, 0)) + 1
    seconds = [
        write_clip(folder / f"second-{i}.mp4", seconds=1, width=width, height=height, seed=i) for i in range(parts)
    ]
    return [
        _joined(folder / f"{number}.mp4", seconds[number // parts], seconds[number % parts]) for number in range(count)
    ]


def _joined(path: Path, *parts: Path) -> Path:
    """Clips of 1 s one after the other, packet by packet."""
    with av.open(str(path), "w") as container:
        with av.open(str(parts[0])) as source:
            streams = {s.type: container.add_stream_from_template(s) for s in source.streams}
        for turn, part in enumerate(parts):
            with av.open(str(part)) as source:
                for packet in source.demux():
                    kind = packet.stream.type
                    if packet.dts is None or (turn and kind == "audio" and packet.pts < 0):
                        continue
                    shift = round(turn / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[kind]
                    container.mux(packet)
    return path


def _frames(seconds: int, width: int, height: int, seed: int) -> Iterator[av.VideoFrame]:
    """A camera that pans over a landscape of soft shapes, with a little noise in each frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (60, 100, 3), dtype=np.uint8)
    scale = -(-(width + 12 * seconds) // 90)
    land = av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(
        100 * scale, max(60 * scale, height + 64), interpolation="BICUBIC"
    )
    wide = land.to_ndarray(format="rgb24")
    for number in range(seconds * FPS):
        x, y = number * 10 // FPS, int(24 + 24 * np.sin(number / 40))
        picture = wide[y : y + height, x : x + width].copy()
        left = int((width - 120) * (0.5 + 0.5 * np.sin(number / 30)))
        picture[height // 3 : height // 3 + 120, left : left + 120] = (number * 3 % 256, 90, 160)
        noise = rng.integers(-4, 5, (height // 2, width // 2, 1), dtype=np.int16).repeat(2, axis=0).repeat(2, axis=1)
        frame = av.VideoFrame.from_ndarray(
            np.clip(picture[: noise.shape[0], : noise.shape[1]] + noise, 0, 255).astype(np.uint8), format="rgb24"
        )
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame.reformat(format="yuv420p")


def _sound(seconds: int, seed: int) -> Iterator[av.AudioFrame]:
    """A voice-like sweep on both channels."""
    times = np.arange(seconds * RATE) / RATE + seed
    wave = (0.4 * np.sin(2 * np.pi * (180 + 60 * np.sin(times)) * times)).astype(np.float32)
    for start in range(0, len(wave), 1024):
        block = np.repeat(wave[None, start : start + 1024], 2, axis=0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield frame
