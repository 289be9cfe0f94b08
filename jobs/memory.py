"""How much memory a run will need, from its config and the shapes of the model's weights; nothing is loaded.

    peak = most engines x (weights + KV cache + process)
         + scorer (weights + activations without gradient + tower outputs + process)
         + object store
         + workers x (weights + LoRA with optimizer + activations + tower outputs + process)
         + Ray and driver

weights      parameters x bytes of model.dtype; the learner's are divided over the workers at ZeRO stage 3
LoRA         rank x (in + out) of every adapted layer; 8 bytes for value and gradient, 12 for AdamW's copies, which are
             divided over the workers from ZeRO stage 1 on
activations  micro_pairs x tokens of a pair x (17 x hidden x layers + 3 x vocabulary) values: a transformer layer keeps
             about 17 hidden-sized values per token (Korthikanti et al. 2022, arXiv 2205.05198, without attention maps),
             the loss keeps logits, log-probs and their gradient. A pair is its prompt twice (own and swapped media) and
             four responses. Without gradient one layer's values are kept, and those of the loss.
tower outputs  what `MediaCache` keeps in memory: its limit, or less where the drawn world has less to keep
processes    what each kind of process takes before it holds a model, as measured on a 2-core CPU machine

It is an estimate for choosing sizes: a warning of a tight fit, no promise.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.errors import ModelError

MIB = 2**20
ENGINE_PROCESS_MB, WORKER_PROCESS_MB, RAY_AND_DRIVER_MB = 1000.0, 800.0, 1000.0

CLIP_S = 3.0
"""Length of a clip whose length is not known, seconds."""
_BYTES = {"float32": 4, "bfloat16": 2}
_TEXT_TOKENS = 100
_AUDIO_TOKENS_PER_S = 25

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One kind of memory user."""

    name: str
    """Who: "engine", "learner", ..."""
    count: int
    """How many of them are alive at once."""
    host_mb: Mapping[str, float]
    """MiB of main memory of each, by what it holds."""
    gpu_mb: Mapping[str, float]
    """MiB of GPU memory of each, by what it holds; empty without a GPU, and for an engine, which takes its share."""

    def total_mb(self) -> float:
        """MiB of main memory of all of them."""
        return self.count * sum(self.host_mb.values())

    def words(self) -> str:
        """For instance "2 x learner (weights 6 MiB + process 0.8 GiB)"."""
        inner = " + ".join(f"{name} {size_words(mb)}" for name, mb in self.host_mb.items())
        return f"{self.count} x {self.name} ({inner})"


