"""Where stages run in a cluster, what they reserve there, and whether it fits the groups of nodes there are.

Nodes carry the Ray label avere-ray/role (`ray start --labels`, or a KubeRay group's `labels`). `placement` in the
config names the role a stage needs; a stage without one runs on any node.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.config import RunConfig

ROLE_LABEL = "avere-ray/role"
"""Ray node label that says what a node is for: decode, rollout or learner."""
STAGES: dict[str, tuple[str, ...]] = {
    "pipeline": ("decode", "rollout", "learner"),
    "decode": ("decode",),
    "build-preferences": ("rollout",),
    "train": ("learner",),
    "evaluate": ("rollout",),
}
"""What each verb keeps on a cluster at the same time."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """CPUs and GPUs that one actor or worker reserves on one node, or that one node has."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Something a stage keeps on a cluster."""

    role: str | None
    """The role its node must have; None for any node."""
    what: str
    """The setting it comes from, for instance "train.workers=6"."""
    bundle: Bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGroup:
    """Nodes of one kind."""

    name: str
    role: str | None
    node: Bundle
    nodes: int


def label_selector(role: str | None) -> dict[str, str]:
    """Ray's label selector for a role; empty when any node will do."""
    return {ROLE_LABEL: role} if role else {}


def demands(cfg: RunConfig, verb: str) -> list[Demand]:
    """What a verb reserves at the same time, one entry an actor or worker."""
    stages, where = STAGES.get(verb, ()), cfg.placement
    found: list[Demand] = []
    if "decode" in stages:
        found.append(Demand(role=where.decode, what="one decoding task", bundle=Bundle(1, 0)))
    if "rollout" in stages:
        engine = Bundle(cfg.rollout.num_cpus, cfg.rollout.num_gpus)
        what = f"rollout.engines={cfg.rollout.engines}"
        found += [Demand(role=where.rollout, what=what, bundle=engine)] * cfg.rollout.engines
    if "learner" in stages:
        rank = Bundle(cfg.train.cpus_per_worker, 1 if cfg.train.use_gpu else 0)
        what = f"train.workers={cfg.train.workers}"
        found += [Demand(role=where.learner, what=what, bundle=rank)] * cfg.train.workers
    return found


def misfits(wanted: Sequence[Demand], groups: Sequence[NodeGroup]) -> list[str]:
    """What does not fit on the groups' nodes, largest first onto the first node with room; one sentence a setting."""
    free = {(g.name, i): [g.node.cpus, g.node.gpus] for g in groups for i in range(min(g.nodes, len(wanted)))}
    roles = {g.name: g.role for g in groups}
    left: Counter[Demand] = Counter()
    for demand in sorted(wanted, key=lambda d: (d.role is None, -d.bundle.gpus, -d.bundle.cpus)):
        for (name, _), room in free.items():
            fits = room[0] >= demand.bundle.cpus and room[1] >= demand.bundle.gpus
            if fits and demand.role in (None, roles[name]):
                room[0] -= demand.bundle.cpus
                room[1] -= demand.bundle.gpus
                break
        else:
            left[demand] += 1
    offer = "; ".join(f"{g.name}{f' (role {g.role})' if g.role else ''}: {g.nodes} x {g.node}" for g in groups)
    return [
        f"{d.what}: {count} of them, with {d.bundle} each, find no room"
        f"{f' on nodes with role {d.role}' if d.role else ''}. The groups offer {offer or 'nothing'}"
        for d, count in left.items()
    ]
