"""What serving costs: requests per second and time to the first token over HTTP, against the bare engine.

    python -m benchmarks.serve [--requests N] [--rounds R] [--json]

Three ways are asked the same, streamed, 16 tokens, on the tiny base, by so many clients at once:

    engine   the live engine in a process, with clips that are decoded already
    bare     the same with the decoders before it: what the server does with a request, without HTTP
    http     `avere-ray serve` with one replica

So "bare" above "engine" is what decoding takes, and "http" above "bare" what HTTP, JSON, base64 and Ray Serve take. The
ways take turns within a run, a few requests each, so that what else the machine does falls on all of them. No two clips
show or sound the same, so that nothing is decoded or encoded twice.
"""

import argparse
import asyncio
import base64
import itertools
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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from avere_ray.config import RunConfig, load_config
from avere_ray.engine import engine_threads
from avere_ray.stages import write_text
from benchmarks.clips import write_unlike
from jobs.serve import serve_spec

CONCURRENCY = (1, 8, 32)
WAYS = ("engine", "bare", "http")
QUESTION = "Which emotion does the person show, and why?"
TOKENS = 16
_WARM = 4
_START_S = 900.0
_BLOCK_S = 600.0

AskFn = Callable[[str], Awaitable[float]]
"""Asks about a clip, given as a data: URL; seconds to the first token."""
BlockFn = Callable[[str, Sequence[Path], int], Awaitable["Block"]]
"""Has one of the ways asked about clips, by so many clients at once."""


class Block(dict[str, Any]):
    """Seconds of some requests: `first`, `whole` (lists) and `took` (all of them)."""


async def measured(ask: AskFn, urls: Sequence[str], at_once: int) -> Block:
    """Seconds of so many requests at once."""
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
    return Block(first=first, whole=whole, took=time.perf_counter() - began)


def as_url(clip: Path) -> str:
    """The clip as a data: URL."""
    return "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()


def body(model: str, url: str) -> dict[str, Any]:
    """The request."""
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": TOKENS, "stream": True}


# Without HTTP: a process that is told on its standard input what to ask ----------------------------------------------


def answer_blocks(run_dir: Path) -> None:
    """Asks decoders and engine in this process, block by block, and prints each block's seconds."""
    from actors.server import ChatWorker

    worker = ChatWorker(serve_spec(run_config(run_dir)))
    with asyncio.Runner() as runner:
        print("ready", flush=True)
        for line in sys.stdin:
            wanted = json.loads(line)
            urls = [as_url(Path(clip)) for clip in wanted["clips"]]
            block = runner.run(_without_http(worker, wanted["way"], urls, wanted["at_once"]))
            print("block: " + json.dumps(block), flush=True)
    worker.close()


async def _without_http(worker: Any, way: str, urls: Sequence[str], at_once: int) -> Block:
    from actors.chat import ChatRequest

    understood = {url: worker._understood(ChatRequest.model_validate(body(worker.models[0], url))) for url in urls}
    decoded = {url: await worker.decoder.decode(understood[url].media) for url in urls} if way == "engine" else {}

    async def ask(url: str) -> float:
        asked = understood[url]
        if way == "engine":
            steps = worker.engine.stream(worker._prompt(asked, decoded[url]), asked.wanted)
        else:
            steps = worker._steps(asked)
        began, first = time.perf_counter(), 0.0
        async for _ in steps:
            first = first or time.perf_counter() - began
        return first

    return await measured(ask, urls, at_once)


@asynccontextmanager
async def bare_process(folder: Path, run_dir: Path) -> AsyncIterator[BlockFn]:
    """The process, and how to have it ask."""
    command = [sys.executable, "-m", "benchmarks.serve", "--bare-in", str(run_dir)]
    environment = {**os.environ, **server_threads(run_config(run_dir))}
    with (folder / "bare.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, limit=2**24, env=environment
        )
    assert process.stdin is not None and process.stdout is not None
    reader, writer = process.stdout, process.stdin

    async def said(pattern: str, limit_s: float) -> str:
        async with asyncio.timeout(limit_s):
            while line := (await reader.readline()).decode():
                if found := re.match(pattern, line):
                    return found[found.lastindex or 0]
        raise SystemExit(f"the engine ended:\n{(folder / 'bare.log').read_text(errors='replace')[-2000:]}")

    async def block(way: str, clips: Sequence[Path], at_once: int) -> Block:
        writer.write((json.dumps({"way": way, "clips": [str(c) for c in clips], "at_once": at_once}) + "\n").encode())
        await writer.drain()
        return Block(json.loads(await said("block: (.*)", _BLOCK_S)))

    try:
        await said("ready", _START_S)
        yield block
    finally:
        writer.close()
        async with asyncio.timeout(120):
            await process.wait()


# Over HTTP -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_client(url: str) -> AsyncIterator[BlockFn]:
    """How to have the server asked."""
    import httpx

    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        model = (await http.get("/v1/models")).json()["data"][0]["id"]

        async def block(way: str, clips: Sequence[Path], at_once: int) -> Block:
            bodies = {str(clip): json.dumps(body(model, as_url(clip))).encode() for clip in clips}

            async def ask(clip: str) -> float:
                began, first = time.perf_counter(), 0.0
                headers = {"Content-Type": "application/json"}
                chat = http.stream("POST", "/v1/chat/completions", content=bodies[clip], headers=headers)
                async with chat as reply:
                    reply.raise_for_status()
                    async for _ in reply.aiter_bytes():
                        first = first or time.perf_counter() - began
                return first

            return await measured(ask, [str(clip) for clip in clips], at_once)

        yield block


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


