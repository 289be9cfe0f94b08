"""Placement: what a verb asks for, by role, and whether groups of nodes have room."""

from typing import Any

import pytest

from avere_ray.config import load_config
from avere_ray.placement import (
    GROUP_LABEL,
    ROLE_LABEL,
    Bundle,
    Demand,
    NodeGroup,
    demands,
    engine_bundles,
    grown,
    label_selector,
    misfits,
    node_groups,
    unmet,
)

GROUPS = [
    NodeGroup(name="small", role="rollout", node=Bundle(8, 2), nodes=1),
    NodeGroup(name="large", role="learner", node=Bundle(64, 8), nodes=2),
]


def ask(count: int, cpus: float, gpus: float, role: str | None = None) -> list[Demand]:
    return [Demand(role=role, what="train.workers=x", bundle=Bundle(cpus, gpus))] * count


def test_a_role_becomes_a_label_selector() -> None:
    assert label_selector("rollout") == {ROLE_LABEL: "rollout"}
    assert label_selector(None) == {}


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("decode", [("decode", "one decoding task", Bundle(1, 0))]),
        ("evaluate", [(None, "rollout.engines=2", Bundle(4, 1))] * 2),
        ("train", [("learner", "train.workers=3", Bundle(2, 1))] * 3),
        ("doctor", []),
    ],
)
def test_a_verb_asks_for_what_it_keeps_at_the_same_time(verb: str, expected: list[tuple[Any, ...]]) -> None:
    overrides = ["--rollout.engines=2", "--rollout.num_cpus=4", "--rollout.num_gpus=1", "--train.workers=3"]
    overrides += ["--train.pairs_per_step=24", "--train.use_gpu=true", "--train.cpus_per_worker=2"]
    overrides += ["--model.dtype=bfloat16"]
    overrides += ["--parity.max_abs_diff=0.5", "--placement.decode=decode", "--placement.learner=learner"]
    assert [(d.role, d.what, d.bundle) for d in demands(load_config(None, overrides), verb)] == expected


def test_nodes_are_filled_and_what_is_left_over_is_said() -> None:
    assert misfits(ask(16, 4, 1, "learner"), GROUPS) == []
    (message,) = misfits(ask(17, 4, 1, "learner"), GROUPS)
    assert message == (
        "train.workers=x: 1 of them, with 4 CPU and 1 GPU each, find no room on nodes with role learner. "
        "Group large lacks 4 CPU and 1 GPU. "
        "The groups offer small (role rollout): 1 x 8 CPU and 2 GPU; large (role learner): 2 x 64 CPU and 8 GPU"
    )


def test_without_a_role_any_node_will_do_and_a_bundle_is_not_split() -> None:
    assert misfits(ask(18, 4, 1), GROUPS) == []
    assert misfits(ask(1, 4, 4, "rollout"), GROUPS)
    assert misfits(ask(1, 65, 0), GROUPS)
    assert "offer nothing" in misfits(ask(1, 1, 0), [])[0]


def test_which_group_lacks_what() -> None:
    assert "A node of group small has 8 CPU and 2 GPU at most." in misfits(ask(1, 4, 4, "rollout"), GROUPS)[0]
    assert "No node has role decode." in misfits(ask(1, 1, 0, "decode"), GROUPS)[0]
    assert "There is no node." in misfits(ask(1, 1, 0), [])[0]
    assert "Group small and group large lack 8 CPU." in misfits(ask(18, 8, 0), GROUPS)[0]


def test_a_pipeline_decodes_before_its_engines_and_learner_take_their_room() -> None:
    cfg = load_config(None, ["--rollout.num_cpus=0", "--train.workers=2"])
    two = [NodeGroup(name="all", role=None, node=Bundle(2, 0), nodes=1)]
    assert len(demands(cfg, "pipeline")) == 4
    assert unmet(cfg, "pipeline", two) == []
    (sentence,) = unmet(cfg, "pipeline", [NodeGroup(name="all", role=None, node=Bundle(1, 0), nodes=1)])
    assert sentence.startswith("train.workers=2: 1 of them")


def test_engines_that_may_be_added_need_room_while_the_learner_does_not_work() -> None:
    cfg = load_config(
        None, ["--rollout.num_cpus=2", "--rollout.max_engines=3", "--train.workers=4", "--train.micro_pairs=4"]
    )
    assert len(demands(cfg, "pipeline")) == 6, "they are not waited for"
    assert [(d.what, d.bundle.cpus) for d in grown(cfg, "pipeline")] == [("rollout.max_engines=3", 2)] * 3
    assert grown(cfg, "train") == grown(load_config(None, ["--rollout.engines=3"]), "pipeline") == []
    assert unmet(cfg, "pipeline", [NodeGroup(name="all", role=None, node=Bundle(6, 0), nodes=1)]) == []
    (sentence,) = unmet(cfg, "evaluate", [NodeGroup(name="all", role=None, node=Bundle(4, 0), nodes=1)])
    assert sentence.startswith("rollout.max_engines=3: 1 of them, with 2 CPU each, find no room")


def test_an_engine_over_several_gpus_has_a_bundle_for_each() -> None:
    assert engine_bundles(2, 0) == [{"CPU": 2}]
    assert engine_bundles(0, 0.4) == [{"GPU": 0.4}]
    assert engine_bundles(2, 3) == [{"CPU": 2, "GPU": 1}, {"GPU": 1}, {"GPU": 1}]
    assert engine_bundles(0, 2) == [{"GPU": 1}, {"GPU": 1}]


def test_living_nodes_are_counted_in_groups() -> None:
    def node(role: str, cpus: float, alive: bool = True, **labels: str) -> dict[str, Any]:
        return {"Alive": alive, "Resources": {"CPU": cpus}, "Labels": {ROLE_LABEL: role, **labels} if role else {}}

    found = node_groups(
        [
            node("", 0),
            node("decode", 15, **{GROUP_LABEL: "cheap"}),
            node("decode", 15, **{GROUP_LABEL: "cheap"}),
            node("decode", 15, alive=False),
            node("learner", 4),
            node("learner", 8),
        ]
    )
    assert [(g.name, g.role, g.node.cpus, g.nodes) for g in found] == [
        ("nodes", None, 0, 1),
        ("cheap", "decode", 15, 2),
        ("learner-3", "learner", 4, 1),
        ("learner-4", "learner", 8, 1),
    ]


def test_what_is_bound_to_a_role_goes_first() -> None:
    wanted = ask(1, 8, 2) + ask(1, 8, 2, "rollout")
    assert misfits(wanted, GROUPS) == []
