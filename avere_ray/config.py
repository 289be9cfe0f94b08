"""One strict config tree: YAML file, then dotted overrides from the command line, which win.

Unknown keys are refused, every field is documented beneath its name, rules between fields are spelled as sentences.
Note on YAML: write floats with a dot (5.0e-7, not 5e-7) and quote "yes" and "no".
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, CliSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from avere_ray.errors import ConfigError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0.0)]
FromText = BeforeValidator(lambda text: int(text) if isinstance(text, str) and text.lstrip("-").isdigit() else text)
"""Lets a choice between whole numbers be given on the command line, where every value is text."""


class Section(BaseModel):
    """A branch of the config tree: frozen, unknown keys refused, docstrings are the help texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class RayConfig(Section):
    """Where Ray runs."""

    address: str | None = None
    """Cluster to join, for instance "ray://host:10001" or "auto"; None joins the cluster named by RAY_ADDRESS (set
    for submitted jobs) or starts a local one on 127.0.0.1."""
    num_cpus: Positive | None = None
    """CPUs of a local cluster; None takes all."""
    object_store_mb: Annotated[int, Field(ge=80)] = 512
    """Object store of a local cluster, MiB."""
    connect_timeout_s: Seconds = 60.0
    """Seconds to wait for the cluster to answer."""


class PlacementConfig(Section):
    """Which nodes of a cluster the stages run on, by the nodes' Ray label avere-ray/role; None takes any node."""

    decode: str | None = None
    """Role of the nodes that decode clips."""
    rollout: str | None = None
    """Role of the nodes with rollout engines and what works beside them (judge, swaps, reference scoring)."""
    learner: str | None = None
    """Role of the nodes with learner workers."""


class WorldConfig(Section):
    """The synthetic world the clips are drawn from, when data.clips names no folder."""

    train_clips: Positive = 240
    """Clips for preference learning."""
    test_clips: Positive = 120
    """Held-out clips, decorrelated, with other identities and other cue combinations."""
    bias: Share = 0.9
    """Share of training clips whose irrelevant cues agree with the emotion."""
    corrupt_clips: Annotated[int, Field(ge=0)] = 0
    """Broken mp4 files put among the training clips, to see how they are accounted for."""


