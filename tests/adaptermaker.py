"""A run folder with one adapter of random weights on the tiny base, as training leaves it."""

import dataclasses
from pathlib import Path

import avere_ray
from avere_ray.config import ModelConfig, RunConfig
from avere_ray.records import AdapterManifest
from avere_ray.stages import StageFolder, file_digest, write_json, write_text

TINY_BASE = Path(avere_ray.__file__).parent / "synthetic" / "tiny_base"


def write_adapter_run(folder: Path, *, max_tokens: int = 40) -> RunConfig:
    """A run of one round; the adapter changes every answer."""
    cfg = RunConfig.model_validate(
        {
            "run_dir": folder,
            "rounds": 1,
            "model": {"path": TINY_BASE},
            "data": {"decode": {"frames": 4, "height": 84, "width": 84, "max_duration_s": 10}},
            "rollout": {"num_cpus": 0, "max_tokens": max_tokens, "kv_cache_mb": 512},
            "ray": {"address": "local", "num_cpus": 2, "object_store_mb": 128},
        }
    )
    write_text(folder / "config.yaml", cfg.to_yaml())
    stage = StageFolder(folder / "adapters" / "round=0", stage="adapters", key="test")
    stage.begin()
    write_random_adapter(cfg, stage.path)
    stage.finish(inputs=1, used=1)
    return cfg


def write_random_adapter(cfg: RunConfig, folder: Path) -> None:
    """Weights and manifest of version 1."""
    import torch

    from avere_ray.backbones import load_policy, model_digest
    from avere_ray.backbones.qwen2_5_omni import add_lora, save_adapter
    from avere_ray.media import spec_digest

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
