"""What the rollout pool costs: response tokens per second through it, against vLLM's own `generate` on the same engine.

    python -m benchmarks.rollout [--clips N] [--rounds N] [--json]

One engine on the tiny base answers the same requests in turns: through the pool, which reads clips from the decoded
store and sends batches to the actor, and by one bare `LLM.generate` call inside the actor, for which the requests lie
ready. Before each turn the engine's caches are emptied. The figures are medians over the turns, so that what else the
machine does meets both. Then an adapter is sent to the engine again and again, from the push to its acknowledgement.

    encoder_cache_hits      media of a pool turn that did not go through a tower, since another request showed them
    prefix_cache_hit_rate   share of a pool turn's prompt tokens that were found in the KV cache
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SAMPLES, TOKENS = 4, 48
_SYNCS = 50
_SEED = 0


def measure(folder: Path, clips: int, rounds: int) -> dict[str, float]:
    """Every figure, from a run folder that is made in `folder`."""
    from avere_ray.config import RayConfig, RunConfig
    from jobs.session import ray_session

    cfg = RunConfig.model_validate({
        "run_dir": folder / "run", "world": {"train_clips": clips, "test_clips": 4},
        "data": {"decode": {"max_duration_s": 10}},
        "rollout": {"num_cpus": 0, "samples": SAMPLES, "max_tokens": TOKENS, "kv_cache_mb": 1024},
        "ray": {"object_store_mb": 256},
    })  # fmt: skip
    with ray_session(RayConfig(address="local", object_store_mb=256)):
        return _measure(cfg, folder, rounds)


def _measure(cfg: Any, folder: Path, rounds: int) -> dict[str, float]:
    from jobs import decode, synth
    from jobs.workers import Workers, sample_queries

    synth.run(cfg)
    decode.run(cfg)
    with Workers(cfg) as workers:
        pool, queries = workers.pool, sample_queries(workers.training_clips, cfg, 0)
        engine = pool.actors[0]
        through_pool(pool, queries[: cfg.rollout.batch_queries])  # what the first steps compile is not counted
        turns = []
        for _ in range(rounds):
            remotely(engine, empty_caches)
            pooled, caches = through_pool(pool, queries), remotely(engine, cache_figures)
            remotely(engine, empty_caches)
            turns.append((pooled, remotely(engine, bare, queries), caches))
        assert all(pooled[0] == plain[0] for pooled, plain, _ in turns), "both give the same tokens"
        seconds = sorted(sync_seconds(pool, write_adapter(cfg, folder / "adapter")))
    pool_speed, bare_speed = (statistics.median(t[i][0] / t[i][1] for t in turns) for i in (0, 1))
    caches = turns[0][2]
    return {
        "pool_tokens_per_s": pool_speed,
        "bare_tokens_per_s": bare_speed,
        "ratio": statistics.median(b[1] / p[1] for p, b, _ in turns),
        "encoder_cache_hits": caches["media"] - caches["encoded"],
        "prefix_cache_hit_rate": caches["known_tokens"] / caches["prompt_tokens"],
        "sync_seconds_p50": statistics.median(seconds),
        "sync_seconds_p99": seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))],
        "requests": len(queries),
        "media": caches["media"],
        "turns": [{"pool": p[0] / p[1], "bare": b[0] / b[1]} for p, b, _ in turns],
    }


def through_pool(pool: Any, queries: Sequence[Any]) -> tuple[int, float]:
    """Response tokens, and seconds from the questions to the last rollout."""
    began = time.perf_counter()
    found = pool(queries, n=SAMPLES, temperature=1.0, max_tokens=TOKENS, seed=_SEED)
    return sum(len(r.token_ids) for group in found for r in group), time.perf_counter() - began


def remotely(actor: Any, function: Any, *arguments: Any) -> Any:
    """What a function of the worker gives in the actor's process."""
    import ray

    return ray.get(actor.__ray_call__.remote(function, *arguments), timeout=1800)


def bare(worker: Any, queries: Sequence[Any]) -> tuple[int, float]:
    """Response tokens and seconds of one `LLM.generate` call over all requests; in the actor."""
    engine = worker.engine
    options = {"n": SAMPLES, "temperature": 1.0, "max_tokens": TOKENS, "seed": _SEED}
    asking = engine.sampling(queries, worker._shown(queries, None), **options)
    began = time.perf_counter()
    outputs = engine._llm.generate(asking.requests, asking.params, use_tqdm=False)
    seconds = time.perf_counter() - began
    return sum(len(out.token_ids) for output in outputs for out in output.outputs), seconds


def empty_caches(worker: Any) -> None:
    """In the actor."""
    worker.engine.caches.empty()


def cache_figures(worker: Any) -> dict[str, int]:
    """In the actor."""
    figures: dict[str, int] = worker.engine.caches.figures()
    return figures


def sync_seconds(pool: Any, adapter: Path) -> list[float]:
    """Seconds of each push of an adapter, until the engine has acknowledged it; each has a new version."""
    took = []
    for version in range(1, _SYNCS + 1):
        began = time.perf_counter()
        pool.load_adapter(adapter, version)
        took.append(time.perf_counter() - began)
    return took


def write_adapter(cfg: Any, folder: Path) -> Path:
    """An adapter for the base, with weights that change what it says."""
    import torch

    from avere_ray.backbones import backbone, load_policy

    family = backbone(cfg.model.backbone)
    policy = family.add_lora(load_policy(cfg.model), rank=cfg.train.lora_rank, alpha=cfg.train.lora_alpha, seed=0)
    with torch.no_grad():
        for name, value in policy.named_parameters():
            if "lora_B" in name:
                value.normal_(0.0, 0.05)
    folder.mkdir()
    family.save_adapter(policy, folder)
    return folder


def table(figures: dict[str, Any]) -> str:
    """For people."""
    turns = "; ".join(f"{t['pool']:.0f} and {t['bare']:.0f}" for t in figures["turns"])
    return "\n".join([
        f"pool {figures['pool_tokens_per_s']:.0f} tokens/s, bare {figures['bare_tokens_per_s']:.0f} tokens/s, "
        f"ratio {figures['ratio']:.3f} ({figures['requests']} requests, {SAMPLES} samples; turns: {turns})",
        f"encoder cache hits {figures['encoder_cache_hits']} of {figures['media']} media, "
        f"prefix cache hit rate {figures['prefix_cache_hit_rate']:.3f}",
        f"adapter sync p50 {1e3 * figures['sync_seconds_p50']:.1f} ms, p99 {1e3 * figures['sync_seconds_p99']:.1f} ms",
    ])  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=120, help="training clips, three requests each (120)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of pool and bare engine (5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    folder = Path(tempfile.mkdtemp(prefix="avere-ray-benchmark-"))
    try:
        figures = measure(folder, args.clips, args.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, indent=2) if args.json else table(figures))


if __name__ == "__main__":
    main()
