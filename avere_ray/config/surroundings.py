"""Ray, placement, evaluation and tracking: what a run stands in."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from avere_ray.config.endpoint import EndpointConfig
from avere_ray.config.sampling import JudgeConfig
from avere_ray.config.section import Positive, Seconds, Section, Share

BenchmarkName = Literal["emorealm", "world", "dfew", "ravdess", "mer2023", "avhbench", "cmm", "emer", "ovmerd"]


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
    nodes_timeout_s: Seconds = 300.0
    """Seconds a job waits at its start for nodes that have room for it; longer where an autoscaler has to buy them."""


class PlacementConfig(Section):
    """Which nodes of a cluster the stages run on, by the nodes' Ray label avere-ray/role (None takes any node), and how
    much of each; None leaves that to the stage's own section."""

    decode: str | None = None
    """Role of the nodes that decode clips."""
    rollout: str | None = None
    """Role of the nodes with rollout engines and what works beside them (judge, swaps, reference scoring)."""
    learner: str | None = None
    """Role of the nodes with learner workers."""
    engines: Positive | None = None
    """Rollout engines; sets rollout.engines."""
    tensor_parallel: Positive | None = None
    """GPUs of each engine, over which it divides the model; sets rollout.num_gpus."""
    train_workers: Positive | None = None
    """Learner workers; sets train.workers."""


class EvaluationConfig(Section):
    """Held-out questions."""

    benchmarks: tuple[BenchmarkName, ...] = ("emorealm",)
    """Benchmarks scored before the first and after the last round; the clips of all of them are in data.clips."""
    annotations: dict[BenchmarkName, Path] = Field(default_factory=dict)
    """Annotation file (or folder) of each benchmark, as `avere-ray score` takes it; one that is not named here takes
    data.benchmark."""
    fold: Annotated[int, Field(ge=1, le=5)] = 1
    """Fold of DFEW."""
    channel: Literal["speech", "song", "both"] = "speech"
    """Channel of RAVDESS."""
    max_tokens: Positive = 32
    """Longest answer, tokens."""
    description_tokens: Positive = 1024
    """Longest description (emer, ovmerd), tokens; must leave room for the prompt in rollout.max_model_len."""
    judge: JudgeConfig = JudgeConfig()
    """Who rates the descriptions of emer and ovmerd from 1 to 10: "rules" or "llm" (not "omni")."""
    every_round: bool = False
    """Score after every round, not only after the last."""
    decoding: Literal["greedy", "likelihood"] = "greedy"
    """"greedy": the model writes its answer; "likelihood": the option it finds likeliest is its answer."""
    likelihoods: bool = False
    """With greedy answers, also score how likely every option is, for calibration; done anyway where modes are set."""
    modes: tuple[Literal["swapped_audio", "swapped_video", "muted", "blank_video", "text_only"], ...] = ()
    """Robustness modes in which the questions are asked again; what is lost tells what the model uses."""
    few_shot: Annotated[int, Field(ge=0, le=16)] = 0
    """Answered examples before each question, about training clips with other persons; 0 is zero-shot. To train
    on such answers instead, see data.pairs.source."""
    drop_budget: Share = 0.0
    """Share of questions that may go unasked or unanswered (a clip is missing, a server refuses) before it stops."""
    endpoint: EndpointConfig = EndpointConfig()
    """A remote model that is evaluated instead of model.path, by `avere-ray evaluate` alone."""
    media: Literal["file", "file_and_sound", "frames_and_sound"] = "file_and_sound"
    """What a remote model is sent of a clip: its "file"; the file and the sound as WAV, for servers that do not hear
    videos (vLLM); or the sampled "frames" as pictures and the sound."""

    @model_validator(mode="after")
    def _remote_models(self) -> Self:
        if not self.endpoint.url:
            return self
        if self.decoding == "likelihood" or self.likelihoods:
            raise ValueError(
                "evaluation.endpoint: a remote model gives no likelihoods of options; use evaluation.decoding greedy "
                "and leave evaluation.likelihoods out"
            )
        if set(self.modes) - {"text_only"} and self.media != "frames_and_sound":
            raise ValueError(
                f"evaluation.modes {list(self.modes)} change single media, which a whole file cannot show; set "
                "evaluation.media to frames_and_sound"
            )
        return self


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking server ("http://...") or "sqlite:////absolute/path"; None uses mlflow.db in the parent folder of
    run_dir."""
    experiment: str = "avere_ray"
    """Experiment name."""
    timeout_s: Seconds = 10.0
    """Seconds to wait for the server before metrics are kept on disk and sent later."""
    system_every_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds between samples of each node's CPU, memory, disk and GPUs; 0 takes none."""