class DecodeConfig(Section):
    """How a clip is sampled; part of the content address of everything decoded, except for limits and speed."""

    frames: Positive = 4
    """Frames taken at equal distances over the clip, when neither fps nor times_s is set."""
    fps: Annotated[float, Field(gt=0)] | None = None
    """Frames per second, at equal distances over the clip; instead of `frames`."""
    max_frames: Positive = 64
    """With fps: frames of a long clip at most; they are spread over the whole clip."""
    times_s: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Times of the frames, seconds from the start of the clip, ascending; instead of `frames`."""
    height: Annotated[int, Field(ge=28, multiple_of=28)] = 84
    """Height of a decoded frame, pixels; a multiple of the vision patch (28)."""
    width: Annotated[int, Field(ge=28, multiple_of=28)] = 84
    """Width of a decoded frame, pixels; a multiple of the vision patch (28)."""
    max_duration_s: Seconds = 60.0
    """Longer clips are refused."""
    max_pixels: Positive = 3840 * 2160
    """Larger source frames are refused."""
    max_bytes: Positive = 512 * 1024 * 1024
    """Larger files are refused."""
    max_streams: Positive = 32
    """Files with more streams are refused."""
    max_memory_mb: Annotated[int, Field(ge=512)] = 4096
    """Memory the process that decodes may take, MiB; a file that needs more is refused."""
    timeout_s: Seconds = 60.0
    """Seconds one clip may take to decode; then its decoder is killed."""
    threads: Positive = 1
    """FFmpeg threads per clip; above 1 only where fewer clips than cores are decoded at a time."""
    hwaccel: Literal["none", "cuda"] = "none"
    """"cuda": video is decoded by the GPU (NVDEC) where there is one that knows the codec, else in software."""

    @model_validator(mode="after")
    def _one_way_to_sample(self) -> Self:
        if self.times_s and self.fps is not None:
            raise ValueError("data.decode.times_s and data.decode.fps are both set; choose one")
        if any(later <= sooner for sooner, later in itertools.pairwise(self.times_s)):
            raise ValueError(f"data.decode.times_s {list(self.times_s)} must ascend")
        return self


class SourceConfig(Section):
    """How the folder data.clips is laid out, and how its labels read."""

    kind: Literal["clips", "manifest", "ravdess", "dfew", "mafw", "mer2023", "mer2025", "crema_d", "emorealm"] = "clips"
    """"clips": clips.parquet or clips.jsonl with the media files; "manifest": any CSV, JSONL or Parquet table; else the
    corpus as its authors ship it (layouts: avere_ray/sources)."""
    fold: Annotated[int, Field(ge=1, le=5)] = 1
    """Fold of DFEW and MAFW: its train and test lists become the splits."""
    split: str | None = None
    """Split of every clip, for corpora without lists of their own; None keeps what the corpus says, else "train"."""
    columns: dict[str, str] = {}
    """Manifest: field of a clip to column of the table, for instance {uri: path, emotion: label}; fields that are not
    named here are read from columns of their own name."""
    emotions: dict[str, str] = {}
    """Labels of the corpus to emotion words, for instance {"hap": "happiness"}; common words are known."""


class DataConfig(Section):
    """The clips and what may be left out of them."""

    clips: Path | None = None
    """Folder with clips.parquet (or clips.jsonl) and the media files, or a corpus of data.source.kind; None draws
    clips from `world`."""
    source: SourceConfig = SourceConfig()
    """What kind of folder (or manifest file) data.clips is."""
    benchmark: Path | None = None
    """EmoReAlM-format JSON of the held-out questions; None uses the one drawn with the world."""
    queries: Path | None = None
    """Table of training queries (queries.parquet); None derives them from the clips' cues."""
    decode: DecodeConfig = DecodeConfig()
    """Sampling spec."""
    store: Path | None = None
    """Folder for decoded media, shared by all runs of a project: a clip that is there is not decoded again. None uses
    "store" in the parent folder of run_dir."""
    store_gb: Annotated[float, Field(gt=0)] = 200.0
    """Quota of the store, GB; above it, media that no run refers to are removed, those not used for longest first."""
    drop_budget: Share = 0.005
    """Share of clips that may be dropped before the run stops."""


class ModelConfig(Section):
    """The base model."""

    path: Path = Path("avere_ray/synthetic/tiny_base")
    """Folder in Hugging Face format, with tokenizer, processor and chat template."""
    backbone: Literal["qwen2_5_omni"] = "qwen2_5_omni"
    """Model family."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights and activations, in the engine and in the learner."""


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
    """GPUs reserved per engine; its tensor parallel size when above 1."""
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


LossKind = Literal["dpo", "avem_dpo", "vista_dpo", "mdpo", "mod_dpo", "mod_dpo_pp"]

