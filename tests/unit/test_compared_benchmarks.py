"""Comparison of what is no choice question: rated descriptions, emotions, and what robustness modes cost."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from clipmaker import Recipe, write_clip
from runfolders import write_run

from avere_ray.comparison.leaderboard import LeaderboardRun
from avere_ray.comparison.leaderboard import to_markdown as to_leaderboard
from avere_ray.comparison.markdown import to_markdown
from avere_ray.comparison.page import to_html
from avere_ray.comparison.report import Report, make_report
from avere_ray.comparison.results import read_run_folder
from avere_ray.config import RunConfig
from avere_ray.errors import StageError
from avere_ray.evaluation.emer import CRITERIA
from avere_ray.evaluation.grounding import View, losses, to_json
from avere_ray.evaluation.tables import Outcome
from avere_ray.records import Query
from jobs import compare
from jobs.evaluate import run_remote
from jobs.promote import gate
from tests.chatserver import Answer, ChatServer, Seen, chat_server, says

COUNT = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "10.mp4", Recipe(frame_times_s=[0.0, 0.1], audio_s=0.2))
    names = range(10, 10 + COUNT)
    for i in names:
        (folder / f"{i}.mp4").write_bytes((folder / "10.mp4").read_bytes() + bytes(8 * i))
    (folder / "clips.jsonl").write_text("\n".join(json.dumps({"clip_id": f"c{i}", "uri": f"{i}.mp4"}) for i in names))
    (folder / "t.csv").write_text("name,reason\n" + "".join(f"{i},He frowns: anger. No {i}.\n" for i in names))
    (folder / "set_1.csv").write_text("video_name,label\n" + "".join(f"{i},{4 if i % 2 else 2}\n" for i in names))
    return folder


def evaluated(clips: Path, run_dir: Path, server: ChatServer, benchmark: str, rater: str = "rater") -> Path:
    endpoint = {"url": server.url, "attempts": 1, "concurrency": 1}
    judge = {"backend": "llm", "endpoint": {**endpoint, "model": rater}}
    table = clips / ("set_1.csv" if benchmark == "dfew" else "t.csv")
    section = {"endpoint": {**endpoint, "model": run_dir.name}, "media": "file", "benchmarks": [benchmark],
               "annotations": {benchmark: table}, "judge": judge}  # fmt: skip
    run_remote(RunConfig.model_validate({"run_dir": run_dir, "data": {"clips": clips}, "evaluation": section}))
    return run_dir


def rates(worth: int) -> Any:
    def reply(seen: Seen) -> Answer:
        if "response_format" not in seen.body:
            return says(f"He frowns: anger, {worth}.")
        number = int(seen.words().partition("No ")[2][:2])
        scores = dict.fromkeys(CRITERIA, worth + number % 2) | {"hallucinated_cues": 8}
        return says("sorry" if number == 10 and worth == 3 else json.dumps(scores))

    return reply


@pytest.fixture(scope="module")
def rated(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs whose descriptions one judge rated, and one that another judge rated."""
    folder = tmp_path_factory.mktemp("rated")
    found = []
    for name, worth, rater in (("good", 6, "rater"), ("bad", 3, "rater"), ("other", 6, "other")):
        with chat_server(rates(worth)) as server:
            found.append(evaluated(clips, folder / name, server, "ovmerd", rater))
    return found


def report_of(*folders: Path) -> Report:
    return make_report([(read_run_folder(folder), None) for folder in folders])


def test_ratings_are_compared_by_clip_and_corrected_over_criteria(rated: list[Path]) -> None:
    report = report_of(rated[0], rated[1])
    [pair] = report.pairs
    assert (report.tasks, pair.tasks, pair.flips) == ((), (), ())
    found = {r.criterion: r for r in pair.ratings}
    overlap = found["cue_overlap"]
    assert (overlap.n, overlap.difference) == (COUNT - 1, pytest.approx(-3))  # one rating of the second cannot be read
    assert overlap.test.p == pytest.approx(2 * 0.5**11)
    assert overlap.p_holm == pytest.approx(4 * overlap.test.p)
    assert math.isnan(overlap.effect)  # every clip lost the same three points
    assert (found["hallucinated_cues"].difference, found["hallucinated_cues"].test.name) == (0.0, "none")
    assert [line.split(" is ")[0] for line in gate(pair)] == [f"ovmerd {name}" for name in CRITERIA[:3]]
    assert "ovmerd: descriptions rated by rater" in report.notes
    figure = report.columns[0].evaluation.beside.ratings["ovmerd"]["cue_overlap"]
    assert (figure.value, figure.n) == (6.5, COUNT)
    assert figure.interval.low < 6.5 < figure.interval.high


