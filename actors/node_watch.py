"""Watches the node it runs on: one such actor per node of a cluster."""

from pathlib import Path

import ray

from avere_ray.tracking.node import NodeWatch


class NodeWatchWorker:
    """Samples its node into the run's spools until it is closed."""

    def __init__(self, folder: Path, every_s: float) -> None:
        self.watch = NodeWatch(folder, every_s)

    def node(self) -> str:
        """Name of the node, once it is watched."""
        return self.watch.node

    def close(self) -> None:
        """Ends the sampling."""
        self.watch.close()


NodeWatchActor = ray.remote(NodeWatchWorker)
