"""The decode stage around the decoder: each medium once, each clip accounted for, the store kept in order."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipmaker import Recipe, write_clip

from avere_ray import data, decoding
from avere_ray.av_store import AvStore, Place, media_key
from avere_ray.clip_files import decode_media
from avere_ray.config import DataConfig, DecodeConfig
from avere_ray.decoding import DecodePlan, Outcome, decode_rows, may_pass, raise_storage
from avere_ray.errors import ClipDecodeError, StorageError
from avere_ray.media import spec_digest
from avere_ray.records import Clip, DecodedClip, Drop
from avere_ray.stages import StageFolder, file_digest
from avere_ray.store import DecodedStore
from avere_ray.store_keeper import StoreKeeper

SPEC = DecodeConfig()


class Decoder:
    """Stands in for FFmpeg: files that begin with "bad" are refused; remembers what it decoded."""

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def __call__(self, clip: Clip, spec: DecodeConfig, known: frozenset[str]) -> tuple[DecodedClip | None, str]:
        path = Path(clip.uri)
        sha256 = file_digest(path)
        if sha256 in known:
            return None, sha256
        if path.read_bytes().startswith(b"bad"):
            raise ClipDecodeError("corrupt", f"{path}: it is bad")
        self.decoded.append(path.name)
        return DecodedClip(
            clip_id=clip.clip_id,
            spec="s",
            frames=np.full((1, 2, 2, 3), len(path.read_bytes()) % 256, dtype=np.uint8),
            frame_times_s=np.zeros(1, np.float32),
            waveform=np.zeros(3, np.float32),
            duration_s=1.0,
        ), sha256


def corpus(folder: Path, **contents: bytes) -> list[Clip]:
    """One file and clip for each name."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [Clip(clip_id=name, uri=name) for name in contents]


def places_of(store: AvStore) -> dict[str, Place]:
    return store.places(spec_digest(SPEC))


def run(clips: Sequence[Clip], root: Path, store: AvStore, decoder: Any) -> dict[str, Outcome]:
    """Every clip's outcome, as the stage gets it."""
    plan = DecodePlan(clips, root, places_of(store), SPEC)
    outcomes = decode_rows(plan.rows, store, SPEC, decoder)
    back = [Outcome.from_row(outcome.to_row()) for outcome in outcomes]
    assert back == outcomes
    return {clips[i].clip_id: outcome for outcome in back for i in plan.alike(outcome.position)}


def test_a_medium_is_decoded_once_for_all_runs(tmp_path: Path) -> None:
    clips, store, decoder = corpus(tmp_path / "in", a=b"1", b=b"22"), AvStore(tmp_path / "store"), Decoder()
    first = run(clips, tmp_path / "in", store, decoder)
    again = run(clips, tmp_path / "in", store, decoder)
    assert decoder.decoded == ["a", "b"]
    assert [o.decoded for o in first.values()] == [True, True]
    assert [o.decoded for o in again.values()] == [False, False]
    assert {n: o.place for n, o in first.items()} == {n: o.place for n, o in again.items()}


def test_equal_files_of_one_corpus_are_decoded_once(tmp_path: Path) -> None:
    clips = corpus(tmp_path / "in", a=b"same", b=b"diff", c=b"same", d=b"same size", e=b"same")
    clips.append(Clip(clip_id="f", uri="a"))
    decoder = Decoder()
    outcomes = run(clips, tmp_path / "in", AvStore(tmp_path / "store"), decoder)
    assert decoder.decoded == ["a", "b", "d"]
    assert len({outcomes[n].place for n in "acef"}) == 1
    assert outcomes["a"].place != outcomes["b"].place


def test_files_that_differ_between_the_blocks_looked_at_are_different(tmp_path: Path) -> None:
    data = bytes(40_000)
    clips = corpus(tmp_path / "in", a=data, b=data[:10_000] + b"x" + data[10_001:])
    decoder = Decoder()
    run(clips, tmp_path / "in", AvStore(tmp_path / "store"), decoder)
    assert decoder.decoded == ["a", "b"]


