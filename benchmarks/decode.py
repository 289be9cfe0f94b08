"""Clips per second and core: 8 uniform frames at 224 x 224 plus the 16 kHz waveform, ours against plain ways.

`python -m benchmarks.decode [--repeats N] [--cases abc] [--media DIR] [--json]`

    a  30 s 720p, a keyframe every 2 s        b  3 s 480p        c  5 min 720p (a, ten times in a row)

    ours              avere_ray.media.decode_clip
    raw_linear        PyAV, one pass: decode up to the last wanted frame, convert the wanted ones
    raw_seek          PyAV: seek to each wanted frame and decode up to it; then the audio in a pass of its own
    raw               the better of the two
    every_frame       PyAV: decode all frames, convert the wanted ones, then the audio (as LLaMA-Factory does)
    every_frame_rgb   PyAV: decode and convert all frames, pick, resize, then the audio (as torchvision's reader does)
    decord, torchcodec   where they are installed

All with one thread, the same scaling and in turn. The figures are clips per second of CPU time (median), so that other
work on the machine disturbs little; `wall` has clips per second as the clock saw it.
"""

import argparse
import functools
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from avere_ray.config import DecodeConfig
from avere_ray.media import SAMPLE_RATE, decode_clip
from avere_ray.records import Clip
from benchmarks.clips import write_clip

FRAMES, SIZE = 8, 224
CASES: dict[str, dict[str, int]] = {
    "a": {"seconds": 30, "width": 1280, "height": 720},
    "b": {"seconds": 3, "width": 854, "height": 480},
    "c": {"seconds": 30, "width": 1280, "height": 720, "repeats": 10},
}
SPEC = DecodeConfig(frames=FRAMES, height=SIZE, width=SIZE, max_duration_s=3600, timeout_s=600)
ALIKE = 15.0
"""Mean difference of a frame of two ways, in levels of 255; swscale's way from RGB to a smaller RGB is 8 to 12 off."""
Result = tuple[np.ndarray, np.ndarray]


def ours(path: Path) -> Result:
    """What this project does."""
    clip = decode_clip(Clip(clip_id="c", uri=""), path, SPEC)
    return clip.frames, clip.waveform


def raw_linear(path: Path) -> Result:
    """One pass over the file, as short as PyAV lets it be written."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.codec_context.thread_count = audio.codec_context.thread_count = 1
        targets, album, sound = _targets(video), _Album(), []
        resampler = av.AudioResampler(format="fltp", layout=None, rate=SAMPLE_RATE)
        for packet in container.demux(video, audio):
            if packet.stream is audio:
                sound += [r.to_ndarray() for f in packet.decode() for r in resampler.resample(f)]
            elif len(album.frames) < FRAMES:
                for frame in packet.decode():
                    while len(album.frames) < FRAMES and frame.time >= targets[len(album.frames)]:
                        album.add(frame)
        sound += [r.to_ndarray() for r in resampler.resample(None)]
    return album.stacked(), np.concatenate(sound, axis=1).mean(axis=0)


def raw_seek(path: Path) -> Result:
    """A seek per frame, then the audio."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        album = _Album()
        for target in _targets(video):
            container.seek(int(target / video.time_base), stream=video, backward=True)
            album.add(next(f for f in container.decode(video) if f.time >= target))
    return album.stacked(), _audio(path)


def every_frame(path: Path) -> Result:
    """All frames decoded, the wanted ones converted."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        wanted = set(_middles(video.frames))
        album = _Album()
        for number, frame in enumerate(container.decode(video)):
            if number in wanted:
                album.add(frame)
    return album.stacked(), _audio(path)


def every_frame_rgb(path: Path) -> Result:
    """All frames decoded and converted at full size; the wanted ones are resized."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        wanted = set(_middles(video.frames))
        album, full = _Album(), VideoReformatter()
        for number, frame in enumerate(container.decode(video)):
            picture = full.reformat(frame, format="rgb24", threads=1)
            if number in wanted:
                album.add(picture)
    return album.stacked(), _audio(path)


def decord_reader(path: Path) -> Result:
    """decord's video and audio readers."""
    import decord

    reader = decord.VideoReader(str(path), width=SIZE, height=SIZE, num_threads=1)
    wanted = _middles(len(reader))
    sound = decord.AudioReader(str(path), sample_rate=SAMPLE_RATE, mono=True)
    return reader.get_batch(wanted).asnumpy(), sound[:].asnumpy()[0]


def torchcodec_reader(path: Path) -> Result:
    """torchcodec's decoders; the frames resized by torch."""
    import torch
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact")
    frames = decoder.get_frames_at(indices=_middles(len(decoder))).data
    small = torch.nn.functional.interpolate(frames.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True)
    sound = AudioDecoder(str(path), sample_rate=SAMPLE_RATE).get_all_samples().data
    return small.clamp(0, 255).byte().permute(0, 2, 3, 1).numpy(), sound.mean(dim=0).numpy()


