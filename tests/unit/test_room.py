"""Room before a job starts: nodes that come are waited for, what never comes is named, and nothing stays asked for."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.config import RunConfig, load_config
from avere_ray.errors import ClusterError
from avere_ray.placement import ROLE_LABEL, Bundle, NodeGroup
from jobs import room

DECODE = NodeGroup(name="cheap", role="decode", node=Bundle(2, 0), nodes=1)
LEARNER = NodeGroup(name="big", role="learner", node=Bundle(4, 0), nodes=1)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes whenever somebody looks at the clock."""
    ticks = itertools.count()
    monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: float(next(ticks)), sleep=lambda seconds: None))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def config(*overrides: str) -> RunConfig:
    placed = ["--placement.decode=decode", "--placement.learner=learner", "--rollout.num_cpus=0", "--train.workers=2"]
    return load_config(None, [*placed, *overrides])


class Autoscaler:
    """Brings the nodes that are asked for by role, when it has such; remembers what it was asked."""

    def __init__(self, *can: NodeGroup) -> None:
        self.can, self.there = can, [NodeGroup(name="head", role=None, node=Bundle(0, 0), nodes=1)]
        self.asked: list[Any] = []

    def look(self) -> list[NodeGroup]:
        return self.there

    def ask(self, bundles: list[dict[str, float]], labels: list[dict[str, str]]) -> None:
        self.asked.append(bundles)
        roles = {selector.get(ROLE_LABEL) for selector in labels}
        self.there = [*self.there, *(g for g in self.can if g.role in roles and g not in self.there)]


def test_each_part_is_asked_for_in_turn_and_the_request_is_taken_back() -> None:
    scaler = Autoscaler(DECODE, LEARNER)
    assert room.wait_for_room(config(), "pipeline", limit_s=9, look=scaler.look, ask=scaler.ask) == []
    assert scaler.asked == [[{"CPU": 1}], [{}, {"CPU": 1}, {"CPU": 1}], []]


def test_what_never_comes_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    scaler = Autoscaler(DECODE)
    (missing,) = room.wait_for_room(config(), "pipeline", limit_s=6, look=scaler.look, ask=scaler.ask)
    assert "train.workers=2: 2 of them" in missing
    assert "No node has role learner" in missing
    assert scaler.asked[-1] == []
    assert capsys.readouterr().out.count("waiting up to 6 s for nodes") == 2


def test_nothing_is_asked_where_there_is_room() -> None:
    scaler = Autoscaler()
    scaler.there = [DECODE, LEARNER]
    assert room.wait_for_room(config(), "train", limit_s=1, look=scaler.look, ask=scaler.ask) == []
    assert scaler.asked == []


def test_a_local_ray_does_not_grow_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: Iterator[list[NodeGroup]] = iter([[DECODE]] * 2)
    monkeypatch.setattr(room, "live_groups", lambda: next(groups))
    with pytest.raises(ClusterError, match=r"have no room for train: .*No node has role learner.*--labels"):
        room.check_room(config(), "train")
