"""What an engine's process and vLLM itself are told before the engine starts."""

import os
from typing import Any

from avere_ray.config import DecodeConfig, RolloutConfig
from avere_ray.environment import SLEEPING_THREADS


def media_limits(decode: DecodeConfig, clips: int = 1) -> dict[str, Any]:
    """Largest media of one request. vLLM warms up on media of this size; without it, on gigabytes."""
    video = {"count": clips, "num_frames": decode.most_frames, "width": decode.width, "height": decode.height}
    return {"video": video, "audio": {"count": clips, "length": round(decode.max_duration_s * 16_000)}, "image": 0}


def engine_threads(rollout: RolloutConfig, engines: int) -> int:
    """Threads of each of so many engines: rollout.num_cpus, or its share of all cores, at most 4."""
    return int(rollout.num_cpus) or max(1, min(4, (os.cpu_count() or 1) // engines))


def engine_environment(rollout: RolloutConfig, threads: int) -> dict[str, str]:
    """Environment of a process that will hold an engine; must be set before vLLM is imported."""
    return {
        **SLEEPING_THREADS,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, rollout.kv_cache_mb // 1024)),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
