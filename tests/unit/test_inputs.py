"""What a run is refused for before it starts, and the doctor's word for the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from avere_ray.config import RunConfig
from avere_ray.errors import AvereError, ConfigError, DropBudgetExceeded, InputError, ModelError
from avere_ray.records import Clip, Cue, Query
from avere_ray.stages import write_records
from avere_ray.synthetic import speech
from jobs import pipeline
from jobs.inputs import Inputs, check_inputs

JUDGE_URL = "https://judge.example/v1"
QUESTION = {"id": "1", "video": "b.mp4", "task": "reasoning_stress_video", "question": "Is it?",
            "choices": ["(A) Yes", "(B) No"], "answer": "B"}  # fmt: skip


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with the table of two clips and a question about one."""
    folder = tmp_path / "clips"
    frown = Cue(name="frown", modality="video", text="a frown", present=True, emotions=("anger",))
    rows = [
        Clip(clip_id="a", uri="a.mp4", split="train", emotion="anger", cues=(frown,)),
        Clip(clip_id="b", uri="b.mp4", split="test", emotion="sadness"),
    ]
    write_records(folder / "clips.parquet", Clip, rows)
    (folder / "emorealm.json").write_text(json.dumps([QUESTION]))
    return folder


def config(folder: Path, **settings: Any) -> RunConfig:
    return RunConfig.model_validate({"run_dir": folder / "run", **settings})


def failures(cfg: RunConfig) -> list[tuple[str, str]]:
    return [(f.what, f.remedy) for f in Inputs(cfg).findings() if f.level == "fail"]


def refused(cfg: RunConfig, kind: type[AvereError], words: str, remedy: str) -> None:
    """The pipeline ends with this before it writes anything, and the doctor says so and what to do."""
    with pytest.raises(kind, match=words) as caught:
        pipeline.run(cfg)
    assert not cfg.run_dir.exists()
    [(what, todo)] = failures(cfg)
    assert what == str(caught.value)
    assert remedy in todo


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("the run has started")

    monkeypatch.setattr("avere_ray.tracking.Tracker", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_inputs_that_are_there_are_counted(clips: Path, tmp_path: Path) -> None:
    write_records(
        tmp_path / "q.parquet", Query, [Query(query_id="1", clip_id="a", modality="video", task="t", prompt="p")]
    )
    cfg = config(tmp_path, data={"clips": clips, "queries": tmp_path / "q.parquet"})
    check_inputs(cfg)
    inputs = Inputs(cfg)
    found = list(inputs.findings())
    assert {f.level for f in found} == {"ok"}
    assert inputs.count == 2
    said = " ".join(f.what for f in found)
    assert all(words in said for words in ("2 clips listed", "1 training queries", "1 held-out questions (emorealm)"))


def test_of_a_drawn_world_nothing_has_to_be_there(tmp_path: Path) -> None:
    cfg = config(tmp_path, world={"train_clips": 7, "test_clips": 3})
    check_inputs(cfg)
    [finding] = Inputs(cfg).findings()
    assert (finding.level, "10 clips" in finding.what) == ("ok", True)


def test_clips_that_cannot_be_read_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "emorealm.json").write_text("[]")
    cfg = config(tmp_path, data={"clips": tmp_path / "none", "benchmark": tmp_path / "emorealm.json"})
    refused(cfg, InputError, r"none", "set data.clips to a folder")


def test_held_out_questions_that_are_missing(clips: Path, tmp_path: Path) -> None:
    (clips / "emorealm.json").unlink()
    words = r"no held-out questions of emorealm at .*clips/emorealm\.json. Set data\.benchmark"
    refused(config(tmp_path, data={"clips": clips}), InputError, words, "set data.benchmark or evaluation.annotations")


