"""Whether decoding scales: 250, 1,000 and 4,000 short clips through decode and store to a consumer, then once more.

`python -m benchmarks.scale [--clips N ...] [--cpus N] [--json]`. Each size gets a process and a Ray of its own on
127.0.0.1 and an empty store; the second pass is another run of the same project. Clips are 1 s, 320 x 240; each file
is different.

    seconds                    decode, and a consumer that reads every decoded clip once through Ray Data
    peak_object_store_bytes    used in Ray's object store at its highest
    peak_rss_bytes             resident memory of the driver and all its Ray processes, without what they share
    peak_driver_bytes          the same of the driver alone; peaks are those of both passes
    again_seconds, again_decoded    the second pass, and how many clips it decoded (to reach: 0)
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from avere_ray.config import DataConfig, DecodeConfig, RayConfig
from avere_ray.records import Clip
from benchmarks.clips import write_clip

SPEC = DecodeConfig(frames=4, height=84, width=84)
_SOURCES, _POLL_S, _LIMIT_S = 25, 0.25, 3600.0


class Gauge:
    """Watches memory while a block runs, from a thread of its own."""

    def __init__(self) -> None:
        self.peaks = {"peak_object_store_bytes": 0, "peak_rss_bytes": 0, "peak_driver_bytes": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Gauge":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _watch(self) -> None:
        import ray
        from ray._private.internal_api import get_state_from_address

        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        while not self._stop.wait(_POLL_S):
            for name, value in _memory(state).items():
                self.peaks[name] = max(self.peaks[name], value)


def _memory(state: Any) -> dict[str, int]:
    import psutil
    from ray._private.internal_api import get_memory_info_reply

    me = psutil.Process()
    each = []
    for process in [me, *me.children(recursive=True)]:
        try:
            info = process.memory_info()
        except psutil.Error:  # it has just ended
            continue
        each.append(info.rss - info.shared)
    stats = get_memory_info_reply(state).store_stats
    return {
        "peak_object_store_bytes": stats.object_store_bytes_used,
        "peak_rss_bytes": sum(each),
        "peak_driver_bytes": each[0],
    }


def measure(folder: Path, count: int, cpus: int) -> dict[str, Any]:
    """Figures of one size."""
    from avere_ray.av_store import AvStore
    from jobs.session import ray_session

    clips = _corpus(folder / "clips", count)
    store = AvStore(folder / "store")
    with ray_session(RayConfig(address="local", num_cpus=cpus, object_store_mb=256)):
        _warm_up(folder / "clips", clips[:4], folder)
        with Gauge() as gauge:
            seconds, _ = _pass(folder / "clips", clips, store, folder / "one")
            again, decoded = _pass(folder / "clips", clips, store, folder / "two")
    return {
        "clips": count,
        "seconds": round(seconds, 2),
        "clips_per_s": round(count / seconds, 1),
        **gauge.peaks,
        "again_seconds": round(again, 2),
        "again_decoded": decoded,
        "store_bytes": store.size(),
    }


def _pass(root: Path, clips: Sequence[Clip], store: Any, run: Path) -> tuple[float, int]:
    """Decodes, then reads everything; seconds, and clips decoded rather than found."""
    from avere_ray.data import decode_stage, decoded_dataset
    from avere_ray.stages import StageFolder

    began = time.perf_counter()
    stage = StageFolder(run / "decoded", stage="decode", key="benchmark")
    manifest = decode_stage(clips, root, DataConfig(decode=SPEC, drop_budget=0.0), store, stage, lambda *_: None)
    batches = decoded_dataset(stage.path).iter_batches(batch_size=16, batch_format="pyarrow")
    read = sum(table.num_rows for table in batches)
    assert read == len(clips), f"{read} of {len(clips)} clips came through"
    return time.perf_counter() - began, manifest.summary["decoded"]


def _warm_up(root: Path, clips: Sequence[Clip], folder: Path) -> None:
    """Starts the workers and their decoders, so that every size pays the same."""
    from avere_ray.av_store import AvStore

    _pass(root, clips, AvStore(folder / "warm"), folder / "warm_run")


def _corpus(root: Path, count: int) -> list[Clip]:
    """`count` different files, many of one size: a few clips, each with a number in a box that players skip."""
    root.mkdir(parents=True)
    names = [root / f"source{i}.mp4" for i in range(min(_SOURCES, count))]
    sources = [write_clip(path, seconds=1, width=320, height=240, seed=i) for i, path in enumerate(names)]
    data = [source.read_bytes() for source in sources]
    clips = []
    for number in range(count):
        name = f"clip{number:06d}.mp4"
        box = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        (root / name).write_bytes(data[number % len(data)] + box)
        clips.append(Clip(clip_id=f"c{number}", uri=name))
    return clips


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON line per size instead of tables")
    options = parser.parse_args(argv)
    for count in options.clips:
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
            figures = own.submit(measure, Path(folder), count, options.cpus).result(timeout=_LIMIT_S)
        if options.json:
            print(json.dumps(figures), flush=True)
        else:
            print("\n".join(f"{name:<26} {value}" for name, value in figures.items()), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
