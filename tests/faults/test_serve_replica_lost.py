"""64 clients for two minutes, and a replica killed in the middle: no wrong answer, only 503s that a retry cures.

Half of them read streams, of which one without [DONE] is asked for again; a quarter ask the champion, which one replica
was told of and the other has to find.
"""

import asyncio
import contextlib
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from clipmaker import write_clip
from served import ADAPTERS, ADMIN_TOKEN, BASE, TOKEN, Server, asking, serving, write_random_adapter, write_run

CLIENTS, SECONDS, KILL_AFTER_S = 64, 120.0, 40.0
RETRY_S = 180.0
"""How long a question may be refused before the server counts as lost."""
MODELS = (BASE, *ADAPTERS, "champion")
CUT = 0
"""Stands for the status of a stream that broke off."""


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


async def whole(http: httpx.AsyncClient, body: Any) -> tuple[int, str, float]:
    """Status, answer and the seconds after which to ask again."""
    reply = await http.post("/v1/chat/completions", json=body)
    if reply.status_code == 200:
        return 200, reply.json()["choices"][0]["message"]["content"], 0.0
    return reply.status_code, reply.text, float(reply.headers.get("Retry-After", 0))


async def streamed(http: httpx.AsyncClient, body: Any) -> tuple[int, str, float]:
    """The same of a stream; one that ends without [DONE] counts as CUT."""
    said, done = "", False
    try:
        async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
            if reply.status_code != 200:
                return reply.status_code, (await reply.aread()).decode(), float(reply.headers.get("Retry-After", 0))
            async for line in reply.aiter_lines():
                data = line.removeprefix("data: ")
                done = done or data == "[DONE]"
                chunk = json.loads(data) if data and not done else {}
                said += "".join(choice["delta"].get("content", "") for choice in chunk.get("choices", ()))
    except httpx.TransportError:
        done = False
    return (200, said, 0.0) if done else (CUT, said, 1.0)


async def one_client(client: int, http: httpx.AsyncClient, body: Any, right: str, until: float, crowd: Crowd) -> None:
    ask, answered = (streamed if client % 2 else whole), 0
    while time.monotonic() < until or not answered:
        asked, lost = time.monotonic(), bool(crowd.killed)
        heard = crowd.after if lost else crowd.before
        while True:
            status, said, again_s = await ask(http, body)
            heard[status] += 1
            if status == 200:
                break
            assert status in (503, CUT) and again_s > 0, said
            assert right.startswith(said) or status != CUT
            assert time.monotonic() - asked < RETRY_S, f"a retry does not cure it: {status} {said}, {crowd}"
            await asyncio.sleep(again_s)
        assert said == right
        answered += lost
        crowd.answered[client] = answered


async def ask_in_a_crowd(server: Server, bodies: list[Any], right: list[str]) -> Crowd:
    crowd = Crowd()
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=150, limits=limits) as http:
        until = time.monotonic() + SECONDS
        clients = [
            asyncio.create_task(
                one_client(i, http, bodies[i // 2 % len(bodies)], right[i // 2 % len(bodies)], until, crowd)
            )
            for i in range(CLIENTS)
        ]
        await asyncio.sleep(KILL_AFTER_S)
        crowd.killed = kill_one_replica(server)
        await asyncio.gather(*clients)
    return crowd


def labels(server: Server) -> set[str]:
    """The replicas that answer, by what /metrics calls them."""
    replies = [server.get("/metrics") for _ in range(8)]
    return {
        name for reply in replies if reply.status_code == 200 for name in re.findall('replica="([^"]+)"', reply.text)
    }


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + RETRY_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(1)


def moved_champion(server: Server, folder: Path) -> None:
    """Lets one replica have a champion, of which the other hears when it looks, or is asked for it."""
    admin = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    moved = server.post({"path": str(folder)}, "/v1/admin/champion", headers=admin)
    assert (moved.status_code, moved.json()["problem"]) == (200, None), moved.text


def test_a_killed_replica_costs_retries_and_no_answer(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    limits = {"num_replicas": 2, "requests_per_minute": 0, "requests_per_token": CLIENTS}
    cfg = write_run(tmp_path / "run", serve=limits)
    write_random_adapter(cfg, tmp_path / "champion", version=3)
    with serving(cfg.run_dir, AVERE_RAY_API_TOKEN=TOKEN, AVERE_RAY_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        until(lambda: len(labels(server)) == 2, "the second replica does not answer")
        before = labels(server)
        moved_champion(server, tmp_path / "champion")
        bodies = [asking(clip, temperature=0.0, model=model) for model in MODELS]
        right = [answer_to(server, body) for body in bodies]
        assert len(set(right)) == len(MODELS)
        crowd = asyncio.run(ask_in_a_crowd(server, bodies, right))
        print(f"before the loss {dict(crowd.before)}, after it {dict(crowd.after)}, by status; {CUT} is a cut stream")
        assert {*crowd.before, *crowd.after} <= {200, 503, CUT}
        assert crowd.before[200] > 0
        assert crowd.before[CUT] + crowd.after[CUT] <= CLIENTS  # what the lost replica was streaming, no stream twice
        assert len([n for n in crowd.answered.values() if n]) == CLIENTS  # each was answered after the loss
        assert not _runs(crowd.killed)
        until(lambda: len(found := labels(server)) == 2 and found != before, "the replica was not replaced")
        assert answer_to(server, bodies[-1]) == right[-1]  # the new one has the champion too


def answer_to(server: Server, body: Any) -> str:
    """The answer, asked for again while a replica says that it has not loaded the model yet."""
    for _ in range(60):
        reply = server.post(body)
        if reply.status_code == 200:
            return str(reply.json()["choices"][0]["message"]["content"])
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_not_loaded"), reply.text
        time.sleep(float(reply.headers["Retry-After"]))
    raise AssertionError("the model is never loaded")


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
