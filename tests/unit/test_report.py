"""The final report from hand-made manifests, and what a person reads of it."""

import io
import json
import shutil

import pytest
from rich.console import Console

from avere_ray.errors import StageError
from avere_ray.records import Drop, Query, Rollout, Verdict, VerdictLabel
from avere_ray.stages import StageFolder
from jobs.report import (
    build_report,
    choose_sample,
    print_rollout_sample,
    print_summary,
    summary_lines,
    write_report,
)

BEFORE = {"average_accuracy": 40.0, "reasoning_stress_audio_overall_accuracy": 30.0, "basic_overall_accuracy": 50.0}
AFTER = {"average_accuracy": 55.0, "reasoning_stress_audio_overall_accuracy": 61.25, "basic_overall_accuracy": 48.75}


def _finish(run_dir, name, *, used=10, drops=(), **summary):
    folder = StageFolder(run_dir / name, stage=name, key="k")
    folder.begin()
    folder.finish(inputs=used + len(drops), used=used, drops=drops, summary=summary)


@pytest.fixture
def run_dir(tmp_path):
    drop = Drop(sample_id="c9", stage="decode", reason="no_audio_stream", message="c9 has no audio")
    _finish(tmp_path, "decoded", used=239, drops=[drop])
    _finish(tmp_path, "evals/before", metrics=BEFORE)
    for k in range(2):
        _finish(tmp_path, f"rollouts/round={k}", rollouts=100, parity_max_abs_diff=(2e-6, 5e-6)[k])
        _finish(tmp_path, f"verdicts/round={k}", labels={"faithful": 60 + k, "hallucination": 40 - k})
        _finish(tmp_path, f"pairs/round={k}", pairs=30 + k)
        _finish(tmp_path, f"reference/round={k}")
        _finish(tmp_path, f"adapters/round={k}", steps=4, adapter=f"adapters/round={k}/adapter", version=k + 1)
    _finish(tmp_path, "evals/round=1", metrics=AFTER, parity_max_abs_diff=1e-6)
    return tmp_path


def test_the_report_adds_up_the_rounds(run_dir):
    report = build_report(run_dir, rounds=2, seed=7, mlflow_run_id="abc", mlflow_tracking_uri="sqlite:////x/mlflow.db")
    seconds = report.pop("seconds")
    assert report == {
        "inputs": 240,
        "used": 239,
        "dropped": 1,
        "rollouts": 200,
        "verdicts": {
            "faithful": 121,
            "spurious_association": 0,
            "hallucination": 79,
            "wrong_emotion": 0,
            "off_topic": 0,
            "unparseable": 0,
        },
        "pairs": 61,
        "rounds": 2,
        "steps": 8,
        "parity_max_abs_diff": 5e-6,
        "before": BEFORE,
        "after": AFTER,
        "mlflow_run_id": "abc",
        "mlflow_tracking_uri": "sqlite:////x/mlflow.db",
        "adapter": "adapters/round=1/adapter",
        "seed": 7,
    }
    assert list(seconds) == ["decoded", "evals", "rollouts", "verdicts", "pairs", "reference", "adapters"]
    assert all(value >= 0 for value in seconds.values())


def test_the_report_is_the_same_when_read_again(run_dir):
    report = build_report(run_dir, rounds=2, seed=0)
    assert json.loads(write_report(run_dir, report).read_text()) == report == build_report(run_dir, rounds=2, seed=0)


def test_rounds_of_an_earlier_longer_run_do_not_count(run_dir):
    _finish(run_dir, "evals/round=0", metrics=BEFORE, parity_max_abs_diff=1e-6)
    report = build_report(run_dir, rounds=1, seed=0)
    assert (report["rollouts"], report["adapter"], report["after"]) == (100, "adapters/round=0/adapter", BEFORE)


def test_a_run_without_rollouts_reports_everything_else(run_dir):
    whole = build_report(run_dir, rounds=2, seed=0)
    for k in range(2):
        for stage in ("rollouts", "verdicts"):
            (run_dir / f"{stage}/round={k}/manifest.json").unlink()
    report = build_report(run_dir, rounds=2, seed=0, sampled=False)
    assert set(whole) - set(report) == {"rollouts", "verdicts"}
    assert (report["pairs"], report["after"], report["parity_max_abs_diff"]) == (61, AFTER, 1e-6)
    assert not any(line.startswith("rollouts") for line in summary_lines(report, run_dir))


def test_a_run_whose_learner_makes_its_own_reference_figures_reports_too(run_dir):
    with_stage = build_report(run_dir, rounds=2, seed=0)
    for k in range(2):
        shutil.rmtree(run_dir / f"reference/round={k}")
    report = build_report(run_dir, rounds=2, seed=0)
    assert "reference" not in report.pop("seconds") and with_stage.pop("seconds")
    assert report == with_stage


