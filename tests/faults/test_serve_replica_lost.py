"""64 clients for two minutes, and a replica killed in the middle: no wrong answer, only 503s that a retry cures."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
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
    first, _ = replicas(server)
    first.send_signal(signal.SIGKILL)
    return first.pid


def replicas(server: Server) -> list[psutil.Process]:
    """Processes of the server's replicas."""
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
    return found


@dataclass
class Crowd:
    """What the clients heard; a question counts for the time before or after the loss by when it was asked."""

    before: Counter[int] = field(default_factory=Counter)
    after: Counter[int] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    """Answers by client, to questions asked after the loss."""
    killed: int = 0
    """Process id of the lost replica."""


async def one_client(client: int, http: httpx.AsyncClient, body: Any, right: str, until: float, crowd: Crowd) -> None:
    answered = 0
    while time.monotonic() < until or not answered:
        asked, lost = time.monotonic(), bool(crowd.killed)
        heard = crowd.after if lost else crowd.before
        while True:
            reply = await http.post("/v1/chat/completions", json=body)
            heard[reply.status_code] += 1
            if reply.status_code == 200:
                break
            assert reply.status_code == 503, reply.text
            assert time.monotonic() - asked < RETRY_S, "a retry does not cure it"
            await asyncio.sleep(float(reply.headers["Retry-After"]))
        assert reply.json()["choices"][0]["message"]["content"] == right
        answered += lost
        crowd.answered[client] = answered


async def ask_in_a_crowd(server: Server, bodies: list[Any], right: list[str]) -> Crowd:
    crowd = Crowd()
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=150, limits=limits) as http:
        until = time.monotonic() + SECONDS
        clients = [
            asyncio.create_task(one_client(i, http, bodies[i % len(bodies)], right[i % len(bodies)], until, crowd))
            for i in range(CLIENTS)
        ]
        await asyncio.sleep(KILL_AFTER_S)
        crowd.killed = kill_one_replica(server)
        await asyncio.gather(*clients)
    return crowd


def test_a_killed_replica_costs_retries_and_no_answer(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    limits = {"num_replicas": 2, "requests_per_minute": 0, "requests_per_token": CLIENTS}
    cfg = write_run(tmp_path / "run", serve=limits)
    with serving(cfg.run_dir, AVERE_RAY_API_TOKEN=TOKEN) as server:
        bodies = [asking(clip, temperature=0.0, model=model) for model in MODELS]
        right = [server.answers(clip, temperature=0.0, model=model)[0] for model in MODELS]
        assert len(set(right)) == len(MODELS)
        crowd = asyncio.run(ask_in_a_crowd(server, bodies, right))
        print(f"before the loss {dict(crowd.before)}, after it {dict(crowd.after)}, by status")
        assert {*crowd.before, *crowd.after} <= {200, 503}
        assert crowd.before[200] > 0
        assert len([n for n in crowd.answered.values() if n]) == CLIENTS  # each was answered after the loss
        assert not _runs(crowd.killed)
        end = time.monotonic() + RETRY_S
        while len(replicas(server)) < 2:
            assert time.monotonic() < end, "the replica was not replaced"
            time.sleep(1)


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
