"""The store gives back exactly what was written, by id, in any process."""

import errno
import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from avere_ray.av_store import AvStore
from avere_ray.errors import StageError
from avere_ray.records import Clip, DecodedClip, Drop
from avere_ray.stages import StageFolder, StageManifest
from avere_ray.store import DecodedStore, hold, is_complete, write_index, write_places

COUNT = 20


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


def stored(run: Path, store: AvStore, count: int, shard: int = 8, order: int = 1) -> StageManifest:
    """A finished decode stage of `count` clips, whose media are in shards of `shard`, written in this order or -1."""
    stage = StageFolder(run / "decoded", stage="decode", key="k")
    stage.begin()
    numbers = list(range(count))[::order]
    places = {}
    for start in range(0, count, shard):
        some = numbers[start : start + shard]
        for n, place in zip(some, store.add("spec", [(f"sha{n}", n, decoded(n)) for n in some]), strict=True):
            places[f"c{n}"] = place
    clips = [Clip(clip_id=f"c{n}", uri="u", sha256=f"sha{n}") for n in range(count)]
    write_index(stage.path, clips, places)
    stage.write("clips", Clip, clips)
    drop = Drop(sample_id="bad", stage="decode", reason="corrupt", message="bad.mp4 is broken")
    manifest = stage.finish(inputs=count + 1, used=count, drops=[drop])
    write_places(stage.path, store, {c.clip_id: places[c.clip_id] for c in clips})
    return manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    stored(root / "run", AvStore(root / "store"), COUNT)
    return root / "run" / "decoded"


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
    for number in (COUNT - 1, 0, 8, 7):
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


def test_a_clip_has_its_own_id_and_the_medium_another_name(folder: Path) -> None:
    assert DecodedStore(folder)["c3"].clip_id == "c3"
    assert sorted(AvStore(folder.parent.parent / "store").places("spec"))[0] == "sha0"


def test_durations(folder: Path) -> None:
    assert DecodedStore(folder).durations_s() == {f"c{n}": n / 10 for n in range(COUNT)}


def test_a_lost_shard_is_named_with_what_to_do(tmp_path: Path) -> None:
    store = AvStore(tmp_path / "store")
    stored(tmp_path / "run", store, 1)
    assert is_complete(tmp_path / "run" / "decoded")
    lost = next((tmp_path / "store" / "spec").glob("*.parquet"))
    lost.unlink()
    assert not is_complete(tmp_path / "run" / "decoded")
    with pytest.raises(StageError, match=f"{lost.name}.*Run `avere-ray decode`"):
        DecodedStore(tmp_path / "run" / "decoded")["c0"]


@pytest.mark.parametrize("where", ["media", "footer"])
def test_a_damaged_shard_is_given_up_when_it_is_read(tmp_path: Path, where: str) -> None:
    store, folder = AvStore(tmp_path / "store"), tmp_path / "run" / "decoded"
    stored(tmp_path / "run", store, 2, shard=1)
    places = store.places("spec")
    damaged = store.shard_path(places["sha0"].shard)
    data = bytearray(damaged.read_bytes())
    columns = pq.ParquetFile(damaged).metadata.row_group(0)
    frames = max((columns.column(i) for i in range(columns.num_columns)), key=lambda c: c.total_compressed_size)
    at = frames.data_page_offset + frames.total_compressed_size - 1 if where == "media" else len(data) - 20
    data[at] ^= 1
    damaged.write_bytes(data)
    assert is_complete(folder)  # its size is right, and nothing was read yet
    with pytest.raises(StageError, match=f"{damaged.name}.*given it up.*Run `avere-ray decode`"):
        DecodedStore(folder)["c0"]
    assert not is_complete(folder)
    assert store.places("spec") == {"sha1": places["sha1"]}
    assert_same(DecodedStore(folder)["c1"], decoded(1))


