"""Base model, rollouts, judging and pairing."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from avere_ray.config.endpoint import EndpointConfig
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
    max_engines: Positive | None = None
    """Most of them: while each has another batch waiting, one more is started, and ended when the work is done. None:
    as many as rollout.engines."""
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
    sync_deadline_s: Seconds = 120.0
    """Seconds an engine may take to acknowledge an adapter before it is replaced."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Adapter versions that a rollout may be behind the one in use; 0 refuses all but the policy's own (and with
    rollout.overlap all but those one behind it)."""

    scorer_deadline_s: Seconds = 600.0
    """Seconds one call to the scorer may take before it is started again."""
    overlap: bool = False
    """Sample the next round's rollouts while the learner trains, from the adapter before the one in training: one step
    off-policy, as each rollout's adapter version says."""

    @property
    def allowed_staleness(self) -> int:
        """Adapter versions that a round's rollouts may be behind the policy that is trained on them."""
        return max(self.max_staleness, int(self.overlap))

    @property
    def most_engines(self) -> int:
        """Engines there may be at the same time."""
        return self.max_engines or self.engines


class JudgeConfig(Section):
    """Who labels the responses."""

    backend: Literal["rules", "llm", "omni"] = "rules"
    """"rules": grammar against the clip's annotated cues, deterministic; "llm": a text model against the clip's cues,
    captions or labels; "omni": a model that watches the clip answers yes/no questions about each cited cue."""
    batch_rollouts: Positive = 256
    """Responses per call to the judge."""
    endpoint: EndpointConfig = EndpointConfig()
    """llm: the server to ask; or leave its url empty and set model_path. On a cluster its key must be in the
    environment of the judge's node."""
    model_path: Path | None = None
    """llm: folder of a text model for an engine of our own; omni: folder of the model that watches."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights and activations of that model."""
    max_tokens: Positive = 768
    """llm: longest reply, tokens."""
    max_model_len: Positive = 8192
    """Longest prompt plus reply of that model, tokens."""
    votes: Positive = 5
    """omni: answers sampled per question, half of them with the choices turned round."""
    temperature: Annotated[float, Field(gt=0.0)] = 0.7
    """omni: sampling temperature of the votes."""
    num_cpus: Annotated[float, Field(ge=0)] = 0
    """CPUs reserved for the judge."""
    num_gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs reserved for its model."""
    deadline_s: Seconds = 600.0
    """Seconds one call to the judge may take before it is started again; for a slow model raise it or lower
    batch_rollouts. With a server a call takes up requests for half of it, and those in flight then have the endpoint's
    own patience on top (attempts, timeout_s, longest_wait_s, rates); what is left is for the next call."""
    write_rejects: bool = False
    """llm: the model also writes the rejects that no rollout shows, where rules cannot (clips without cues)."""

    @property
    def longest_call_s(self) -> float:
        """Seconds after which a call is given up: never while a server is asked as its settings allow."""
        return self.deadline_s + (self.endpoint.patience_s if self.backend == "llm" and self.endpoint.url else 0.0)


class PreferenceConfig(Section):
    """How judged responses become pairs."""

    chosen: Literal["rollout_then_reference", "reference"] = "rollout_then_reference"
    """Chosen response: a faithful rollout, else the reference answer; or always the reference answer."""
    written_rejects: bool = True
    """Where no rollout shows a kind of failure, write one by a minimal edit of the chosen response."""
    both_kinds_only: bool = False
    """Drop pairs that have only one kind of reject."""
    min_margin: Annotated[float, Field(ge=-1.0, le=1.0)] = -1.0
    """Drop pairs whose margin is below: how much surer the judge is that the chosen response is faithful than the
    closest reject, -1 to 1. Ties have margin 0."""
    hard_only: bool = False
    """Keep queries only whose rollouts are partly faithful and partly not."""
    max_length_ratio: Annotated[float, Field(gt=1.0)] | None = 3.0
    """Sampled rejects may be so many times longer or shorter than the chosen response at most (words; a difference of
    four is always allowed), and those within 2 are preferred. None sets no limit."""
    near_duplicate: Share | None = 1.0
    """Texts count as one when they differ in inflection and filling words alone; below 1 also when so large a share of
    their words is equal and they name the same cues. None: only when case, spacing or punctuation differ."""
    swap: Literal["other_emotion", "random_clip", "noise", "blank", "crop", "diffusion"] = "other_emotion"
    """What replaces the modality asked about: another clip's ("other_emotion", "random_clip"), or the clip's own made
    useless ("noise"; "blank": silence or black frames; "crop": mDPO's; "diffusion": noised by swap_level)."""
    swap_level: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Noise level of swap "diffusion", as share of its schedule of 1,000 steps."""
    check_swaps: bool = True
    """Whether a pair whose chosen response stays right about its mismatched input, as the rules judge finds by the cues
    that are annotated, has none; the paper swaps always."""
    swap_deadline_s: Seconds = 300.0
    """Seconds the choice of a round's swap partners may take before it is started again."""


class ParityConfig(Section):
    """Engine against learner: the same tokens must get the same log-probs."""

    prompts: Positive = 4
    """Prompts compared, with audio, video and both."""
    max_abs_diff: Annotated[float, Field(gt=0)] = 1.0e-4
    """Largest difference of a token's log-prob (nats) that is accepted; fp32 on CPU."""
