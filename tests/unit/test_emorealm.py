"""EmoReAlM: the file format, and scores against values computed by hand (the released scorer's definitions)."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from avere_ray.errors import InputError, StageError
from avere_ray.evaluation import BENCHMARKS, evaluate
from avere_ray.evaluation.emorealm import EMOREALM, details, load, score
from avere_ray.fakes import FakeGenerate, always_right, scripted
from avere_ray.records import Clip, Query
from jobs.exams import check_metrics

YES_NO = ["(A) Yes", "(B) No"]
CLIPS = [Clip(clip_id=f"c{i}", uri=f"media/part_1/{i}.mp4") for i in range(3)]


def item(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "video": "part_1/1.mp4", "task": "reasoning_stress_video", "question": "Is it?",
            "choices": YES_NO, "answer": "B"} | changes  # fmt: skip


def written(tmp_path: Path, items: object) -> Path:
    path = tmp_path / "emorealm.json"
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def question(query_id: str, task: str, gold: str, subtype: str = "") -> Query:
    choices = tuple(YES_NO) if "basic" not in task else ("(A) w", "(B) x", "(C) y", "(D) z")
    return Query(query_id=query_id, clip_id="c", modality="video", task=task, prompt="?", choices=choices, answer=gold,
                 subtype=subtype)  # fmt: skip


# file -----------------------------------------------------------------------------------------------------------------


def test_questions_become_queries(tmp_path: Path) -> None:
    items = [
        item(subtype="spurious", about_cue="red_shirt"),
        item(id=2, task="modality_agreement", answer="(A)"),
        item(id=3, task="reasoning_basic_audio", choices=["(A) a", "(B) b", "(C) c", "(D) d"], answer="D"),
        item(id=4, modality="audio_video"),
    ]
    queries, drops = load(written(tmp_path, items), CLIPS)
    assert not drops
    assert queries[0] == Query(query_id="1", clip_id="c1", modality="video", task="reasoning_stress_video",
                               prompt="Is it? (A) Yes (B) No", choices=("(A) Yes", "(B) No"), answer="B",
                               subtype="spurious", about_cue="red_shirt")  # fmt: skip
    assert [(q.query_id, q.modality, q.answer) for q in queries[1:]] == [
        ("2", "audio_video", "A"), ("3", "audio", "D"), ("4", "audio_video", "B")]  # fmt: skip


def test_a_question_about_a_missing_clip_is_a_drop(tmp_path: Path) -> None:
    queries, drops = load(written(tmp_path, [item(), item(id="9", video="part_7/1.mp4")]), CLIPS)
    assert [q.query_id for q in queries] == ["1"]
    assert [(d.sample_id, d.reason) for d in drops] == [("9", "missing_clip")]
    assert "part_7/1.mp4" in drops[0].message


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"a": 1}, "is a list of questions"),
        ([item(), item()], r"item 1: id '1' occurs twice"),
        ([item(task="reasoning")], r"unknown task 'reasoning'.*modality_agreement"),
        ([item(answer="C")], r"answer 'C' is none of the letters A, B"),
        ([item(choices=["Yes", "No"])], "has no letter"),
        ([item(choices=["(A) left", "(B) right"])], "asks for Yes or No"),
        ([item(subtype="odd")], "unknown subtype 'odd'"),
        ([item(modality="smell")], "unknown modality 'smell'"),
        ([{k: v for k, v in item().items() if k != "video"}], r"item 0 \(id '1'\) has no video"),
        (["x"], "is a str, not a question"),
        ([item(video="x.mp4")], "none of the 1 questions"),
        ([], "none of the 0 questions"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, items: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(written(tmp_path, items), CLIPS)


def test_missing_file_broken_json_and_ambiguous_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none.json", CLIPS)
    broken = tmp_path / "broken.json"
    broken.write_text("[{", encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        load(broken, CLIPS)
    twins = [Clip(clip_id="a", uri="x/1.mp4"), Clip(clip_id="b", uri="y/1.mp4")]
    with pytest.raises(InputError, match="fits the clips a, b"):
        load(written(tmp_path, [item(video="1.mp4")]), twins)


# scores ---------------------------------------------------------------------------------------------------------------


def test_yes_no_metrics_by_hand() -> None:
    # gold Yes x 4: 3 right, 1 unparsable.  gold No x 6: 2 right, 3 say Yes, 1 missing.
    task = "reasoning_stress_audio"
    golds = ["A"] * 4 + ["B"] * 6
    said = ["(A)", "Yes.", "A", "maybe", "(B) No", "no", "(A)", "(A)", "yes", None]
    queries = [question(str(i), task, gold) for i, gold in enumerate(golds)]
    metrics = score(queries, {str(i): text for i, text in enumerate(said)})
    expected = {
        "overall_accuracy": 50.0,  # 5 / 10
        "precision": 75.0,  # recall of Yes: 3 / 4
        "recall": 100 * 2 / 6,  # recall of No
        "f1_score": 2 * 75 * (100 / 3) / (75 + 100 / 3),
        "standard_precision": 50.0,  # 3 right of 6 said Yes
        "standard_recall": 75.0,
        "standard_f1": 60.0,
        "yes_percentage": 60.0,
        "n": 10.0,
        "missing": 1.0,
        "unparsable": 1.0,
    }
    for name, value in expected.items():
        assert metrics[f"{task}_{name}"] == pytest.approx(value), name
    assert metrics["average_accuracy"] == 50.0


def test_a_model_that_is_always_wrong_gets_zeros_not_an_error() -> None:
    queries = [question("1", "modality_agreement", "A"), question("2", "modality_agreement", "B")]
    metrics = score(queries, {"1": "No", "2": "Yes"})
    assert metrics["modality_agreement_f1_score"] == 0.0
    assert metrics["modality_agreement_standard_f1"] == 0.0


def test_a_class_without_questions_has_no_recall() -> None:
    metrics = score([question("1", "modality_agreement", "B")], {"1": "No"})
    assert metrics["modality_agreement_recall"] == 100.0
    assert not {"modality_agreement_precision", "modality_agreement_f1_score"} & set(metrics)


def test_average_is_the_unweighted_mean_of_tasks_as_on_the_leaderboard() -> None:
    published = {"reasoning_basic_audio": 779, "reasoning_basic_video": 925, "modality_agreement": 689,
                 "reasoning_stress_audio": 826, "reasoning_stress_video": 946}  # fmt: skip
    queries, answers = [], {}
    for task, right in published.items():
        for i in range(1000):
            query = question(f"{task}{i}", task, "B")
            queries.append(query)
            answers[query.query_id] = "(B)" if i < right else "(A)"
    metrics = score(queries, answers)
    assert {t: metrics[f"{t}_overall_accuracy"] for t in published} == {t: r / 10 for t, r in published.items()}
    assert round(metrics["average_accuracy"], 1) == 83.3


def test_small_tasks_weigh_as_much_as_large_ones_and_absent_tasks_nothing() -> None:
    queries = [question(f"v{i}", "reasoning_basic_video", "A") for i in range(9)]
    queries.append(question("m", "modality_agreement", "A"))
    metrics = score(queries, {q.query_id: "(A)" for q in queries if q.query_id != "m"})
    assert metrics["average_accuracy"] == 50.0
    assert "reasoning_basic_audio_overall_accuracy" not in metrics


def test_subtypes_per_task_and_pooled() -> None:
    audio, video = "reasoning_stress_audio", "reasoning_stress_video"
    queries = [question("1", audio, "B", "spurious"), question("2", video, "B", "spurious"),
               question("3", video, "B", "spurious"), question("4", video, "B", "hallucination"),
               question("5", video, "A", "no_hallucination")]  # fmt: skip
    metrics = score(queries, {"1": "No", "2": "Yes", "3": "Yes", "4": "No", "5": "Yes"})
    assert metrics[f"{audio}_spurious_accuracy"] == 100.0
    assert metrics[f"{video}_spurious_accuracy"] == 0.0
    assert metrics["spurious_accuracy"] == pytest.approx(100 / 3)
    assert metrics["hallucination_accuracy"] == metrics["no_hallucination_accuracy"] == 100.0
    assert f"{audio}_hallucination_accuracy" not in metrics


def test_details_are_the_same_figures_with_intervals() -> None:
    queries = [question(str(i), "modality_agreement", "AB"[i % 2]) for i in range(20)]
    queries = [dataclasses.replace(query, clip_id=f"c{i}") for i, query in enumerate(queries)]
    answers: dict[str, str | None] = {str(i): "(A)" if i < 15 else None for i in range(20)}
    found, plain = details(queries, answers), score(queries, answers)
    assert all(plain[name] == pytest.approx(figure.value) for name, figure in found.figures.items())
    accuracy = found.figures["modality_agreement_overall_accuracy"]
    assert accuracy.n == 20 and accuracy.interval.low < accuracy.value < accuracy.interval.high
    assert len(found.missing) == 5


# evaluate -------------------------------------------------------------------------------------------------------------


QUERIES = [question("1", "modality_agreement", "A"), question("2", "reasoning_basic_video", "C")]


def test_evaluation_is_greedy_and_keeps_its_predictions() -> None:
    generate = always_right()
    result, predictions = evaluate(EMOREALM, QUERIES, generate, max_tokens=7, round_=1)
    call = generate.calls[0]
    assert (call.temperature, call.n, call.max_tokens, call.query_ids) == (0.0, 1, 7, ("1", "2"))
    assert (result.benchmark, result.round, result.n) == ("emorealm", 1, 2)
    assert result.metrics["average_accuracy"] == 100.0
    assert [(r.query_id, r.text) for r in predictions] == [("1", "(A)"), ("2", "(C)")]


def test_an_unanswered_question_counts_as_wrong() -> None:
    result, predictions = evaluate(EMOREALM, QUERIES, scripted({"1": ["(A)"]}), max_tokens=7)
    assert len(predictions) == 1
    assert result.metrics["average_accuracy"] == 50.0
    assert result.metrics["missing"] == 1.0


def test_answers_of_another_adapter_or_to_other_questions_are_refused() -> None:
    with pytest.raises(StageError, match="adapter 2 is evaluated, but 1 answered"):
        evaluate(EMOREALM, QUERIES, FakeGenerate(lambda *_: "A", adapter_version=1), max_tokens=7, adapter_version=2)

    def turned(queries: Any, **options: Any) -> Any:
        return always_right()(list(reversed(queries)), **options)

    with pytest.raises(StageError, match="out of order"):
        evaluate(EMOREALM, QUERIES, turned, max_tokens=7)
    with pytest.raises(StageError, match="2 questions were asked, 0 were answered"):
        evaluate(EMOREALM, QUERIES, lambda queries, **_: [], max_tokens=7)


def test_two_benchmarks_with_metrics_of_one_name_are_refused_before_they_are_asked() -> None:
    one, other = [question("1", "reasoning_basic_video", "A")], [question("2", "modality_agreement", "A")]
    with pytest.raises(InputError, match=r"world and emorealm both have a metric average_accuracy.*two runs"):
        check_metrics({"emorealm": one, "world": other})
    check_metrics({"emorealm": one, "cmm": [dataclasses.replace(other[0], choices=(), answer="yes", task="cmm")]})
    check_metrics({"world": one})


def test_the_worlds_figures_are_called_the_worlds() -> None:
    assert BENCHMARKS["world"].details([question("1", "modality_agreement", "A")], {"1": "(A)"}).benchmark == "world"


def test_benchmarks_are_found_by_their_name() -> None:
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())
    assert "emorealm" in BENCHMARKS
