"""What reads along while clips are decoded: the order of questions, failures, and the room it takes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.av_store import AvStore, Medium, Place
from avere_ray.config import DataConfig, RolloutConfig, RunConfig
from avere_ray.errors import StageError
from avere_ray.records import Clip, Drop, Query
from avere_ray.stages import StageFolder, StageManifest, write_records
from avere_ray.store import write_places
from jobs import decode, streaming
from jobs.streaming import Arrivals, Decided, Decoding

PLACE = Place(shard="s/1", row=3, medium=Medium(key="k", size=1, frames=1, samples=1, duration_s=1.0))
MANIFEST = StageManifest(stage="decode", key="k", inputs=1, used=1, dropped=0, seconds=1.0, output_digest="d")


def decided(name: str, *, dropped: bool = False, split: str = "train") -> Decided:
    return Clip(clip_id=name, uri=f"{name}.mp4", split=split), None if dropped else PLACE


class Workers:
    """Stands in for engines and scorer."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def arrive(self, places: dict[str, tuple[Path, int]]) -> None:
        assert all(path.name == "1.parquet" and row == 3 for path, row in places.values())
        self.told += places


def arrivals(folder: Path, groups: list[list[Decided]], asked: list[str], budget: float = 1.0) -> Arrivals:
    """Clips in groups, and a table of questions about clips, in this order."""
    queries = [
        Query(query_id=f"{name}?{n}", clip_id=name, modality="video", task="t", prompt="p")
        for n, name in enumerate(asked)
    ]
    write_records(folder / "queries.parquet", Query, queries)
    cfg = RunConfig(run_dir=folder / "run", data=DataConfig(queries=folder / "queries.parquet", drop_budget=budget))
    decoding: Any = SimpleNamespace(
        groups=lambda: iter(groups), plan=SimpleNamespace(clips=[clip for group in groups for clip, _ in group])
    )
    return Arrivals(cfg, Workers(), decoding)  # type: ignore[arg-type]


def test_questions_keep_the_order_of_their_table_and_wait_for_their_clips(tmp_path: Path) -> None:
    groups = [[decided("a"), decided("b", dropped=True)], [decided("c", split="test")], [decided("d")], [decided("e")]]
    coming = arrivals(tmp_path, groups, ["d", "a", "b", "c", "unknown", "e", "a"])
    assert [clip.clip_id for clip in coming.first_clips(2)] == ["a", "c"]
    assert coming.workers.told == ["a", "c"]  # type: ignore[attr-defined]
    queries = coming.queries()
    assert next(queries).query_id == "d?0"
    assert coming.workers.told == ["a", "c", "d"]  # type: ignore[attr-defined]
    assert [q.query_id for q in queries] == ["a?1", "e?5", "a?6"]
    assert coming.training == 3


def test_fewer_clips_than_the_gate_wants_are_all_there_are(tmp_path: Path) -> None:
    coming = arrivals(tmp_path, [[decided("a")]], ["a"])
    assert [clip.clip_id for clip in coming.first_clips(8)] == ["a"]
    assert [q.clip_id for q in coming.queries()] == ["a"]


def test_no_more_is_asked_when_too_many_clips_are_dropped(tmp_path: Path) -> None:
    groups = [[decided("a")], [decided("b", dropped=True), decided("c", dropped=True)], [decided("d")]]
    assert [q.clip_id for q in arrivals(tmp_path, groups, ["a", "d"], budget=0.25).queries()] == ["a"]


def decoding(monkeypatch: pytest.MonkeyPatch, work: Any) -> Decoding:
    """A decode stage that does this with what is told of each clip."""
    monkeypatch.setattr(decode, "run", lambda cfg, plan, arrived: work(arrived))
    return Decoding(RunConfig(), SimpleNamespace(clips=[]))  # type: ignore[arg-type]


def test_clips_are_given_as_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def work(arrived: Any) -> StageManifest:
        arrived(*decided("a"))
        assert asked.wait(20)
        arrived(*decided("b"))
        return MANIFEST

    with decoding(monkeypatch, work) as stage:
        groups = stage.groups()
        assert [clip.clip_id for clip, _ in next(groups)] == ["a"]
        asked.set()
        assert [clip.clip_id for group in groups for clip, _ in group] == ["b"]
        assert stage.result() == MANIFEST


def test_a_failed_stage_is_told_to_whoever_reads_or_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(arrived: Any) -> StageManifest:
        arrived(*decided("a"))
        raise StageError("the disk is full")

    with decoding(monkeypatch, work) as stage:
        groups = stage.groups()
        assert [clip.clip_id for clip, _ in next(groups)] == ["a"]
        for fails in (lambda: next(groups), stage.result, stage.check):
            with pytest.raises(StageError, match="disk is full"):
                fails()


def test_the_stage_ends_with_the_run_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    left = threading.Event()

    def endless(arrived: Any) -> Iterator[None]:
        while True:
            left.wait(0.001)
            arrived(*decided("a"))
            told.append(1)

    with pytest.raises(KeyboardInterrupt), decoding(monkeypatch, endless) as stage:
        next(stage.groups())
        raise KeyboardInterrupt
    assert not stage._thread.is_alive()


@pytest.mark.parametrize(
    ("engines", "cpus", "placement", "room"),
    [(1, 1.0, {}, True), (1, 2.0, {}, False), (2, 1.0, {}, False), (2, 1.0, {"decode": "cpu"}, True)],
)
def test_engines_that_take_every_cpu_wait_for_the_clips(
    engines: int, cpus: float, placement: dict[str, str], room: bool
) -> None:
    rollout = RolloutConfig(engines=engines, num_cpus=cpus)
    cfg = RunConfig.model_validate({"rollout": rollout.model_dump(), "placement": placement})
    assert streaming.has_room(cfg, 2.0) is room


@pytest.mark.parametrize(("reason", "uri"), [("timeout", "a.mp4"), ("remote_unreachable", "s3://bucket/a.mp4")])
def test_a_drop_that_may_pass_is_tried_again_until_a_later_stage_has_used_the_clips(
    tmp_path: Path, reason: str, uri: str
) -> None:
    def plan(settled: bool = False) -> decode.Plan:
        folder = StageFolder(tmp_path / "decoded", stage="decode", key="k")
        return decode.Plan([Clip(clip_id="a", uri=uri)], tmp_path, folder, settled)

    for found, finished in (("corrupt", True), (reason, False)):
        plan().folder.begin()
        write_places(tmp_path / "decoded", AvStore(tmp_path / "store"), {})
        drop = Drop(sample_id="a", stage="decode", reason=found, message="m")
        plan().folder.finish(inputs=1, used=0, drops=[drop])
        assert (plan().finished() is not None) is finished
    assert plan(settled=True).finished() is not None


def test_a_later_stage_of_other_clips_settles_nothing(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text('{"clip_id": "a", "uri": "a.mp4"}')
    cfg = RunConfig(run_dir=tmp_path / "run", data=DataConfig(clips=tmp_path))
    for stage, settled in (("decoded", False), ("rollouts/round=0", True), ("decoded", False), ("pairs/round=0", True)):
        folder = StageFolder(tmp_path / "run" / stage, stage=stage, key="k")
        folder.begin()
        folder.finish(inputs=0, used=0)
        assert decode.plan(cfg).settled is settled