def test_a_file_of_the_same_size_as_a_known_one_is_decoded(tmp_path: Path) -> None:
    store, decoder = AvStore(tmp_path / "store"), Decoder()
    run(corpus(tmp_path / "one", a=b"11"), tmp_path / "one", store, decoder)
    outcomes = run(corpus(tmp_path / "two", b=b"22", c=b"11"), tmp_path / "two", store, decoder)
    assert decoder.decoded == ["a", "b"]
    assert [o.decoded for o in outcomes.values()] == [True, False]


def test_a_second_pass_over_many_files_of_one_size_looks_at_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = corpus(tmp_path / "in", **{f"c{n}": f"{n:03d}".encode() for n in range(40)})
    store, decoder = AvStore(tmp_path / "store"), Decoder()
    first = run(clips, tmp_path / "in", store, decoder)
    digest, holds = decoding._digest, AvStore.holds
    looked, asked = list[str](), list[str]()

    def digest_noted(path: Path) -> str | None:
        looked.append(path.name)
        return digest(path)

    def holds_noted(store: AvStore, shards: Collection[str]) -> bool:
        asked.extend(shards)
        return holds(store, shards)

    monkeypatch.setattr(decoding, "_digest", digest_noted)
    (tmp_path / "in" / "c7").write_bytes(b"new")
    plan = DecodePlan(clips, tmp_path / "in", places_of(store), SPEC)
    assert [len(row["known"]) for row in plan.rows] == [int(clip.uri != "c7") for clip in clips]
    assert sorted(looked) == sorted(clip.uri for clip in clips)
    monkeypatch.setattr(AvStore, "touch", holds)
    monkeypatch.setattr(AvStore, "holds", holds_noted)
    outcomes = decode_rows(plan.rows, store, SPEC, decoder)
    assert len(asked) == len({o.place.shard for o in first.values() if o.place})
    assert decoder.decoded == [*(clip.uri for clip in clips), "c7"]
    assert [o.place == first[clips[o.position].clip_id].place for o in outcomes] == [c.uri != "c7" for c in clips]


def test_many_sounds_of_one_video_are_found_again(tmp_path: Path) -> None:
    corpus(tmp_path / "in", v=b"video")
    sounds = corpus(tmp_path / "in", **{f"s{n:02d}": f"{n}".encode() for n in range(12)})
    clips = [Clip(clip_id=sound.clip_id, uri="v", audio_uri=sound.uri) for sound in sounds]
    store = AvStore(tmp_path / "store")
    keys = ["+".join(file_digest(tmp_path / "in" / uri) for uri in (c.uri, c.audio_uri)) for c in clips]
    (medium, _) = Decoder()(Clip(clip_id="v", uri=str(tmp_path / "in/v")), SPEC, frozenset())
    assert medium is not None
    places = store.add(spec_digest(SPEC), [(key, 5, medium) for key in keys])
    plan = DecodePlan(clips, tmp_path / "in", places_of(store), SPEC)
    assert [[known["row"] for known in row["known"]] for row in plan.rows] == [[place.row] for place in places]


def test_parts_of_one_file_are_media_of_their_own(tmp_path: Path) -> None:
    (whole,) = corpus(tmp_path / "in", a=b"1")
    clips = [whole, *(dataclasses.replace(whole, clip_id=f"p{i}", start_s=float(i), end_s=i + 1.0) for i in range(2))]
    store, decoder = AvStore(tmp_path / "store"), Decoder()
    first = run(clips, tmp_path / "in", store, decoder)
    assert decoder.decoded == ["a"] * 3
    assert set(places_of(store)) == {media_key(file_digest(tmp_path / "in" / "a"), c.start_s, c.end_s) for c in clips}
    again = run(clips, tmp_path / "in", store, decoder)
    assert decoder.decoded == ["a"] * 3
    assert {n: o.place for n, o in first.items()} == {n: o.place for n, o in again.items()}


def test_a_refused_file_costs_only_the_clips_that_show_it(tmp_path: Path) -> None:
    clips = corpus(tmp_path / "in", a=b"1", b=b"bad", c=b"bad", d=b"4")
    outcomes = run(clips, tmp_path / "in", AvStore(tmp_path / "store"), Decoder())
    assert [outcomes[n].reason for n in "abcd"] == ["", "corrupt", "corrupt", ""]
    assert outcomes["b"].bytes == 3
    assert outcomes["b"].place is None


