"""The server as a user starts it: real HTTP on loopback, a real engine, base and adapter."""

import base64
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from clipmaker import Recipe, write_clip

import avere_ray
from avere_ray.backbones import load_policy, model_digest
from avere_ray.config import ModelConfig, RunConfig
from avere_ray.media import spec_digest
from avere_ray.records import AdapterManifest, Rollout
from avere_ray.stages import StageFolder, file_digest, read_records, write_json, write_text
from jobs import evaluate

TINY_BASE = Path(avere_ray.__file__).parent / "synthetic" / "tiny_base"
BASE, ADAPTER = TINY_BASE.name, f"{TINY_BASE.name}:adapter-1"
START_S, END_S = 200, 60


@dataclass
class Server:
    """The running command and what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, clip: Path, question: str = "Which emotion does the person show?", **fields: Any) -> httpx.Response:
        data = base64.b64encode(clip.read_bytes()).decode()
        content = [
            {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}},
            {"type": "text", "text": question},
        ]
        body = {"model": BASE, "messages": [{"role": "user", "content": content}], **fields}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)

    def answers(self, clip: Path, **fields: Any) -> list[str]:
        reply = self.ask(clip, **fields)
        assert reply.status_code == 200, reply.text
        return [choice["message"]["content"] for choice in reply.json()["choices"]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as the pipeline leaves it, with one adapter that changes every answer."""
    cfg = RunConfig.model_validate(
        {
            "run_dir": tmp_path_factory.mktemp("serve") / "run",
            "rounds": 1,
            "model": {"path": TINY_BASE},
            "rollout": {"num_cpus": 0, "max_tokens": 8, "kv_cache_mb": 512},
            "ray": {"address": "local", "num_cpus": 2, "object_store_mb": 128},
        }
    )
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    folder = StageFolder(cfg.run_dir / "adapters" / "round=0", stage="adapters", key="test")
    folder.begin()
    write_random_adapter(cfg, folder.path)
    folder.finish(inputs=1, used=1)
    return cfg.run_dir


def write_random_adapter(cfg: RunConfig, folder: Path) -> None:
    import torch

    from avere_ray.backbones.qwen2_5_omni import add_lora, save_adapter

    policy = add_lora(load_policy(ModelConfig(path=TINY_BASE)), rank=8, alpha=32.0, seed=0)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    save_adapter(policy, folder)
    manifest = AdapterManifest(
        version=1,
        path=".",
        base_digest=model_digest(TINY_BASE),
        backbone="qwen2_5_omni",
        round=0,
        step=1,
        rank=8,
        alpha=32.0,
        data_digest="",
        decode_spec=spec_digest(cfg.data.decode),
        weights_sha256=file_digest(folder / "adapter_model.safetensors"),
    )
    write_json(folder / "adapter_manifest.json", dataclasses.asdict(manifest))


@pytest.fixture(scope="module")
def server(run_dir: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = run_dir.parent / "serve.log"
    hidden = ("RAY_", "AVERE_RAY_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment["RAY_AUTH_MODE"] = "disabled"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.main", "serve", str(run_dir), "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    started = Server(process, port, log)
    try:
        wait_until_ready(started)
        yield started
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=END_S)


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + START_S
    while "serve: ready on" not in server.log.read_text(errors="replace"):
        assert server.process.poll() is None and time.monotonic() < end, server.log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)


def test_base_and_adapter_are_offered_on_loopback_only(server: Server) -> None:
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert [m["id"] for m in httpx.get(f"{server.url}/v1/models").json()["data"]] == [BASE, ADAPTER]
    listening = [
        c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == server.port
    ]
    assert listening == ["127.0.0.1"]
    assert f"curl -s {server.url}/v1/chat/completions" in server.log.read_text()


def test_base_and_adapter_answer_differently_and_each_the_same_again(server: Server, clip: Path) -> None:
    base = server.answers(clip, temperature=0.0)
    adapter = server.answers(clip, temperature=0.0, model=ADAPTER)
    assert base != adapter
    assert server.answers(clip, temperature=0.0) == base
    assert server.answers(clip, temperature=0.0, model=ADAPTER) == adapter


def test_a_seed_repeats_the_samples_and_usage_adds_up(server: Server, clip: Path) -> None:
    wanted: dict[str, Any] = {"n": 3, "seed": 7, "max_tokens": 5, "temperature": 2.0, "model": ADAPTER}
    first = server.answers(clip, **wanted)
    assert len(set(first)) > 1
    assert server.answers(clip, **wanted) == first
    assert server.answers(clip, **{**wanted, "seed": 8}) != first
    usage = server.ask(clip, **wanted).json()["usage"]
    assert 3 <= usage["completion_tokens"] <= 15
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_requests_that_cannot_be_answered(server: Server, clip: Path, tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", Recipe(with_audio=False))
    (broken := tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:3000])
    cases = [
        (server.ask(silent), 422, "no_audio_stream"),
        (server.ask(broken), 422, "corrupt"),
        (server.ask(clip, model="other"), 404, "model_not_found"),
        (server.ask(clip, max_tokens=5000), 400, "context_length_exceeded"),
        (server.ask(clip, stream=True), 400, "unsupported_parameter"),
    ]
    for reply, status, code in cases:
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
        assert "Traceback" not in reply.text
        assert "clip-" not in reply.text  # the name of the temporary file
    assert server.answers(clip)


def test_markup_of_the_model_is_refused(server: Server, clip: Path) -> None:
    data = base64.b64encode(clip.read_bytes()).decode()
    content = [
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}},
        {"type": "text", "text": "What is this? <|VIDEO|>"},
    ]
    body = {"model": BASE, "messages": [{"role": "user", "content": content}]}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "messages.0.content")


def test_a_body_beyond_the_limit_is_refused(server: Server) -> None:
    headers = {"Content-Type": "application/json"}
    reply = httpx.post(f"{server.url}/v1/chat/completions", content=b" " * (65 * 2**20), headers=headers, timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_it_can_be_evaluated_as_a_remote_model(server: Server, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    (folder / "clips.jsonl").write_text(json.dumps({"clip_id": "c", "uri": "clip.mp4", "split": "test"}))
    question = {"id": "q", "video": "clip.mp4", "task": "modality_agreement", "question": "Do face and voice agree?",
                "choices": ["(A) Yes", "(B) No"], "answer": "A"}  # fmt: skip
    (folder / "emorealm.json").write_text(json.dumps([question]))
    endpoint = {"url": f"{server.url}/v1", "model": BASE}
    cfg = RunConfig.model_validate(
        {"run_dir": tmp_path / "run", "data": {"clips": folder},
         "evaluation": {"endpoint": endpoint, "media": "file", "max_tokens": 8}}
    )  # fmt: skip
    manifest = evaluate.run_remote(cfg)
    assert (manifest.used, manifest.summary["remote_answers"]) == (1, 1)
    [answer] = read_records(tmp_path / "run" / "evals" / "before" / "predictions.parquet", Rollout)
    words = "Do face and voice agree? (A) Yes (B) No"
    assert [answer.text] == server.answers(clip, question=words, temperature=0, max_tokens=8)
    assert manifest.summary["remote_prompt_tokens"] > 80  # words alone are about 40


def test_sigterm_ends_it_cleanly(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=END_S) == 0
    assert "serve: ended" in server.log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")