def test_an_annotation_file_that_is_missing_in_a_drawn_world(tmp_path: Path) -> None:
    evaluation = {"benchmarks": ["emorealm", "dfew"], "annotations": {"dfew": tmp_path / "dfew"}}
    cfg = config(tmp_path, evaluation=evaluation)
    refused(cfg, InputError, r"no held-out questions of dfew at .*dfew", "evaluation.annotations")
    (tmp_path / "dfew").touch()
    assert failures(cfg) == []
    [(what, _)] = failures(config(tmp_path, evaluation={"benchmarks": ["world", "cmm"]}))
    assert "no held-out questions of cmm" in what


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        ([{**QUESTION, "video": "other.mp4"}], "none of the 1 questions"),
        ([QUESTION, QUESTION], "occurs twice"),
        ([QUESTION, {**QUESTION, "id": "2", "video": "gone.mp4"}], r"dropped 1 of 2 .*raise evaluation\.drop_budget"),
        ({}, "holds a dict"),
    ],
)
def test_held_out_questions_that_cannot_be_asked(clips: Path, tmp_path: Path, questions: Any, words: str) -> None:
    (clips / "emorealm.json").write_text(json.dumps(questions))
    refused(config(tmp_path, data={"clips": clips}), AvereError, words, "questions about the clips")


def test_questions_may_be_left_out_within_their_budget(clips: Path, tmp_path: Path) -> None:
    (clips / "emorealm.json").write_text(json.dumps([QUESTION, {**QUESTION, "id": "2", "video": "gone.mp4"}]))
    check_inputs(config(tmp_path, data={"clips": clips}, evaluation={"drop_budget": 0.5}))


def test_a_remote_model_cannot_be_trained(tmp_path: Path) -> None:
    cfg = config(tmp_path, evaluation={"endpoint": {"url": "http://127.0.0.1:9/v1", "model": "m"}})
    refused(cfg, ConfigError, r"evaluation\.endpoint names a remote model \(m\)", "`avere-ray evaluate`")


@pytest.mark.parametrize("written", [None, b"no parquet"])
def test_queries_that_are_missing_or_bad(tmp_path: Path, written: bytes | None) -> None:
    if written is not None:
        (tmp_path / "q.parquet").write_bytes(written)
    cfg = config(tmp_path, data={"queries": tmp_path / "q.parquet"})
    refused(cfg, InputError, r"data\.queries: .*q\.parquet", "set data.queries to a table")


def test_queries_about_other_clips(clips: Path, tmp_path: Path) -> None:
    write_records(
        tmp_path / "q.parquet", Query, [Query(query_id="1", clip_id="x", modality="video", task="t", prompt="p")]
    )
    cfg = config(tmp_path, data={"clips": clips, "queries": tmp_path / "q.parquet", "drop_budget": 0.0})
    refused(cfg, AvereError, "no clip of the corpus is called 'x'", "about the clips")


def test_clips_that_the_judge_cannot_work_with(clips: Path, tmp_path: Path) -> None:
    rows = [
        Clip(clip_id="a", uri="a.mp4", split="train", emotion="anger"),
        Clip(clip_id="b", uri="b.mp4", split="test"),
    ]
    write_records(clips / "clips.parquet", Clip, rows)
    refused(config(tmp_path, data={"clips": clips}), InputError, "a has no annotated cues", "choose another judge")


def test_preference_data_that_are_missing(tmp_path: Path) -> None:
    cfg = config(tmp_path, rounds=1, data={"pairs": {"path": tmp_path / "dpo.json"}})
    refused(cfg, InputError, r"dpo\.json does not exist\. Set data\.pairs\.path", "set data.pairs.path")


def test_preference_data_are_counted_and_no_world_is_drawn(tmp_path: Path) -> None:
    row = {"chosen": "Happy.", "rejected": "Sad.", "video": "a.mp4", "audio": "a.wav"}
    rows = [{"prompt": f"<video>\n<audio>\n{words}", **row} for words in ("How does the person look?", "")]
    (tmp_path / "dpo.json").write_text(json.dumps(rows))
    data = {"pairs": {"path": tmp_path / "dpo.json", "media": tmp_path}, "drop_budget": 0.5}
    inputs = Inputs(config(tmp_path, rounds=1, data=data))
    left_out, pairs = inputs.findings()
    assert (left_out.level, pairs.level) == ("warn", "ok")
    assert "1 pairs about 1 clips" in pairs.what
    assert inputs.count == 1
    data["drop_budget"] = 0.0
    [(what, remedy)] = failures(config(tmp_path, rounds=1, data=data))
    assert "dropped 1 of 2 inputs" in what
    assert "data.drop_budget" in remedy