def test_ratings_are_in_every_form_of_the_comparison(rated: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(rated[0], rated[1])
    page, text, data = to_html(report), to_markdown(report), report.to_json()
    assert data["ratings"]["good"]["ovmerd"]["cue_overlap"]["value"] == 6.5
    first = data["pairs"][0]["ratings"][0]
    assert first["verdict"] == "worse" and first["cohens_d"] is None
    out = rated[0].parent / "out"
    assert compare.main([str(rated[0]), str(rated[1]), f"--out={out}", "--no-log"]) == 0
    for form in (page, text, capsys.readouterr().out):
        for words in ("rated from 1 to 10", "effect d", "ovmerd cue_overlap", "-3.00", "worse", "6.50"):
            assert words in form, (words, form)
        assert "can be tested" not in form and "not on this machine" not in form


def test_ratings_of_two_judges_are_not_compared(rated: list[Path]) -> None:
    report = report_of(rated[0], rated[2])
    assert report.pairs[0].ratings == ()
    assert report.pairs[0].untested == {"ovmerd": "rated by rater and by other"}
    [line] = gate(report.pairs[0])
    assert line.startswith("ovmerd is not tested") and "rated by rater and by other" in line
    assert any("rated by different judges (rater, other)" in note for note in report.notes)


def test_ratings_are_on_the_leaderboard_with_who_rated(rated: list[Path]) -> None:
    runs = [LeaderboardRun(result=read_run_folder(folder), start_ms=i) for i, folder in enumerate(rated)]
    rows = [line for line in to_leaderboard(runs).splitlines() if "remote model" in line]
    assert len(rows) == 3
    row = next(line for line in rows if "remote model good" in line)
    assert f"| as it is | 1 (0) | {COUNT} | rater | 6.50 [" in row
    assert any("| other | 6.50 [" in line for line in rows)


def test_emotions_have_their_intervals_and_their_test(clips: Path, tmp_path: Path) -> None:
    folders = []
    for name, words in (("angry", "anger"), ("mute", "perhaps")):
        with chat_server(lambda seen, words=words: says(words)) as server:
            folders.append(evaluated(clips, tmp_path / name, server, "dfew"))
    report = report_of(*folders)
    assert report.tasks == ("dfew",)
    value, low, high, n = report.columns[0].accuracy("dfew")
    assert (value, n) == (50.0, COUNT)
    assert low < 50 < high
    assert report.pairs[0].tasks[0].broke == COUNT // 2
    assert "dfew_uar" in report.other
    assert not any("not on this machine" in note for note in report.notes)


# grounding ------------------------------------------------------------------------------------------------------------


def grounding() -> dict[str, Any]:
    """The report of a model that answers questions about the voice, but not without it; no likelihoods when blank."""
    queries = [Query(query_id=f"q{i}/{about}", clip_id=f"c{i}", modality=about, task="t", prompt="?",  # type: ignore[arg-type]
                     answer="A") for i in range(20) for about in ("audio", "video")]  # fmt: skip

    def view(silent: bool, logps: bool) -> View:
        outcomes = {
            q.query_id: Outcome(sample_id=q.query_id, clip_id=q.clip_id, gold="A",
                                said="B" if silent and q.modality == "audio" and int(q.clip_id[1:]) % 4 else "A")
            for q in queries
        }  # fmt: skip
        sure = {q.query_id: {"A": -0.1 if not silent else -1.0 - 0.01 * i, "B": -2.0} for i, q in enumerate(queries)}
        return View(outcomes=outcomes, logps=sure if logps else {})

    modes = {"muted": view(True, True), "blank_video": view(False, False)}
    return to_json(losses(queries, view(False, True), modes))


@pytest.fixture
def grounded(tmp_path: Path) -> Path:
    says_right = {"before": lambda i, task, gold: "(A) Yes", "round=0": lambda i, task, gold: f"({gold})"}
    run = write_run(tmp_path / "run", says_right, clips=6)
    for stage in ("before", "round=0"):
        (run / "evals" / stage / "emorealm_grounding.json").write_text(json.dumps(grounding()))
    return run


def test_what_modes_cost_is_shown_with_intervals_everywhere(grounded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(grounded)
    found = report.losses["run, round 0"]
    muted = next(loss for loss in found if (loss.mode, loss.asked) == ("muted", "audio"))
    assert (muted.without, muted.plain, muted.changed, muted.drop.value) == ("audio", 100.0, 25.0, 75.0)
    assert muted.drop.interval.low < 75 < muted.drop.interval.high
    assert muted.shift is not None and muted.shift.interval.low < muted.shift.value < muted.shift.interval.high
    blank = next(loss for loss in found if loss.mode == "blank_video")
    assert (blank.shift, blank.drop.value) == (None, 0.0)
    assert list(report.losses) == ["run, before", "run, round 0"]
    assert report.to_json()["grounding"]["run, before"]["emorealm"] == grounding()
    page, text = to_html(report), to_markdown(report)
    assert compare.main([str(grounded), f"--out={grounded.parent / 'out'}", "--no-log"]) == 0
    drop = f"+75.0 [{muted.drop.interval.low:+.1f}, {muted.drop.interval.high:+.1f}]"
    for form in (page, text, " ".join(capsys.readouterr().out.split())):
        assert drop in form
        assert "muted" in form and "blank_video" in form
    assert "Accuracy lost by mode" in page  # the chart


def test_runs_without_modes_have_no_such_part(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"before": lambda *_: "(A)", "round=0": lambda *_: "(B)"}, clips=4)
    report = report_of(run)
    assert report.losses == {}
    assert "Grounding" not in to_html(report) and "Grounding" not in to_markdown(report)


@pytest.mark.parametrize("text", ["{", '{"audio": {"muted": {"all": {}}}}', "[]"])
def test_a_damaged_report_is_named(grounded: Path, text: str) -> None:
    (grounded / "evals" / "before" / "emorealm_grounding.json").write_text(text)
    with pytest.raises(StageError, match="before"):
        report_of(grounded)