def estimate(cfg: RunConfig, shapes: Shapes, lora_targets: str) -> list[Part]:
    """Predicted memory of a run, by who uses it; see the module's docstring for the formula.

    Args:
        shapes: parameter name to shape, as `read_shapes` gives them.
        lora_targets: regular expression of the adapted layers.
    """
    weights = sum(math.prod(shape) for shape in shapes.values()) * _BYTES[cfg.model.dtype] / MIB
    return [
        _engine(cfg, weights),
        _scorer(cfg, weights, shapes, lora_targets),
        Part(name="object store", count=1, host_mb={"clips and results": cfg.ray.object_store_mb}, gpu_mb={}),
        _learner(cfg, weights, shapes, lora_targets),
        Part(name="Ray and driver", count=1, host_mb={"processes": RAY_AND_DRIVER_MB}, gpu_mb={}),
    ]


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Parameter names and shapes of a model folder, from the headers of its safetensors files.

    Speech output (talker, vocoder) is left out, since neither the engine nor the learner loads it.

    Raises:
        ModelError: a file is not in safetensors format.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (size,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(size, 100 * MIB)))
            shapes.update({name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"})
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise ModelError(f"{path} is not a safetensors file ({error}). Copy or download it again.") from error
    return {name: shape for name, shape in shapes.items() if not name.startswith(("talker.", "token2wav."))}


def features_mb(cfg: RunConfig, shapes: Shapes, lora_targets: str, clips: int) -> float:
    """MiB of tower outputs of so many clips that are kept on disk, within their quota; arguments as for `estimate`."""
    return min(_encoded(cfg, _adapted(shapes, lora_targets), clips) / MIB, cfg.cache.features_gb * 1024)


def size_words(mb: float) -> str:
    """A size in MiB or GiB, as a person reads it."""
    return f"{mb / 1024:.1f} GiB" if mb >= 1000 else f"{mb:.0f} MiB"


def _engine(cfg: RunConfig, weights: float) -> Part:
    if cfg.rollout.num_gpus:
        return Part(name="engine", count=cfg.rollout.most_engines, host_mb={"process": ENGINE_PROCESS_MB}, gpu_mb={})
    cache = max(1, cfg.rollout.kv_cache_mb // 1024) * 1024.0  # vLLM counts whole GiB
    held = {"weights": weights, "KV cache": cache, "process": ENGINE_PROCESS_MB}
    return Part(name="engine", count=cfg.rollout.most_engines, host_mb=held, gpu_mb={})


def _learner(cfg: RunConfig, weights: float, shapes: Shapes, lora_targets: str) -> Part:
    train, adapted = cfg.train, _adapted(shapes, lora_targets)
    lora = sum(train.lora_rank * sum(shape) for shape in adapted.values())
    trained = lora if train.tuning == "lora" else _language_weights(shapes)
    copies = 8 + 12 / (train.workers if train.zero_stage >= 1 else 1)
    model = {
        "weights": weights / (train.workers if train.zero_stage == 3 else 1),
        "LoRA" if train.tuning == "lora" else "gradients and optimizer": trained * copies / MIB,
        "activations": train.micro_pairs * _pair_values(cfg, shapes, adapted, gradient=True) / MIB,
        "tower outputs": _tower_outputs(cfg, adapted) / MIB,
    }
    return _part("learner", train.workers, model, on_gpu=train.use_gpu)


def _scorer(cfg: RunConfig, weights: float, shapes: Shapes, lora_targets: str) -> Part:
    adapted = _adapted(shapes, lora_targets)
    held = {
        "weights": weights,
        "activations": _pair_values(cfg, shapes, adapted, gradient=False) / MIB,
        "tower outputs": _tower_outputs(cfg, adapted) / MIB,
    }
    return _part("scorer", 1, held, on_gpu=bool(cfg.rollout.scorer_gpus))


def _part(name: str, count: int, held: Mapping[str, float], *, on_gpu: bool) -> Part:
    """A process that holds a model, on a GPU or in main memory."""
    process = {"process": WORKER_PROCESS_MB}
    return Part(
        name=name, count=count, host_mb=process if on_gpu else {**held, **process}, gpu_mb=held if on_gpu else {}
    )


def _language_weights(shapes: Shapes) -> int:
    """Weights that full fine-tuning trains: all but the towers'."""
    return sum(math.prod(s) for name, s in shapes.items() if ".visual." not in name and ".audio_tower." not in name)


def _pair_values(cfg: RunConfig, shapes: Shapes, adapted: Shapes, *, gradient: bool) -> float:
    """Bytes of activations that one pair needs."""
    tokens = 2 * (sum(_media_tokens(cfg)) + _TEXT_TOKENS) + 4 * min(
        cfg.train.max_response_tokens, cfg.rollout.max_tokens
    )
    layers = sum(".q_proj." in name for name in adapted) if gradient else 1
    vocabulary = max((shape[0] for name, shape in shapes.items() if "embed_tokens" in name), default=0)
    values = tokens * (17 * _hidden(adapted) * layers + 3 * vocabulary)
    return float(values * _BYTES[cfg.model.dtype])


def _tower_outputs(cfg: RunConfig, adapted: Shapes) -> float:
    """Bytes of tower outputs that a process keeps in memory: of every clip, below the limit."""
    from avere_ray.media_cache import MEMORY_BYTES

    if cfg.data.clips is not None or cfg.data.pairs.path is not None:
        return float(MEMORY_BYTES)
    return min(float(MEMORY_BYTES), _encoded(cfg, adapted, cfg.world.train_clips))


def _encoded(cfg: RunConfig, adapted: Shapes, clips: int) -> float:
    """Bytes of the tower outputs of so many clips."""
    return float(clips * sum(_media_tokens(cfg)) * _hidden(adapted) * _BYTES[cfg.model.dtype])


def _media_tokens(cfg: RunConfig) -> tuple[int, int]:
    """Tokens of a clip's video and of its sound."""
    spec = cfg.data.decode
    video = math.ceil(spec.most_frames / 2) * (spec.height // 28) * (spec.width // 28)
    return video, math.ceil(_AUDIO_TOKENS_PER_S * min(CLIP_S, spec.max_duration_s))


def _hidden(adapted: Shapes) -> int:
    """Width of the language model."""
    return max((shape[1] for name, shape in adapted.items() if ".q_proj." in name), default=0)


def _adapted(shapes: Shapes, lora_targets: str) -> dict[str, tuple[int, ...]]:
    pattern = re.compile(rf"(^|\.){lora_targets}\.weight$")
    return {name: shape for name, shape in shapes.items() if pattern.search(name) and len(shape) == 2}
