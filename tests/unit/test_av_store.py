"""The AV store keeps what is used, gives up what is not, and shows half-written shards to nobody."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from avere_ray.av_store import AvStore, media_key
from avere_ray.errors import StorageError
from avere_ray.records import DecodedClip

LONG_AGO = time.time() - 90_000


def medium(number: int) -> DecodedClip:
    """Noise, so that every shard takes about 20 kB."""
    rng = np.random.default_rng(number)
    return DecodedClip(
        clip_id="x",
        spec="s",
        frames=rng.integers(0, 256, (2, 56, 56, 3), dtype=np.uint8),
        frame_times_s=np.zeros(2, np.float32),
        waveform=rng.random(500, dtype=np.float32),
        duration_s=1.5,
    )


def taken(store: AvStore, shards: list[str]) -> int:
    """Bytes of these shards."""
    return sum(store.shard_path(shard).stat().st_size for shard in shards)


def filled(folder: Path, count: int = 4, *, aged: bool = True) -> tuple[AvStore, list[str]]:
    """A store with `count` shards of one medium each, the first one used longest ago."""
    store = AvStore(folder)
    shards = [store.add("spec", [(f"k{n}", n, medium(n))])[0].shard for n in range(count)]
    for number, shard in enumerate(shards):
        if aged:
            os.utime(folder / f"{shard}.json", (LONG_AGO + number, LONG_AGO + number))
    return store, shards


def test_places_tell_what_a_spec_has(tmp_path: Path) -> None:
    store = AvStore(tmp_path / "store")
    assert store.places("spec") == {}
    added = store.add("spec", [("a", 7, medium(0)), ("b", 8, medium(1))])
    assert store.places("spec") == {"a": added[0], "b": added[1]}
    assert store.places("other spec") == {}
    found = store.places("spec")["b"].medium
    assert (found.size, found.frames, found.samples, found.duration_s) == (8, 2, 500, 1.5)


def test_two_writers_of_the_same_medium_do_not_meet(tmp_path: Path) -> None:
    one, two = (AvStore(tmp_path).add("spec", [("a", 7, medium(0))])[0] for _ in range(2))
    assert one.shard != two.shard
    assert AvStore(tmp_path).places("spec")["a"] in (one, two)


def test_a_shard_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    store, shards = filled(tmp_path, 2)
    (tmp_path / f"{shards[0]}.json").unlink()
    (tmp_path / f"{shards[1]}.parquet").unlink()
    assert store.places("spec") == {}
    assert not store.holds([shards[0]])
    assert not store.holds([shards[1]])


def test_within_the_quota_nothing_is_removed(tmp_path: Path) -> None:
    store, shards = filled(tmp_path)
    assert store.evict(store.size()) == store.size()
    assert store.holds(shards)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store, shards = filled(tmp_path)
    store.touch([shards[0]])
    left = store.evict(store.size() - 1)
    assert left == store.size()
    assert [store.holds([s]) for s in shards] == [True, False, True, True]


def test_what_a_run_refers_to_stays(tmp_path: Path) -> None:
    store, shards = filled(tmp_path / "store")
    (tmp_path / "run").mkdir()
    store.pin(tmp_path / "run", shards[:2])
    store.evict(taken(store, shards[:2]))
    assert [store.holds([s]) for s in shards] == [True, True, False, False]


def test_a_run_pins_anew(tmp_path: Path) -> None:
    store, shards = filled(tmp_path / "store", 2)
    (tmp_path / "run").mkdir()
    store.pin(tmp_path / "run", shards[:1])
    store.pin(tmp_path / "run", shards[1:])
    store.evict(taken(store, shards[1:]))
    assert [store.holds([s]) for s in shards] == [False, True]


def test_a_run_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    store, shards = filled(tmp_path / "store", 2)
    store.pin(tmp_path / "gone/decoded", shards)
    with pytest.raises(StorageError, match="gone/decoded is not to be seen from here"):  # it may be about to be made
        store.evict(1)
    for pin in (tmp_path / "store/pins").iterdir():
        os.utime(pin, (LONG_AGO, LONG_AGO))
    store.evict(1)
    assert store.size() == 0
    assert store.owners() == {}


def test_a_run_on_a_disk_that_is_not_here_keeps_what_it_refers_to(tmp_path: Path) -> None:
    store, shards = filled(tmp_path / "store", 2)
    owner = tmp_path / "other disk/run/decoded"
    store.pin(owner, shards)
    for pin in (tmp_path / "store/pins").iterdir():
        os.utime(pin, (LONG_AGO, LONG_AGO))
    with pytest.raises(StorageError, match=f"not to be seen from here.*{tmp_path}/store/pins"):
        store.evict(1)
    assert store.holds(shards)
    assert store.owners() == {str(owner): set(shards)}


@pytest.mark.parametrize("use", ["touch", "pin"])
def test_what_is_used_while_others_are_removed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    store, shards = filled(tmp_path / "store")
    (tmp_path / "run").mkdir()
    unlink = Path.unlink

    def used_meanwhile(path: Path, missing_ok: bool = False) -> None:
        if path == store.shard_path(shards[0]):
            if use == "touch":
                store.touch(shards[2:3])
            else:
                store.pin(tmp_path / "run", shards[2:3])
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", used_meanwhile)
    store.evict(taken(store, shards[2:3]))
    assert [store.holds([s]) for s in shards] == [False, False, True, False]


def test_touch_tells_what_is_gone(tmp_path: Path) -> None:
    store, shards = filled(tmp_path / "store", 2)
    assert store.touch(shards)
    store.shard_path(shards[1]).unlink()
    assert not store.touch(shards)


def test_a_tenth_of_the_quota_is_free_after_removing(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "store", 20)
    quota = store.size() - 1
    left = store.evict(quota)
    assert left == store.size()
    assert 0.8 * quota < left <= 0.9 * quota
    assert store.evict(quota) == left


def test_a_quota_that_cannot_be_kept_names_who_uses_it(tmp_path: Path) -> None:
    store, shards = filled(tmp_path / "store", 2)
    (tmp_path / "run").mkdir()
    store.pin(tmp_path / "run", shards)
    with pytest.raises(StorageError, match=rf"data\.store_gb.*{tmp_path}/run.*delete the folders of runs"):
        store.evict(1)
    assert store.holds(shards)


def test_young_shards_stay(tmp_path: Path) -> None:
    store, shards = filled(tmp_path, 2, aged=False)
    with pytest.raises(StorageError, match="just began"):
        store.evict(1)
    assert store.holds(shards)


def test_leftovers_of_killed_writers_are_swept_and_young_ones_are_not(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1)
    old, half, young = (tmp_path / "spec" / name for name in ("a.parquet", "b.parquet.partial", "c.parquet"))
    for path in (old, half, young):
        path.write_bytes(b"x")
    for path in (old, half):
        os.utime(path, (LONG_AGO, LONG_AGO))
    store.evict(10**9)
    assert [p.exists() for p in (old, half, young)] == [False, False, True]
    assert len(store.places("spec")) == 1


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        AvStore(tmp_path / "store").add("spec", [("a", 7, medium(0))])


def test_keys_tell_parts_of_a_file_apart() -> None:
    keys = {media_key("a"), media_key("b"), media_key("a", 0.5), media_key("a", 0.5, 2.0), media_key("a", 0.0, 0.5)}
    assert len(keys) == 5
    assert media_key("a") == "a"