def test_what_the_store_gave_up_meanwhile_is_decoded_again(tmp_path: Path) -> None:
    clips, store, decoder = corpus(tmp_path / "in", a=b"1"), AvStore(tmp_path / "store"), Decoder()
    run(clips, tmp_path / "in", store, decoder)
    plan = DecodePlan(clips, tmp_path / "in", places_of(store), SPEC)
    next((tmp_path / "store").glob("*/*.parquet")).unlink()
    assert decode_rows(plan.rows, store, SPEC, decoder)[0].decoded
    assert decoder.decoded == ["a", "a"]


def test_what_the_store_gives_up_while_files_are_read_is_decoded_again(tmp_path: Path) -> None:
    clips, store, decoder = corpus(tmp_path / "in", a=b"1"), AvStore(tmp_path / "store"), Decoder()
    run(clips, tmp_path / "in", store, decoder)

    def slow(clip: Clip, spec: DecodeConfig, known: frozenset[str]) -> tuple[DecodedClip | None, str]:
        if known:
            for path in (tmp_path / "store").glob("*/*.*"):
                path.unlink()
        return decoder(clip, spec, known)

    plan = DecodePlan(clips, tmp_path / "in", places_of(store), SPEC)
    (outcome,) = decode_rows(plan.rows, store, SPEC, slow)
    assert outcome.decoded and outcome.place and store.holds([outcome.place.shard])


def test_the_keeper_looks_for_leftovers_once_and_not_with_every_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, swept = AvStore(tmp_path / "store"), list[int]()
    monkeypatch.setattr(AvStore, "_sweep", lambda self: swept.append(1))
    keeper = StoreKeeper(store, tmp_path / "run/decoded", quota_bytes=10**9)
    for _ in range(3):
        keeper.close()
    assert swept == [1]


def test_what_is_too_long_now_is_asked_of_the_decoder_again(tmp_path: Path) -> None:
    clips, store, decoder = corpus(tmp_path / "in", a=b"1"), AvStore(tmp_path / "store"), Decoder()
    run(clips, tmp_path / "in", store, decoder)
    plan = DecodePlan(clips, tmp_path / "in", places_of(store), SPEC)
    for limit, times in ((1.0, 1), (0.9, 2)):
        decode_rows(plan.rows, store, SPEC.model_copy(update={"max_duration_s": limit}), decoder)
        assert decoder.decoded == ["a"] * times


def test_large_media_fill_shards_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SHARD_BYTES", 40)
    clips = corpus(tmp_path / "in", **{f"c{n}": bytes(n + 1) for n in range(5)})
    outcomes = run(clips, tmp_path / "in", AvStore(tmp_path / "store"), Decoder())
    shards = [o.place.shard for o in outcomes.values() if o.place]
    assert [shards.count(s) for s in dict.fromkeys(shards)] == [2, 2, 1]