_TEXT_PRIOR = {"text_prior": "fixed", "text_prior_source": "reference", "text_prior_sign": -1}
_ADAPTIVE = {"text_prior_target": 0.5, "text_prior_rate": 0.02, "text_prior_min": 0.0, "text_prior_max": 0.5}
_LOSS_DEFAULTS: dict[str, dict[str, Any]] = {
    "dpo": {"spurious_weight": 0.5, "anchor_weight": 0.0},
    "avem_dpo": {
        "spurious_weight": 0.5,
        "anchor_weight": 0.0,
        "lambda_av": 1.0,
        "text_prior_gamma": 0.2,
        **_TEXT_PRIOR,
    },
    "vista_dpo": {
        "spurious_weight": 0.7,
        "anchor_weight": 0.0,
        "lambda_av": 1.0,
        "lambda_other": 1.0,
        "token_weight": 0.1,
        "token_alpha": 0.5,
        "released": False,
    },
    "mdpo": {"spurious_weight": 0.5, "anchor_weight": 1.0, "lambda_av": 1.0},
    "mod_dpo": {"spurious_weight": 0.5, "anchor_weight": 0.0, "beta_inv": 0.02, "beta_sens": 0.05},
    "mod_dpo_pp": {
        "spurious_weight": 0.5,
        "anchor_weight": 0.0,
        "beta_inv": 0.02,
        "beta_sens": 0.05,
        "text_prior_gamma": 0.05,
        **_TEXT_PRIOR,
    },
}
"""What each kind of loss takes for the settings that are left open; what is not listed it does not use."""