def run_config(run_dir: Path) -> RunConfig:
    """The config of a run folder."""
    return load_config(run_dir / "config.yaml", [f"--run_dir={run_dir}"], prog="benchmark")


def server_threads(cfg: RunConfig) -> dict[str, str]:
    """Environment that gives an engine as many threads as the server's replicas give theirs."""
    return {"OMP_NUM_THREADS": str(engine_threads(cfg.rollout, cfg.serve.num_replicas))}


def write_run(folder: Path) -> Path:
    """A run folder with the tiny base and no adapter."""
    limits = {"requests_per_minute": 0, "requests_per_token": 64, "max_requests": 64}
    cfg = RunConfig.model_validate(
        {"run_dir": folder / "run", "rollout": {"num_cpus": 0}, "serve": limits,
         "ray": {"address": "local", "num_cpus": 2, "object_store_mb": 128}}
    )  # fmt: skip
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    return cfg.run_dir


# Both ----------------------------------------------------------------------------------------------------------------


async def turns(
    blocks: dict[str, BlockFn], clips: Iterator[Path], requests: int, rounds: int
) -> list[dict[str, float]]:
    """Every concurrency: the ways in turns, after some requests that are not counted."""
    for way, block in blocks.items():
        await block(way, list(itertools.islice(clips, _WARM)), 1)
    figures = []
    for at_once in CONCURRENCY:
        each = -(-_asked(requests, at_once) // rounds)
        found: dict[str, list[Block]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS[:: 1 if number % 2 else -1]:
                found[way].append(await blocks[way](way, list(itertools.islice(clips, each)), at_once))
        figures.append({"at_once": at_once, **compared({way: summed(found[way]) for way in WAYS})})
    return figures


def _asked(requests: int, at_once: int) -> int:
    return max(requests, 3 * at_once)


def summed(blocks: Sequence[Block]) -> dict[str, float]:
    """Figures of one way, in milliseconds."""
    first, whole = (sorted(s for b in blocks for s in b[name]) for name in ("first", "whole"))
    return {
        "requests": len(whole),
        "requests_per_s": len(whole) / sum(b["took"] for b in blocks),
        "first_p50_ms": 1e3 * statistics.median(first),
        "first_p99_ms": 1e3 * first[min(len(first) - 1, round(0.99 * len(first)))],
        "whole_p50_ms": 1e3 * statistics.median(whole),
    }


def compared(ways: dict[str, dict[str, float]]) -> dict[str, float]:
    """Figures over HTTP, with those of the others and what one is above the other."""
    engine, bare, http = (ways[way] for way in WAYS)
    rest = {f"{way}_{name}": value for way in WAYS[:2] for name, value in ways[way].items() if name != "requests"}
    above = {
        f"{what}_{name}_ms": high[f"{name}_ms"] - low[f"{name}_ms"]
        for what, high, low in (("overhead", http, bare), ("decode", bare, engine))
        for name in ("first_p50", "whole_p50")
    }
    return {**http, **rest, **above}


def table(figures: list[dict[str, float]]) -> str:
    """The figures for a person."""
    lines = [
        "at once  requests/s: http, bare, engine  first token p50: http (p99), bare, engine     "
        "overhead p50: first token, whole   decoding"
    ]
    lines += [
        f"{f['at_once']:7.0f}  {f['requests_per_s']:9.1f} {f['bare_requests_per_s']:6.1f} "
        f"{f['engine_requests_per_s']:6.1f}            {f['first_p50_ms']:7.1f} ({f['first_p99_ms']:.1f}) "
        f"{f['bare_first_p50_ms']:7.1f} {f['engine_first_p50_ms']:7.1f} ms     "
        f"{f['overhead_first_p50_ms']:+.1f} ms, {f['overhead_whole_p50_ms']:+.1f} ms   "
        f"{f['decode_first_p50_ms']:+.1f} ms"
        for f in figures
    ]
    return "\n".join(lines)


async def run(folder: Path, requests: int, rounds: int) -> list[dict[str, float]]:
    """Writes clips, starts both, asks both."""
    run_dir = write_run(folder)
    each = sum(rounds * -(-_asked(requests, at_once) // rounds) for at_once in CONCURRENCY)
    clips = iter(write_unlike(folder, len(WAYS) * (each + _WARM), width=320, height=240))
    with served(run_dir) as url:
        async with bare_process(folder, run_dir) as bare, http_client(url) as http:
            return await turns({"engine": bare, "bare": bare, "http": http}, clips, requests, rounds)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=48, help="requests of each way at each concurrency (48)")
    parser.add_argument("--rounds", type=int, default=4, help="turns they are asked in (4)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--bare-in", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare_in:
        answer_blocks(args.bare_in)
        return
    folder = Path(tempfile.mkdtemp(prefix="avere-ray-benchmark-"))
    try:
        figures = asyncio.run(run(folder, args.requests, args.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=2) if args.json else table(figures))


if __name__ == "__main__":
    main()
