"""Models of stated sizes with random weights, and pairs of stated lengths, for the learner's benchmarks.

The towers cost, per token of the language model, what they cost in Qwen2.5-Omni-7B: about 0.39 of the language model
for a video token (four patches and their merger) and 0.19 for an audio token (two encoder frames), counted in
multiplied weights. `tower_share` computes the same ratios of any shape.

Source of the 7B and 3B sizes: the published config.json files of Qwen2.5-Omni.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avere_ray.backbones.qwen2_5_omni import Policy, Processor
from avere_ray.backbones.qwen2_5_omni.policy import as_policy

BASE = Path("avere_ray/synthetic/tiny_base")
"""Only its tokenizer and media processors are used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Sizes of a model and of the pairs it is given."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vision: tuple[int, int, int]
    """Width, feed-forward width, layers."""
    audio: tuple[int, int, int]
    """Width, feed-forward width, layers."""
    frames: int = 8
    height: int = 392
    width: int = 448
    seconds: float = 6.0
    prompt_words: int = 50
    response: int = 100
    """Tokens of a response, give or take four."""

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads


SHAPES = {
    "mini": Shape(
        hidden=64,
        intermediate=128,
        layers=2,
        heads=2,
        kv_heads=1,
        vision=(80, 64, 1),
        audio=(64, 64, 1),
        frames=2,
        height=56,
        width=56,
        seconds=1.0,
        prompt_words=8,
        response=12,
    ),
    "small": Shape(
        hidden=256,
        intermediate=1344,
        layers=2,
        heads=4,
        kv_heads=1,
        vision=(96, 256, 3),
        audio=(96, 384, 3),
        frames=4,
        height=224,
        width=224,
        seconds=4.0,
        response=50,
    ),
    "standard": Shape(
        hidden=1024, intermediate=5408, layers=3, heads=8, kv_heads=2, vision=(320, 856, 4), audio=(384, 1536, 3)
    ),
    "7b-layer": Shape(
        hidden=3584, intermediate=18944, layers=4, heads=28, kv_heads=4, vision=(1280, 3420, 5), audio=(1280, 5120, 5)
    ),
    "3b": Shape(
        hidden=2048,
        intermediate=11008,
        layers=36,
        heads=16,
        kv_heads=2,
        vision=(1280, 3420, 32),
        audio=(1280, 5120, 32),
    ),
}


def make_policy(shape: Shape, *, device: torch.device, dtype: torch.dtype) -> Policy:
    """A Thinker of this shape with random weights."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.utils import logging

    processor = Processor(BASE)
    logging.set_verbosity(logging.CRITICAL)
    config = Qwen2_5OmniThinkerConfig(**_config(shape, processor.thinker_config))
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    with torch.device(device):
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(config).to(dtype)
    return as_policy(thinker, processor)


def _config(shape: Shape, tiny: dict[str, Any]) -> dict[str, Any]:
    half = shape.head_dim // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    width, feed, layers = shape.vision
    text = {
        **tiny["text_config"],
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "layer_types": ["full_attention"] * shape.layers,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": sections},
    }
    vision = {
        **tiny["vision_config"],
        "depth": layers,
        "hidden_size": width,
        "intermediate_size": feed,
        "num_heads": max(1, width // 80),
        "out_hidden_size": shape.hidden,
        "fullatt_block_indexes": [i for i in range(layers) if i % 8 == 7 or i == layers - 1],
    }
    width, feed, layers = shape.audio
    audio = {
        **tiny["audio_config"],
        "encoder_layers": layers,
        "encoder_attention_heads": max(1, width // 64),
        "encoder_ffn_dim": feed,
        "d_model": width,
        "output_dim": shape.hidden,
    }
    ids = {k: v for k, v in tiny.items() if k.endswith(("token_index", "token_id"))}
    return {"text_config": text, "vision_config": vision, "audio_config": audio, **ids}


def language_weights(shape: Shape) -> int:
    """Weights that multiply each token in one layer of the language model."""
    kv = shape.kv_heads * shape.head_dim
    return 2 * shape.hidden * (shape.hidden + kv) + 3 * shape.hidden * shape.intermediate


def tower_weights(shape: Shape) -> tuple[int, int]:
    """Weights that multiply, per token of the language model, in the vision and in the audio tower."""
    width, feed, layers = shape.vision
    merger = (4 * width) ** 2 + 4 * width * shape.hidden
    vision = 4 * layers * (4 * width * width + 3 * width * feed) + merger
    width, feed, layers = shape.audio
    audio = 2 * layers * (4 * width * width + 2 * width * feed) + width * shape.hidden
    return vision, audio


def tower_share(shape: Shape) -> tuple[float, float]:
    """Cost of a video and of an audio token in its tower, as a share of that token's cost in the language model."""
    whole = language_weights(shape) * shape.layers
    vision, audio = tower_weights(shape)
    return vision / whole, audio / whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """Frames and waveform of one made-up clip."""

    frames: np.ndarray
    waveform: np.ndarray


def make_media(shape: Shape, seed: int) -> Media:
    """Noise of the shape's size."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 255, (shape.frames, shape.height, shape.width, 3), dtype=np.uint8)
    return Media(frames=frames, waveform=(0.1 * random.standard_normal(int(shape.seconds * 16000))).astype(np.float32))
