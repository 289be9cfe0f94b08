"""The store gives back exactly what was written, by id, in any process."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from avere_ray.arrow import to_table
from avere_ray.errors import StageError
from avere_ray.records import Clip, DecodedClip, Drop
from avere_ray.stages import StageFolder
from avere_ray.store import SHARD_CLIPS, DecodedStore, ShardWriter, shard_name

COUNT = SHARD_CLIPS + 3


def decoded(number: int) -> DecodedClip:
    rng = np.random.default_rng(number)
    return DecodedClip(
        clip_id=f"c{number}",
        spec="s",
        frames=rng.integers(0, 256, (2 + number % 2, 4, 6, 3), dtype=np.uint8),
        frame_times_s=rng.random(2 + number % 2, dtype=np.float32),
        waveform=rng.random(100 + number, dtype=np.float32),
        duration_s=number / 10,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = StageFolder(tmp_path_factory.mktemp("run") / "decoded", stage="decode", key="k")
    stage.begin()
    writer = ShardWriter(stage.path)
    for number in range(COUNT):
        writer.add(to_table(DecodedClip, [decoded(number)]), f"sha{number}")
    writer.close()
    stage.write("clips", Clip, [Clip(clip_id=f"c{n}", uri="u", sha256=f"sha{n}") for n in range(COUNT)])
    drop = Drop(sample_id="bad", stage="decode", reason="corrupt", message="bad.mp4 is broken")
    stage.finish(inputs=COUNT + 1, used=COUNT, drops=[drop])
    return stage.path


def assert_same(one: DecodedClip, other: DecodedClip) -> None:
    for name in ("clip_id", "spec", "duration_s"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("frames", "frame_times_s", "waveform"):
        assert getattr(one, name).dtype == getattr(other, name).dtype
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_every_clip_comes_back(folder: Path) -> None:
    store = DecodedStore(folder)
    assert store.ids() == list(store) == [f"c{n}" for n in range(COUNT)]
    assert len(store) == COUNT
    for number in (COUNT - 1, 0, SHARD_CLIPS, SHARD_CLIPS - 1):
        assert_same(store[f"c{number}"], decoded(number))


def test_membership_and_clips(folder: Path) -> None:
    store = DecodedStore(folder)
    assert "c0" in store
    assert "bad" not in store
    assert [c.sha256 for c in store.clips()] == [f"sha{n}" for n in range(COUNT)]


def test_pickles_as_its_path(folder: Path) -> None:
    store = DecodedStore(folder)
    assert store["c1"].clip_id == "c1"
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert_same(pickle.loads(data)["c5"], decoded(5))


def test_threads_share_it(folder: Path) -> None:
    store = DecodedStore(folder)
    with ThreadPoolExecutor(8) as pool:
        clips = list(pool.map(store.__getitem__, store.ids()))
    for number, clip in enumerate(clips):
        assert_same(clip, decoded(number))


def test_absent_clips_say_why(folder: Path) -> None:
    store = DecodedStore(folder)
    with pytest.raises(StageError, match=r"'bad'.*corrupt.*broken"):
        store["bad"]
    with pytest.raises(StageError, match="another corpus"):
        store["other"]


def test_an_unfinished_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="avere-ray decode"):
        DecodedStore(tmp_path).ids()


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "decoded", stage="decode", key="k")
    stage.begin()
    writer = ShardWriter(stage.path)
    writer.add(to_table(DecodedClip, [decoded(0)]), "x")
    writer.close()
    stage.finish(inputs=1, used=1)
    (stage.path / shard_name(0)).unlink()
    with pytest.raises(StageError, match="shard-00000"):
        DecodedStore(stage.path)["c0"]
