"""Comparisons of small real run folders: pairing, tests, flips, seeds, and what is written of them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats as st
from clipmaker import Recipe, write_clip
from runfolders import write_run

from avere_ray.comparison import tracked
from avere_ray.comparison.differences import compare, correct
from avere_ray.comparison.markdown import to_markdown
from avere_ray.comparison.page import FLIPS, to_html
from avere_ray.comparison.report import Report, make_report, run_labels, verdict
from avere_ray.comparison.results import LIKELIHOODS, read_run_folder
from avere_ray.comparison.thumbnails import thumbnail
from avere_ray.comparison.wording import markdown_table, p_value
from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.evaluation.calibration import Calibration, calibration
from avere_ray.evaluation.scorer import Item
from avere_ray.evaluation.statistics import Interval, mcnemar
from avere_ray.metrics import FOLDER, MetricSpool
from avere_ray.strip import png
from avere_ray.tracking.past import TrackedRun
from jobs import compare as compare_command
from jobs.main import main


def right(i: int, task: str, gold: str) -> str:
    return f"({gold})"


def yes(i: int, task: str, gold: str) -> str:
    return "(A) Yes"


def mends_audio(i: int, task: str, gold: str) -> str:
    """Says Yes, but is right about audio, and wrong about every tenth video."""
    if task == "reasoning_stress_audio":
        return f"({gold})"
    return "perhaps" if task == "reasoning_stress_video" and i % 10 == 0 else "(A) Yes"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test may change."""
    return write_run(tmp_path_factory.mktemp("runs") / "demo", {"before": yes, "round=1": mends_audio}, name="demo")


@pytest.fixture(scope="module")
def demo_report(demo: Path) -> Report:
    return make_report([(read_run_folder(demo), None)])


# differences ----------------------------------------------------------------------------------------------------------


def test_one_run_is_compared_with_itself_before_training(demo_report: Report) -> None:
    report = demo_report
    assert [column.label for column in report.columns] == ["demo, before", "demo, round 1"]
    pair = report.pairs[0]
    tasks = {task.task: task for task in pair.tasks}
    audio, video = tasks["reasoning_stress_audio"], tasks["reasoning_stress_video"]
    assert (audio.first, audio.second, audio.fixed, audio.broke, audio.n) == (50.0, 100.0, 15, 0, 30)
    assert audio.test.p == pytest.approx(2 * 0.5**15)
    assert audio.p_holm == pytest.approx(3 * 2 * 0.5**15)
    assert audio.interval.low < 50 < audio.interval.high
    assert (video.fixed, video.broke) == (0, sum(1 for i in range(0, 30, 10) if (i + 22) % 2 == 0))
    assert tasks["modality_agreement"].test.name == "none"
    assert [verdict(tasks[name]) for name in ("reasoning_stress_audio", "modality_agreement")] == [
        "better", "no evidence"]  # fmt: skip
    assert tasks["average"].difference == pytest.approx(np.mean([t.difference for t in pair.tasks if t.kind == "task"]))
    assert tasks["average"].p_holm == tasks["average"].test.p  # the only one
    spurious = tasks["spurious"]
    assert (spurious.kind, spurious.n, spurious.test.name) == ("subtype", 60, "sign_flip_by_clip")
    assert spurious.p_holm == spurious.test.p  # a family of its own


def test_flips_name_the_question_and_both_answers(demo_report: Report) -> None:
    flips = demo_report.pairs[0].flips
    fixed = [flip for flip in flips if flip.fixed]
    assert len(fixed) == 15 and all(flip.first == "(A) Yes" and flip.second == "(B)" for flip in fixed)
    assert {flip.question.item.task for flip in flips if not flip.fixed} == {"reasoning_stress_video"}
    assert fixed[0].question.media is not None and fixed[0].question.media.is_file()


