"""Reading a folder of clips: both formats, and every way in which a table is wrong."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avere_ray.clip_table import read_clips
from avere_ray.config import DecodeConfig
from avere_ray.data import clips_key
from avere_ray.errors import InputError
from avere_ray.records import Clip, Cue
from avere_ray.stages import write_records

CUE = Cue(name="frown", modality="video", text="a frown", present=True, emotions=("anger",))
CLIPS = [
    Clip(clip_id="b", uri="b.mp4", split="test", emotion="anger", cues=(CUE,)),
    Clip(clip_id="a", uri="media/a.mp4"),
]


def jsonl(folder: Path, *rows: object) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "clips.jsonl").write_text(text, encoding="utf-8")
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_clips(folder)
    return str(caught.value)


def test_parquet_as_written_by_a_stage(tmp_path: Path) -> None:
    write_records(tmp_path / "clips.parquet", Clip, CLIPS)
    assert read_clips(tmp_path) == CLIPS


def test_parquet_with_two_columns_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip_id": ["a"], "uri": ["a.mp4"]}), tmp_path / "clips.parquet")
    assert read_clips(tmp_path) == [Clip(clip_id="a", uri="a.mp4")]


def test_jsonl_with_nulls_and_empty_lines(tmp_path: Path) -> None:
    cue = {"name": "frown", "modality": "video", "text": "a frown", "present": True, "emotions": ["anger"]}
    first = {"clip_id": "b", "uri": "b.mp4", "split": "test", "emotion": "anger", "identity": None, "cues": [cue]}
    assert read_clips(jsonl(tmp_path, first, "", {"clip_id": "a", "uri": "media/a.mp4"})) == CLIPS


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"clip_id": "a", "uri": "a.mp4", "mood": "x"}, ["line 2", "mood", "emotion"]),
        ({"clip_id": "a"}, ["line 2", "uri", "required"]),
        ({"clip_id": 3, "uri": "a.mp4"}, ["line 2", "clip_id", "3", "string"]),
        ({"clip_id": "", "uri": "a.mp4"}, ["line 2", "clip_id", "empty"]),
        ({"clip_id": "x", "uri": "b.mp4"}, ["'x'", "twice", "1 and 2"]),
        ({"clip_id": "a", "uri": "a.mp4", "cues": [{"name": "frown", "loud": True}]}, ["line 2", "loud", "present"]),
        ({"clip_id": "a", "uri": "a.mp4", "cues": [{"name": "frown"}]}, ["line 2", "cues.0.modality"]),
        ("{broken", ["line 2", "JSON"]),
        ("[1]", ["line 2", "JSON object"]),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: object, words: list[str]) -> None:
    message = refused(jsonl(tmp_path, {"clip_id": "x", "uri": "x.mp4"}, row))
    assert [word for word in [str(tmp_path), *words] if word not in message] == []


def test_unknown_parquet_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip_id": ["a"], "uri": ["a.mp4"], "mood": ["x"]}), tmp_path / "clips.parquet")
    assert "'mood'" in refused(tmp_path)


def test_missing_empty_and_tableless_folders(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "no")
    assert "is empty" in refused(tmp_path)
    (tmp_path / "a.mp4").touch()
    assert "has no clip table" in refused(tmp_path)
    assert "lists no clips" in refused(jsonl(tmp_path))


def test_unreadable_tables(tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(tmp_path)
    (tmp_path / "clips.parquet").write_bytes(b"nonsense")
    assert "Parquet" in refused(tmp_path)


def test_key_follows_clips_files_and_sampling_but_not_the_timeout(tmp_path: Path) -> None:
    spec = DecodeConfig()
    (tmp_path / "b.mp4").write_bytes(b"1")
    before = clips_key(CLIPS, tmp_path, spec)
    assert clips_key(CLIPS, tmp_path, spec.model_copy(update={"timeout_s": 1.0})) == before
    (tmp_path / "b.mp4").write_bytes(b"12")
    keys = [
        clips_key(CLIPS, tmp_path, spec),
        clips_key(CLIPS[:1], tmp_path, spec),
        clips_key(CLIPS, tmp_path, spec.model_copy(update={"frames": 3})),
        clips_key(CLIPS, tmp_path, spec.model_copy(update={"max_bytes": 3})),
    ]
    assert len({before, *keys}) == 5
