"""The learner, and what is kept over runs."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from avere_ray.config.section import FromText, Positive, Seconds, Section, Share


class TrainConfig(Section):
    """The learner: Ray Train + DeepSpeed."""

    workers: Positive = 2
    """Data-parallel workers."""
    use_gpu: bool = False
    """Workers train on GPUs."""
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = 1.0
    """GPUs reserved per worker with train.use_gpu: 1, or a share of one that the engine uses too."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1
    """CPUs reserved per worker."""
    zero_stage: Annotated[Literal[0, 1, 2, 3], FromText] = 2
    """DeepSpeed ZeRO stage."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more time."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in host memory (ZeRO stage 1 to 3)."""
    tuning: Literal["lora", "full"] = "lora"
    """"lora": an adapter on the language model; "full": all weights of the language model, saved as a model folder."""
    projectors: bool = False
    """Train the projectors between towers and language model too; with train.tuning full only."""
    epochs: Positive = 1
    """Passes over the pairs of a round."""
    pairs_per_step: Positive = 16
    """Pairs per optimizer step over all workers."""
    micro_pairs: Positive = 8
    """Most pairs per forward pass of one worker."""
    tokens_per_micro: Positive | None = None
    """Most tokens per forward pass of one worker; a longer pair has one to itself. None: by pairs alone."""
    learning_rate: Annotated[float, Field(gt=0)] = 5.0e-7
    """Peak learning rate (paper: 5e-7)."""
    warmup_ratio: Share = 0.1
    """Share of the steps with a rising learning rate; it falls linearly to 0 afterwards."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient norm is clipped to this."""
    lora_rank: Annotated[Literal[1, 8, 16, 32, 64], FromText] = 8
    """LoRA rank (paper: 8); ranks that vLLM can serve."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """LoRA alpha; the update is scaled by alpha / rank."""
    max_response_tokens: Positive = 256
    """A pair with a longer response is dropped with a reason; nothing is truncated."""
    max_prompt_tokens: Positive = 8192
    """A pair with a longer prompt, media included, is dropped with a reason."""
    reference: Literal["base", "previous_round"] = "base"
    """Frozen reference policy: the base in every round, or what the round before made of it."""
    reference_source: Literal["precomputed", "cached", "adapter_off"] = "precomputed"
    """Where reference log-probs come from: a stage before training; the learner, each pair once, kept over runs; the
    learner, every step, in one more forward pass with the adapter switched off."""
    deadline_s: Seconds = 3600.0
    """Seconds that one attempt at a round of training may take; see `max_failures`."""
    checkpoint_every: Positive = 20
    """Optimizer steps between checkpoints; a killed run goes on from the latest."""
    keep_checkpoints: Annotated[int, Field(ge=0)] = 1
    """Checkpoints kept besides the latest: the best by train.keep_by."""
    keep_by: Literal["loss", "rewards/margins", "rewards/accuracies"] = "loss"
    """What makes a checkpoint good: its last step's loss (low), or margins or accuracies (high)."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How often a round may lose a worker and go on from its latest checkpoint."""


class CacheConfig(Section):
    """What is kept over rounds and runs, by content: tower outputs and reference log-probs."""

    folder: Path | None = None
    """Folder of the caches, on a disk that every worker sees; None takes "cache" in the parent folder of run_dir."""
    features_gb: Annotated[float, Field(ge=0)] = 20.0
    """Quota of the tower outputs, GiB; the least recently used go first. 0 keeps them in memory alone."""
