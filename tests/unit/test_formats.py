"""Preference data in and out: round trips, foreign rows, and what a prompt asks about."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from foreignrows import ASKED, AVERE, IMPLICIT, SWIFT, TRL, VERL, put, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avere_ray.formats import NATIVE, PreferenceData, find_format, write_data
from avere_ray.modality import made_swap
from avere_ray.records import Clip, Cue, ModalitySwap, PreferencePair, Query, Reject, RejectKind
from avere_ray.rows import read_rows
from avere_ray.stages import write_records

SUFFIX = {"swift": ".jsonl", "avere": ".json", "verl_omni": ".parquet", "trl": ".jsonl"}
FILES = [*SUFFIX.items(), ("trl", ".parquet"), (NATIVE, "")]
SPURIOUS, HALLUCINATED = RejectKind.SPURIOUS, RejectKind.HALLUCINATED


# Our records, through every format and back -----------------------------------------------------------------------

words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=40).filter(
    lambda t: t.strip() and "<" not in t
)
clips = st.lists(
    st.tuples(st.sampled_from(["a/x.mp4", "b/x.mp4", "y.mp4", "z z.mp4"]), st.sampled_from(["", "s.wav", "t.wav"])),
    min_size=2,
    max_size=4,
)


@st.composite
def data_sets(draw: st.DrawFn) -> PreferenceData:
    files = draw(clips)
    table = {f"c{i}": Clip(clip_id=f"c{i}", uri=u, audio_uri=a, emotion=draw(st.sampled_from(["", "anger"])),
                           caption=draw(words), split=draw(st.sampled_from(["train", "test"])))
             for i, (u, a) in enumerate(files)}  # fmt: skip
    data = PreferenceData(root=Path("/media/root"))
    for number in range(draw(st.integers(1, 4))):
        data.pairs.append(draw(pairs(number, sorted(table))))
        pair = data.pairs[-1]
        if draw(st.booleans()):
            data.queries[pair.query_id] = Query(
                query_id=pair.query_id, clip_id=pair.clip_id, modality=pair.modality, task="t", prompt=pair.prompt,
                choices=("(A) x", "(B) y"), answer="B", modality_confidence=0.5)  # fmt: skip
    used = {c for p in data.pairs for c in _ids(p)}
    data.clips = {name: clip for name, clip in table.items() if name in used}
    return data


def _ids(pair: PreferencePair) -> set[str]:
    swap = [] if pair.swap is None or pair.swap.seed else [pair.swap.audio_clip_id, pair.swap.video_clip_id]
    return {pair.clip_id, *swap}


@st.composite
def pairs(draw: st.DrawFn, number: int, names: list[str]) -> PreferencePair:
    own, other, third = (draw(st.sampled_from(names)) for _ in range(3))
    modality = draw(st.sampled_from(["audio", "video", "audio_video"]))
    swap: ModalitySwap | None = None
    kind = draw(st.sampled_from(["none", "made", "clip"]))
    if kind == "made":
        swap = made_swap(modality, "diffusion", own, seed=draw(st.integers(1, 99)), level=0.25)
    elif kind == "clip":
        swap = ModalitySwap(
            modality=modality, strategy="other_emotion",
            audio_clip_id=own if modality == "video" else other,
            video_clip_id=own if modality == "audio" else draw(st.sampled_from([other, third])))  # fmt: skip
    rejects = st.builds(
        Reject, kind=st.sampled_from(RejectKind), text=words, source=st.sampled_from(["rollout", "written"])
    )
    return PreferencePair(
        pair_id=f"p{number}", query_id=f"q{number}", clip_id=own, modality=modality, prompt=draw(words),
        chosen=draw(words), chosen_source=draw(st.sampled_from(["rollout", "reference"])),
        rejects=tuple(draw(st.lists(rejects, min_size=1, max_size=4))), swap=swap)  # fmt: skip


def shows_itself(pair: PreferencePair, clips_: dict[str, Clip]) -> bool:
    """Whether a swap to another clip shows the same files all the same, which a foreign format cannot say."""
    if pair.swap is None or pair.swap.seed:
        return False
    own, seen, heard = (clips_[c] for c in (pair.clip_id, pair.swap.video_clip_id, pair.swap.audio_clip_id))
    return (seen.uri, heard.audio_uri or heard.uri) == (own.uri, own.audio_uri or own.uri)


@pytest.mark.parametrize(("form", "suffix"), FILES)
@settings(deadline=None, max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=data_sets())
def test_records_come_back_as_they_left(tmp_path: Path, form: str, suffix: str, data: PreferenceData) -> None:
    if form != NATIVE:
        data.pairs = [p for p in data.pairs if not shows_itself(p, data.clips)] or [
            PreferencePair(pair_id="p", query_id="q", clip_id=next(iter(data.clips)), modality="audio", prompt="?",
                           chosen="x", chosen_source="rollout",
                           rejects=(Reject(kind=SPURIOUS, text="y", source="rollout"),), swap=None)
        ]  # fmt: skip
    path = tmp_path / f"data{suffix}"
    write_data(path, data, form)
    assert find_format(path) == form
    back, ledger = read(path)
    assert ledger.drops == []
    assert back.pairs == data.pairs
    asked = {p.query_id for p in data.pairs}
    assert {q: back.queries[q] for q in data.queries if q in asked} == {
        q: query for q, query in data.queries.items() if q in asked
    }
    used = {c for p in data.pairs for c in _ids(p)}
    assert {c: back.media(c) for c in used} == {c: data.media(c) for c in used}
    for c in used:
        assert dataclasses.replace(back.clips[c], uri="", audio_uri="") == dataclasses.replace(
            data.clips[c], uri="", audio_uri=""
        )


@pytest.mark.parametrize("form", ["swift", "trl", "verl_omni"])
def test_the_rows_of_a_pair_may_stand_anywhere_and_some_may_be_gone(tmp_path: Path, form: str) -> None:
    texts = {"one": SPURIOUS, "two": HALLUCINATED, "three": SPURIOUS}
    data = PreferenceData(root=Path("/media"), clips={c: Clip(clip_id=c, uri=f"{c}.mp4") for c in "ab"})
    data.pairs = [
        PreferencePair(pair_id=f"p{n}", query_id=f"q{n}", clip_id="a", modality="video", prompt="?", chosen="x",
                       chosen_source="rollout", swap=ModalitySwap(modality="video", strategy="other_emotion",
                                                                  audio_clip_id="a", video_clip_id="b"),
                       rejects=tuple(Reject(kind=k, text=t, source="rollout") for t, k in texts.items()))
        for n in range(3)
    ]  # fmt: skip
    first = tmp_path / f"first{SUFFIX[form]}"
    write_data(first, data, form)
    rows = [row for _, row in read_rows(first)]
    random.Random(1).shuffle(rows)
    back, _ = read(put(tmp_path / f"mixed{SUFFIX[form]}", *rows), form)
    assert sorted(back.pairs, key=lambda p: p.pair_id) == data.pairs
    assert back.inputs == 3

    def own(row: dict[str, Any]) -> dict[str, Any]:
        text = row["extra_info"]["avere_ray"] if form == "verl_omni" else row["avere_ray"]
        return dict(json.loads(text) if isinstance(text, str) else text)

    for branch, text in ((0, "two"), (1, "one"), (2, "three")):
        part = [row for row in rows if own(row)["branch"] == branch]
        split, _ = read(put(tmp_path / f"part{SUFFIX[form]}", *part, part[0]), form)
        assert [(p.rejects[0].kind, p.rejects[0].text) for p in split.pairs] == [(texts[text], text)] * 4
        assert [p.swap for p in split.pairs] == [data.pairs[0].swap] * 4


def test_rows_of_a_pair_that_say_other_things_stay_apart(tmp_path: Path) -> None:
    data, _ = read(put(tmp_path / "a.json", AVERE))
    write_data(tmp_path / "b.jsonl", data, "trl")
    rows = [row for _, row in read_rows(tmp_path / "b.jsonl")]
    rows[1]["chosen"][0]["content"][0]["text"] = "Clenched jaw."
    back, ledger = read(put(tmp_path / "c.jsonl", *rows), "trl")
    assert [(p.chosen, [(r.kind, r.text) for r in p.rejects]) for p in back.pairs] == [
        ("Lowered brows.", [(HALLUCINATED, "Tears.")]),
        ("Clenched jaw.", [(SPURIOUS, "The brown jacket.")]),
    ]
    assert (back.inputs, ledger.drops) == (2, [])


def test_cues_stay_in_our_own_format(tmp_path: Path) -> None:
    data = PreferenceData(root=tmp_path)
    data.clips = {
        "c": Clip(clip_id="c", uri="a.mp4", cues=(Cue(name="frown", modality="video", text="a frown", present=True),))
    }
    data.pairs = [PreferencePair(pair_id="p", query_id="q", clip_id="c", modality="video", prompt="?", chosen="x",
                                 chosen_source="rollout", swap=None,
                                 rejects=(Reject(kind=SPURIOUS, text="y", source="rollout"),))]  # fmt: skip
    write_data(tmp_path / "there", data, NATIVE)
    back, _ = read(tmp_path / "there")
    assert back.clips["c"].cues == data.clips["c"].cues
    assert back.media("c") == data.media("c")


def test_the_pairs_of_a_run_find_their_clips_queries_and_media(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pair = PreferencePair(pair_id="p", query_id="q", clip_id="c", modality="video", prompt="?", chosen="x",
                          chosen_source="rollout", swap=made_swap("video", "noise", "c", seed=3, level=0.0),
                          rejects=(Reject(kind=SPURIOUS, text="y", source="rollout"),))  # fmt: skip
    write_records(run / "decoded/clips.parquet", Clip, [Clip(clip_id="c", uri="sub/a.mp4")])
    write_records(run / "pairs/round=1/pairs.parquet", PreferencePair, [pair])
    query = Query(query_id="q", clip_id="c", modality="video", task="t", prompt="?", answer="B")
    write_records(run / "rollouts/round=1/queries.parquet", Query, [query])
    for config, root in (("data: {clips: null}", run / "clips"), (f"data: {{clips: {tmp_path}}}", tmp_path)):
        (run / "config.yaml").write_text(config)
        back, ledger = read(run / "pairs/round=1")
        assert (back.pairs, back.queries, ledger.drops) == ([pair], {"q": query}, [])
        assert back.media("c").video == str(root / "sub/a.mp4")
    assert read(run / "pairs/round=1/pairs.parquet", media=Path("/m"))[0].media("c").video == "/m/sub/a.mp4"


# Foreign rows -----------------------------------------------------------------------------------------------------


def test_avere(tmp_path: Path) -> None:
    path = put(tmp_path / "dpo.json", AVERE, {**AVERE, "video": "clips_24fps/2.mp4", "audio": "clips_16khz/2.wav",
                                              "video_l": None, "audio_l": None})  # fmt: skip
    data, ledger = read(path)
    assert (find_format(path), ledger.drops) == ("avere", [])
    first, second = data.pairs
    assert (first.prompt, first.chosen, first.modality) == (ASKED, "Lowered brows.", "video")
    assert [(r.kind, r.text) for r in first.rejects] == [(HALLUCINATED, "Tears."), (SPURIOUS, "The brown jacket.")]
    assert data.media(first.clip_id).video == str(tmp_path / "clips_24fps/1.mp4")
    assert data.media(first.clip_id).audio == str(tmp_path / "clips_16khz/1.wav")
    assert first.swap == ModalitySwap(modality="video", strategy="data", audio_clip_id=first.clip_id,
                                      video_clip_id=second.clip_id)  # fmt: skip
    assert second.swap is None
    assert data.queries[first.query_id].modality_confidence == 0.95
    assert data.decided == {"rules": 2}


@pytest.mark.parametrize("kind", list(RejectKind))
def test_avere_gets_two_rejects_of_a_pair_that_has_one(tmp_path: Path, kind: RejectKind) -> None:
    data, _ = read(put(tmp_path / "a.json", {**AVERE, "rejected_2": None}), kinds=(kind,))
    write_data(tmp_path / "b.json", data, "avere")
    (row,) = json.loads((tmp_path / "b.json").read_text())
    assert (row["rejected"], row["rejected_2"]) == ("Tears.", "Tears.")
    assert read(tmp_path / "b.json")[0].pairs == data.pairs
    (edited,) = read(put(tmp_path / "c.json", {**row, "rejected_2": "Else."}))[0].pairs
    assert [(r.kind, r.text) for r in edited.rejects] == [(HALLUCINATED, "Tears."), (SPURIOUS, "Else.")]


def test_trl_with_and_without_a_prompt_column(tmp_path: Path) -> None:
    for row, audio in ((TRL, str(tmp_path / "clips_16khz/1.wav")), (IMPLICIT, "")):
        data, ledger = read(put(tmp_path / "trl.jsonl", row))
        assert ledger.drops == []
        (pair,) = data.pairs
        assert (pair.prompt, pair.chosen, [r.text for r in pair.rejects]) == (ASKED, "Lowered brows.", ["Tears."])
        assert data.media(pair.clip_id).audio == audio
        assert (pair.rejects[0].source, pair.chosen_source) == ("data", "data")


def test_trl_as_parquet(tmp_path: Path) -> None:
    row = {**TRL, "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "Tears."}]}]}
    path = put(tmp_path / "trl.parquet", row)
    assert find_format(path) == "trl"
    assert len(read(path)[0].pairs) == 1


def test_swift_with_rejected_text_and_media(tmp_path: Path) -> None:
    path = put(tmp_path / "swift.jsonl", SWIFT, {**SWIFT, "rejected_response": None,
                                                 "rejected_messages": SWIFT["messages"]})  # fmt: skip
    data, ledger = read(path)
    assert (find_format(path), ledger.drops) == ("swift", [])
    pair = data.pairs[0]
    assert pair.swap is not None
    assert data.media(pair.swap.video_clip_id).video == str(tmp_path / "2.mp4")
    assert pair.swap.audio_clip_id == pair.clip_id
    assert data.pairs[1].rejects[0].text == "Lowered brows."


def test_verl_omni(tmp_path: Path) -> None:
    path = put(tmp_path / "train.parquet", VERL)
    data, ledger = read(path)
    assert (find_format(path), ledger.drops) == ("verl_omni", [])
    assert data.pairs[0].prompt == ASKED
    assert data.media(data.pairs[0].clip_id).video == str(tmp_path / "1.mp4")


def test_verl_omni_with_json_text(tmp_path: Path) -> None:
    once, _ = read(put(tmp_path / "a.parquet", VERL))
    text = {**VERL, "prompt": json.dumps(VERL["prompt"]), "extra_info": json.dumps(VERL["extra_info"])}
    data, ledger = read(put(tmp_path / "b.parquet", text))
    assert (data.pairs, data.clips, ledger.drops) == (once.pairs, once.clips, [])


@pytest.mark.parametrize(
    ("row", "form"), [(AVERE, "avere"), (TRL, "trl"), (SWIFT, "swift"), (VERL, "verl_omni")], ids=lambda v: str(v)[:5]
)
def test_a_foreign_file_keeps_its_meaning_through_our_format(tmp_path: Path, row: dict[str, Any], form: str) -> None:
    first = put(tmp_path / f"first{SUFFIX[form]}", row)
    once, _ = read(first, form)
    write_data(tmp_path / "native", once, NATIVE)
    through, _ = read(tmp_path / "native")
    write_data(tmp_path / f"second{SUFFIX[form]}", through, form)
    again, ledger = read(tmp_path / f"second{SUFFIX[form]}", form)
    assert ledger.drops == []
    assert again.pairs == once.pairs
    assert {c: again.media(c) for c in again.clips} == {c: once.media(c) for c in once.clips}


def test_media_paths_are_relative_to_the_folder_that_was_named(tmp_path: Path) -> None:
    once, _ = read(put(tmp_path / "dpo.json", AVERE), media=Path("/data/corpus"))
    write_data(tmp_path / "out.json", once, "avere", relative_to=Path("/data/corpus"))
    row = json.loads((tmp_path / "out.json").read_text())[0]
    assert {k: row[k] for k in ("video", "audio", "video_l", "audio_l")} == {
        k: AVERE[k] for k in ("video", "audio", "video_l", "audio_l")
    }
    write_data(tmp_path / "out.json", once, "avere")
    assert json.loads((tmp_path / "out.json").read_text())[0]["video"] == "/data/corpus/clips_24fps/1.mp4"


def test_what_stands_in_the_file_wins_over_our_own_field(tmp_path: Path) -> None:
    data, _ = read(put(tmp_path / "dpo.json", AVERE))
    write_data(tmp_path / "out.json", data, "avere")
    row = json.loads((tmp_path / "out.json").read_text())[0]
    edited = {**row, "chosen": "Clenched jaw.", "audio_l": "/else/9.wav"}
    back, _ = read(put(tmp_path / "edited.json", edited))
    assert back.pairs[0].chosen == "Clenched jaw."
    swap = back.pairs[0].swap
    assert swap is not None and swap.modality == "audio_video"
    assert back.media(swap.audio_clip_id).sound == "/else/9.wav"


# What a prompt asks about -----------------------------------------------------------------------------------------


def unclear(**fields: Any) -> dict[str, Any]:
    return {**TRL, "prompt": [{"role": "user", "content": "What does the person feel?"}], **fields}


def test_an_unclear_prompt_is_dropped_unless_someone_says_what_it_asks(tmp_path: Path) -> None:
    path = put(tmp_path / "trl.jsonl", unclear())
    data, ledger = read(path)
    assert (data.pairs, ledger.counts()) == ([], {"modality_unclear": 1})
    assert "trl.jsonl line 1: field prompt = 'What does" in ledger.drops[0].message
    assert read(path, unclear="audio")[0].pairs[0].modality == "audio"
    assert read(path, modality="video")[0].decided == {"override": 1}


@pytest.mark.parametrize(
    ("row", "modality", "confidence", "how"),
    [
        (unclear(modality="audio"), "audio", 1.0, "row"),
        (unclear(rejected_videos=["b.mp4"]), "video", 0.7, "swap"),
        (unclear(rejected_videos=["b.mp4"], rejected_audios=["b.wav"]), "audio_video", 0.7, "swap"),
        (TRL, "video", 0.95, "rules"),
    ],
)
def test_how_the_modality_is_found(
    tmp_path: Path, row: dict[str, Any], modality: str, confidence: float, how: str
) -> None:
    data, _ = read(put(tmp_path / "trl.jsonl", row))
    query = data.queries[data.pairs[0].query_id]
    assert (query.modality, query.modality_confidence, dict(data.decided)) == (modality, confidence, {how: 1})
