"""Whether a cluster has room for a verb, before it starts: what Ray cannot place waits as pending, without a word.

A cluster that was just made, or one with an autoscaler, may still grow: the autoscaler is asked for what is missing,
and nodes are waited for, up to `ray.nodes_timeout_s`. What is missing then ends the job, with the group that lacks it.
"""

import time
from typing import TYPE_CHECKING

from avere_ray.config import RunConfig
from avere_ray.errors import ClusterError
from avere_ray.placement import NodeGroup, grown, label_selector, misfits, node_groups, parts
from avere_ray.progress import say
from jobs.session import is_local

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_EVERY_S = 1.0


def check_room(cfg: RunConfig, verb: str) -> None:
    """Waits until the nodes of the running session have room for a verb; at once on a local Ray, which cannot grow.

    Raises:
        ClusterError: they have not, in time; says which group lacks what.
    """
    limit = 0.0 if is_local(cfg.ray) else cfg.ray.nodes_timeout_s
    missing = wait_for_room(cfg, verb, limit_s=limit, look=live_groups, ask=_ask_autoscaler)
    if missing:
        waited = f"after {limit:g} s (ray.nodes_timeout_s) " if limit else ""
        raise ClusterError(
            f"the nodes of this cluster {waited}have no room for {verb}: {'; '.join(missing)}. Add nodes, start them "
            "with `ray start --labels avere-ray/role=ROLE`, or correct placement, rollout.engines and train.workers."
        )
    if wanted := grown(cfg, verb):
        for sentence in misfits(wanted, live_groups()):
            say(f"{sentence}. The run goes on with the engines that find room.")


def wait_for_room(
    cfg: RunConfig,
    verb: str,
    *,
    limit_s: float,
    look: "Callable[[], list[NodeGroup]]",
    ask: "Callable[[list[dict[str, float]], list[dict[str, str]]], None]",
) -> list[str]:
    """What is missing when everything fits or the time is up.

    Args:
        look: gives the groups there are.
        ask: asks the autoscaler for bundles with label selectors; for none in the end, which takes the request back.
    """
    ends, asked = time.monotonic() + limit_s, False
    try:
        for part in parts(cfg, verb):
            bundles = [{k: v for k, v in (("CPU", d.bundle.cpus), ("GPU", d.bundle.gpus)) if v} for d in part]
            told = False
            while missing := misfits(part, look()):
                if time.monotonic() >= ends:
                    groups = look()
                    return [sentence for wanted in parts(cfg, verb) for sentence in misfits(wanted, groups)]
                if not told:
                    say(f"waiting up to {limit_s:g} s for nodes: {'; '.join(missing)}")
                    ask(bundles, [label_selector(d.role) for d in part])
                    told = asked = True
                time.sleep(min(_LOOK_EVERY_S, limit_s))
        return []
    finally:
        if asked:
            ask([], [])


def live_groups() -> list[NodeGroup]:
    """The nodes of the running session."""
    import ray

    return node_groups(ray.nodes())


def _ask_autoscaler(bundles: list[dict[str, float]], labels: list[dict[str, str]]) -> None:
    """Tells the autoscaler what is needed, if there is one; a client of another machine cannot ask."""
    from ray.autoscaler.sdk import request_resources
    from ray.util.client import ray as client

    if not client.is_connected():
        request_resources(bundles=bundles, bundle_label_selectors=labels)
