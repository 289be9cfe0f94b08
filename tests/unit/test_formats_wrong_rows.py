"""Every way in which a row of preference data is wrong: dropped with file, row and field, or refused."""

from pathlib import Path
from typing import Any

import pytest
from foreignrows import ASKED, AVERE, SWIFT, TRL, VERL, put, read

from avere_ray.errors import InputError
from avere_ray.formats import NATIVE, write_data
from avere_ray.records import PreferencePair


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != name}


SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED}]
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("form", "row", "reason", "words"),
    [
        ("avere", without(AVERE, "chosen"), "bad_row", "field chosen = None"),
        ("avere", {**AVERE, "rejected_2": " "}, "bad_row", "field rejected_2"),
        ("avere", {**AVERE, "prompt": ASKED}, "bad_row", "must begin with"),
        ("avere", {**AVERE, "video_l": AVERE["video"]}, "same_media", "rejected media are those of the row"),
        ("trl", without(TRL, "rejected"), "bad_row", "field rejected"),
        ("trl", without(TRL, "videos"), "no_video", "audio alone"),
        ("trl", {**TRL, "videos": [], "audios": []}, "no_media", "no media"),
        ("trl", {**TRL, "videos": ["a.mp4", "b.mp4"]}, "many_media", "field videos has 2 files"),
        ("trl", {**TRL, "videos": [3]}, "bad_row", "field videos = [3]"),
        ("trl", {**TRL, "images": ["a.png"]}, "unsupported_media", "image"),
        ("trl", {**TRL, "prompt": SYSTEM}, "system_message", "--ignore-system"),
        ("trl", {**TRL, "prompt": TURNS}, "multi_turn", "3 turns"),
        ("trl", {**TRL, "prompt": 7}, "bad_row", "field prompt = 7"),
        ("trl", {**TRL, "prompt": [{"role": "user", "content": [{"type": "table"}]}]}, "bad_row", "table"),
        ("trl", {**TRL, "chosen": TURNS[:1]}, "bad_row", "must end with a message of the assistant"),
        ("trl", {**TRL, "modality": "smell"}, "bad_row", "field modality = 'smell'"),
        ("trl", {**TRL, "avere_ray": "{"}, "bad_row", "field avere_ray"),
        ("swift", without(SWIFT, "messages"), "bad_row", "field messages"),
        ("swift", without(SWIFT, "rejected_response"), "no_reject", "no rejected response"),
        ("swift", {**SWIFT, "rejected_images": ["a.png"]}, "unsupported_media", "rejected_images"),
        ("trl", {**TRL, "videos": 5}, "bad_row", "field videos = 5"),
        ("trl", {**TRL, "videos": {"path": "a.mp4"}}, "bad_row", "field videos = {'path'"),
        ("trl", {**TRL, "prompt": [{"role": "user", "content": [{"type": "video", "video": {"url": "a"}}]}]}, "bad_row",
         "whose video is no text"),
        ("trl", {**TRL, "prompt": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "bad_row", "no text"),
        ("trl", {**TRL, "avere_ray": {"partners": {"c": "x"}}}, "bad_row", "field avere_ray.partners.c"),
        ("trl", {**TRL, "avere_ray": {"partners": ["c"]}}, "bad_row", "field avere_ray.partners"),
        ("trl", {**TRL, "avere_ray": {"clips": {"c": {"emotion": 5}}}}, "bad_row", "field avere_ray.clips.c.emotion"),
        ("trl", {**TRL, "avere_ray": {"rejects": [{"at": "0", "kind": "spurious", "source": "x"}]}}, "bad_row",
         "field avere_ray.rejects.0.at"),
        ("trl", {**TRL, "avere_ray": {"swap": {"modality": "audio"}}}, "bad_row", "field avere_ray.swap"),
        ("trl", {**TRL, "avere_ray": {"query": 3}}, "bad_row", "field avere_ray.query"),
        ("avere", {**AVERE, "avere_ray": {"more_rejected": 3}}, "bad_row", "field avere_ray.more_rejected"),
        ("verl_omni", {**VERL, "chosen": ""}, "bad_row", "field chosen"),
        ("verl_omni", {**VERL, "extra_info": "{"}, "bad_row", "field extra_info"),
        ("verl_omni", {**VERL, "extra_info": [1]}, "bad_row", "field extra_info = [1]"),
        ("verl_omni", {**VERL, "prompt": "[]"}, "multi_turn", "field prompt has 0 turns"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_dropped_with_file_row_and_field(
    tmp_path: Path, form: str, row: dict[str, Any], reason: str, words: str
) -> None:
    good = {"avere": AVERE, "trl": TRL, "swift": SWIFT, "verl_omni": VERL}[form]
    path = put(tmp_path / f"data{'.json' if form == 'avere' else '.jsonl'}", good, row)
    data, ledger = read(path, form)
    assert len(data.pairs) == 1
    (drop,) = ledger.drops
    assert (drop.reason, drop.sample_id) == (reason, f"{'row' if form == 'avere' else 'line'} 2")
    assert words in drop.message and f"{path}" in drop.message


def test_a_system_message_can_be_left_out(tmp_path: Path) -> None:
    data, ledger = read(put(tmp_path / "trl.jsonl", {**TRL, "prompt": SYSTEM}), ignore_system=True)
    assert (len(data.pairs), ledger.drops, data.pairs[0].prompt) == (1, [], ASKED)


def test_equal_rows_keep_ids_of_their_own(tmp_path: Path) -> None:
    data, _ = read(put(tmp_path / "trl.jsonl", TRL, TRL))
    assert len({p.pair_id for p in data.pairs}) == 2


def test_a_pair_of_an_unknown_clip_is_dropped(tmp_path: Path) -> None:
    data, _ = read(put(tmp_path / "dpo.json", AVERE))
    data.clips.pop(data.pairs[0].swap.video_clip_id)  # type: ignore[union-attr]
    write_data(tmp_path / "native", data, NATIVE)
    back, ledger = read(tmp_path / "native")
    assert back.pairs == []
    assert "pairs.parquet row 1: field swap.video_clip_id" in ledger.drops[0].message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", '{"prompt": 1}', "must be a list of objects"),
        ("a.json", "[1]", "row 1 is a int"),
        ("a.jsonl", '{"a": 1}\n{', "is like none of the formats"),
        ("a.jsonl", '{"messages": 1', "line 1 is not JSON"),
        ("a.jsonl", "", "has no rows"),
        ("a.txt", "x", "has the suffix '.txt'"),
        ("a.parquet", "x", "must be a Parquet file"),
        ("a.csv", "a,a\n1,2", "the column 'a' twice"),
        ("a.csv", "a,b\n1", "line 2 has 1 values, the header 2"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    assert words in str(caught.value)


def test_a_wrong_target_is_refused(tmp_path: Path) -> None:
    data, _ = read(put(tmp_path / "trl.jsonl", TRL))
    with pytest.raises(InputError, match=r"verl_omni is written to \.parquet"):
        write_data(tmp_path / "x.json", data, "verl_omni")
    with pytest.raises(InputError, match="unknown format 'llama'"):
        write_data(tmp_path / "x.json", data, "llama")
    data.pairs[0] = PreferencePair(**{**{n: getattr(data.pairs[0], n) for n in PreferencePair.__slots__},
                                      "prompt": "What is in <video>?"})  # fmt: skip
    with pytest.raises(InputError, match="contains a media tag"):
        write_data(tmp_path / "x.jsonl", data, "trl")
