"""When an actor is asked again, told again or given up; with actors that are played, since real ones take seconds."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, ObjectLostError, OutOfMemoryError, RayActorError

from actors import engines, service
from actors.engines import Engines, Limits
from actors.service import Service
from avere_ray.errors import ActorLost, InputError, StageError

Fate = Callable[[], Any]


def dies() -> Any:
    raise ActorDiedError


def hangs() -> Any:
    raise GetTimeoutError


def loses_its_node() -> Any:
    raise ObjectLostError("0" * 56, None, "")


def is_too_big() -> Any:
    raise OutOfMemoryError("Task was killed due to the node running low on memory.")


class Actor:
    """Meets these fates, one a call; then answers with its number."""

    def __init__(self, number: int, fates: list[Fate]) -> None:
        self.number, self.fates, self.told = number, fates, list[str]()
        self.__ray_ready__ = self.method(lambda: True)
        self.arrive = self.method(self.told.append)
        self.ask = self.method(lambda: self.fates.pop(0)() if self.fates else self.number)

    @staticmethod
    def method(work: Callable[..., Any]) -> Any:
        """Work that is done when it is called and waited for, as far as it tells anything."""
        return SimpleNamespace(remote=lambda *args: work(*args) if args else work)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Actor]:
    """The actors so far; Ray is played."""
    played = SimpleNamespace(get=lambda work, timeout: work(), kill=lambda actor: None)
    monkeypatch.setattr(service, "ray", played)
    return []


def make(started: list[Actor], *fates: list[Fate]) -> Service:
    coming = iter(fates)

    def start() -> Actor:
        started.append(Actor(len(started), next(coming, [])))
        return started[-1]

    return Service("judge", start, deadline_s=7, remedy="Raise judge.deadline_s.")


def test_it_starts_when_it_is_asked_and_once(started: list[Actor]) -> None:
    judge = make(started)
    judge.tell("arrive", "a")
    assert not started
    assert [judge.ask("verdicts", "ask") for _ in range(2)] == [0, 0]
    assert [actor.told for actor in started] == [["a"]]
    assert judge.take_replaced() == 0


@pytest.mark.parametrize("fate", [dies, hangs, loses_its_node, is_too_big])
def test_a_lost_actor_is_replaced_told_and_asked_again(started: list[Actor], fate: Fate) -> None:
    judge = make(started, [fate])
    judge.tell("arrive", "a")
    assert judge.ask("verdicts", "ask") == 1
    assert [actor.told for actor in started] == [["a"], ["a"]]
    assert (judge.take_replaced(), judge.take_replaced()) == (1, 0)


def test_three_losses_in_a_row_end_the_stage(started: list[Actor]) -> None:
    judge = make(started, [hangs], [dies], [hangs])
    with pytest.raises(StageError) as caught:
        judge.ask("verdicts", "ask")
    assert str(caught.value) == (
        "verdicts: the judge gave no answer within 7 s, 3 times in a row. Raise judge.deadline_s."
    )
    assert judge.ask("verdicts", "ask") == 3


def test_what_it_raises_itself_is_raised_at_once(started: list[Actor]) -> None:
    def refuses() -> Any:
        raise InputError("no cues")

    judge = make(started, [refuses])
    with pytest.raises(InputError, match="no cues"):
        judge.ask("verdicts", "ask")
    assert (len(started), judge.take_replaced()) == (1, 0)


def test_an_actor_that_cannot_start_is_not_tried_again(started: list[Actor], monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(work: Any, timeout: float) -> Any:
        raise RayActorError(error_msg="lines before\n  ModelError: no model in /m", actor_init_failed=True)

    monkeypatch.setattr(service.ray, "get", cannot)
    with pytest.raises(StageError, match="verdicts: the judge cannot start: ModelError: no model in /m"):
        make(started).ask("verdicts", "ask")
    assert len(started) == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("refuses", "rollout engine 0 cannot start: ModelError: no model in /m. Ray's logs have all that it said."),
        ("hangs", "rollout engine 0 did not start within 0 s. Check that the cluster has the CPUs, GPUs and memory "
                  "that rollout asks for, and see Ray's logs."),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_start_says_itself_what_to_do(
    monkeypatch: pytest.MonkeyPatch, how: str, words: str
) -> None:
    def cannot(work: Any, timeout: float) -> Any:
        raise RayActorError(error_msg="lines before\n  ModelError: no model in /m.", actor_init_failed=True)

    played = SimpleNamespace(
        get=cannot, kill=lambda actor: None, wait=lambda refs, **_: (refs if how == "refuses" else [], [])
    )
    monkeypatch.setattr(engines, "ray", played)
    actor = SimpleNamespace(ready=Actor.method(lambda: True))
    made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_, **__: actor))
    limits = Limits(call_s=1, sync_s=1, start_s=0)
    pool = Engines((), {}, role=None, num_cpus=1, num_gpus=0, keywords={}, limits=limits, actor=made)
    pool.start()
    with pytest.raises(StageError) as caught:
        pool.look(0)
    assert str(caught.value) == words


def test_a_stream_goes_on_with_the_rest_and_counts_losses_in_a_row(started: list[Actor]) -> None:
    """An actor is lost after every item, oftener than three times in all."""
    scorer, given = make(started), list[int]()

    def rest(actor: Actor) -> Iterator[int]:
        if len(given) < 5:
            given.append(actor.number)
            yield actor.number
            raise ActorLost("died")

    assert list(scorer.stream("reference", rest)) == [0, 1, 2, 3, 4]
    assert scorer.take_replaced() == 5
