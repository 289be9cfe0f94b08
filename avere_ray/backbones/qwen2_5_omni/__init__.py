"""Qwen2.5-Omni (Thinker): prompt layout and media features, log-probs over prefix trees, LoRA adapters, full tuning.

A family's package offers these names; `avere_ray.backbones` picks the family by the config.
"""

from avere_ray.backbones.qwen2_5_omni.adapters import LORA_TARGETS, add_lora, load_adapter, save_adapter
from avere_ray.backbones.qwen2_5_omni.policy import Policy, load_policy
from avere_ray.backbones.qwen2_5_omni.processor import Processor, engine_inputs
from avere_ray.backbones.qwen2_5_omni.tuning import (
    place_towers,
    save_model,
    set_towers_apart,
    trained_names,
    unfreeze_language_model,
)

__all__ = [
    "LORA_TARGETS",
    "Policy",
    "Processor",
    "add_lora",
    "engine_inputs",
    "load_adapter",
    "load_policy",
    "place_towers",
    "save_adapter",
    "save_model",
    "set_towers_apart",
    "trained_names",
    "unfreeze_language_model",
]
