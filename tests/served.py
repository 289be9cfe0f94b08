"""A running `avere-ray serve` on a run folder with adapters, and questions to it over HTTP."""

import base64
import dataclasses
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

import avere_ray
from avere_ray.backbones import load_policy, model_digest
from avere_ray.config import ModelConfig, RunConfig
from avere_ray.media import spec_digest
from avere_ray.records import AdapterManifest
from avere_ray.stages import StageFolder, file_digest, write_json, write_text
from avere_ray.tracking import Tracker, registry, tracking_uri

TINY_BASE = Path(avere_ray.__file__).parent / "synthetic" / "tiny_base"
BASE = TINY_BASE.name
ADAPTERS = (f"{BASE}:adapter-1", f"{BASE}:adapter-2")
TOKEN, ADMIN_TOKEN = "a-token-for-the-tests", "a-token-for-the-admin"
QUESTION = "Which emotion does the person show?"
START_S, END_S = 240, 90


@dataclass
class Server:
    """The running command and what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **request: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **{"headers": self.headers, **request})

    def post(self, body: Any, path: str = "/v1/chat/completions", **request: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=120, **{"headers": self.headers, **request})

    def ask(self, clip: Path | None, question: str = QUESTION, **fields: Any) -> httpx.Response:
        return self.post(asking(clip, question, **fields))

    def listening(self) -> set[tuple[str, int]]:
        """Addresses and ports on which the server's processes listen, Ray's and its workers' included."""
        ours = [found := psutil.Process(self.process.pid), *found.children(recursive=True)]
        connections = [c for process in ours for c in process.net_connections("inet")]
        return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}

    def answers(self, clip: Path | None, **fields: Any) -> list[str]:
        reply = self.ask(clip, **fields)
        assert reply.status_code == 200, reply.text
        return [choice["message"]["content"] for choice in reply.json()["choices"]]


def asking(clip: Path | None, question: str = QUESTION, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The body of a question about a clip."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question}, *more]
    if clip is not None:
        data = base64.b64encode(clip.read_bytes()).decode()
        content.insert(0, {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}})
    return {"model": BASE, "messages": [{"role": "user", "content": content}], **fields}


def wav(seconds: float = 1.0) -> dict[str, Any]:
    """A tone as OpenAI's clients send sound."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(16_000 * seconds)) / 16_000)
    with wave.open(held := io.BytesIO(), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(held.getvalue()).decode(), "format": "wav"}}


def long_answer(clip: Path, items: int, **fields: Any) -> dict[str, Any]:
    """A question whose answer is a list of so many items at least."""
    schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": items}
    form = {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}
    return asking(clip, max_tokens=900, response_format=form, **fields)


def write_run(run_dir: Path, *, adapters: int = 2, **sections: Any) -> RunConfig:
    """A run folder as the pipeline leaves it; its adapters change every answer, each in its own way."""
    cfg = RunConfig.model_validate(
        {
            "run_dir": run_dir,
            "rounds": max(1, adapters),
            "model": {"path": TINY_BASE},
            "rollout": {"num_cpus": 0, "max_tokens": 8, "kv_cache_mb": 512},
            "ray": {"address": "local", "num_cpus": 2, "object_store_mb": 128},
            **sections,
        }
    )
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    for round_ in range(adapters):
        folder = StageFolder(cfg.run_dir / "adapters" / f"round={round_}", stage="adapters", key="test")
        folder.begin()
        write_random_adapter(cfg, folder.path, version=round_ + 1)
        folder.finish(inputs=1, used=1)
    return cfg


def write_random_adapter(cfg: RunConfig, folder: Path, *, version: int) -> None:
    """An adapter with random weights, seeded by its version."""
    import torch

    from avere_ray.backbones.qwen2_5_omni import add_lora, save_adapter

    policy = add_lora(load_policy(ModelConfig(path=TINY_BASE)), rank=8, alpha=32.0, seed=version)
    generator = torch.Generator().manual_seed(version)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    save_adapter(policy, folder)
    manifest = AdapterManifest(
        version=version,
        path=".",
        base_digest=model_digest(TINY_BASE),
        backbone="qwen2_5_omni",
        round=version - 1,
        step=1,
        rank=8,
        alpha=32.0,
        data_digest="",
        decode_spec=spec_digest(cfg.data.decode),
        weights_sha256=file_digest(folder / "adapter_model.safetensors"),
    )
    write_json(folder / "adapter_manifest.json", dataclasses.asdict(manifest))


@contextmanager
def asked_all_along(server: Server, clip: Path, model: str, threads: int = 4) -> Iterator[list[httpx.Response]]:
    """The replies to clients that ask a model again and again while the block runs; whole when it has ended."""
    heard: list[httpx.Response] = []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            heard.append(server.ask(clip, model=model, temperature=0.0))

    clients = [threading.Thread(target=load) for _ in range(threads)]
    for client in clients:
        client.start()
    try:
        yield heard
    finally:
        ended.set()
        for client in clients:
            client.join(timeout=150)


def register_adapter(cfg: RunConfig, *, version: int) -> str:
    """An adapter with random weights as a run leaves it in MLflow's registry, without alias; its version there."""
    folder = cfg.run_dir.parent / f"registered-{version}"
    write_random_adapter(cfg, folder / "adapter", version=version)
    with Tracker(folder, cfg.tracking, run_name=folder.name, say=lambda line: None) as tracker:
        tracker.start({"name": folder.name, "run_dir": str(folder)})
        tracker.log_artifacts(folder / "adapter", registry.ADAPTER)
        tracker.finish()
        assert tracker.close() == 0 and tracker.run_id is not None
    uri = tracking_uri(cfg.tracking, cfg.run_dir)
    return registry.register(uri, cfg.serve.registered_model, tracker.run_id).version


def move_alias(cfg: RunConfig, version: str) -> None:
    """Lets `champion` in MLflow's registry name another version."""
    uri = tracking_uri(cfg.tracking, cfg.run_dir)
    registry.set_alias(uri, cfg.serve.registered_model, registry.CHAMPION, version)


@contextmanager
def serving(run_dir: Path, arguments: Sequence[str] = (), **variables: str) -> Iterator[Server]:
    """The server on a run, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = run_dir.parent / "serve.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AVERE_RAY_"))}
    environment |= variables
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.main", "serve", str(run_dir), "--port", str(port), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    started = Server(process, port, log)
    try:
        _wait_until_ready(started)
        yield started
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=END_S)


def _wait_until_ready(server: Server) -> None:
    end = time.monotonic() + START_S
    while "serve: ready on" not in server.log.read_text(errors="replace"):
        assert server.process.poll() is None and time.monotonic() < end, server.log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)
