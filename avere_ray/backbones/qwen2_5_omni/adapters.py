"""LoRA adapters of the Thinker, in peft's format under the names that vLLM applies.

vLLM accepts an adapter whose keys it does not know and silently applies nothing, so keys carry the full model's prefix.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from avere_ray.backbones.qwen2_5_omni.policy import Policy
from avere_ray.errors import ModelError

LORA_TARGETS = r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
"""Linear layers of the language model; towers and projectors stay frozen."""
_THINKER_PREFIX, _FULL_PREFIX = "base_model.model.model.", "base_model.model.thinker.model."


def add_lora(policy: Policy, *, rank: int, alpha: float, seed: int) -> Policy:
    """The policy with a fresh LoRA adapter on the language model; everything else is frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=LORA_TARGETS)
    return Policy(get_peft_model(policy.thinker, config), policy.processor, policy.attention)


def save_adapter(policy: Policy, folder: Path) -> None:
    """Writes the adapter in peft format under the full model's key names, without which vLLM applies nothing."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        _full_name(name): value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(policy.thinker).items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = policy.thinker.peft_config["default"].to_dict()
    names = sorted({name.split(".lora_")[0].removeprefix("base_model.model.") for name in weights})
    plain = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "r": config["r"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config["lora_dropout"],
        "target_modules": names,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def load_adapter(policy: Policy, folder: Path) -> None:
    """Sets the weights of the policy's adapter from a folder written by `save_adapter`.

    Raises:
        ModelError: the folder does not fit this model.
    """
    from peft import set_peft_model_state_dict

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"adapter folder {folder} has no adapter_model.safetensors")
    weights = {_thinker_name(name): value for name, value in load_file(path).items()}
    result = set_peft_model_state_dict(policy.thinker, weights)
    if result.unexpected_keys:
        raise ModelError(f"adapter {folder} does not fit this model; unexpected: {result.unexpected_keys[:3]}")


def _full_name(name: str) -> str:
    return name.replace(_THINKER_PREFIX, _FULL_PREFIX, 1) if name.startswith(_THINKER_PREFIX) else name


def _thinker_name(name: str) -> str:
    return name.replace(_FULL_PREFIX, _THINKER_PREFIX, 1) if name.startswith(_FULL_PREFIX) else name
