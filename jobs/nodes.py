"""Watches every node of the cluster while a run goes on, each once; see `avere_ray.tracking.node`."""

import contextlib
from collections.abc import Iterator
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.metrics import FOLDER
from avere_ray.progress import say
from avere_ray.tracking.node import NodeWatch

_START_S = 60.0


@contextlib.contextmanager
def watched_nodes(cfg: RunConfig) -> Iterator[None]:
    """Samples the nodes that are there when the block begins; on a machine alone a thread does it, without an actor.

    Needs a running Ray. A node that cannot be watched is told and left out.
    """
    every_s, folder = cfg.tracking.system_every_s, cfg.run_dir.absolute() / FOLDER
    if not every_s:
        yield
        return
    import ray

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1 and nodes[0] == ray.get_runtime_context().get_node_id():
        watch = NodeWatch(folder, every_s)
        try:
            yield
        finally:
            watch.close()
        return
    actors = [_start(node, folder, every_s) for node in nodes]
    _wait(actors)
    try:
        yield
    finally:
        for actor in actors:
            ray.kill(actor)


def _start(node: str, folder: Any, every_s: float) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from actors.node_watch import NodeWatchActor

    here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return NodeWatchActor.options(num_cpus=0, scheduling_strategy=here).remote(folder, every_s)


def _wait(actors: list[Any]) -> None:
    import ray

    started, late = ray.wait([actor.node.remote() for actor in actors], num_returns=len(actors), timeout=_START_S)
    if late:
        say(f"tracking: {len(late)} of {len(late) + len(started)} nodes are not watched yet; the run goes on")
