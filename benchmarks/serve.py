"""What serving costs: requests per second and time to the first token over HTTP, against the bare engine.

    python -m benchmarks.serve [--requests N] [--json]

Both are asked the same about the same clips, streamed, 16 tokens, on the tiny base: the live engine and its decoders in
one process, then `avere-ray serve` with one replica. So the difference is what HTTP, JSON, base64 and Ray Serve take.
Every clip is another file to the server, so that nothing decoded is used again.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.clips import write_clip

CONCURRENCY = (1, 8, 32)
QUESTION = "Which emotion does the person show, and why?"
TOKENS = 16
_WARM = 4
_START_S = 900.0

AskFn = Callable[[str], Awaitable[float]]
"""Asks about a clip, given as a data: URL; seconds to the first token."""


def unlike(clip: bytes, number: int) -> str:
    """The clip as a data: URL, with another unused box at its end, so that no two files are alike."""
    box = number.to_bytes(8, "big")
    data = clip + (8 + len(box)).to_bytes(4, "big") + b"free" + box
    return "data:video/mp4;base64," + base64.b64encode(data).decode()


async def measured(ask: AskFn, urls: Sequence[str], at_once: int) -> dict[str, float]:
    """Figures of so many requests at once, in milliseconds."""
    waiting = iter(urls)
    first: list[float] = []
    whole: list[float] = []

    async def client() -> None:
        for url in waiting:
            began = time.perf_counter()
            first.append(await ask(url))
            whole.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(at_once)])
    seconds = time.perf_counter() - began
    return {
        "at_once": at_once,
        "requests": len(whole),
        "requests_per_s": len(whole) / seconds,
        "first_p50_ms": 1e3 * statistics.median(first),
        "first_p99_ms": 1e3 * sorted(first)[min(len(first) - 1, round(0.99 * len(first)))],
        "whole_p50_ms": 1e3 * statistics.median(whole),
    }


async def rounds(ask: AskFn, clip: bytes, requests: int) -> list[dict[str, float]]:
    """Every concurrency, after some requests that are not counted."""
    numbers = iter(range(10**9))
    for _ in range(_WARM):
        await ask(unlike(clip, next(numbers)))
    figures = []
    for at_once in CONCURRENCY:
        urls = [unlike(clip, next(numbers)) for _ in range(max(requests, 3 * at_once))]
        figures.append(await measured(ask, urls, at_once))
    return figures


def bare(clip: bytes, requests: int, run_dir: Path) -> list[dict[str, float]]:
    """The worker of the server without HTTP: decoders and live engine in this process."""
    from actors.chat import ChatRequest
    from actors.server import ChatWorker
    from avere_ray.config import load_config
    from jobs.serve import serve_spec

    worker = ChatWorker(serve_spec(load_config(run_dir / "config.yaml", [f"--run_dir={run_dir}"], prog="benchmark")))
    base = worker.models[0]

    async def ask(url: str) -> float:
        asked = worker._understood(ChatRequest.model_validate(body(base, url)))
        began, first = time.perf_counter(), 0.0
        async for _ in worker._steps(asked):
            first = first or time.perf_counter() - began
        return first

    return asyncio.run(rounds(ask, clip, requests))


def over_http(clip: bytes, requests: int, run_dir: Path) -> list[dict[str, float]]:
    """The same questions to `avere-ray serve`."""
    import httpx

    async def all_rounds(url: str) -> list[dict[str, float]]:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
            base = (await http.get("/v1/models")).json()["data"][0]["id"]

            async def ask(clip_url: str) -> float:
                began, first = time.perf_counter(), 0.0
                async with http.stream("POST", "/v1/chat/completions", json=body(base, clip_url)) as reply:
                    reply.raise_for_status()
                    async for line in reply.aiter_lines():
                        first = first or (time.perf_counter() - began if line else 0.0)
                return first

            return await rounds(ask, clip, requests)

    with served(run_dir) as url:
        return asyncio.run(all_rounds(url))


def body(model: str, url: str) -> dict[str, Any]:
    """The request."""
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": TOKENS, "stream": True}


@contextmanager
def served(run_dir: Path) -> Iterator[str]:
    """`avere-ray serve` on a run; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jobs.main", "serve", str(run_dir), "--port", str(port)]
    log = run_dir.parent / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + _START_S
        while "serve: ready on" not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)


def write_run(folder: Path) -> Path:
    """A run folder with the tiny base and no adapter."""
    from avere_ray.config import RunConfig
    from avere_ray.stages import write_text

    limits = {"requests_per_minute": 0, "requests_per_token": 64, "max_requests": 64}
    cfg = RunConfig.model_validate(
        {"run_dir": folder / "run", "rollout": {"num_cpus": 0}, "serve": limits,
         "ray": {"address": "local", "num_cpus": 2, "object_store_mb": 128}}
    )  # fmt: skip
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    return cfg.run_dir


def compare(engine: list[dict[str, float]], http: list[dict[str, float]]) -> list[dict[str, float]]:
    """Figures over HTTP, with what they are above the bare engine's."""
    return [
        {
            **h,
            "bare_requests_per_s": e["requests_per_s"],
            "bare_first_p50_ms": e["first_p50_ms"],
            "bare_whole_p50_ms": e["whole_p50_ms"],
            "overhead_first_p50_ms": h["first_p50_ms"] - e["first_p50_ms"],
            "overhead_whole_p50_ms": h["whole_p50_ms"] - e["whole_p50_ms"],
        }
        for e, h in zip(engine, http, strict=True)
    ]


def table(figures: list[dict[str, float]]) -> str:
    """The figures for a person."""
    lines = ["at once   requests/s (bare)   first token p50 (bare)   p99   overhead p50: first token, whole answer"]
    lines += [
        f"{f['at_once']:7.0f}   {f['requests_per_s']:10.1f} ({f['bare_requests_per_s']:.1f})   "
        f"{f['first_p50_ms']:9.1f} ms ({f['bare_first_p50_ms']:.1f})   {f['first_p99_ms']:.1f} ms   "
        f"{f['overhead_first_p50_ms']:+.1f} ms, {f['overhead_whole_p50_ms']:+.1f} ms"
        for f in figures
    ]
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100, help="requests at each concurrency (100)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--bare-in", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if args.bare_in:
        clip = (args.bare_in / "clip.mp4").read_bytes()
        print("figures: " + json.dumps(bare(clip, args.requests, args.bare_in / "run")))
        return
    folder = Path(tempfile.mkdtemp(prefix="avere-ray-benchmark-"))
    try:
        run_dir = write_run(folder)
        clip = write_clip(folder / "clip.mp4", seconds=2, width=320, height=240).read_bytes()
        command = [sys.executable, "-m", "benchmarks.serve", "--bare-in", str(folder), "--requests", str(args.requests)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
        found = re.search(r"^figures: (.*)$", done.stdout, re.MULTILINE)
        assert found is not None, done.stdout
        figures = compare(json.loads(found[1]), over_http(clip, args.requests, run_dir))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=2) if args.json else table(figures))


if __name__ == "__main__":
    main()
