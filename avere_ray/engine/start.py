"""Starts vLLM on a model folder, with the settings that every engine here shares."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avere_ray.config import ModelConfig, RolloutConfig
from avere_ray.engine.cpu_lora import plain_matmul_for_adapters
from avere_ray.engine.surroundings import engine_environment
from avere_ray.errors import ModelError

PLAIN_JSON = {"backend": "xgrammar", "disable_any_whitespace": True}
"""How answers are bound to JSON. Without it a weak model may fill its whole reply with the blanks that JSON allows
between any two tokens."""
START_ERRORS = (ValueError, OSError, RuntimeError, LookupError, AssertionError)
"""What vLLM raises while it starts, the last two where weights and the model's code do not fit."""


def start_vllm(
    model: ModelConfig,
    rollout: RolloutConfig,
    lora_rank: int,
    media: Mapping[str, Any],
    *,
    adapters: int = 1,
    in_group: bool = False,
) -> Any:
    """vLLM's `LLM` in this process, for media up to `media_limits` and so many adapters in one batch.

    `in_group`: see `vllm_options`.

    Raises:
        ModelError: it cannot start on the folder, or is built for another device than `rollout.num_gpus` says.
    """
    for name, value in engine_environment(rollout, int(os.environ.get("OMP_NUM_THREADS", "1"))).items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    if bool(rollout.num_gpus) == _is_cpu_build():
        built = "CPU; set it to 0" if rollout.num_gpus else "GPU; set it to 1, or to a share of one"
        raise ModelError(
            f"rollout.num_gpus is {rollout.num_gpus:g}, but vLLM here is built for {built}, or install the other build "
            "(make setup ACCEL=cpu or ACCEL=gpu)"
        )
    if not rollout.num_gpus:
        plain_matmul_for_adapters()
    try:
        return LLM(
            model=str(model.path),
            dtype=model.dtype,
            max_model_len=rollout.max_model_len,
            enable_lora=True,
            max_loras=adapters,
            max_lora_rank=max(8, lora_rank),
            seed=0,
            max_num_seqs=rollout.batch_queries,
            limit_mm_per_prompt=dict(media),
            structured_outputs_config=PLAIN_JSON,
            disable_log_stats=True,
            **vllm_options(rollout, in_group=in_group),
        )
    except START_ERRORS as error:
        raise cannot_start(model.path, error) from error


def cannot_start(path: Path, error: Exception) -> ModelError:
    """What vLLM says about a folder that it does not start on, in one line, and what to do."""
    words = " ".join(str(error).split()).rstrip(".") or "no reason given"
    return ModelError(
        f"vLLM cannot start on {path}: {type(error).__name__}: {words}. If it names a file or a weight, copy or "
        "download the model again. If it names memory, the KV cache or a length, change kv_cache_mb, max_model_len or "
        "(on a GPU) gpu_memory_utilization in the section rollout, for a judge max_model_len in its own."
    )


def vllm_options(rollout: RolloutConfig, *, in_group: bool) -> dict[str, Any]:
    """What vLLM is told besides model and media, by device.

    `in_group`: an engine over several GPUs has its workers started by Ray, in the placement group that its own process
    is in; else vLLM starts them itself, as processes that see the same GPUs.
    """
    if not rollout.num_gpus:
        # No chunked prefill: vLLM 0.32 would rewind the generator of a seeded request, which CPU ones cannot.
        tokens = max(8192, rollout.max_model_len)
        return {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": tokens}
    size = max(1, int(rollout.num_gpus))
    workers = {"distributed_executor_backend": "ray"} if in_group and size > 1 else {}
    return {"tensor_parallel_size": size, "gpu_memory_utilization": rollout.gpu_memory_utilization, **workers}


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises while it reads a request or an adapter, before any of it is in work."""
    from vllm.exceptions import VLLMClientError

    return (VLLMClientError, AssertionError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError)


def _is_cpu_build() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())
