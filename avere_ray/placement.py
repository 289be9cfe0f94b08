"""Where stages run in a cluster, what they reserve there, and whether it fits the groups of nodes there are.

Nodes carry the Ray label avere-ray/role (`ray start --labels`, or a KubeRay group's `labels`). `placement` in the
config names the role a stage needs; a stage without one runs on any node.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avere_ray.config import RunConfig

ROLE_LABEL = "avere-ray/role"
"""Ray node label that says what a node is for: decode, rollout or learner."""
GROUP_LABEL = "ray.io/node-group"
"""Ray node label with the name of a node's worker group; KubeRay sees to it."""
STAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "pipeline": (("decode",), ("rollout", "learner")),
    "decode": (("decode",),),
    "build-preferences": (("rollout",),),
    "train": (("learner",),),
    "evaluate": (("rollout",),),
}
"""What each verb keeps on a cluster: one part after the other, the stages of a part at the same time."""


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


def parts(cfg: RunConfig, verb: str) -> list[list[Demand]]:
    """What a verb reserves: the parts one after the other, the demands of a part at the same time."""
    return [[demand for stage in part for demand in _demands(cfg, stage)] for part in STAGES.get(verb, ())]


def demands(cfg: RunConfig, verb: str) -> list[Demand]:
    """Everything a verb reserves, one entry an actor or worker."""
    return [demand for part in parts(cfg, verb) for demand in part]


def grown(cfg: RunConfig, verb: str) -> list[Demand]:
    """What a verb reserves while it has `rollout.max_engines` engines; empty where it never has more than it needs.

    Nothing has to be waited for: they are started when work waits for them, and the run goes on without them.
    """
    engines = cfg.rollout.most_engines
    if engines == cfg.rollout.engines or not any("rollout" in part for part in STAGES.get(verb, ())):
        return []
    return _engines(cfg, f"rollout.max_engines={engines}", engines) + _scorer(cfg)


def unmet(cfg: RunConfig, verb: str, groups: Sequence[NodeGroup]) -> list[str]:
    """What of a verb's demands finds no room on the groups' nodes; one sentence a setting, see `misfits`."""
    return [sentence for part in (*parts(cfg, verb), grown(cfg, verb)) for sentence in misfits(part, groups)]


def engine_bundles(num_cpus: float, num_gpus: float) -> list[dict[str, float]]:
    """Ray's resources of one engine: one bundle, or with tensor parallelism one for each GPU, since vLLM puts a worker
    into each; the first also has the CPUs of the process that steers them."""
    if num_gpus <= 1:
        return [{name: amount for name, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount}]
    first = {"CPU": num_cpus, "GPU": 1.0} if num_cpus else {"GPU": 1.0}
    return [first, *({"GPU": 1.0} for _ in range(int(num_gpus) - 1))]


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
    return [
        f"{d.what}: {count} of them, with {d.bundle} each, find no room"
        f"{f' on nodes with role {d.role}' if d.role else ''}. {_lacking(d, count, groups)}. "
        f"The groups offer {groups_in_words(groups)}"
        for d, count in left.items()
    ]


def groups_in_words(groups: Sequence[NodeGroup]) -> str:
    """What groups offer, for messages."""
    offer = [f"{g.name}{f' (role {g.role})' if g.role else ''}: {g.nodes} x {g.node}" for g in groups]
    return "; ".join(offer) or "nothing"


def node_groups(nodes: Iterable[Mapping[str, Any]]) -> list[NodeGroup]:
    """The living nodes of a cluster as groups of equal ones, from what `ray.nodes()` gives."""
    found: Counter[tuple[str, str | None, Bundle]] = Counter()
    for node in nodes:
        if node.get("Alive"):
            labels, has = node.get("Labels") or {}, node.get("Resources") or {}
            role = labels.get(ROLE_LABEL)
            size = Bundle(float(has.get("CPU", 0)), float(has.get("GPU", 0)))
            found[(labels.get(GROUP_LABEL) or role or "nodes", role, size)] += 1
    names = Counter(name for name, _, _ in found)
    return [
        NodeGroup(name=f"{name}-{i}" if names[name] > 1 else name, role=role, node=size, nodes=count)
        for i, ((name, role, size), count) in enumerate(found.items(), start=1)
    ]


def _demands(cfg: RunConfig, stage: str) -> list[Demand]:
    where = cfg.placement
    if stage == "decode":
        return [Demand(role=where.decode, what="one decoding task", bundle=Bundle(1, 0))]
    if stage == "rollout":
        return _engines(cfg, f"rollout.engines={cfg.rollout.engines}", cfg.rollout.engines) + _scorer(cfg)
    rank = Bundle(cfg.train.cpus_per_worker, cfg.train.gpus_per_worker if cfg.train.use_gpu else 0)
    what = f"train.workers={cfg.train.workers}"
    return [Demand(role=where.learner, what=what, bundle=rank)] * cfg.train.workers


def _engines(cfg: RunConfig, what: str, count: int) -> list[Demand]:
    """Engines; one that divides its model over GPUs has them all on one node."""
    engine = Bundle(cfg.rollout.num_cpus, cfg.rollout.num_gpus)
    return [Demand(role=cfg.placement.rollout, what=what, bundle=engine)] * count


def _scorer(cfg: RunConfig) -> list[Demand]:
    """The scorer beside the engines, where it reserves anything."""
    share = cfg.rollout.scorer_gpus
    what = f"rollout.scorer_gpus={share:g}"
    return [Demand(role=cfg.placement.rollout, what=what, bundle=Bundle(0, share))] if share else []


def _lacking(demand: Demand, count: int, groups: Sequence[NodeGroup]) -> str:
    """Which group lacks what."""
    usable = [g for g in groups if demand.role in (None, g.role) and g.nodes]
    if not usable:
        return f"No node has role {demand.role}" if demand.role else "There is no node"
    names = " and ".join(f"group {g.name}" for g in usable)
    need = demand.bundle
    if any(g.node.cpus >= need.cpus and g.node.gpus >= need.gpus for g in usable):
        more = Bundle(count * need.cpus, count * need.gpus)
        return f"{names[0].upper()}{names[1:]} lack{'s' if len(usable) == 1 else ''} {more}"
    largest = Bundle(max(g.node.cpus for g in usable), max(g.node.gpus for g in usable))
    return f"A node of {names} has {largest} at most"
