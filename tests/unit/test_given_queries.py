"""Queries of one's own: what is refused, and what becomes of those that cannot be asked."""

from pathlib import Path

import pytest

from avere_ray.config import DataConfig, RunConfig
from avere_ray.errors import DropBudgetExceeded, InputError
from avere_ray.records import Clip, Drop, Query
from avere_ray.stages import StageFolder, write_records
from jobs import given_queries


def query(name: str, clip: str) -> Query:
    return Query(query_id=name, clip_id=clip, modality="video", task="t", prompt="p")


def config(folder: Path, *queries: Query, budget: float = 0.0) -> RunConfig:
    write_records(folder / "queries.parquet", Query, queries)
    return RunConfig(run_dir=folder / "run", data=DataConfig(queries=folder / "queries.parquet", drop_budget=budget))


def test_every_query_that_is_not_asked_is_a_drop_with_its_reason(tmp_path: Path) -> None:
    rows = [query("1", "a"), query("2", "held_out"), query("3", "broken"), query("4", "typo")]
    cfg = config(tmp_path, *rows)
    decoded = StageFolder(tmp_path / "run" / "decoded", stage="decoded", key="k")
    decoded.begin()
    drop = Drop(sample_id="broken", stage="decode", reason="corrupt", message="m", bytes=0)
    decoded.finish(inputs=3, used=2, drops=[drop])
    clips = [Clip(clip_id="a", uri="a.mp4", split="train"), Clip(clip_id="held_out", uri="h.mp4", split="test")]
    drops = given_queries.left_out(cfg, rows[:1], clips)
    assert [(d.sample_id, d.reason) for d in drops] == [
        ("2", "not_training"),
        ("3", "clip_dropped"),
        ("4", "unknown_clip"),
    ]
    assert "'test'" in drops[0].message and "broken" in drops[1].message and "'typo'" in drops[2].message


def test_queries_about_clips_that_do_not_exist_are_held_against_the_budget(tmp_path: Path) -> None:
    rows = [query("1", "a"), query("2", "typo")]
    with pytest.raises(
        DropBudgetExceeded, match="1 x unknown_clip, for instance 2: no clip of the corpus is called 'typo'"
    ):
        given_queries.check_known(config(tmp_path, *rows), rows, ["a"])
    given_queries.check_known(config(tmp_path, *rows, budget=0.5), rows, ["a"])


def test_an_id_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    cfg = config(tmp_path, query("1", "a"), query("1", "b"))
    with pytest.raises(InputError, match=r"data\.queries: 1 query ids .* for instance '1'"):
        given_queries.read(cfg.data.queries or Path())


def test_a_table_that_cannot_be_read_is_the_users_and_is_not_to_be_deleted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.parquet does not exist.*query_id, clip_id"):
        given_queries.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("query_id,clip_id")
    with pytest.raises(InputError, match="is no table of queries") as refused:
        given_queries.read(tmp_path / "text.parquet")
    assert "Delete" not in str(refused.value)
    write_records(tmp_path / "empty.parquet", Query, [])
    with pytest.raises(InputError, match="has no row"):
        given_queries.read(tmp_path / "empty.parquet")
