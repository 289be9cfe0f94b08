"""Readers of corpora, each on a tiny tree of real mp4 files in the corpus's own layout."""

import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avere_ray.config import SourceConfig
from avere_ray.errors import InputError
from avere_ray.evaluation import emorealm
from avere_ray.records import Clip
from avere_ray.sources import SOURCES, Found, media_root, read_source
from avere_ray.synthetic.clips import CorpusSpec, plan_scenes, write_clip

Put = Callable[[str], Path]


@pytest.fixture(scope="session")
def real_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    write_clip(plan_scenes(CorpusSpec(seed=0, train_clips=1, test_clips=0, bias=0.9))[0], path)
    return path


@pytest.fixture
def put(real_mp4: Path, tmp_path: Path) -> Put:
    """Puts a copy of a real mp4 file at a path of the tree."""

    def copy(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real_mp4, path)
        return path

    return copy


def text(root: Path, name: str, *lines: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(root: Path, kind: str, **settings: object) -> Found:
    found = read_source(root, SourceConfig(kind=kind, **settings))  # type: ignore[arg-type]
    for clip in found.clips:
        assert (media_root(root) / clip.uri).is_file()
    return found


def by_id(found: Found) -> dict[str, Clip]:
    return {c.clip_id: c for c in found.clips}


def reasons(found: Found) -> list[tuple[str, str]]:
    return [(d.sample_id, d.reason) for d in found.drops]


def test_ravdess(tmp_path: Path, put: Put) -> None:
    for name in ("01-01-05-02-01-01-03", "01-01-02-01-01-01-03", "02-01-05-02-01-01-03", "01-01-09-01-01-01-03"):
        put(f"Video_Speech_Actor_03/Actor_03/{name}.mp4")
    found = read(tmp_path, "ravdess")
    assert by_id(found)["ravdess-01-01-05-02-01-01-03"] == Clip(
        clip_id="ravdess-01-01-05-02-01-01-03",
        uri="Video_Speech_Actor_03/Actor_03/01-01-05-02-01-01-03.mp4",
        split="train",
        identity="ravdess-actor-03",
        emotion="anger",
        face_emotion="anger",
        voice_emotion="anger",
        source="ravdess",
    )
    assert by_id(found)["ravdess-01-01-02-01-01-01-03"].emotion == "calm"
    assert len(found.clips) == 2
    assert reasons(found) == [("01-01-09-01-01-01-03", "bad_name")]
    assert {c.split for c in read(tmp_path, "ravdess", split="test").clips} == {"test"}
    put("copies/01-01-05-02-01-01-03.mp4")
    assert ("01-01-05-02-01-01-03", "duplicate_id") in reasons(read(tmp_path, "ravdess"))


def dfew_tree(root: Path, put: Put, folder: str) -> None:
    put(f"{folder}/part_1/1.mp4")
    put(f"{folder}/part_1/2.mp4")
    lists = folder.split("/dfew_original")[0] if "/" in folder else "."
    labels = f"{lists}/dfew_annotation" if "dfew" in folder else "EmoLabel_DataSplit"
    text(root, f"{labels}/train(single-labeled)/set_2.csv", "video_name,label", "00001,4", "3,1", ",2")
    text(root, f"{labels}/test(single-labeled)/set_2.csv", "video_name,label", "2,8", "2,7", "2,7")


@pytest.mark.parametrize("folder", ["Clip/original", "dfew/dfew_original_clips_24fps"])
def test_dfew(tmp_path: Path, put: Put, folder: str) -> None:
    dfew_tree(tmp_path, put, folder)
    found = read(tmp_path, "dfew", fold=2)
    lists = next(tmp_path.rglob("train(single-labeled)/set_2.csv"))
    assert [(c.clip_id, c.uri, c.split, c.emotion, c.face_emotion) for c in found.clips] == [
        ("dfew-00001", f"{folder}/part_1/1.mp4", "train", "anger", ""),
        ("dfew-00002", f"{folder}/part_1/2.mp4", "test", "fear", ""),
    ]
    assert reasons(found) == [
        ("3", "missing_media"),
        (f"{lists} line 4", "bad_row"),
        ("2", "unknown_label"),
        ("2", "duplicate_id"),
    ]
    assert "set_2.csv line 3" in found.drops[0].message and "set_2.csv line 2" in found.drops[2].message


def test_a_name_with_two_files_is_dropped(tmp_path: Path, put: Put) -> None:
    dfew_tree(tmp_path, put, "Clip/original")
    put("Clip/original/part_9/00001.mp4")
    found = read(tmp_path, "dfew", fold=2)
    assert ("00001", "ambiguous_media") in reasons(found)
    assert "is both Clip/original/part_1/1.mp4 and Clip/original/part_9/00001.mp4" in found.drops[0].message


def test_dfew_of_another_fold_names_what_is_missing(tmp_path: Path, put: Put) -> None:
    dfew_tree(tmp_path, put, "Clip/original")
    with pytest.raises(InputError, match=r"no train list of fold 1; looked for EmoLabel_DataSplit/train"):
        read(tmp_path, "dfew")


def test_mafw(tmp_path: Path, put: Put) -> None:
    put("data/clips/00001.mp4")
    put("data/clips/00002.mp4")
    (tmp_path / "clips_16khz").mkdir()
    (tmp_path / "clips_16khz/00001.wav").write_bytes(b"RIFF")
    lists = "Train & Test Set/single"
    text(tmp_path, f"{lists}/no_caption/set_1/train.txt", "00001.mp4 helplessness", "00009.mp4 anger", "00002.mp4 awe")
    text(tmp_path, f"{lists}/no_caption/set_1/test.txt", "00002.mp4 neutral", "00002.mp4")
    captioned = tmp_path / lists / "with_caption/set_1/train.txt"
    captioned.parent.mkdir(parents=True)
    captioned.write_bytes("00001.mp4\thelplessness\t一个女生\t".encode("gb18030") + b"A girl shouts, the deep frown.\n")
    found = read(tmp_path, "mafw")
    assert [(c.clip_id, c.split, c.emotion, c.caption, c.audio_uri) for c in found.clips] == [
        ("mafw-00001", "train", "helplessness", "A girl shouts, the deep frown.", "clips_16khz/00001.wav"),
        ("mafw-00002", "test", "neutral", "", ""),
    ]
    assert reasons(found) == [("00009.mp4", "missing_media"), ("00002.mp4", "unknown_label"), ("00002.mp4", "bad_row")]
    assert "train.txt line 3" in found.drops[1].message


def test_mer2023(tmp_path: Path, put: Put) -> None:
    put("train/samplenew_00000001.mp4")
    put("test3/samplenew_00000002.avi")
    text(tmp_path, "train-label.csv", "name,discrete,valence", "samplenew_00000001,worried,-0.5")
    text(tmp_path, "test_labels/test3-label.csv", "name,discrete", "samplenew_00000002,happy", "samplenew_9,sad")
    found = read(tmp_path, "mer2023")
    assert [(c.clip_id, c.split, c.emotion) for c in found.clips] == [
        ("mer2023-samplenew_00000001", "train", "worry"),
        ("mer2023-samplenew_00000002", "test3", "happiness"),
    ]
    assert reasons(found) == [("samplenew_9", "missing_media")]


def test_mer2025_with_descriptions(tmp_path: Path, put: Put) -> None:
    for name in ("a", "b", "c"):
        put(f"video/{name}.mp4")
    text(tmp_path, "track1_train_disdim.csv", "name,discrete,valence", "a,angry,-3", "d,sad,-1")
    text(tmp_path, "track3_train_mercaptionplus.csv", "name,reason", "b,machine words", "c,machine words")
    text(tmp_path, "track3_train_ovmerd.csv", "name,reason", '"c","She frowns, and her voice is low."')
    found = read(tmp_path, "mer2025")
    assert [(c.clip_id, c.emotion, c.caption) for c in found.clips] == [
        ("mer2025-a", "anger", ""),
        ("mer2025-b", "", "machine words"),
        ("mer2025-c", "", "She frowns, and her voice is low."),
    ]
    assert reasons(found) == [("d", "missing_media")]


def test_mer2025_accounts_for_every_line_of_a_list(tmp_path: Path, put: Put) -> None:
    put("video/a.mp4")
    text(tmp_path, "track1_train_disdim.csv", "name,discrete", "a,angry", "a,sad", ",sad", "gone,sad")
    text(tmp_path, "track3_train_ovmerd.csv", "name,reason", "a,first words", "a,other words")
    found = read(tmp_path, "mer2025")
    assert [(c.emotion, c.caption) for c in found.clips] == [("anger", "first words")]
    assert reasons(found) == [("a", "duplicate_id"), ("line 4", "bad_row"), ("a", "duplicate_id"),
                              ("gone", "missing_media")]  # fmt: skip
    assert "line 3: a stands there already, at" in found.drops[0].message
    assert found.listed == len(found.clips) + len(found.drops)


@pytest.mark.parametrize("votes", [False, True])
def test_crema_d(tmp_path: Path, put: Put, votes: bool) -> None:
    put("VideoFlash/1001_DFA_ANG_XX.flv")
    put("VideoFlash/1002_IEO_SAD_HI.flv")
    put("VideoFlash/1002_IEO_XXX_HI.flv")
    if votes:
        header = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"'
        text(tmp_path, "processedResults/summaryTable.csv", header, '"1","1001_DFA_ANG_XX","N","59","A","60","A:D","6"')
    found = read(tmp_path, "crema_d")
    first = by_id(found)["crema_d-1001_DFA_ANG_XX"]
    expected = ("", "anger", "neutral") if votes else ("anger", "anger", "anger")
    assert (first.emotion, first.face_emotion, first.voice_emotion) == expected
    assert first.identity == "crema_d-actor-1001"
    assert by_id(found)["crema_d-1002_IEO_SAD_HI"].emotion == "sadness"
    assert reasons(found) == [("1002_IEO_XXX_HI", "bad_name")]


def test_emorealm_serves_its_own_benchmark(tmp_path: Path, put: Put) -> None:
    dfew_tree(tmp_path, put, "dfew/dfew_original_clips_24fps")
    question = {"task": "reasoning_stress_video", "question": "?", "choices": ["(A) Yes", "(B) No"], "answer": "B"}
    videos = ("part_1/1.mp4", "part_1/2.mp4", "part_1/1.mp4", "part_2/9.mp4", "../../../x.mp4")
    items = [{"id": str(i), "video": v, **question} for i, v in enumerate(videos)]
    text(tmp_path, "EmoReAlM/emorealm_v1.json", json.dumps(items))
    found = read(tmp_path, "emorealm")
    assert [(c.clip_id, c.split, c.emotion) for c in found.clips] == [
        ("dfew-00001", "test", "anger"),
        ("dfew-00002", "test", "fear"),
    ]
    assert [reason for _, reason in reasons(found)] == ["missing_media", "missing_media"]
    queries, drops = emorealm.load(tmp_path / "EmoReAlM/emorealm_v1.json", found.clips)
    assert [q.clip_id for q in queries] == ["dfew-00001", "dfew-00002", "dfew-00001"]
    assert len(drops) == 2


ROWS = [
    {"path": "a.mp4", "label": "HAP", "speaker": 7, "cues": [{"name": "frown", "modality": "video", "text": "a frown",
                                                              "present": True, "emotions": ["anger"]}]},
    {"path": "sub/b.mp4", "label": "sad", "speaker": 8},
    {"path": "gone.mp4", "label": "sad", "speaker": 8},
    {"path": "a.mp4", "label": "sad", "speaker": 8},
    {"path": "", "label": "sad", "speaker": 8},
]  # fmt: skip
COLUMNS = {"uri": "path", "emotion": "label", "identity": "speaker"}


def csv_cell(value: object) -> str:
    return '"' + (json.dumps(value) if isinstance(value, list) else str(value)).replace('"', '""') + '"'


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_manifest_with_a_column_mapping(tmp_path: Path, put: Put, suffix: str) -> None:
    put("a.mp4")
    put("sub/b.mp4")
    table = tmp_path / f"manifest.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), table)
    elif suffix == "csv":
        names = ("path", "label", "speaker", "cues")
        lines = [",".join(csv_cell(r[n]) if n in r else "" for n in names) for r in ROWS]
        text(tmp_path, table.name, ",".join(names), *lines)
    else:
        dumped = [json.dumps(r) for r in ROWS]
        text(tmp_path, table.name, *(dumped if suffix == "jsonl" else [f"[{','.join(dumped)}]"]))
    for place in (table, tmp_path):
        found = read(place, "manifest", columns=COLUMNS, emotions={"HAP": "happy"})
        assert [(c.clip_id, c.uri, c.emotion, c.identity, len(c.cues)) for c in found.clips] == [
            ("a", "a.mp4", "happiness", "7", 1),
            ("sub/b", "sub/b.mp4", "sadness", "8", 0),
        ]
        assert [d.reason for d in found.drops] == ["missing_media", "duplicate_id", "bad_row"]
        where = "line 4" if suffix == "csv" else f"{'line' if suffix == 'jsonl' else 'row'} 3"
        assert f"{table} {where}: field uri = 'gone.mp4'" in found.drops[0].message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"uri": "a.mp4", "cues": "{"}, ["line 1", "cues", "JSON"]),
        ({"uri": "a.mp4", "cues": [{"name": "x"}]}, ["line 1", "cues.0.modality"]),
        ({"uri": "a.mp4", "split": ["x"]}, ["line 1", "split"]),
        ({"uri": "a.mp4", "emotion": ["happy", "sad"]}, ["line 1", "field emotion = ['happy', 'sad']"]),
        ({"uri": ["a.mp4"]}, ["line 1", "field uri = ['a.mp4']"]),
        ({"uri": "a.mp4", "clip_id": {"a": 1}}, ["line 1", "field clip_id = {'a': 1}"]),
        ({"uri": "a.mp4", "audio_uri": "a.wav"}, ["line 1", "audio_uri", "a.wav"]),
        ({"uri": "x" * 300 + ".mp4"}, ["line 1", "field uri = 'xxx", "File name too long"]),
        ({"uri": "a.mp4", "audio_uri": "x/" + "y" * 300}, ["line 1", "field audio_uri = 'x/yyy", "no such file"]),
        ({"uri": "."}, ["line 1", "field uri = '.'", "no such file"]),
    ],
)
def test_a_wrong_manifest_row_is_dropped_with_line_and_field(
    tmp_path: Path, put: Put, row: dict[str, object], words: list[str]
) -> None:
    put("a.mp4")
    text(tmp_path, "manifest.jsonl", json.dumps(row))
    (drop,) = read(tmp_path, "manifest").drops
    assert [w for w in ["manifest.jsonl", *words] if w not in drop.message] == []


@pytest.mark.parametrize(
    ("columns", "words"),
    [({"mood": "label"}, ["'mood'", "emotion"]), ({"emotion": "lable"}, ["no column 'lable'", "label, path"]),
     ({}, ["no column 'uri'"])],
)  # fmt: skip
def test_a_wrong_column_mapping_is_refused(tmp_path: Path, columns: dict[str, str], words: list[str]) -> None:
    text(tmp_path, "manifest.csv", "path,label", "a.mp4,sad")
    with pytest.raises(InputError) as caught:
        read(tmp_path, "manifest", columns=columns)
    assert [w for w in words if w not in str(caught.value)] == []


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_an_empty_or_missing_folder_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"Set data\.clips|set data\.clips"):
        read(tmp_path, kind)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "gone", kind)


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_every_reader_documents_its_layout(kind: str) -> None:
    told = importlib.import_module(SOURCES[kind].read.__module__).__doc__ or ""
    files = re.findall(r"^    .*\.(?:mp4|avi|flv)\b", told, re.MULTILINE)
    assert "Annotated: " in told
    assert files or (kind == "manifest" and "manifest.csv" in told)
