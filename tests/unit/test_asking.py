"""Benchmarks that are scored from files, put to a model: which clip, which words, which answers, which figures."""

import json
from pathlib import Path

import pytest

from avere_ray.comparison.results import _own_question
from avere_ray.errors import InputError
from avere_ray.evaluation import BENCHMARKS, SCORERS
from avere_ray.evaluation.emotion_scores import PROMPT
from avere_ray.evaluation.scorer import ReadOptions
from avere_ray.records import Clip


def clip(uri: str, **fields: str) -> Clip:
    return Clip(clip_id=f"id-{uri}", uri=uri, **fields)  # type: ignore[arg-type]


def test_dfew_is_asked_with_the_papers_prompt_about_the_clip_of_its_number(tmp_path: Path) -> None:
    file = tmp_path / "set_2.csv"
    file.write_text("video_name,label\n1,1\n2,4\n12,7\n99,3\n")
    clips = [clip("part_1/dfew_224x224/1.mp4"), clip("part_1/dfew_224x224/12.mp4"), clip("2.mp4")]
    queries, drops = BENCHMARKS["dfew"].load(tmp_path / "set_2.csv", clips, ReadOptions(fold=2, channel="speech"))
    assert [(q.query_id, q.clip_id, q.answer) for q in queries] == [
        ("1", "id-part_1/dfew_224x224/1.mp4", "happiness"),
        ("2", "id-2.mp4", "anger"),
        ("12", "id-part_1/dfew_224x224/12.mp4", "fear"),
    ]
    assert {q.prompt for q in queries} == {PROMPT}
    assert [(d.sample_id, d.reason) for d in drops] == [("99", "missing_clip")]
    answers = {"1": "happy", "2": "The man is angry.", "12": "sad"}
    metrics = BENCHMARKS["dfew"].score(queries, answers)
    assert metrics["dfew_overall_accuracy"] == metrics["dfew_war"] == pytest.approx(200 / 3)
    assert metrics["dfew_uar"] == pytest.approx(200 / 3) and metrics["dfew_missing"] == 0.0
    assert [outcome.said for outcome in BENCHMARKS["dfew"].outcomes(queries, answers)] == [
        "happiness",
        "anger",
        "sadness",
    ]
    assert BENCHMARKS["dfew"].options(queries[0])["fear"].scored == "fear"
    with pytest.raises(InputError, match=r"none of the 4 samples .* for instance sample 1"):
        BENCHMARKS["dfew"].load(file, [clip("x.mp4")])


def test_two_clips_of_one_name_are_no_ones_clip(tmp_path: Path) -> None:
    (tmp_path / "set_1.csv").write_text("video_name,label\n1,1\n2,4\n")
    clips = [clip("a/1.mp4"), clip("b/1.mp4"), clip("b/2.mp4")]
    queries, drops = BENCHMARKS["dfew"].load(tmp_path / "set_1.csv", clips)
    assert [q.query_id for q in queries] == ["2"] and [d.sample_id for d in drops] == ["1"]


def test_a_swapped_copy_is_asked_about_itself_and_resampled_with_its_original(tmp_path: Path) -> None:
    rows = [
        {"video_id": "v1", "task": "AV matching", "text": "Do they match?", "label": "Yes"},
        {"video_id": "v1_swap", "task": "AV matching", "text": "Do they match?", "label": "No"},
        {"video_id": "v1", "task": "Audio-driven video hallucination", "text": "Is a dog visible?", "label": "No"},
    ]
    (tmp_path / "qa.json").write_text(json.dumps(rows))
    avh = BENCHMARKS["avhbench"]
    queries, _ = avh.load(tmp_path / "qa.json", [clip("v1.mp4"), clip("v1_swap.mp4")])
    assert [(q.clip_id, q.modality) for q in queries] == [
        ("id-v1.mp4", "audio_video"), ("id-v1_swap.mp4", "audio_video"), ("id-v1.mp4", "video"),
    ]  # fmt: skip
    assert queries[2].prompt == "Is a dog visible?"
    answers = {q.query_id: "No." for q in queries}
    assert avh.score(queries, answers)["avhbench_overall_accuracy"] == pytest.approx(75.0)
    assert [outcome.right for outcome in avh.outcomes(queries, answers)] == [False, True, True]
    assert len({outcome.clip_id for outcome in avh.outcomes(queries, answers)}) == 1
    kept = [_own_question(q, clip(q.clip_id.removeprefix("id-")), tmp_path) for q in queries]
    assert len({question.item.clip_id for question in kept}) == 1  # as in a comparison


def test_emotion_examples_are_labelled_clips(tmp_path: Path) -> None:
    found = BENCHMARKS["ravdess"].examples(
        [clip("a.mp4", emotion="angry"), clip("b.mp4"), clip("c.mp4", emotion="x")], 0
    )
    assert [(e.query.clip_id, e.answer) for e in found["ravdess"]] == [("id-a.mp4", "anger")]
    assert BENCHMARKS["cmm"].examples([clip("a.mp4", emotion="anger")], 0) == {}


def test_every_benchmark_a_model_is_asked_can_be_scored_from_files() -> None:
    assert set(BENCHMARKS) <= set(SCORERS)
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())