def test_a_shard_that_was_cut_does_not_exist(tmp_path: Path) -> None:
    store = AvStore(tmp_path / "store")
    stored(tmp_path / "run", store, 2, shard=1)
    places = store.places("spec")
    cut = store.shard_path(places["sha1"].shard)
    cut.write_bytes(cut.read_bytes()[:-1])
    assert not is_complete(tmp_path / "run" / "decoded")
    assert list(store.places("spec")) == ["sha0"]
    assert not store.touch([places["sha1"].shard])


def test_a_shard_that_another_error_hides_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path / "run", AvStore(tmp_path / "store"), 1)

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.ParquetFile", busy)
        with pytest.raises(StageError, match="Too many open files"):
            DecodedStore(tmp_path / "run" / "decoded")["c0"]
    assert_same(DecodedStore(tmp_path / "run" / "decoded")["c0"], decoded(0))


def test_a_shard_of_a_former_version_is_read_and_when_damaged_named_for_deletion(tmp_path: Path) -> None:
    store, folder = AvStore(tmp_path / "store"), tmp_path / "run" / "decoded"
    stored(tmp_path / "run", store, 1)
    (manifest,) = (tmp_path / "store" / "spec").glob("*.json")
    manifest.write_text(json.dumps({"media": json.loads(manifest.read_text())["media"]}))
    assert is_complete(folder)
    assert list(store.places("spec")) == ["sha0"]
    assert_same(DecodedStore(folder)["c0"], decoded(0))
    shard = manifest.with_suffix(".parquet")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StageError, match=f"delete {shard}"):
        DecodedStore(folder)["c0"]
    shard.unlink()
    assert not is_complete(folder)


def test_where_the_media_are_is_no_part_of_the_result(tmp_path: Path) -> None:
    one = stored(tmp_path / "one", AvStore(tmp_path / "store"), 6, shard=2)
    two = stored(tmp_path / "two", AvStore(tmp_path / "store"), 6, shard=3, order=-1)
    assert one.output_digest == two.output_digest
    for name in ("one", "two"):
        assert_same(DecodedStore(tmp_path / name / "decoded")["c4"], decoded(4))


def test_a_project_folder_may_move(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    stored(tmp_path / "old" / "run", AvStore(tmp_path / "old" / "store"), 2)
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert_same(DecodedStore(tmp_path / "new" / "run" / "decoded")["c1"], decoded(1))


def test_a_run_finds_a_store_far_away_after_it_moves(tmp_path: Path) -> None:
    (tmp_path / "runs" / "deep").mkdir(parents=True)
    stored(tmp_path / "runs" / "deep" / "run", AvStore(tmp_path / "elsewhere"), 2)
    shutil.move(tmp_path / "runs" / "deep" / "run", tmp_path / "run")
    assert_same(DecodedStore(tmp_path / "run" / "decoded")["c1"], decoded(1))


def test_a_run_that_was_renamed_holds_its_media_again(tmp_path: Path) -> None:
    store = AvStore(tmp_path / "store")
    stored(tmp_path / "old", store, 4, shard=2)
    shards = {place.shard for place in store.places("spec").values()}
    shutil.move(tmp_path / "old", tmp_path / "new")
    used = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "spec").glob("*.json")}
    for path in used:
        os.utime(path, (0, 0))
    assert hold(tmp_path / "new" / "decoded")
    assert store.owners() == {str(tmp_path / "new" / "decoded"): shards}
    assert all(path.stat().st_mtime_ns >= before for path, before in used.items())
    store.shard_path(min(shards)).unlink()
    assert not hold(tmp_path / "new" / "decoded")


def test_damaged_places_are_named(tmp_path: Path) -> None:
    stored(tmp_path / "run", AvStore(tmp_path / "store"), 1)
    (tmp_path / "run" / "decoded" / "places.parquet").write_bytes(b"no table")
    with pytest.raises(StageError, match=r"places\.parquet.*avere-ray decode"):
        DecodedStore(tmp_path / "run" / "decoded").ids()
