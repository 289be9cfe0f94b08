"""Writes small real media files for tests: numbered frames, tones, and the ways in which files go wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

LEVEL_STEP = 10
"""Frame i is a flat grey of level 20 + i * LEVEL_STEP, so a decoded frame tells its number."""


@dataclass(kw_only=True)
class Recipe:
    """One clip; the defaults are a 2 s clip of 20 numbered frames with a 440 Hz mono tone."""

    frame_times_s: Sequence[float] = field(default_factory=lambda: [i / 10 for i in range(20)])
    width: int = 64
    height: int = 48
    codec: str = "libx264"
    pixels: str = "yuv420p"
    paint: Callable[[int, int, int], np.ndarray] | None = None
    """(number, height, width) -> uint8 [height, width, 3]."""
    rotation: int = 0
    with_video: bool = True
    with_audio: bool = True
    audio_codec: str = "aac"
    rate: int = 44_100
    layout: str = "mono"
    tones_hz: Sequence[float] = (440.0,)
    """One per channel."""
    amplitude: float = 0.5
    audio_s: float = 2.0
    audio_start_s: float = 0.0
    options: dict[str, str] = field(default_factory=dict)
    """Of the muxer, for instance {"movflags": "faststart"}."""
    codec_options: dict[str, str] = field(default_factory=dict)
    """Of the video encoder, besides its defaults here."""
    gop_size: int = 5


def numbered(number: int, height: int, width: int) -> np.ndarray:
    """The flat grey frame that carries `number`."""
    return np.full((height, width, 3), 20 + number * LEVEL_STEP, dtype=np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Which numbered frame this is."""
    return round((float(frame.mean()) - 20) / LEVEL_STEP)


def write_clip(path: Path, recipe: Recipe | None = None) -> Path:
    """Writes one media file; the container follows from the suffix."""
    recipe = recipe or Recipe()
    with av.open(str(path), "w", options=recipe.options) as container:
        video = _video_stream(container, recipe) if recipe.with_video else None
        audio = (
            container.add_stream(recipe.audio_codec, rate=recipe.rate, layout=recipe.layout)
            if recipe.with_audio
            else None
        )
        packets = []
        if video is not None:
            packets += [p for f in _video_frames(recipe) for p in video.encode(f)] + video.encode(None)
        if audio is not None:
            packets += [p for f in _audio_frames(recipe, audio.format.name) for p in audio.encode(f)]
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def _video_stream(container, recipe):
    stream = container.add_stream(recipe.codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pixels
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.gop_size = recipe.gop_size
    if recipe.codec == "libx264":
        stream.options = {"crf": "10", "preset": "ultrafast"}
    if recipe.codec_options:
        stream.options = {**stream.options, **recipe.codec_options}
    if recipe.rotation:
        stream.set_display_rotation(recipe.rotation)
    return stream


def _video_frames(recipe):
    paint = recipe.paint or numbered
    for number, seconds in enumerate(recipe.frame_times_s):
        frame = av.VideoFrame.from_ndarray(paint(number, recipe.height, recipe.width), format="rgb24")
        frame = frame.reformat(format=recipe.pixels)
        frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
        yield frame


def _audio_frames(recipe, sample_format):
    seconds = np.arange(round(recipe.audio_s * recipe.rate)) / recipe.rate
    waves = np.stack([recipe.amplitude * np.sin(2 * np.pi * hz * seconds) for hz in recipe.tones_hz])
    resampler = av.AudioResampler(format=sample_format, layout=recipe.layout, rate=recipe.rate, frame_size=1024)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(waves, dtype=np.float32), format="fltp", layout=recipe.layout
    )
    frame.sample_rate, frame.time_base = recipe.rate, Fraction(1, recipe.rate)
    frame.pts = round(recipe.audio_start_s * recipe.rate)
    yield from resampler.resample(frame)
    yield from resampler.resample(None)
