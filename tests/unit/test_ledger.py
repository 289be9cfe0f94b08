"""The ledger: drops with reasons, held against a budget, and read back from a run."""

from pathlib import Path

import pytest

from avere_ray.errors import DropBudgetExceeded, InputError, StageError
from avere_ray.ledger import Ledger
from avere_ray.records import Drop
from avere_ray.stages import StageFolder
from jobs.ledger import main, read_ledger


def ledger_with(*reasons: str) -> Ledger:
    ledger = Ledger("decode")
    for i, reason in enumerate(reasons):
        ledger.drop(f"c{i}", reason, f"clip c{i}: {reason}")
    return ledger


def finish(run_dir: Path, name: str, used: int, drops: list[Drop]) -> None:
    folder = StageFolder(run_dir / name, stage=name.split("/")[0], key="k")
    folder.begin()
    folder.finish(inputs=used + len(drops), used=used, drops=drops)


def test_drops_are_counted_by_reason_most_frequent_first() -> None:
    ledger = ledger_with("too_long", "no_audio_stream", "no_audio_stream")
    ledger.extend([Drop(sample_id="x", stage="decode", reason="no_audio_stream", message="x")])
    assert list(ledger.counts().items()) == [("no_audio_stream", 3), ("too_long", 1)]


def test_an_input_that_is_neither_used_nor_dropped_is_noticed() -> None:
    ledger_with("too_long").check_sum(3, 2)
    with pytest.raises(StageError, match="4 inputs but 2 used and 1 dropped"):
        ledger_with("too_long").check_sum(4, 2)


@pytest.mark.parametrize(
    ("drops", "inputs", "budget", "allowed"),
    [
        (1, 10, 0.1, True),
        (2, 10, 0.1, False),
        (1, 10, 0.001, True),  # one bad file never stops a small corpus
        (2, 10, 0.001, False),
        (1, 10, 0.0, False),
        (0, 0, 0.0, True),
        (5, 5, 1.0, True),
    ],
)
def test_the_budget_stops_a_run_that_drops_too_much(drops: int, inputs: int, budget: float, allowed: bool) -> None:
    ledger = ledger_with(*["unreadable"] * drops)
    if allowed:
        ledger.check_budget(inputs, budget)
    else:
        with pytest.raises(DropBudgetExceeded, match=rf"dropped {drops} of {inputs} inputs.*{drops} x unreadable"):
            ledger.check_budget(inputs, budget)


def test_the_error_shows_an_example_of_each_reason() -> None:
    with pytest.raises(DropBudgetExceeded) as caught:
        ledger_with("too_long", "no_audio_stream", "too_long").check_budget(3, 0.1)
    message = str(caught.value)
    assert "2 x too_long, for instance c0: clip c0: too_long" in message
    assert "1 x no_audio_stream, for instance c1" in message
    assert "data.drop_budget" in message


def test_a_run_s_ledger_lists_every_stage(tmp_path: Path) -> None:
    finish(tmp_path, "decode", 3, ledger_with("too_long", "no_audio_stream", "too_long", "too_long").drops)
    finish(tmp_path, "pairs/round=0", 5, [])
    entries = {entry.folder: entry for entry in read_ledger(tmp_path)}
    assert set(entries) == {"decode", "pairs/round=0"}
    assert entries["decode"].reasons() == {"too_long": 3, "no_audio_stream": 1}
    assert [drop.sample_id for drop in entries["decode"].examples("too_long")] == ["c0", "c2"]
    assert entries["pairs/round=0"].reasons() == {}


@pytest.mark.parametrize("argument", ["{}", "--run_dir={}"])
def test_the_verb_prints_counts_reasons_and_examples(
    argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    drop = Drop(sample_id="c7", stage="decode", reason="no_audio_stream", message="[c7] has no audio")
    finish(tmp_path, "decode", 41, [drop])
    assert main([argument.format(tmp_path)]) == 0
    output = capsys.readouterr().out
    row = next(line for line in output.splitlines() if "decode" in line)
    assert row.replace("│", " ").split() == ["decode", "42", "41", "1", "1", "x", "no_audio_stream"]
    assert "c7: [c7] has no audio" in output


def test_a_run_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no finished stage"):
        read_ledger(tmp_path)


def test_a_broken_manifest_is_not_passed_over(tmp_path: Path) -> None:
    finish(tmp_path, "decode", 1, [])
    (tmp_path / "decode" / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(StageError, match="Delete the folder"):
        read_ledger(tmp_path)


def test_the_run_folder_may_be_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(tmp_path, "decoded", 3, [])
    assert main([str(tmp_path)]) == 0
    assert "decoded" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "avere-ray ledger [RUN] [--config FILE]" in capsys.readouterr().out
