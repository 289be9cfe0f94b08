"""`avere-ray serve` up to the point where Ray starts: arguments, address, and what a run folder must hold."""

import dataclasses
import os
import shutil
import socket
from pathlib import Path

import pytest

from actors.serving.proxy import MAX_BODY_VARIABLE
from actors.serving.tokens import TOKENS_FILE_VARIABLE
from avere_ray.backbones import model_digest
from avere_ray.config import RunConfig, ServeConfig
from avere_ray.engine import engine_threads
from avere_ray.errors import ConfigError, InputError, ModelError
from avere_ray.media import spec_digest
from avere_ray.records import AdapterManifest
from avere_ray.stages import StageFolder, file_digest, write_json, write_text
from jobs import serve
from jobs.serve import check_address, serve_arguments, serve_spec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cfg(tmp_path: Path) -> RunConfig:
    """A run with one adapter; model and adapter are files of the right names."""
    model = tmp_path / "some_base"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (model / name).write_text("{}")
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    cfg = RunConfig.model_validate({"run_dir": tmp_path / "run", "model": {"path": model}})
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    for round_ in range(2):
        write_adapter(cfg, round_)
    return cfg


def write_adapter(cfg: RunConfig, round_: int, **changed: str) -> Path:
    folder = StageFolder(cfg.run_dir / "adapters" / f"round={round_}", stage="adapters", key="k")
    folder.begin()
    weights = folder.path / "adapter_model.safetensors"
    weights.write_text(f"weights {round_}")
    manifest = AdapterManifest(
        version=round_ + 1,
        path=".",
        base_digest=model_digest(cfg.model.path),
        backbone="qwen2_5_omni",
        round=round_,
        step=1,
        rank=8,
        alpha=32.0,
        data_digest="",
        decode_spec=spec_digest(cfg.data.decode),
        weights_sha256=file_digest(weights),
    )
    write_json(folder.path / "adapter_manifest.json", dataclasses.asdict(dataclasses.replace(manifest, **changed)))
    folder.finish(inputs=1, used=1)
    return folder.path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_base_and_every_adapter_are_served(cfg: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVERE_RAY_API_TOKEN", raising=False)
    spec = serve_spec(cfg)
    folder = cfg.run_dir / "adapters"
    assert spec.base == "some_base"
    assert spec.adapters == {f"some_base:adapter-{i + 1}": folder / f"round={i}" for i in range(2)}
    assert spec.tokens == ()


def test_a_run_without_adapter_serves_its_base(cfg: RunConfig) -> None:
    shutil.rmtree(cfg.run_dir / "adapters")
    assert (serve_spec(cfg).base, serve_spec(cfg).adapters) == ("some_base", {})


def test_the_token_itself_is_not_passed_on(cfg: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVERE_RAY_API_TOKEN", "a-long-random-text, another-long-text")
    spec = serve_spec(cfg)
    assert len(spec.tokens) == 2
    assert "a-long-random-text" not in repr(spec)


def test_a_folder_that_is_no_run(cfg: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main([str(cfg.run_dir / "adapters")]) == 2
    assert "is no run folder: it has no config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"base_digest": "other"}, ModelError, "another base"),
        ({"decode_spec": "other"}, InputError, "data.decode"),
        ({"weights_sha256": "other"}, InputError, "not those of its manifest"),
    ],
)
def test_an_adapter_that_does_not_belong(cfg: RunConfig, changed: dict, error: type, words: str) -> None:
    write_adapter(cfg, 1, **changed)
    with pytest.raises(error, match=words):
        serve_spec(cfg)


def test_an_adapter_without_weights(cfg: RunConfig) -> None:
    (write_adapter(cfg, 1) / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        serve_spec(cfg)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "gpu-box", ""])
def test_other_hosts_need_a_token(cfg: RunConfig, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="AVERE_RAY_API_TOKEN"):
        check_address(host, 8000, token=False)
    assert serve.main([str(cfg.run_dir), "--host", host]) == 2
    assert "AVERE_RAY_API_TOKEN" in capsys.readouterr().err


def test_an_address_that_can_be_used() -> None:
    port = free_port()
    assert check_address("127.0.0.1", str(port), token=False) == port
    assert check_address("0.0.0.0", port, token=True) == port


def test_the_proxy_gives_up_after_everyone_else() -> None:
    limits = ServeConfig(deadline_s=7.0)
    told = serve.http_options(limits, "127.0.0.1", 81)
    assert told == {"host": "127.0.0.1", "port": 81, "request_timeout_s": 77.0}
    default = serve.http_options(ServeConfig(), "", 0)["request_timeout_s"]
    for manifest in ("workloads/rayservice.yaml", "overlays/dev-cpu/service.yaml"):
        assert f"request_timeout_s: {default:g}}}" in (ROOT / "cluster" / manifest).read_text()


def test_the_proxy_is_told_which_bodies_and_tokens_it_may_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (serve._PROXY_WORDS, MAX_BODY_VARIABLE, TOKENS_FILE_VARIABLE):
        monkeypatch.setenv(name, "")  # as they were afterwards
        monkeypatch.delenv(name)
    serve._tell_proxy(ServeConfig(max_body_mb=3))
    assert (os.environ[MAX_BODY_VARIABLE], os.environ[TOKENS_FILE_VARIABLE]) == ("3", "")
    monkeypatch.chdir(tmp_path)
    serve._tell_proxy(ServeConfig(tokens_file=Path("tokens")))
    assert os.environ[TOKENS_FILE_VARIABLE] == str(tmp_path / "tokens")
    words = os.environ[serve._PROXY_WORDS]
    for manifest in ("workloads/rayservice.yaml", "overlays/dev-cpu/service.yaml"):
        text = (ROOT / "cluster" / manifest).read_text()
        assert f'{{name: {serve._PROXY_WORDS}, value: "{words}"}}' in text
        assert f'{{name: {TOKENS_FILE_VARIABLE}, value: ""}}' in text


def test_addresses_that_cannot_be_used() -> None:
    for port in ("0", "-1", "70000", "http", ""):
        with pytest.raises(ConfigError, match="--port"):
            check_address("127.0.0.1", port, token=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot listen on"):
            check_address("127.0.0.1", taken.getsockname()[1], token=False)


@pytest.mark.parametrize(
    ("cores", "replicas", "num_cpus", "threads"),
    [(1, 1, 0, 1), (2, 1, 0, 2), (3, 1, 0, 3), (64, 1, 0, 4), (64, 9, 0, 4), (8, 3, 0, 2), (2, 2, 0, 1), (4, 1, 1, 1)],
)
def test_engines_share_the_cores(
    cores: int, replicas: int, num_cpus: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    cfg = RunConfig.model_validate({"rollout": {"num_cpus": num_cpus}, "serve": {"num_replicas": replicas}})
    assert engine_threads(cfg.rollout, cfg.serve.num_replicas) == threads


def test_arguments(cfg: RunConfig) -> None:
    run = str(cfg.run_dir)
    address, rest = serve_arguments([run, "--host", "::1", "--port=81", "--seed=1"])
    assert address == {"host": "::1", "port": "81"}
    assert rest == [f"--config={run}/config.yaml", f"--run_dir={run}", "--seed=1"]
    assert serve_arguments(["--port", "81", run])[1] == [f"--config={run}/config.yaml", f"--run_dir={run}"]
    assert serve_arguments([run, "--config", "x.yaml"])[1] == [f"--run_dir={run}", "--config", "x.yaml"]
    assert serve_arguments(["--config=x.yaml"]) == ({}, ["--config=x.yaml"])