class _Album:
    """Wanted frames, converted by one reformatter."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []
        self._reformatter = VideoReformatter()

    def add(self, frame: av.VideoFrame) -> None:
        picture = self._reformatter.reformat(
            frame, width=SIZE, height=SIZE, format="rgb24", interpolation="BICUBIC", threads=1
        )
        self.frames.append(picture.to_ndarray())

    def stacked(self) -> np.ndarray:
        return np.stack(self.frames)


def _middles(count: int) -> list[int]:
    """Numbers of the wanted frames among so many."""
    return ((np.arange(FRAMES) + 0.5) * count / FRAMES).astype(int).tolist()


def _targets(video: Any) -> np.ndarray:
    return (np.arange(FRAMES) + 0.5) * float(video.duration * video.time_base) / FRAMES


def _audio(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout=None, rate=SAMPLE_RATE)
        sound = [r.to_ndarray() for f in container.decode(audio=0) for r in resampler.resample(f)]
        sound += [r.to_ndarray() for r in resampler.resample(None)]
    return np.concatenate(sound, axis=1).mean(axis=0)


WAYS: dict[str, Callable[[Path], Result]] = {
    "ours": ours,
    "raw_linear": raw_linear,
    "raw_seek": raw_seek,
    "every_frame": every_frame,
    "every_frame_rgb": every_frame_rgb,
}
OPTIONAL = {"decord": decord_reader, "torchcodec": torchcodec_reader}


def measure(path: Path, repeats: int) -> dict[str, Any]:
    """Clips per CPU second of each way, and what they come to against ours."""
    ways = {**WAYS, **{name: way for name, way in OPTIONAL.items() if _loads(name)}}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    _check_same(path, ways)
    for _ in range(repeats):
        for name, way in ways.items():
            clock, began = time.process_time(), time.perf_counter()
            way(path)
            cpu[name].append(time.process_time() - clock)
            wall[name].append(time.perf_counter() - began)
    rates = {name: 1 / statistics.median(times) for name, times in cpu.items()}
    rates["raw"] = max(rates["raw_linear"], rates["raw_seek"])
    return {
        **{name: round(rate, 2) for name, rate in rates.items()},
        "frames_per_s": round(rates["ours"] * FRAMES, 1),
        "ratio_to_raw": round(rates["ours"] / rates["raw"], 2),
        "ratio_to_every_frame": round(rates["ours"] / rates["every_frame"], 2),
        "ratio_to_every_frame_rgb": round(rates["ours"] / rates["every_frame_rgb"], 2),
        "wall": {name: round(1 / statistics.median(times), 2) for name, times in wall.items()},
        "megabytes": round(path.stat().st_size / 1e6, 2),
    }


@functools.cache
def _loads(module: str) -> bool:
    """Whether an optional library is installed and finds the libraries it needs."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _check_same(path: Path, ways: dict[str, Callable[[Path], Result]]) -> None:
    """Whether all ways give what was asked for, each frame or one beside it; runs each once.

    Raises:
        ValueError: a way gives something else, so that its figures would mean nothing.
    """
    reference, near = ours(path), _neighbours(path)
    for name, way in ways.items():
        frames, sound = way(path)
        if frames.shape != reference[0].shape or abs(len(sound) - len(reference[1])) >= SAMPLE_RATE:
            raise ValueError(f"{name}: frames of shape {frames.shape} and {len(sound)} samples of {path}")
        for number, frame in enumerate(frames):
            apart = np.abs(near - frame).mean(axis=(2, 3, 4)).min(axis=0)
            if apart[number] > min(apart.min(), ALIKE):  # a clip that repeats itself shows some pictures twice
                raise ValueError(
                    f"{name}: frame {number} of {path} is another picture ({apart[number]:.1f} levels off)"
                )


def _neighbours(path: Path) -> np.ndarray:
    """The wanted frames and those before and behind them, int16 [3, T, H, W, 3]."""
    with av.open(str(path)) as container:
        targets, step = _targets(container.streams.video[0]), 1 / float(container.streams.video[0].average_rate)
    specs = (SPEC.model_copy(update={"times_s": tuple(targets + shift * step)}) for shift in (-1, 0, 1))
    return np.stack([decode_clip(Clip(clip_id="c", uri=""), path, spec).frames.astype(np.int16) for spec in specs])


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", default="abc", help="which of a, b and c")
    parser.add_argument("--media", type=Path, help="folder that keeps the clips; made when missing")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of tables")
    options = parser.parse_args(argv)
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"--cases {options.cases}: unknown {sorted(unknown)}; allowed: {', '.join(CASES)}")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        media = options.media or Path(folder)
        media.mkdir(parents=True, exist_ok=True)
        for case in options.cases:
            path = media / f"{case}.mp4"
            if not path.is_file():
                write_clip(path, **CASES[case])
            figures[case] = measure(path, options.repeats)
            if not options.json:
                _show(case, figures[case])
    missing = [name for name in OPTIONAL if not _loads(name)]
    if options.json:
        print(json.dumps({**figures, "not_measured": missing, "threads": 1}))
    elif missing:
        print(f"not installed or not loadable, so not measured: {', '.join(missing)}")
    return 0


def _show(case: str, figures: dict[str, Any]) -> None:
    print(f"case {case}: {CASES[case]}")
    for name, value in figures.items():
        if name != "wall":
            print(f"  {name:<26} {value}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
