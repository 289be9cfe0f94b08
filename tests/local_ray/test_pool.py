"""The pool on real Ray with an actor that needs no model, so that engines can be lost often: deaths, hangs, growth."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.engines import placed
from actors.pool import CALLS_AT_ONCE, RolloutPool
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.errors import EngineBroken, ModelError, ParityError, StageError
from avere_ray.parity import Scored
from avere_ray.records import Query, Rollout


class Sleepy:
    """Answers what follows from query and seed; a file in its folder makes it fail, once or always."""

    def __init__(self, model: ModelConfig, rollout: RolloutConfig, **_: Any) -> None:
        self.folder, self.version = model.path, 0
        self.clips: set[str] = set()
        self._may_fail("start")
        if (self.folder / "start: refuse").exists():
            raise ModelError("no model here")

    def ready(self) -> bool:
        return True

    def arrive(self, places: Mapping[str, Any]) -> None:
        self.clips |= set(places)

    def known(self) -> set[str]:
        return self.clips

    def generate(self, queries: Sequence[Query], *, n: int, seed: int, **_: Any) -> list[list[Rollout]]:
        self._may_fail("generate")
        time.sleep(0.05)
        return [
            [
                Rollout(rollout_id=f"{q.query_id}#{i}", query_id=q.query_id, clip_id=q.clip_id, index=i,
                        text=f"{seed} {q.prompt} {i}", token_ids=(1, 2), finish_reason="stop",
                        adapter_version=self.version, seed=seed)
                for i in range(n)
            ]
            for q in queries
        ]  # fmt: skip

    def load_adapter(self, folder: Path | None, version: int) -> int:
        self._may_fail("sync")
        self.version = version
        return version

    def response_logps(
        self, queries: Sequence[Query], responses: Sequence[Sequence[int]], shown: Any = None
    ) -> list[Scored]:
        off = 1.0 if (self.folder / "base").exists() else 0.0
        return [Scored([1], [-0.5 - off] * len(r), {}) for r in responses]

    def _may_fail(self, where: str) -> None:
        for how in ("hang", "die", "break", "always hang"):
            flag = self.folder / f"{where}: {how}"
            try:
                flag.touch() if how.startswith("always") and flag.exists() else flag.unlink()
            except FileNotFoundError:
                continue
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "break":
                raise EngineBroken("the engine failed in a step: RuntimeError: CUDA error")
            time.sleep(600)


MakeFn = Callable[..., RolloutPool]


@pytest.fixture
def make(local_ray: Any, tmp_path: Path) -> Iterator[MakeFn]:
    """Makes pools of such actors, ended with the test."""
    local_ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pools: list[RolloutPool] = []

    def make_pool(**settings: Any) -> RolloutPool:
        rollout = RolloutConfig(num_cpus=0, batch_queries=2, **settings)
        pool = RolloutPool(ModelConfig(path=tmp_path), rollout, lora_rank=8, decode=DecodeConfig(), decoded=tmp_path,
                           threads=1, actor=local_ray.remote(Sleepy))  # fmt: skip
        pools.append(pool)
        pool.wait_ready()
        return pool

    yield make_pool
    local_ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    for pool in pools:
        pool.close()


def queries(clips: int) -> list[Query]:
    return [
        Query(query_id=f"c{c}/{i}", clip_id=f"c{c}", modality="video", task="t", prompt=f"p{c}.{i}")
        for c in range(clips)
        for i in range(2)
    ]


def ask(pool: RolloutPool, asked: Any, **more: Any) -> list[list[Rollout]]:
    return pool(asked, n=2, temperature=1.0, max_tokens=8, seed=3, **more)


def texts(found: Sequence[Sequence[Rollout]]) -> list[list[str]]:
    return [[r.text for r in group] for group in found]


def expected(asked: Sequence[Query]) -> list[list[str]]:
    return [[f"3 {q.prompt} {i}" for i in range(2)] for q in asked]


def test_a_death_in_mid_batch_and_a_hang_change_nothing_and_hold_up_nobody(make: MakeFn, tmp_path: Path) -> None:
    """The hanging engine is noticed while the other works on: not only its own two batches are left by then."""
    pool, asked, came = make(engines=2, deadline_s=3), queries(100), list[tuple[tuple[int, ...], int]]()
    (tmp_path / "generate: die").touch()
    assert texts(ask(pool, asked)) == expected(asked)
    assert pool.replaced == 1
    pool.wait_ready()
    (tmp_path / "generate: hang").touch()
    assert texts(ask(pool, asked, keep=lambda at, found: came.append((at, pool.replaced)))) == expected(asked)
    assert pool.replaced == 2
    assert sum(replaced == 2 for _, replaced in came) > 2 * CALLS_AT_ONCE
    assert sorted(place for at, _ in came for place in at) == list(range(len(asked))), "each once"
    assert pool.figures()["requests"] == 2 * len(asked)


def test_queries_may_come_from_a_source_that_is_still_being_filled(make: MakeFn) -> None:
    pool, asked = make(engines=1), queries(5)

    def source() -> Iterator[Query]:
        for query in asked:
            time.sleep(0.02)
            yield query

    assert texts(ask(pool, source())) == expected(asked)

    def broken() -> Iterator[Query]:
        yield asked[0]
        raise StageError("the clips ran out")

    with pytest.raises(StageError, match="ran out"):
        ask(pool, broken())
    assert texts(ask(pool, asked)) == expected(asked), "what was in work does not meet the next questions"


def test_an_engine_that_is_killed_while_it_starts_is_replaced(make: MakeFn, tmp_path: Path) -> None:
    (tmp_path / "start: die").touch()
    pool, asked = make(engines=2), queries(6)
    assert pool.replaced == 1
    assert texts(ask(pool, asked)) == expected(asked)


def test_an_engine_that_breaks_in_its_work_is_replaced(make: MakeFn, tmp_path: Path) -> None:
    pool, asked = make(engines=1), queries(6)
    (tmp_path / "generate: break").touch()
    assert texts(ask(pool, asked)) == expected(asked)
    assert pool.replaced == 1


def test_an_engine_that_cannot_start_ends_the_run_at_once(make: MakeFn, tmp_path: Path) -> None:
    (tmp_path / "start: refuse").touch()
    with pytest.raises(StageError, match=r"rollout engine 0 cannot start: .*no model here\. Ray's logs"):
        make(engines=1)


@pytest.mark.parametrize("how", ["hang", "die"])
def test_an_engine_that_does_not_take_an_adapter_is_quarantined(make: MakeFn, tmp_path: Path, how: str) -> None:
    pool, asked = make(engines=2, sync_deadline_s=3), queries(6)
    pool.arrive({"early": (tmp_path, 0)})
    (tmp_path / f"sync: {how}").touch()
    pool.load_adapter(tmp_path, 4)
    assert (pool.replaced, pool.figures()["engines_quarantined"]) == (1, 1)
    found = ask(pool, asked)
    assert texts(found) == expected(asked)
    assert {r.adapter_version for group in found for r in group} == {4}
    assert pool.engines.ask_all("known") == [{"early"}, {"early"}], "the new engine was told of clips that came before"


def test_an_engine_that_never_takes_it_ends_the_run(make: MakeFn, tmp_path: Path) -> None:
    pool = make(engines=1, sync_deadline_s=1)
    (tmp_path / "sync: always hang").touch()
    with pytest.raises(
        StageError,
        match=r"engine 0 gave no answer within 1 s while loading adapter version 1, 3 times.*rollout\.sync_deadline_s",
    ):
        pool.load_adapter(tmp_path, 1)


def test_a_new_engine_must_agree_with_the_learner_before_it_answers(make: MakeFn, tmp_path: Path) -> None:
    """The gate was passed; the engine that replaces a dead one acknowledges the adapter but answers with the base."""
    pool, asked = make(engines=1), queries(3)
    pool.load_adapter(tmp_path, 2)
    pool.remember(asked[:1], [[7, 8]], ["audio_video"], [Scored([1], [-0.5, -0.5], {})], None, 1e-4)
    (tmp_path / "generate: die").touch()
    assert texts(ask(pool, asked)) == expected(asked)
    (tmp_path / "base").touch()
    (tmp_path / "generate: die").touch()
    with pytest.raises(ParityError, match="adapter version 2"):
        ask(pool, asked)


def test_an_engine_that_lost_its_adapter_is_refused(make: MakeFn, tmp_path: Path) -> None:
    pool, asked = make(engines=1), queries(2)
    pool.load_adapter(tmp_path, 2)
    pool.actors[0].load_adapter.remote(None, 0)
    with pytest.raises(StageError, match=r"sampled with adapter version 0; with version 2 in use"):
        ask(pool, asked)


def test_engines_are_added_while_work_waits_and_end_with_it(make: MakeFn) -> None:
    pool, asked = make(engines=1, max_engines=2), queries(150)
    assert texts(ask(pool, asked)) == expected(asked)
    assert pool.figures()["engine_1_requests"] > 0
    assert len(pool.actors) == 1


def test_an_engine_over_two_gpus_is_placed_by_a_group_on_one_node(local_ray: Any) -> None:
    """Ray accepts the group; there are no GPUs here to place it on."""
    group, options = placed(2, 2, "rollout")
    try:
        assert group.bundle_specs == [{"CPU": 2, "GPU": 1}, {"GPU": 1}]
        table = local_ray.util.placement_group_table(group)
        assert (table["strategy"], table["state"]) == ("STRICT_PACK", "PENDING")
        strategy = options["scheduling_strategy"]
        assert (options["num_cpus"], options["num_gpus"]) == (2, 0)
        assert (strategy.placement_group, strategy.placement_group_bundle_index) == (group, 0)
        assert strategy.placement_group_capture_child_tasks
    finally:
        local_ray.util.remove_placement_group(group)
    assert placed(1, 0.5, "rollout") == (
        None, {"num_cpus": 1, "num_gpus": 0.5, "label_selector": {"avere-ray/role": "rollout"}}
    )  # fmt: skip
