"""What vLLM is told by device, and how media are named to its caches."""

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avere_ray.backbones.qwen2_5_omni.processor import engine_inputs
from avere_ray.config import JudgeConfig, ModelConfig, RolloutConfig
from avere_ray.engine import Engine, start
from avere_ray.engine.batches import Batch
from avere_ray.engine.start import start_vllm, vllm_options
from avere_ray.engine.text import TextEngine
from avere_ray.errors import EngineBroken, ModelError
from avere_ray.records import DecodedClip


@pytest.mark.parametrize(
    ("gpus", "in_group", "size", "executor"),
    [(0.4, True, 1, None), (1, True, 1, None), (2, True, 2, "ray"), (4, True, 4, "ray"), (4, False, 4, None)],
)
def test_an_engine_over_several_gpus_has_its_workers_from_ray_where_it_is_in_a_placement_group(
    gpus: float, in_group: bool, size: int, executor: str | None
) -> None:
    options = vllm_options(RolloutConfig(num_gpus=gpus, gpu_memory_utilization=0.5), in_group=in_group)
    assert options["tensor_parallel_size"] == size
    assert options.get("distributed_executor_backend") == executor
    assert options["gpu_memory_utilization"] == 0.5


def test_on_cpu_there_is_no_chunked_prefill() -> None:
    options = vllm_options(RolloutConfig(max_model_len=9000), in_group=True)
    assert options == {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": 9000}


@pytest.mark.parametrize("kind", ["omni", "text"])
@pytest.mark.parametrize("error", [ValueError("no room\nfor the KV cache."), KeyError("layers.3.q"), AssertionError()])
def test_an_engine_that_does_not_start_says_why_in_one_line_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception
) -> None:
    """Ray shows the last line of what an actor raised."""

    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=refuse))
    monkeypatch.setattr(start, "_is_cpu_build", lambda: True)
    monkeypatch.setattr(start, "plain_matmul_for_adapters", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(
        ModelError, match=r"^vLLM cannot start on some/model: \w+Error: [^\n]*copy or download"
    ) as caught:
        if kind == "omni":
            start_vllm(ModelConfig(path=Path("some/model")), RolloutConfig(), 8, {})
        else:
            TextEngine(JudgeConfig(model_path=Path("some/model")))
    words = {
        ValueError: "no room for the KV cache. If",
        KeyError: "'layers.3.q'. If",
        AssertionError: "no reason given",
    }
    assert words[type(error)] in str(caught.value)


def clip(seed: int) -> DecodedClip:
    rng = np.random.default_rng(seed)
    return DecodedClip(
        clip_id="the same", spec="", frames=rng.integers(0, 256, (4, 28, 28, 3), dtype=np.uint8),
        frame_times_s=np.arange(4, dtype=np.float32), waveform=rng.random(1600, dtype=np.float32), duration_s=4.0,
    )  # fmt: skip


def names(*clips: DecodedClip) -> dict[str, list[str]]:
    found: dict[str, list[str]] = engine_inputs(*clips)["multi_modal_uuids"]
    return found


def test_media_are_named_by_content_so_that_a_swapped_one_never_meets_the_clips_own() -> None:
    own, other = clip(0), clip(1)
    swapped = dataclasses.replace(own, waveform=other.waveform)
    assert names(own) == names(dataclasses.replace(own, clip_id="another", frames=own.frames.copy()))
    assert names(swapped)["video"] == names(own)["video"]
    assert names(swapped)["audio"] == names(other)["audio"] != names(own)["audio"]
    assert names(own, other)["video"] == [*names(own)["video"], *names(other)["video"]]
    assert len({*names(own)["video"], *names(other)["video"], *names(own)["audio"], *names(other)["audio"]}) == 4


def test_only_what_is_shown_is_named() -> None:
    assert engine_inputs(clip(0), video=False)["multi_modal_uuids"].keys() == {"audio"}
    assert engine_inputs(clip(0), audio=False)["multi_modal_uuids"].keys() == {"video"}
    longer = np.concatenate([clip(0).waveform, np.zeros(1, np.float32)])
    assert names(dataclasses.replace(clip(0), waveform=longer))["audio"] != names(clip(0))["audio"]


def test_a_step_that_fails_means_that_the_engine_is_broken() -> None:
    class Broken:
        def step(self) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine = Engine.__new__(Engine)
    engine._batches = Broken()  # type: ignore[assignment]
    with pytest.raises(EngineBroken, match="failed in a step: RuntimeError: CUDA error"):
        engine.step(Batch([None]))
