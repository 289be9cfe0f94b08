"""Qwen2.5-Omni (Thinker): prompt layout and media features, log-probs over prefix trees, LoRA adapters.

A family's package offers these names; `avere_ray.backbones` picks the family by the config.
"""

from avere_ray.backbones.qwen2_5_omni.adapters import LORA_TARGETS, add_lora, load_adapter, save_adapter
from avere_ray.backbones.qwen2_5_omni.policy import MediaEmbeds, PackedRow, Policy, load_policy
from avere_ray.backbones.qwen2_5_omni.processor import (
    AudioFeatures,
    MediaFeatures,
    Processor,
    Sample,
    VideoFeatures,
    clip_fps,
    engine_inputs,
)

__all__ = [
    "LORA_TARGETS",
    "AudioFeatures",
    "MediaEmbeds",
    "MediaFeatures",
    "PackedRow",
    "Policy",
    "Processor",
    "Sample",
    "VideoFeatures",
    "add_lora",
    "clip_fps",
    "engine_inputs",
    "load_adapter",
    "load_policy",
    "save_adapter",
]
