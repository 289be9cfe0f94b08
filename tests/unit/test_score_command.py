"""`avere-ray score` as a user types it."""

import json
from pathlib import Path

import pytest
from test_light_imports import heavy_after

from jobs.main import main


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "p").mkdir()
    for name, text in {"1": "Happy", "2": "angry"}.items():
        (tmp_path / "p" / f"{name}.txt").write_text(text)
    (tmp_path / "set_1.csv").write_text("video_name,label\n1,1\n2,2\n3,4\n")
    return str(tmp_path / "p"), str(tmp_path / "set_1.csv")


def test_the_table_names_what_was_missing(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "dfew", "--predictions", files[0], "--annotations", files[1]]) == 0
    printed = capsys.readouterr().out
    assert "| war " in printed and "33.33" in printed and "95 % interval" in printed
    assert "missing: 1 without a prediction, counted as wrong: 3" in printed


def test_json_has_metrics_intervals_and_counts(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "dfew", "--predictions", files[0], "--annotations", files[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["war"] == pytest.approx(100 / 3)
    assert found["intervals"]["war"]["n"] == 3
    assert (found["n"], found["missing"], found["missing_ids"], found["legacy"]) == (3, 1, ["3"], False)


def test_legacy_skips_what_is_missing(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "dfew", "--predictions", files[0], "--annotations", files[1], "--json", "--legacy"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scored"], found["metrics"]["overall_accuracy"]) == (2, 0.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["emoreal"], "invalid choice: 'emoreal'"),
        (["dfew"], "required: --predictions, --annotations"),
        (["dfew", "--predictions", "x", "--annotations", "y", "--folds", "2"], "unrecognized arguments: --folds 2"),
        (["cmm", "--predictions", "x", "--annotations", "y", "--fold", "2"], "--fold 2 means nothing to cmm"),
        (["avhbench", "--predictions", "x", "--annotations", "y", "--legacy"], "no released scorer"),
        (["dfew", "--predictions", "x", "--annotations", "y.csv"], "y.csv does not exist"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_scoring_imports_nothing_heavy(files: tuple[str, str]) -> None:
    code = (
        "from jobs.main import main; assert main(['score', 'dfew', '--predictions', {!r}, '--annotations', {!r}]) == 0"
    )
    assert heavy_after(code.format(*files))[1] == []
