"""64 clients for two minutes, and a replica killed in the middle: no wrong answer, only 503s that a retry cures."""

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from clipmaker import write_clip
from served import ADAPTERS, BASE, TOKEN, Server, asking, serving, write_run

CLIENTS, SECONDS, KILL_AFTER_S = 64, 120.0, 40.0
RETRY_S = 180.0
"""How long a question may be refused before the server counts as lost."""
MODELS = (BASE, *ADAPTERS)


def kill_one_replica(server: Server) -> int:
    """Ends one of the server's replicas at once; its process id."""
    below = psutil.Process(server.process.pid).children(recursive=True)
    replicas = [p for p in below if "ServeReplica" in " ".join(p.cmdline())]
    assert len(replicas) == 2, replicas
    replicas[0].send_signal(signal.SIGKILL)
    return replicas[0].pid


async def one_client(http: httpx.AsyncClient, body: Any, right: str, until: float, heard: Counter[Any]) -> None:
    while time.monotonic() < until:
        asked = time.monotonic()
        while True:
            reply = await http.post("/v1/chat/completions", json=body)
            heard[reply.status_code] += 1
            if reply.status_code == 200:
                break
            assert reply.status_code == 503, reply.text
            assert time.monotonic() - asked < RETRY_S, "a retry does not cure it"
            await asyncio.sleep(float(reply.headers["Retry-After"]))
        assert reply.json()["choices"][0]["message"]["content"] == right


async def crowd(server: Server, bodies: list[Any], right: list[str]) -> tuple[Counter[Any], int]:
    heard: Counter[Any] = Counter()
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=150, limits=limits) as http:
        until = time.monotonic() + SECONDS
        clients = [
            asyncio.create_task(one_client(http, bodies[i % len(bodies)], right[i % len(bodies)], until, heard))
            for i in range(CLIENTS)
        ]
        await asyncio.sleep(KILL_AFTER_S)
        killed = kill_one_replica(server)
        await asyncio.gather(*clients)
    return heard, killed


def test_a_killed_replica_costs_retries_and_no_answer(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    limits = {"num_replicas": 2, "requests_per_minute": 0, "requests_per_token": CLIENTS}
    cfg = write_run(tmp_path / "run", serve=limits)
    with serving(cfg.run_dir, AVERE_RAY_API_TOKEN=TOKEN) as server:
        bodies = [asking(clip, temperature=0.0, model=model) for model in MODELS]
        right = [server.answers(clip, temperature=0.0, model=model)[0] for model in MODELS]
        assert len(set(right)) == len(MODELS)
        heard, killed = asyncio.run(crowd(server, bodies, right))
        assert set(heard) <= {200, 503}
        assert heard[200] > 10 * CLIENTS
        assert not psutil.pid_exists(killed) or psutil.Process(killed).status() == psutil.STATUS_ZOMBIE
        end = time.monotonic() + RETRY_S
        while len([p for p in psutil.Process(server.process.pid).children(recursive=True)
                   if "ServeReplica" in " ".join(p.cmdline())]) < 2:  # fmt: skip
            assert time.monotonic() < end, "the replica was not replaced"
            time.sleep(1)
        print(f"answered {heard[200]}, refused {heard[503]}")
