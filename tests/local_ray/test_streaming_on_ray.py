"""Questions are asked while later clips are still being decoded: real files, real Ray Data, the real store.

The engines are played by a list, since real ones take longer to start than these clips to decode; the runs in tests/e2e
have them.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clipmaker import Recipe, number_of, write_clip

from avere_ray.config import DataConfig, DecodeConfig, RayConfig, RunConfig
from avere_ray.errors import DropBudgetExceeded
from avere_ray.records import Clip, Cue, Query, Rollout
from avere_ray.stages import MANIFEST, read_records, write_records
from avere_ray.store import DecodedStore
from jobs import streaming
from jobs.layout import stage_path
from jobs.rollouts import rollouts_folder
from jobs.workers import sample_queries

pytestmark = pytest.mark.usefixtures("local_ray")

FROWN = Cue(name="frown", modality="video", text="a frown", present=True, emotions=("anger",))
SHIRT = Cue(name="shirt", modality="video", text="a red shirt", present=True)
GOOD = [f"good{n}" for n in range(6)]


class Engines:
    """Stands in for engines, scorer and their gate."""

    gate_clips = 2
    scorer = SimpleNamespace(take_replaced=lambda: 0)

    def __init__(self, decoded: Path, last: Path | None) -> None:
        self.decoded, self.last = decoded, last
        self.store, self.pool, self.sampled = DecodedStore(decoded), self, set[int]()
        self.gate: list[str] = []
        self.asked: list[str] = []
        self.finished_at_first: bool | None = None

    def count_anew(self) -> None:
        """As `RolloutPool`."""

    def figures(self) -> dict[str, float]:
        """As `RolloutPool`."""
        return {"engines_replaced": 0}

    def use_adapter(self, folder: None, version: int, clips: list[Clip]) -> float:
        self.gate = [clip.clip_id for clip in clips]
        return 0.0

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        self.store.arrive(places)

    def __call__(self, queries: Iterable[Query], **_: Any) -> list[list[Rollout]]:
        return [[self.answer(query)] for query in queries]

    def answer(self, query: Query) -> Rollout:
        assert [number_of(frame) for frame in self.store[query.clip_id].frames] == [5, 15]
        if self.finished_at_first is None:
            self.finished_at_first = (self.decoded / MANIFEST).exists()
            if self.last is not None:
                threading.Thread(target=release, args=(self.last,), daemon=True).start()
        self.asked.append(query.query_id)
        return Rollout(
            rollout_id=f"{query.query_id}#0", query_id=query.query_id, clip_id=query.clip_id, index=0, text="",
            token_ids=(), finish_reason="stop", adapter_version=0, seed=0,
        )  # fmt: skip


def release(pipe: Path) -> None:
    """Lets the decoder of the last clip go on, which waits for somebody who writes."""
    os.close(os.open(pipe, os.O_WRONLY))


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Path]:
    """Six clips with questions, and as the last one a pipe whose reader waits until somebody writes."""
    root = tmp_path / "clips"
    root.mkdir()
    for number, name in enumerate(GOOD):
        write_clip(root / f"{name}.mp4", Recipe(tones_hz=(300.0 + 50 * number,)))
    os.mkfifo(root / "last.mp4")
    clips = [
        Clip(clip_id=n, uri=f"{n}.mp4", split="test" if n == "good1" else "train", emotion="anger", cues=(FROWN, SHIRT))
        for n in (*GOOD, "last")
    ]
    write_records(root / "clips.parquet", Clip, clips)
    yield root


def config(corpus: Path, **data: Any) -> RunConfig:
    spec = DecodeConfig(frames=2, height=56, width=56, timeout_s=120.0)
    return RunConfig(
        run_dir=corpus.parent / "run",
        data=DataConfig(clips=corpus, decode=spec, **data),
        ray=RayConfig(num_cpus=2, object_store_mb=128),
    )


def test_the_first_question_is_asked_before_the_last_clip_is_decoded(corpus: Path) -> None:
    cfg = config(corpus, drop_budget=0.2)
    engines = Engines(stage_path(cfg, "decoded"), corpus / "last.mp4")
    manifest = streaming.run(cfg, engines)  # type: ignore[arg-type]
    assert engines.finished_at_first is False
    assert (manifest.inputs, manifest.used, manifest.summary["drops"]) == (7, 6, {"corrupt": 1})
    assert engines.gate == ["good0", "good1"]
    clips = DecodedStore(stage_path(cfg, "decoded")).clips()
    later = sample_queries([c for c in clips if c.split == "train"], cfg, 0)
    assert engines.asked == [q.query_id for q in later]
    folder = rollouts_folder(cfg, 0)
    assert folder.finished() is not None
    assert read_records(folder.path / "queries.parquet", Query) == later
    again = Engines(stage_path(cfg, "decoded"), None)
    assert streaming.run(cfg, again) == manifest  # type: ignore[arg-type]
    assert (again.asked, engines.sampled) == ([], {0})


def test_too_many_dropped_clips_leave_no_rollouts(corpus: Path) -> None:
    cfg = config(corpus, drop_budget=0.0)
    engines = Engines(stage_path(cfg, "decoded"), corpus / "last.mp4")
    with pytest.raises(DropBudgetExceeded, match="1 of 7"):
        streaming.run(cfg, engines)  # type: ignore[arg-type]
    assert engines.asked
    assert not stage_path(cfg, "rollouts", 0).exists()
