"""The room of a real Ray: nodes as groups, a job that cannot be placed ends at once, the autoscaler can be asked."""

from typing import Any

import pytest

from avere_ray.config import load_config
from avere_ray.errors import ClusterError
from jobs import room


def test_a_job_that_ray_would_never_place_ends_at_once_with_the_reason(local_ray: Any) -> None:
    (group,) = room.live_groups()
    assert (group.role, group.node.cpus, group.nodes) == (None, 2.0, 1)
    assert room.check_room(load_config(None, ["--rollout.num_cpus=0", "--train.workers=2"]), "pipeline") is None
    with pytest.raises(ClusterError, match=r"train\.workers=4: 2 of them.*Group nodes lacks 2 CPU"):
        room.check_room(load_config(None, ["--train.workers=4", "--train.pairs_per_step=32"]), "train")
    with pytest.raises(ClusterError, match="No node has role learner"):
        room.check_room(load_config(None, ["--placement.learner=learner"]), "train")


def test_what_is_missing_is_asked_of_the_autoscaler_and_taken_back(local_ray: Any) -> None:
    cfg = load_config(None, ["--placement.learner=learner"])
    missing = room.wait_for_room(cfg, "train", limit_s=1, look=room.live_groups, ask=room._ask_autoscaler)
    assert "No node has role learner" in missing[0]