def test_a_store_that_cannot_be_written_stops_the_stage(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    outcomes = run(corpus(tmp_path / "in", a=b"1"), tmp_path / "in", AvStore(tmp_path / "store"), Decoder())
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/store"):
        raise_storage(outcomes["a"])


@pytest.mark.parametrize(
    ("reason", "local", "remote"),
    [
        ("timeout", True, True),
        ("decoder_crashed", True, True),
        ("out_of_memory", True, True),
        ("unreadable", True, True),
        ("remote_unreachable", False, True),
        ("file_missing", False, True),
        ("corrupt", False, False),
        ("too_long", False, False),
    ],
)
def test_what_another_attempt_may_not_meet_again(reason: str, local: bool, remote: bool) -> None:
    clips = [
        Clip(clip_id="l", uri="a.mp4"),
        Clip(clip_id="r", uri="s3://b/a"),
        Clip(clip_id="s", uri="a", audio_uri="s3://b/a"),
    ]
    drops = [Drop(sample_id=c.clip_id, stage="decode", reason=reason, message="m") for c in clips]
    expected = ["l"] * local + ["r", "s"] * remote
    assert [drop.sample_id for drop in may_pass(drops, clips)] == expected


def test_missing_and_unreadable_files_reach_the_decoder(tmp_path: Path) -> None:
    clips = [Clip(clip_id=name, uri="not/there") for name in ("a", "b")]
    plan = DecodePlan(clips, tmp_path, {}, SPEC)
    assert [row["position"] for row in plan.rows] == [0]
    assert plan.alike(0) == [0, 1]


def test_the_keeper_pins_counts_and_holds_the_quota(tmp_path: Path) -> None:
    store = AvStore(tmp_path / "store")
    owner = tmp_path / "run" / "decoded"
    owner.mkdir(parents=True)
    outcomes = run(corpus(tmp_path / "in", a=b"1", b=b"22"), tmp_path / "in", store, Decoder())
    keeper = StoreKeeper(store, owner, quota_bytes=10**9)
    for outcome in outcomes.values():
        keeper.note(outcome.place, decoded=outcome.decoded)
    keeper.note(None, decoded=False)
    keeper.close()
    assert keeper.counts() == {"decoded": 2, "found": 0}
    assert store.owners() == {str(owner): {o.place.shard for o in outcomes.values() if o.place}}
    small = StoreKeeper(store, owner, quota_bytes=1)
    with pytest.raises(StorageError, match=r"data\.store_gb"):
        small.note(outcomes["a"].place, decoded=True)


def test_what_a_resumed_run_is_likely_to_need_is_held_from_its_beginning(tmp_path: Path) -> None:
    store, owner = AvStore(tmp_path / "store"), tmp_path / "run" / "decoded"
    owner.mkdir(parents=True)
    run(corpus(tmp_path / "in", a=b"1"), tmp_path / "in", store, Decoder())
    outcomes = run(corpus(tmp_path / "in", b=b"2", c=b"333"), tmp_path / "in", store, Decoder())
    one, two = sorted({place.shard for place in places_of(store).values()}, key=lambda s: s == shard_of(outcomes["c"]))
    store.pin(owner, [one])
    likely = DecodePlan(corpus(tmp_path / "in", a=b"1"), tmp_path / "in", places_of(store), SPEC).likely_shards()
    assert likely == {one, two}
    keeper = StoreKeeper(store, owner, 10**9, likely)
    assert store.owners() == {str(owner): {one, two}}
    keeper.note(outcomes["c"].place, decoded=False)
    keeper.close()
    assert store.owners() == {str(owner): {two}}


def shard_of(outcome: Outcome) -> str:
    assert outcome.place is not None
    return outcome.place.shard


def test_the_keeper_tells_what_is_gone_and_does_not_count_it(tmp_path: Path) -> None:
    store = AvStore(tmp_path / "store")
    outcomes = run(corpus(tmp_path / "in", a=b"1"), tmp_path / "in", store, Decoder())
    keeper = StoreKeeper(store, tmp_path / "run" / "decoded", quota_bytes=10**9)
    store.shard_path(shard_of(outcomes["a"])).unlink()
    assert not keeper.note(outcomes["a"].place, decoded=True)
    assert keeper.counts() == {"decoded": 0, "found": 0}


def test_media_given_up_before_their_turn_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    clips = [Clip(clip_id=name, uri=f"{name}.mp4") for name in ("a", "b")]
    for number, clip in enumerate(clips):
        write_clip(tmp_path / "in" / clip.uri, Recipe(tones_hz=(300.0 + number,)))
    store, lost = AvStore(tmp_path / "store"), list[Path]()

    def outcomes(plan: DecodePlan, store: AvStore, cfg: DataConfig) -> Iterator[Outcome]:
        arrived = decode_rows(plan.rows, store, cfg.decode, decode_media)
        for path in store.folder.glob("*/*.parquet"):
            path.unlink()
            lost.append(path)
        yield from arrived

    monkeypatch.setattr(data, "_outcomes", outcomes)
    monkeypatch.setattr(data, "decode_isolated", decode_media)
    cfg = DataConfig(decode=DecodeConfig(frames=2, height=56, width=56), drop_budget=0.0)
    stage = StageFolder(tmp_path / "run" / "decoded", stage="decode", key="k")
    manifest = data.decode_stage(clips, tmp_path / "in", cfg, store, stage, lambda *_: None)
    assert lost and (manifest.used, manifest.summary["decoded"]) == (2, 2)
    decoded = DecodedStore(stage.path)
    assert [len(decoded[clip.clip_id].frames) for clip in clips] == [2, 2]