def test_a_stage_that_has_not_finished_is_named(run_dir):
    (run_dir / "pairs/round=1/manifest.json").unlink()
    with pytest.raises(StageError, match="pairs/round=1 has not finished"):
        build_report(run_dir, rounds=2, seed=0)


def test_a_manifest_without_its_figure_is_named(run_dir):
    _finish(run_dir, "pairs/round=1", other=1)
    with pytest.raises(StageError, match=r"pairs/round=1 has no 'pairs'.*other"):
        build_report(run_dir, rounds=2, seed=0)


def _plain_console():
    return Console(file=io.StringIO(), force_terminal=False, width=100)


def test_the_summary_shows_the_table_and_the_commands(run_dir):
    report = build_report(run_dir, rounds=2, seed=0, mlflow_run_id="abc", mlflow_tracking_uri="sqlite:////x/mlflow.db")
    console = _plain_console()
    print_summary(report, run_dir, console=console)
    text = console.file.getvalue()
    assert text.isascii()
    table = [line.replace("|", " ").split() for line in text.splitlines() if line.startswith("|")]
    rows = {cells[0]: cells[1:] for cells in table}
    assert rows["reasoning_stress_audio"] == ["30.0", "61.2", "+31.2"]
    assert rows["basic"] == ["50.0", "48.8", "-1.2"]
    assert rows["average"] == ["40.0", "55.0", "+15.0"]
    assert "faithful 121 (60 %)" in text
    assert "mlflow ui --backend-store-uri sqlite:////x/mlflow.db --host 127.0.0.1" in text
    assert f"avere-ray serve {run_dir}" in text
    assert "240 read, 239 used, 1 dropped" in text


def test_rated_descriptions_are_a_line_and_no_accuracy(run_dir):
    report = build_report(run_dir, rounds=2, seed=0)
    report |= {"before": {"ovmerd_cue_overlap": 5.0, "ovmerd_n": 3.0}, "after": {"ovmerd_cue_overlap": 6.5}}
    console = _plain_console()
    print_summary(report, run_dir, console=console)
    assert "ovmerd, descriptions rated 1 to 10, before and after: cue_overlap 5.00 to 6.50\n" in console.file.getvalue()
    assert "accuracy" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("uri", "run_id", "text"),
    [
        ("http://127.0.0.1:5000", "abc", "look at it in MLflow: http://127.0.0.1:5000 (run abc)"),
        ("sqlite:////a b/mlflow.db", "abc", "--backend-store-uri 'sqlite:////a b/mlflow.db'"),
        ("http://127.0.0.1:5000", None, "avere-ray track"),
    ],
)
def test_the_summary_says_how_to_look_at_the_run(run_dir, uri, run_id, text):
    report = build_report(run_dir, rounds=2, seed=0, mlflow_run_id=run_id, mlflow_tracking_uri=uri)
    assert any(text in line for line in summary_lines(report, run_dir))


def _rollout(i, label):
    rollout = Rollout(
        rollout_id=f"q{i}#0",
        query_id=f"q{i}",
        clip_id=f"c{i}",
        index=0,
        text=f"answer {i}\n[with brackets]",
        token_ids=(1,),
        finish_reason="stop",
        adapter_version=0,
        seed=0,
    )
    verdict = Verdict(
        rollout_id=f"q{i}#0",
        query_id=f"q{i}",
        label=label,
        cited=(),
        emotion="anger",
        confidence=1.0,
        evidence=f"evidence {i}",
        judge="rules/1",
    )
    return rollout, verdict


def test_the_sample_shows_each_kind_of_verdict_before_a_second_of_one():
    labels = [VerdictLabel.FAITHFUL] * 3 + [VerdictLabel.HALLUCINATION] * 2 + [VerdictLabel.WRONG_EMOTION]
    rollouts, verdicts = zip(*(_rollout(i, label) for i, label in enumerate(labels)), strict=True)
    chosen = [verdict.label for _, verdict in choose_sample(rollouts, verdicts, 4)]
    assert chosen == ["faithful", "hallucination", "wrong_emotion", "faithful"]
    assert choose_sample(rollouts[::-1], verdicts[::-1], 6) == choose_sample(rollouts, verdicts, 6)
    assert choose_sample(rollouts, verdicts[:1], 6) == [(rollouts[0], verdicts[0])]
    assert choose_sample([], [], 3) == []


def test_the_sample_is_readable():
    rollout, verdict = _rollout(1, VerdictLabel.HALLUCINATION)
    query = Query(query_id="q1", clip_id="c1", modality="audio", task="why_audio", prompt="What do you\nhear?")
    console = _plain_console()
    print_rollout_sample([rollout], [verdict], {"q1": query}, 3, console=console)
    assert console.file.getvalue().splitlines() == [
        "[hallucination] clip c1 (audio, why_audio)",
        "  asked:    What do you hear?",
        "  answered: answer 1 [with brackets]",
        "  evidence: evidence 1",
    ]