def test_runs_on_other_clips_are_not_paired(tmp_path: Path, demo: Path) -> None:
    other = write_run(tmp_path / "other", {"round=0": right}, name="other", seed=1)
    report = make_report([(read_run_folder(demo), None), (read_run_folder(other), None)])
    pair = report.pairs[0]
    assert (pair.shared, pair.flips) == (0, ())
    assert not any(task.paired for task in pair.tasks)
    assert {task.test.name for task in pair.tasks} == {"unpaired_normal", "none"}
    assert any("different clips, so nothing is paired" in note for note in report.notes)
    assert report.params["seed"] == ["0", "1"]
    agreement = next(t for t in pair.tasks if t.task == "modality_agreement")
    assert agreement.difference == 50.0 and agreement.test.p < 0.001


def test_only_the_questions_both_have_are_paired(tmp_path: Path, demo: Path) -> None:
    longer = write_run(tmp_path / "longer", {"round=0": right}, name="longer", clips=33)
    first, second = read_run_folder(demo).last(), read_run_folder(longer).last()
    pair = compare(first, second, ("a", "b"))
    assert (pair.shared, pair.apart) == (90, 9)
    assert all(task.n == 30 for task in pair.tasks if task.kind == "task")


def test_several_questions_of_a_clip_are_tested_by_clip(tmp_path: Path) -> None:
    run = read_run_folder(write_run(tmp_path / "r", {"before": yes, "round=0": right}))
    import dataclasses

    def doubled(evaluation):  # every clip asked twice about each task
        questions, responses = {}, {}
        for name, question in evaluation.questions.items():
            for copy in "ab":
                item = dataclasses.replace(question.item, sample_id=f"{name}{copy}")
                questions[f"{name}{copy}"] = dataclasses.replace(question, item=item)
                responses[f"{name}{copy}"] = evaluation.responses[name]
        return dataclasses.replace(evaluation, questions=questions, responses=responses)

    pair = compare(doubled(run.evaluations["before"]), doubled(run.last()), ("a", "b"))
    task = pair.tasks[0]
    assert (task.test.name, task.n, task.fixed) == ("sign_flip_by_clip", 60, 30)
    assert task.test.p > 100 * mcnemar(30, 0).p  # as sure as 15 clips allow, not 30 questions


def test_holm_is_over_all_pairs(tmp_path: Path, demo: Path) -> None:
    runs = [
        read_run_folder(demo),
        *(read_run_folder(write_run(tmp_path / n, {"round=0": right}, name=n)) for n in "ab"),
    ]
    evaluations = [run.last() for run in runs]
    pairs = [compare(evaluations[0], e, ("x", "y")) for e in evaluations[1:]]
    corrected = correct(pairs)
    smallest = min(t.test.p for pair in pairs for t in pair.tasks if t.kind == "task")
    assert min(t.p_holm for pair in corrected for t in pair.tasks if t.kind == "task") == pytest.approx(6 * smallest)
    averages = [t for pair in corrected for t in pair.tasks if t.kind == "average"]
    assert min(t.p_holm for t in averages) == pytest.approx(2 * min(t.test.p for t in averages))


def test_seeds_of_one_setting_are_summed_up(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"s{seed}", {"before": yes, "round=0": right if seed else mends_audio},
                         name="exp", seed=seed) for seed in range(3)]  # fmt: skip
    other = write_run(tmp_path / "lr", {"before": yes, "round=0": right}, name="lr", settings={"rounds": 5})
    report = make_report([(read_run_folder(folder), None) for folder in (*folders, other)])
    group = report.seeds[0]
    assert (len(report.seeds), group.seeds) == (1, ("0", "1", "2"))
    assert group.change["reasoning_stress_audio"].mean == 50.0
    assert group.after["modality_agreement"].mean == pytest.approx((50 + 100 + 100) / 3)
    assert list(run_labels([read_run_folder(f) for f in folders])) == ["exp (s0)", "exp (s1)", "exp (s2)"]


def test_a_manifest_file_stands_for_its_folder(tmp_path: Path) -> None:
    clips = tmp_path / "corpus"
    data = RunConfig().resolved()["data"] | {"clips": str(clips / "manifest.csv")}
    folder = write_run(tmp_path / "r", {"before": yes}, clips=2, settings={"data": data})
    (folder / "clips").rename(clips)
    (clips / "manifest.csv").write_text("uri")
    [first, *_] = read_run_folder(folder).last().questions.values()
    assert first.media == clips / "media" / "000.mp4"


