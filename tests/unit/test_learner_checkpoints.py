"""What counts as a checkpoint, which are kept, whom they belong to, and that a replayed step is logged once."""

import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avere_ray.errors import TrainingError
from avere_ray.learner import checkpoints, zero
from avere_ray.learner.checkpoints import Checkpoint, ReplaySafeSpool, claim, close, finish, latest, prune, saved
from avere_ray.metrics import MetricSpool, read_events

WHOLE = Checkpoint(
    step=1, cursor=4, epoch=0.5, key="k", world=2, zero_stage=2, dtype="float32", base_digest="b", mlflow_run_id=None
)
SETTINGS = {"key": "k", "world": 2, "zero_stage": 2, "base_digest": "b", "dtype": "float32"}


def put(root: Path, step: int, **changes: object) -> Path:
    """A complete checkpoint with one file."""
    folder = checkpoints.step_folder(root, step)
    (folder / "deepspeed").mkdir(parents=True)
    (folder / "deepspeed" / "shard.pt").write_bytes(b"12345")
    finish(folder, dataclasses.replace(WHOLE, step=step, **changes))  # type: ignore[arg-type]
    return folder


def begin(root: Path, tmp_path: Path, **changes: object) -> Checkpoint | None:
    return claim(root, spool=tmp_path / "train-round0.jsonl", **{**SETTINGS, **changes})  # type: ignore[arg-type]


def test_the_manifest_lists_every_file_and_comes_back(tmp_path: Path) -> None:
    put(tmp_path, 3, controller={"gamma": 0.25}, mlflow_run_id="abc")
    found = latest(tmp_path)
    assert found is not None
    assert found.files == {"deepspeed/shard.pt": 5}
    assert (found.step, found.controller, found.mlflow_run_id) == (3, {"gamma": 0.25}, "abc")


@pytest.mark.parametrize("damage", ["no manifest", "cut file", "lost file", "torn manifest"])
def test_a_half_checkpoint_is_none(tmp_path: Path, damage: str) -> None:
    put(tmp_path, 2)
    folder = put(tmp_path, 4)
    if damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "cut file":
        (folder / "deepspeed" / "shard.pt").write_bytes(b"123")
    elif damage == "lost file":
        (folder / "deepspeed" / "shard.pt").unlink()
    else:
        (folder / "manifest.json").write_text('{"step": 4')
    found = latest(tmp_path)
    assert found is not None
    assert found.step == 2


@pytest.mark.parametrize(
    ("by", "keep", "left"),
    [("loss", 1, [2, 5]), ("loss", 2, [2, 3, 5]), ("rewards/margins", 1, [4, 5]), ("loss", 0, [5])],
)
def test_the_best_and_the_latest_are_kept(tmp_path: Path, by: str, keep: int, left: list[int]) -> None:
    for step, loss, margin in ((2, 0.1, 0.1), (3, 0.2, 0.2), (4, 0.9, 0.9), (5, 0.5, 0.5)):
        put(tmp_path, step, metrics={"loss": loss, "rewards/margins": margin})
    (tmp_path / "step=000099").mkdir()
    prune(tmp_path, keep, by)
    assert [c.step for c in saved(tmp_path)] == left
    assert not (tmp_path / "step=000099").exists()


def test_the_same_settings_go_on_others_start_again(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    assert begin(root, tmp_path) is None
    put(root, 7)
    found = begin(root, tmp_path)
    assert found is not None
    assert found.step == 7
    assert begin(root, tmp_path, key="other") is None
    assert saved(root) == []


def test_a_finished_round_is_not_continued(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    begin(root, tmp_path)
    put(root, 7)
    close(root)
    assert [c.step for c in saved(root)] == [7], "its checkpoints are kept until the round is trained again"
    assert begin(root, tmp_path) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"world": 3}, r"written by 2 worker\(s\) with ZeRO stage 2.*do not fit 3 worker.*train\.workers=2"),
        ({"zero_stage": 3}, r"do not fit 2 worker\(s\) with stage 3.*train\.zero_stage=2"),
        ({"base_digest": "c"}, r"another base model \(digest b.*has c\)"),
        ({"dtype": "bfloat16"}, r"in float32, but model\.dtype is bfloat16.*Set model\.dtype=float32"),
    ],
)
def test_checkpoints_that_do_not_fit_say_why(tmp_path: Path, change: dict[str, object], words: str) -> None:
    root = tmp_path / "checkpoints"
    begin(root, tmp_path)
    put(root, 7)
    with pytest.raises(TrainingError, match=words):
        begin(root, tmp_path, **change)
    assert [c.step for c in saved(root)] == [7], "nothing is removed"


def test_other_workers_may_start_when_nothing_was_saved(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    begin(root, tmp_path)
    assert begin(root, tmp_path, world=3) is None


def test_a_replayed_step_is_logged_once_and_an_earlier_round_does_not_count(tmp_path: Path) -> None:
    root, spool = tmp_path / "checkpoints", MetricSpool(tmp_path, "train-round0")
    for step in range(5):
        spool.log({"loss": 9.0}, step=step)  # of other settings, before
    begin(root, tmp_path)
    for attempt in range(2):
        log = ReplaySafeSpool(tmp_path, "train-round0", root, "key")
        for step in range(3 * attempt, 4 + attempt):
            log.log({"loss": float(step)}, step=step)
    mine = [(e.body["step"], e.metrics["loss"]) for e in read_events(spool.path)[5:]]
    assert mine == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_every_start_of_a_round_is_another_attempt(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    begin(root, tmp_path)
    put(root, 7)
    first = checkpoints.attempt(root)
    begin(root, tmp_path)
    assert first != checkpoints.attempt(root) != ""


def draws() -> list[float]:
    """What each random number generator gives next."""
    return [
        random.random(),
        random.gauss(0.0, 1.0),
        float(np.random.rand()),
        float(np.random.randn()),
        *torch.rand(2).tolist(),
    ]


def test_random_numbers_go_on_where_each_worker_left_them(tmp_path: Path) -> None:
    engine = SimpleNamespace(save_checkpoint=lambda *_, **__: None, load_checkpoint=lambda folder, **__: (folder, {}))
    expected = []
    for rank in (0, 1):
        random.seed(rank), np.random.seed(rank), torch.manual_seed(rank)
        draws()
        zero.save_state(engine, tmp_path, rank)
        expected.append(draws())
    assert not set(expected[0]) & set(expected[1])
    for rank in (0, 1):
        zero.load_state(engine, tmp_path, rank)
        assert draws() == expected[rank]


def test_a_state_that_deepspeed_cannot_read_is_refused(tmp_path: Path) -> None:
    engine = SimpleNamespace(load_checkpoint=lambda *_, **__: (None, {}))
    with pytest.raises(TrainingError, match=r"cannot read its state in .*deepspeed\. Delete"):
        zero.load_state(engine, tmp_path, 0)
