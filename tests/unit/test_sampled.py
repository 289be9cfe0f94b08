"""Rollouts that are noted while they are sampled, and what an interrupted round still asks for."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.config import RolloutConfig, RunConfig
from avere_ray.errors import StageError, StorageError
from avere_ray.journal import Journal
from avere_ray.records import Query, Rollout
from avere_ray.sampled import Sampled
from jobs.rollouts import sample, sampled_so_far

QUERIES = [Query(query_id=f"q{n}", clip_id="c", modality="video", task="t", prompt="é?") for n in range(5)]


def answered(query: Query) -> list[Rollout]:
    return [
        Rollout(rollout_id=f"{query.query_id}#{i}", query_id=query.query_id, clip_id="c", index=i, text="größer",
                token_ids=(7, i), finish_reason="stop", adapter_version=0, seed=3)
        for i in range(2)
    ]  # fmt: skip


def test_the_rest_is_asked_and_everything_comes_in_the_order_of_the_questions(tmp_path: Path) -> None:
    first = Sampled(tmp_path / "x" / "round.jsonl")
    assert first.before == 0 and list(first.rest(QUERIES)) == QUERIES
    first.note([answered(QUERIES[3]), answered(QUERIES[1])])
    again = Sampled(tmp_path / "x" / "round.jsonl")
    assert again.before == 2
    rest = list(again.rest(iter(QUERIES)))
    assert rest == [QUERIES[0], QUERIES[2], QUERIES[4]]
    assert again.merged([answered(query) for query in rest]) == [answered(query) for query in QUERIES]
    again.remove()
    assert not (tmp_path / "x").exists()


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "round.jsonl"
    Sampled(path).note([answered(query) for query in QUERIES[:2]])
    path.write_bytes(path.read_bytes()[:-9])
    again = Sampled(path)
    assert again.before == 1
    again.note([answered(QUERIES[1])])
    assert Sampled(path).before == 2


def test_a_file_that_cannot_be_written_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match="taken"):
        Journal(tmp_path / "taken" / "round.jsonl").append([{"a": 1}])


class Pool:
    """Answers in batches of two, and fails when it has answered as many as it is told."""

    def __init__(self, batches: int) -> None:
        self.left, self.asked = batches, list[str]()

    def count_anew(self) -> None:
        """As `RolloutPool`."""

    def __call__(self, queries: Iterable[Query], *, keep: Any, progress: Any, **_: Any) -> list[list[Rollout]]:
        everything, found = list(queries), list[list[Rollout]]()
        for start in range(0, len(everything), 2):
            if not self.left:
                raise StageError("the engine is gone")
            self.left -= 1
            part = everything[start : start + 2]
            self.asked += [query.query_id for query in part]
            found += [answered(query) for query in part]
            keep(tuple(range(start, start + len(part))), found[start:])
            progress(len(found), None)
        return found


def test_a_round_that_ended_early_goes_on_with_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = RunConfig(run_dir=tmp_path, rollout=RolloutConfig(samples=2))

    def attempt(pool: Pool, decoded: str = "d") -> list[list[Rollout]]:
        workers: Any = SimpleNamespace(pool=pool)
        return sample(cfg, 0, workers, QUERIES, sampled_so_far(cfg, 0, decoded))

    with pytest.raises(StageError):
        attempt(Pool(2))
    capsys.readouterr()
    pool, other = Pool(9), Pool(9)
    assert attempt(other, decoded="other clips") == attempt(pool) == [answered(query) for query in QUERIES]
    assert (other.asked, pool.asked) == ([query.query_id for query in QUERIES], ["q4"])
    output = capsys.readouterr().out
    assert "rollouts (round 0): 4 queries were answered before the run was interrupted" in output
    assert "5/5" in output or "5 queries" in output