def test_of_a_step_that_was_trained_again_the_newest_settings_are_drawn(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", {"before": yes}, clips=2)
    spool = MetricSpool(folder / FOLDER, "train-round1")
    for value, source in ((0.9, "a"), (0.7, "a"), (0.4, "b"), (0.5, "b")):
        spool.log({"rewards/margins": value}, step=9, source=source)
    assert read_run_folder(folder).curves["rewards/margins"] == [(9, 0.4)]


def test_the_only_evaluation_at_step_0_is_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TrackedRun(run_id="a", name="r", status="FINISHED", start_ms=0, params={}, tags={},
                     metrics={"eval/average_accuracy": 1.0})  # fmt: skip
    monkeypatch.setattr(tracked, "evaluation_artifacts", lambda *_: {})
    for steps, stages in (([0], ["before"]), ([40], ["round=0"]), ([0, 40], ["before", "round=0"])):
        monkeypatch.setattr(tracked, "metric_history", lambda *_, s=steps: {"eval/x": [(step, 1.0) for step in s]})
        assert list(tracked._evaluations("u", run)) == stages


# calibration ----------------------------------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    items = [Item(sample_id=str(i), gold="A", choices=("(A) Yes", "(B) No")) for i in range(4)]
    sure, wrong = {"A": math.log(0.85), "B": math.log(0.15)}, {"A": math.log(0.3), "B": math.log(0.7)}
    found = calibration(items, {"0": sure, "1": sure, "2": wrong, "9": sure})
    assert found is not None and found.n == 3
    assert found.error == pytest.approx((2 * (1 - 0.85) + 0.7) / 3)
    assert found.brier == pytest.approx((2 * 2 * 0.15**2 + 2 * 0.49) / 3)
    assert calibration(items, {}) is None
    assert found.error_interval.low <= found.error <= found.error_interval.high


def test_calibration_is_resampled_by_clip() -> None:
    """Four copies of each question of a clip say no more than one: the same interval, and the one of a mean."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, size=60)
    gold = np.where(rng.random(60) < 0.7, "A", "B")

    def found(copies: int) -> Calibration:
        items = [Item(sample_id=f"{i}/{k}", clip_id=f"{i:02}", gold=str(gold[i])) for i in range(60)
                 for k in range(copies)]  # fmt: skip
        logps = {item.sample_id: {"A": math.log(p), "B": math.log(1 - p)}
                 for item in items for p in [float(sure[int(item.clip_id)])]}  # fmt: skip
        made = calibration(items, logps)
        assert made is not None
        return made

    one, four = found(1), found(4)
    for name in ("error", "error_interval", "brier", "brier_interval"):
        assert _numbers(getattr(one, name)) == pytest.approx(_numbers(getattr(four, name)))
    briers = 2 * np.where(gold == "A", 1 - sure, sure) ** 2
    students = st.t.interval(0.95, 59, loc=briers.mean(), scale=st.sem(briers))
    width = one.brier_interval.high - one.brier_interval.low
    assert width == pytest.approx(students[1] - students[0], rel=0.1)


def _numbers(value: Interval | float) -> list[float]:
    return [value.low, value.high] if isinstance(value, Interval) else [value]


def test_likelihoods_beside_the_predictions_are_drawn(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = shutil.copytree(demo, tmp_path / "demo")
    names = list(read_run_folder(demo).last().questions)
    rows = [json.dumps({"query_id": name, "logps": {"A": -0.1, "B": -2.4}}) for name in names]
    (demo / "evals" / "round=1" / LIKELIHOODS).write_text("\n".join(rows))
    report = make_report([(read_run_folder(demo), None)])
    assert report.calibrations["demo, round 1"].n == 90
    measured = report.to_json()["calibration"]["demo, round 1"]
    assert measured["error_low"] < measured["error_high"]
    shown = f"{measured['error']:.3f} [{measured['error_low']:.3f}, {measured['error_high']:.3f}]"
    assert compare_command.main([str(demo), f"--out={demo.parent / 'out'}", "--no-log"]) == 0
    for form in (to_html(report), to_markdown(report), capsys.readouterr().out):
        assert "expected calibration error" in form and shown in form


# what is written ------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_and_escapes_everything(tmp_path: Path) -> None:
    def hostile(i: int, task: str, gold: str) -> str:
        return f'({gold}) <script>alert("x")</script>'

    run = write_run(tmp_path / "r", {"before": yes, "round=0": hostile}, name="r")
    page = to_html(make_report([(read_run_folder(run), None)]))
    assert "<script" not in page and "&lt;script&gt;" in page and "Is &lt;b&gt;" in page
    assert not any(word in page for word in ("http://", "https://", "//cdn", "@import", "url(", 'src="/', "<link"))
    assert "prefers-color-scheme: dark" in page
    for part in ("Accuracy by task", "as a radar", "<figcaption>loss", "questions fixed", "p (Holm)", "standard_f1"):
        assert part in page


def test_flips_are_shown_with_their_clips_up_to_a_limit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"before": yes, "round=0": right}, clips=24)
    asked: list[Path] = []

    def picture(path: Path) -> str | None:
        asked.append(path)
        return "data:image/png;base64,AAAA" if path.stem != "000" else None

    page = to_html(make_report([(read_run_folder(run), None)]), picture=picture)
    assert len(asked) == len(set(asked))
    assert page.count('class="flip"') == FLIPS and f"36 questions fixed, {FLIPS} shown" in page


def test_markdown_has_the_tables_and_the_flips(demo_report: Report) -> None:
    text = to_markdown(demo_report)
    assert text.startswith("# Comparison of demo, before and demo, round 1\n")
    assert "| reasoning_stress_audio | 30 | 50.0 | 100.0 | +50.0 |" in text
    assert "15 fixed:" in text and 'Was: "(A) Yes"; now: "(B)"' in text
    assert markdown_table(["a|b"], [["x\ny|"]]) == "| a\\|b |\n|---|\n| x y\\| |"
    assert [p_value(p) for p in (0.00001, 0.0525, math.nan)] == ["< 0.0001", "0.0525", "-"]


def test_a_thumbnail_is_a_picture_of_the_clip(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", Recipe())
    uri = thumbnail(clip if isinstance(clip, Path) else tmp_path / "c.mp4")
    assert uri is not None and uri.startswith("data:image/png;base64,iVBOR")
    (tmp_path / "broken.mp4").write_bytes(b"no")
    assert thumbnail(tmp_path / "broken.mp4") is None


def test_a_png_is_read_back_as_written(tmp_path: Path) -> None:
    import av

    pixels = np.random.default_rng(0).integers(0, 255, size=(5, 7, 3), dtype=np.uint8)
    (tmp_path / "x.png").write_bytes(png(pixels))
    with av.open(str(tmp_path / "x.png")) as file:
        frame = next(file.decode(video=0))
    assert (frame.to_ndarray(format="rgb24") == pixels).all()


# command --------------------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_writes_three_files(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(demo), "--no-log", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "demo, round 1 against demo, before" in printed and "mcnemar_exact" in printed
    assert "15 questions fixed" in printed
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["pairs"][0]["tasks"]["reasoning_stress_audio"]["verdict"] == "better"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["compare.html", "compare.json", "compare.md"]


def test_a_stage_is_named_behind_an_at(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--no-log", "--json", "--out", str(tmp_path / "out")]
    assert main(["compare", f"{demo}@round=1", f"{demo}@before", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["figures"]) == ["demo, round 1", "demo, before"]
    assert found["pairs"][0]["tasks"]["reasoning_stress_audio"]["verdict"] == "worse"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a run folder"),
        (["{demo}@round=7", "{demo}"], "no evaluation 'round=7'; it has before, round=1"),
        (["{demo}@before"], "cannot be compared with itself"),
        (["{tmp}/nothing"], "there is no run folder"),
        (["{tmp}/"], "holds no finished evaluation"),
        (["nobody"], "no MLflow database at"),
        (["{demo}", "--color"], "unrecognized arguments: --color"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], says: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *(a.format(demo=demo, tmp=tmp_path) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_run_with_one_evaluation_has_nothing_to_compare(tmp_path: Path) -> None:
    run = read_run_folder(write_run(tmp_path / "r", {"before": yes}))
    with pytest.raises(InputError, match="one evaluation only"):
        make_report([(run, None)])
