"""Rollouts of the next round while a round trains: which adapter, which key, and what is left when training fails."""

import threading
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avere_ray.config import RolloutConfig, RunConfig
from avere_ray.errors import InputError, TrainingError
from avere_ray.records import Clip, Cue, Query, Rollout
from avere_ray.stages import StageFolder, read_records
from jobs import overlap
from jobs.layout import stage_path
from jobs.rollouts import policy_round, rollouts_folder, sample_rollouts
from jobs.workers import sample_queries

SHIRT = Cue(name="shirt", modality="video", text="a red shirt", present=True)
FROWN = Cue(name="frown", modality="video", text="a frown", present=True, emotions=("anger",))
CLIPS = [
    Clip(clip_id=f"clip{n}", uri=f"{n}.mp4", emotion="anger", face_emotion="anger", cues=(FROWN, SHIRT))
    for n in range(4)
]
WAIT_S = 20.0


class Engines:
    """Stands in for the engines and their gate; answers when it is let."""

    replaced = 0
    scorer = SimpleNamespace(take_replaced=lambda: 0)

    def __init__(self) -> None:
        self.pool, self.training_clips, self.sampled = self, CLIPS, set[int]()
        self.version, self.loaded = -1, Path()
        self.asked, self.let = threading.Event(), threading.Event()

    def count_anew(self) -> None:
        """As `RolloutPool`."""

    def figures(self) -> dict[str, float]:
        """As `RolloutPool`."""
        return {"engines_replaced": 0}

    def use_adapter(self, folder: Path | None, version: int) -> float:
        self.loaded, self.version = folder or Path(), version
        return 0.5

    def __call__(self, queries: Iterable[Query], *, seed: int, **_: Any) -> list[list[Rollout]]:
        return [[self.answer(query, seed)] for query in queries]

    def answer(self, query: Query, seed: int) -> Rollout:
        self.asked.set()
        assert self.let.wait(WAIT_S)
        return Rollout(
            rollout_id=f"{query.query_id}#0", query_id=query.query_id, clip_id=query.clip_id, index=0, text="",
            token_ids=(), finish_reason="stop", adapter_version=self.version, seed=seed,
        )  # fmt: skip


def config(folder: Path, *, ahead: bool = True) -> RunConfig:
    """A run of three rounds, two of which have their adapter."""
    cfg = RunConfig(run_dir=folder, rounds=3, rollout=RolloutConfig(overlap=ahead))
    for path in (stage_path(cfg, "decoded"), *(stage_path(cfg, "adapters", k) for k in (0, 1))):
        stage = StageFolder(path, stage=path.parent.name, key="test")
        stage.begin()
        (path / "weights").write_text(str(path))
        stage.finish(inputs=1, used=1)
    return cfg


def key(cfg: RunConfig, round_: int) -> str:
    return rollouts_folder(cfg, round_).key


def test_the_key_tells_rollouts_of_the_adapter_before_from_on_policy_ones(tmp_path: Path) -> None:
    ahead, on_policy = config(tmp_path), config(tmp_path, ahead=False)
    assert [policy_round(on_policy, k) for k in range(3)] == [-1, 0, 1]
    assert [policy_round(ahead, k) for k in range(3)] == [-1, -1, 0]
    assert key(ahead, 0) == key(on_policy, 0)
    assert len({key(cfg, k) for cfg in (ahead, on_policy) for k in (1, 2)}) == 4


@pytest.mark.parametrize(("round_", "version"), [(1, 0), (2, 1)])
def test_the_next_round_is_sampled_while_the_block_runs(tmp_path: Path, round_: int, version: int) -> None:
    cfg, engines = config(tmp_path), Engines()
    with overlap.sampling_ahead(cfg, round_, engines):  # type: ignore[arg-type]
        assert engines.asked.wait(WAIT_S)
        engines.let.set()
    manifest = sample_rollouts(cfg, round_, engines)  # type: ignore[arg-type]
    assert manifest.summary["parity_max_abs_diff"] == 0.5
    folder = stage_path(cfg, "rollouts", round_)
    queries, rollouts = (
        read_records(folder / f"{n}.parquet", r) for n, r in (("queries", Query), ("rollouts", Rollout))
    )
    assert queries == sample_queries(CLIPS, cfg, round_)
    assert {(r.adapter_version, r.seed) for r in rollouts} == {(version, cfg.seed + round_)}
    assert engines.loaded == (stage_path(cfg, "adapters", 0) if version else Path())
    assert engines.sampled == {round_}


@pytest.mark.parametrize(("ahead", "round_"), [(False, 1), (True, 3)])
def test_without_the_option_or_a_next_round_nothing_is_sampled(tmp_path: Path, ahead: bool, round_: int) -> None:
    engines = Engines()
    with overlap.sampling_ahead(config(tmp_path, ahead=ahead), round_, engines):  # type: ignore[arg-type]
        pass
    assert engines.version == -1


def test_failed_training_ends_the_sampling_and_leaves_no_half_stage(tmp_path: Path) -> None:
    cfg, engines = config(tmp_path), Engines()
    with pytest.raises(TrainingError), overlap.sampling_ahead(cfg, 1, engines):  # type: ignore[arg-type]
        assert engines.asked.wait(WAIT_S)
        threading.Timer(0.2, engines.let.set).start()
        raise TrainingError("the loss is not finite")
    left = [t for t in threading.enumerate() if t.name == "rollouts"]
    assert not left
    assert rollouts_folder(cfg, 1).finished() is None
    again = Engines()
    again.let.set()
    assert sample_rollouts(cfg, 1, again).used > 0  # type: ignore[arg-type]


def test_an_error_of_the_engines_is_raised_when_the_block_ends(tmp_path: Path) -> None:
    engines = Engines()
    engines.training_clips = []
    wrong = pytest.raises(InputError, match='no clip belongs to the split "train"')
    with wrong, overlap.sampling_ahead(config(tmp_path), 1, engines):  # type: ignore[arg-type]
        pass
