"""Base model, rollouts, judging and pairing."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from avere_ray.config.section import Positive, Seconds, Section, Share


class ModelConfig(Section):
    """The base model."""

    path: Path = Path("avere_ray/synthetic/tiny_base")
    """Folder in Hugging Face format, with tokenizer, processor and chat template."""
    backbone: Literal["qwen2_5_omni"] = "qwen2_5_omni"
    """Model family."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights and activations, in the engine and in the learner."""
    attention: Literal["auto", "blocks", "flex", "dense"] = "auto"
    """How the learner computes attention over prefix trees: "blocks" (CPU), "flex" (FlexAttention, for GPUs) or "dense"
    (one mask over the whole row; the fallback where neither works). "auto": flex on a GPU, else blocks."""


class RolloutConfig(Section):
    """Sampling from the policy with vLLM."""

    queries_per_clip: Positive = 3
    """Training queries asked about each clip."""
    samples: Positive = 4
    """Responses sampled per query (n)."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus share."""
    max_tokens: Positive = 48
    """Longest response, tokens."""
    engines: Positive = 1
    """Rollout actors, each with one engine."""
    num_cpus: Annotated[float, Field(ge=0)] = 1
    """CPUs reserved per engine."""
    num_gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs reserved per engine: its tensor parallel size when above 1; below 1 a share of one that others use too (set
    rollout.gpu_memory_utilization lower then)."""
    scorer_gpus: Annotated[float, Field(ge=0, le=1)] = 0
    """GPUs reserved for the scorer, which holds the base for reference log-probs and the parity gate: 1, or a share of
    one. 0: it works on CPU, which takes far too long with billions of parameters."""
    max_model_len: Positive = 1024
    """Longest prompt plus response, tokens."""
    kv_cache_mb: Positive = 512
    """KV cache on CPU, MiB."""
    gpu_memory_utilization: Share = 0.85
    """Share of a GPU's memory the engine may take."""
    batch_queries: Positive = 64
    """Queries per call to an engine."""
    deadline_s: Seconds = 300.0
    """Seconds one call may take before its engine is replaced."""


class JudgeConfig(Section):
    """Who labels the responses."""

    backend: Literal["rules"] = "rules"
    """"rules": cue lexicon against the clip's annotated cues; deterministic."""
    batch_rollouts: Positive = 256
    """Responses per call to the judge actor."""


class PreferenceConfig(Section):
    """How judged responses become pairs."""

    chosen: Literal["rollout_then_reference", "reference"] = "rollout_then_reference"
    """Chosen response: a faithful rollout, else the reference answer; or always the reference answer."""
    written_rejects: bool = True
    """Where no rollout shows a kind of failure, write one by a minimal edit of the chosen response."""
    swap: Literal["other_emotion", "random_clip", "noise", "blank", "crop", "diffusion"] = "other_emotion"
    """What replaces the modality asked about: another clip's ("other_emotion", "random_clip"), or the clip's own made
    useless ("noise"; "blank": silence or black frames; "crop": mDPO's; "diffusion": noised by swap_level)."""
    swap_level: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Noise level of swap "diffusion", as share of its schedule of 1,000 steps."""


class ParityConfig(Section):
    """Engine against learner: the same tokens must get the same log-probs."""

    prompts: Positive = 4
    """Prompts compared, with audio, video and both."""
    max_abs_diff: Annotated[float, Field(gt=0)] = 1.0e-4
    """Largest difference of a token's log-prob (nats) that is accepted; fp32 on CPU."""