def test_preference_data_of_which_too_much_or_everything_is_unusable_start_nothing(tmp_path: Path) -> None:
    row = {"prompt": "<video>\n<audio>\nHow does the person look?", "chosen": "", "rejected": "Sad.", "video": "a.mp4",
           "audio": "a.wav"}  # fmt: skip
    (tmp_path / "dpo.json").write_text(json.dumps([row, row, row | {"chosen": "Happy."}]))
    pairs = {"path": tmp_path / "dpo.json", "media": tmp_path}
    cfg = config(tmp_path, rounds=1, data={"pairs": pairs})
    refused(cfg, DropBudgetExceeded, r"dropped 2 of 3 inputs.*2 x bad_row", "data.drop_budget")
    (tmp_path / "dpo.json").write_text(json.dumps([row]))
    cfg = config(tmp_path, rounds=1, data={"pairs": pairs, "drop_budget": 1.0})
    refused(cfg, InputError, r"nothing of .*dpo\.json, which has 1 rows, can be used: \{'bad_row': 1\}", "repair")


def test_a_corpus_of_which_nothing_can_be_used_starts_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "corpus/VideoFlash"
    folder.mkdir(parents=True)
    (folder / "stray.flv").write_bytes(b"FLV")
    data = {"clips": tmp_path / "corpus", "source": {"kind": "crema_d"}, "drop_budget": 1.0}
    evaluation = {"benchmarks": []}
    cfg = config(tmp_path, data=data, evaluation=evaluation)
    with pytest.raises(InputError, match=r"which lists 1 clips, can be used: \{'bad_name': 1\}.*stray"):
        pipeline.run(cfg)
    assert any("can be used" in what for what, _ in failures(cfg))


def test_voices_need_their_program_unless_they_were_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path, world={"speech": "espeak-ng"})
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    refused(cfg, InputError, "world.speech is 'espeak-ng', which is not installed", "world.speech to tones")
    monkeypatch.setattr("jobs.synth.StageFolder.finished", lambda self: object())
    assert failures(cfg) == []


@pytest.mark.parametrize("backend", ["llm", "omni"])
def test_a_judge_s_model_must_be_there(tmp_path: Path, backend: str) -> None:
    cfg = config(tmp_path, judge={"backend": backend, "model_path": tmp_path / "judge"})
    refused(cfg, ModelError, r"model folder .*judge does not exist\. Set judge\.model_path", "judge.model_path")


def test_a_judge_s_key_must_be_set_where_it_is_asked_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = {"backend": "llm", "endpoint": {"url": JUDGE_URL, "model": "m"}}
    refused(config(tmp_path, judge=judge), ConfigError, "OPENAI_API_KEY is empty", "judge.endpoint")
    on_cluster = config(tmp_path, judge=judge, ray={"address": "10.0.0.1:6379"})
    check_inputs(on_cluster)
    warning = next(f for f in Inputs(on_cluster).findings() if f.level == "warn")
    assert "OPENAI_API_KEY" in warning.what
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert failures(config(tmp_path, judge=judge)) == []


def test_who_rates_descriptions_is_asked_for_where_there_are_some(clips: Path, tmp_path: Path) -> None:
    judge = {"backend": "llm", "endpoint": {"url": JUDGE_URL, "model": "m"}}
    (tmp_path / "emer.csv").write_text("names,sentence\na,Happy.\n")
    evaluation = {"judge": judge, "benchmarks": ["ovmerd"], "annotations": {"ovmerd": tmp_path / "emer.csv"}}
    cfg = config(tmp_path, evaluation=evaluation, rollout={"max_model_len": 4096}, ray={"address": "10.0.0.1:6379"})
    [(what, remedy)] = failures(cfg)
    assert "OPENAI_API_KEY is empty" in what
    assert "evaluation.judge" in remedy
    assert failures(config(tmp_path, evaluation={"judge": judge})) == []


def test_judges_are_not_asked_for_where_nothing_is_sampled(clips: Path, tmp_path: Path) -> None:
    judge = {"backend": "llm", "endpoint": {"url": JUDGE_URL, "model": "m"}}
    data = {"clips": clips, "pairs": {"source": "answers"}}
    assert failures(config(tmp_path, rounds=1, data=data, judge=judge, loss={"kind": "dpo"})) == []