class LossConfig(Section):
    """The preference loss; see avere_ray/losses/ for the formulas. Settings left open (None) take the kind's value."""

    kind: LossKind = "avem_dpo"
    """Which loss: "dpo" (naive DPO), "avem_dpo", "vista_dpo", "mdpo", "mod_dpo" or "mod_dpo_pp"."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the implicit KL constraint (0.1 in all the papers)."""
    form: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """How the margin of a preference becomes a loss; the papers use the sigmoid. Anchor and token terms keep it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of pairs whose preference is the wrong way round; with the sigmoid form only."""
    logps: Literal["sum", "mean"] = "sum"
    """Whether log-probs are summed over the response's tokens (papers) or averaged."""
    spurious_weight: Share | None = None
    """Weight of the spurious rejects, beta_vr; the others share the rest (0.5; vista_dpo: 0.7)."""
    lambda_av: Annotated[float, Field(ge=0)] | None = None
    """Weight of the preference over the input whose relevant modality is replaced (avem_dpo, vista_dpo, mdpo: 1.0)."""
    lambda_other: Annotated[float, Field(ge=0)] | None = None
    """Weight of the same with the irrelevant modality replaced (vista_dpo: 1.0)."""
    sft_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the chosen response's mean negative log-prob (papers: 0). Above 0 it keeps the chosen response likely
    while the margin grows."""
    anchor_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the anchor, which holds the chosen response above the reference (mdpo: 1.0; other: 0)."""
    text_prior: Literal["fixed", "adaptive"] | None = None
    """Strength of the text prior: "fixed" at text_prior_gamma, or "adaptive" from there on (papers: "fixed")."""
    text_prior_gamma: Annotated[float, Field(ge=0)] | None = None
    """Strength of the text-prior penalty, gamma (avem_dpo: gamma_TPD = 0.2; mod_dpo_pp: gamma_LPD = 0.05); where an
    adaptive one starts."""
    text_prior_sign: Annotated[Literal[-1, 1] | None, FromText] = None
    """Sign of the penalty in the margin (paper: -1)."""
    text_prior_source: Literal["reference", "policy"] | None = None
    """Whose text-only log-probs: the frozen "reference" (papers), or the current "policy", not differentiated."""
    text_prior_target: float | None = None
    """Adaptive: share of the chosen response's log-prob gain that the text alone may explain (0.5; unpublished)."""
    text_prior_rate: Annotated[float, Field(gt=0)] | None = None
    """Adaptive: change of the strength per optimizer step and unit of excess share (0.02)."""
    text_prior_min: Annotated[float, Field(ge=0)] | None = None
    """Adaptive: smallest strength (0)."""
    text_prior_max: Annotated[float, Field(ge=0)] | None = None
    """Adaptive: greatest strength (0.5)."""
    beta_inv: Annotated[float, Field(ge=0)] | None = None
    """Strength of the invariance to the irrelevant modality (mod_dpo, mod_dpo_pp: 0.02)."""
    beta_sens: Annotated[float, Field(ge=0)] | None = None
    """Strength of the sensitivity to the relevant modality (mod_dpo, mod_dpo_pp: 0.05)."""
    token_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the token term (vista_dpo: 0.1)."""
    token_alpha: Annotated[float, Field(ge=0)] | None = None
    """Weight of the sequence KL within the token term (vista_dpo: 0.5)."""
    released: bool | None = None
    """Compute what Vista-DPO's published code does instead of what its paper says (vista_dpo: false)."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_kinds_values(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kind = values.get("kind", cls.model_fields["kind"].default)
        defaults = _LOSS_DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}
        if "text_prior" in defaults and values.get("text_prior") == "adaptive":
            defaults = defaults | _ADAPTIVE
        return defaults | {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _rules_of_the_kind(self) -> Self:
        used = set(_LOSS_DEFAULTS[self.kind]) | (set(_ADAPTIVE) if self.text_prior == "adaptive" else set())
        for name in [*{n: None for values in (*_LOSS_DEFAULTS.values(), _ADAPTIVE) for n in values}]:
            value = getattr(self, name)
            if name not in used and value is not None:
                raise ValueError(self._unused(name, value))
        if self.label_smoothing and self.form != "sigmoid":
            raise ValueError(
                f"loss.label_smoothing ({self.label_smoothing}) belongs to loss.form = sigmoid; with "
                f"{self.form} leave it at 0"
            )
        if self.beta_sens is not None and self.beta_sens >= self.beta:
            raise ValueError(
                f"loss.beta_sens ({self.beta_sens}) must be below loss.beta ({self.beta}); otherwise pairs without an "
                "irrelevant modality would be trained away from their chosen response"
            )
        self._check_bounds()
        return self

    def _unused(self, name: str, value: Any) -> str:
        kinds = [kind for kind, values in _LOSS_DEFAULTS.items() if name in values]
        owner, here = f"loss.kind = {' or '.join(kinds)}", f"loss.kind = {self.kind}"
        if not kinds:
            owner, here = "loss.text_prior = adaptive", f"loss.text_prior = {self.text_prior}"
        return (
            f"loss.{name} = {value!r} belongs to {owner}, but {here}. Leave it out, or give --loss.{name}=None on the "
            "command line"
        )

    def _check_bounds(self) -> None:
        lowest, highest, start = self.text_prior_min, self.text_prior_max, self.text_prior_gamma
        if lowest is None or highest is None or start is None:
            return
        if not lowest <= start <= highest:
            raise ValueError(
                f"loss.text_prior_gamma ({start}), where the adaptive strength starts, must lie between "
                f"loss.text_prior_min ({lowest}) and loss.text_prior_max ({highest})"
            )


class TrainConfig(Section):
    """The learner: Ray Train + DeepSpeed."""

    workers: Positive = 2
    """Data-parallel workers."""
    use_gpu: bool = False
    """One GPU per worker."""
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
    learner, every step, with the adapter switched off."""
    deadline_s: Seconds = 3600.0
    """Seconds one round of training may take."""
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


class EvaluationConfig(Section):
    """Held-out questions."""

    benchmarks: tuple[Literal["emorealm"], ...] = ("emorealm",)
    """Benchmarks scored before the first and after the last round."""
    max_tokens: Positive = 32
    """Longest answer, tokens."""
    every_round: bool = False
    """Score after every round, not only after the last."""


class ParityConfig(Section):
    """Engine against learner: the same tokens must get the same log-probs."""

    prompts: Positive = 4
    """Prompts compared, with audio, video and both."""
    max_abs_diff: Annotated[float, Field(gt=0)] = 1.0e-4
    """Largest difference of a token's log-prob (nats) that is accepted; fp32 on CPU."""


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking server ("http://...") or "sqlite:////absolute/path"; None uses mlflow.db in the parent folder of
    run_dir."""
    experiment: str = "avere_ray"
    """Experiment name."""
    timeout_s: Seconds = 10.0
    """Seconds to wait for the server before metrics are kept on disk and sent later."""


class RunConfig(BaseSettings):
    """A whole run: clips, base model, rounds of preference learning, evaluation."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    name: str = "run"
    """Name shown in MLflow."""
    run_dir: Path = Path("runs/run")
    """Folder for everything the run writes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""
    rounds: Positive = 2
    """Rounds of rollouts, judging, pairing and training."""
    ray: RayConfig = RayConfig()
    """Where Ray runs."""
    placement: PlacementConfig = PlacementConfig()
    """Stages on labelled nodes."""
    world: WorldConfig = WorldConfig()
    """Synthetic clips, used when data.clips is not set."""
    data: DataConfig = DataConfig()
    """Clips and drop budget."""
    model: ModelConfig = ModelConfig()
    """Base model."""
    rollout: RolloutConfig = RolloutConfig()
    """Sampling."""
    judge: JudgeConfig = JudgeConfig()
    """Judging."""
    preference: PreferenceConfig = PreferenceConfig()
    """Pairing."""
    loss: LossConfig = LossConfig()
    """Objective."""
    train: TrainConfig = TrainConfig()
    """Learner."""
    cache: CacheConfig = CacheConfig()
    """Kept over runs."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Scoring."""
    parity: ParityConfig = ParityConfig()
    """Engine-learner gate."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The YAML file and the command line only: a variable such as NAME or SEED in the shell changes nothing."""
        return (init_settings,)

    @field_validator("name")
    @classmethod
    def _name_is_a_word(cls, value: str) -> str:
        if not value or not all(c.isalnum() or c in "._-" for c in value):
            raise ValueError(f"name {value!r} may hold letters, digits, '.', '_' and '-' only")
        return value

    @model_validator(mode="after")
    def _rules_between_fields(self) -> Self:
        workers, micro = self.train.workers, self.train.micro_pairs
        if self.train.pairs_per_step % workers:
            raise ValueError(
                f"train.pairs_per_step ({self.train.pairs_per_step}) must be a multiple of "
                f"train.workers ({workers}), so that every worker gets the same number of pairs"
            )
        if (self.train.pairs_per_step // workers) % micro:
            raise ValueError(
                f"train.pairs_per_step / train.workers ({self.train.pairs_per_step // workers}) must be a multiple "
                f"of train.micro_pairs ({micro}), so that every forward pass has the same size"
            )
        if self.train.tuning == "full" and self.rounds > 1:
            raise ValueError(
                f"train.tuning 'full' writes a model folder, from which a new run starts; set rounds to 1 (it is "
                f"{self.rounds}), and model.path of the next run to that folder"
            )
        if self.train.projectors and self.train.tuning != "full":
            raise ValueError("train.projectors needs train.tuning 'full': the engine takes no projectors in an adapter")
        if self.train.offload_optimizer and self.train.zero_stage == 0:
            raise ValueError("train.offload_optimizer needs train.zero_stage 1, 2 or 3; it is 0")
        if self.rollout.max_tokens >= self.rollout.max_model_len:
            raise ValueError(
                f"rollout.max_tokens ({self.rollout.max_tokens}) must be below rollout.max_model_len "
                f"({self.rollout.max_model_len}), which also has to hold the prompt"
            )
        if self.train.use_gpu and self.model.dtype == "float32" and self.parity.max_abs_diff < 1e-3:
            raise ValueError(
                "on GPU float32 parity is not reached below 1e-3; set parity.max_abs_diff to 1.0e-3 "
                "or more (bfloat16: 0.5)"
            )
        if self.data.clips is None and self.data.source.kind != "clips":
            raise ValueError(
                f"data.source.kind is {self.data.source.kind!r} but data.clips is not set; set it to the folder of the "
                "corpus"
            )
        if self.data.source.columns and self.data.source.kind != "manifest":
            raise ValueError(
                f"data.source.columns is for data.source.kind manifest; it is {self.data.source.kind!r}. Remove it."
            )
        train = self.train
        if train.reference == "previous_round" and train.reference_source != "precomputed":
            raise ValueError(
                "train.reference previous_round needs train.reference_source precomputed, "
                f"but it is {train.reference_source}: switching the adapter off gives the base, not the round before"
            )
        if train.tuning == "full" and train.reference_source != "precomputed":
            raise ValueError(
                f"train.reference_source {train.reference_source} needs an adapter to switch off; "
                "with train.tuning full set it to precomputed"
            )
        by_token = self.loss.kind == "vista_dpo" and self.loss.token_weight
        if by_token and (train.tuning, train.reference) != ("lora", "base"):
            raise ValueError(
                "loss.token_weight above 0 compares with the base token by token, with the adapter off: it needs "
                f"train.tuning lora and train.reference base, not {train.tuning} and {train.reference}"
            )
        if train.zero_stage == 3 and train.reference_source == "cached":
            raise ValueError(
                "train.reference_source cached does not work with train.zero_stage 3: a pair that one worker knows and "
                "another does not would leave the two waiting for each other. Set precomputed or adapter_off."
            )
        if self.data.clips is None and self.data.benchmark is not None:
            raise ValueError(
                "data.benchmark is set but data.clips is not: held-out questions about your own clips "
                "need the folder of these clips"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """The whole tree as plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The whole tree as YAML."""
        return yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True)


def load_config(path: Path | None, overrides: Sequence[str] = (), *, prog: str = "avere-ray") -> RunConfig:
    """Reads a YAML file and applies overrides such as `--train.learning_rate=1.0e-5`.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, a value has the wrong type, or two settings
            contradict each other; the message names the key, the value and what is allowed.
    """
    values = _read_yaml(path) if path is not None else {}
    for argument in overrides:
        if not argument.startswith("--"):
            raise ConfigError(f"unexpected argument {argument!r}; overrides look like --train.learning_rate=1.0e-5")
    try:
        source: Any = CliSettingsSource(
            RunConfig, cli_parse_args=list(overrides), cli_exit_on_error=False, cli_prog_name=prog
        )
        return RunConfig(_cli_settings_source=source, **_merge_defaults(values))  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    except SettingsError as error:
        raise ConfigError(f"{_last_line(error)}. See `{prog} --help` for every setting.") from error


def help_text(prog: str) -> str:
    """Every setting with its documentation, as shown by `--help`."""
    source: Any = CliSettingsSource(RunConfig, cli_parse_args=[], cli_prog_name=prog)
    return source.root_parser.format_help()


def _merge_defaults(values: dict[str, Any]) -> dict[str, Any]:
    return values


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        shipped = sorted(p.name for p in Path("jobs/configs").glob("*.yaml"))
        hint = f" Shipped configs: {', '.join('jobs/configs/' + n for n in shipped)}." if shipped else ""
        raise ConfigError(f"config file {path} does not exist.{hint}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a config is a mapping of settings")
    return values


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(
                f"unknown setting {key} = {item['input']!r}; allowed here: {', '.join(_siblings(item['loc']))}"
            )
        elif item["type"] == "value_error":
            lines.append(str(item["msg"]).removeprefix("Value error, "))
        else:
            lines.append(f"{key} = {item['input']!r}: {item['msg']}")
    where = f" in {path} or its overrides" if path else ""
    return f"bad config{where}: " + "; ".join(lines)


def _siblings(location: tuple[Any, ...]) -> list[str]:
    fields: Any = RunConfig.model_fields
    for part in location[:-1]:
        annotation = fields[part].annotation if part in fields else None
        fields = getattr(annotation, "model_fields", {})
    return sorted(fields)


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


if __name__ == "__main__":  # pragma: no cover
    sys.stdout.write(help_text("avere-ray"))
