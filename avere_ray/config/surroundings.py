"""Ray, placement, evaluation and tracking: what a run stands in."""

from typing import Annotated, Literal

from pydantic import Field

from avere_ray.config.section import Positive, Seconds, Section


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

    benchmarks: tuple[Literal["emorealm"], ...] = ("emorealm",)
    """Benchmarks scored before the first and after the last round."""
    max_tokens: Positive = 32
    """Longest answer, tokens."""
    every_round: bool = False
    """Score after every round, not only after the last."""


class TrackingConfig(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking server ("http://...") or "sqlite:////absolute/path"; None uses mlflow.db in the parent folder of
    run_dir."""
    experiment: str = "avere_ray"
    """Experiment name."""
    timeout_s: Seconds = 10.0
    """Seconds to wait for the server before metrics are kept on disk and sent later."""
