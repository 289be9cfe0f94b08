"""Past runs from a real MLflow database: found, compared, listed and promoted."""

import json
from pathlib import Path

import pytest
from runfolders import write_run

from avere_ray.config import TrackingConfig
from avere_ray.stages import write_text
from avere_ray.tracking import Tracker
from avere_ray.tracking.past import find_run, run_folder, search_runs
from avere_ray.tracking.registry import alias_of
from jobs.main import main

pytestmark = [pytest.mark.local_ray, pytest.mark.timeout(240)]
EXPERIMENT = "avere_ray"


def yes(i: int, task: str, gold: str) -> str:
    return "(A) Yes"


def right(i: int, task: str, gold: str) -> str:
    return f"({gold})"


def worse(i: int, task: str, gold: str) -> str:
    return "maybe" if task == "modality_agreement" else f"({gold})"


def tracked(folder: Path, name: str, seed: int, settings: dict[str, object] | None = None, **says: object) -> str:
    """A run folder, sent to MLflow as the pipeline does; returns its MLflow id."""
    stages = {"before": yes, "round=0": says.get("after", right)}
    write_run(folder, stages, name=name, seed=seed, settings=settings)  # type: ignore[arg-type]
    write_text(folder / "adapters" / "adapter_config.json", "{}")
    params = {"name": name, "run_dir": str(folder), "seed": seed, "rounds": 1} | (settings or {})
    with Tracker(folder, TrackingConfig(), run_name=name, say=lambda line: None) as tracker:
        tracker.start(params)
        for step, stage in enumerate(stages):
            manifest = json.loads((folder / "evals" / stage / "manifest.json").read_text())
            tracker.log({f"eval/{k}": v for k, v in manifest["summary"]["metrics"].items()}, step=step)
        tracker.log({"loss": 1.5}, step=0)
        tracker.log_artifacts(folder / "adapters", "adapter")
        tracker.finish()
        assert tracker.close() == 0
        assert tracker.run_id is not None
        return tracker.run_id


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    runs = tmp_path_factory.mktemp("runs")
    ids = {"good": tracked(runs / "good", "good", 0), "twin0": tracked(runs / "twin0", "twin", 0, {"rounds": 2})}
    ids["twin1"] = tracked(runs / "twin1", "twin", 1, {"rounds": 2})
    ids["worse"] = tracked(runs / "worse", "worse", 0, {"rounds": 3}, after=worse)
    return ids | {"uri": f"sqlite:///{runs / 'mlflow.db'}", "runs": str(runs)}


def avere(world: dict[str, str], *arguments: str) -> int:
    return main([arguments[0], "--tracking.uri", world["uri"], *arguments[1:]])


def test_runs_are_found_by_id_name_and_filter(world: dict[str, str]) -> None:
    found = find_run(world["uri"], EXPERIMENT, world["good"])
    assert (found.name, found.status, found.params["seed"]) == ("good", "FINISHED", "0")
    assert find_run(world["uri"], EXPERIMENT, "good").run_id == world["good"]
    assert run_folder(found, world["uri"]) == Path(world["runs"], "good")
    twins = search_runs(world["uri"], EXPERIMENT, "params.rounds = '2'")
    assert [run.run_id for run in twins] == [world["twin0"], world["twin1"]]


def test_compare_by_name_and_filter_and_its_page_in_mlflow(
    world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert avere(world, "compare", "worse", "--filter", "params.rounds = '2'", "--out", out) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.count("logged to MLflow run") == 3
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [pair["shared"] for pair in found["pairs"]] == [90, 0]
    assert found["pairs"][0]["tasks"]["modality_agreement"]["verdict"] == "better"
    pages = list(Path(world["runs"]).rglob("comparisons/compare.html"))
    assert len(pages) == 3 and pages[0].read_bytes() == (tmp_path / "out" / "compare.html").read_bytes()


def test_a_run_whose_folder_is_gone_is_compared_by_its_figures(world: dict[str, str], tmp_path: Path) -> None:
    kept = Path(world["runs"], "good")
    kept.rename(tmp_path / "away")
    try:
        assert avere(world, "compare", "good", "--no-log", "--out", str(tmp_path / "out")) == 0
    finally:
        (tmp_path / "away").rename(kept)
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["figures"]["good, before"]["average"] == {"accuracy": 50.0, "low": None, "high": None, "n": 0}
    assert found["figures"]["good, round 0"]["average"]["accuracy"] == 100.0
    assert found["pairs"][0]["tasks"] == {}
    assert any("not on this machine" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("run", "says"),
    [("twin", "2 runs are called 'twin'"), ("nobody", "no run in experiment"), ("0" * 32, "has no run 0000")],
)
def test_runs_that_are_not_one_are_refused(
    world: dict[str, str], run: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert avere(world, "compare", run, "--out", str(tmp_path)) == 2
    assert says in capsys.readouterr().err


def test_the_leaderboard_keeps_measured_and_published_apart(world: dict[str, str], tmp_path: Path) -> None:
    assert avere(world, "leaderboard", "--out", str(tmp_path / "leaderboard.md")) == 0
    text = (tmp_path / "leaderboard.md").read_text()
    measured, published = text.split("## Published by others")
    twin = next(line for line in measured.splitlines() if line.startswith("| twin") and "| after |" in line)
    assert "| 0, 1 |" in twin and "| 100.0 ± 0.0 |" in twin and world["twin1"][:8] in twin
    good = next(line for line in measured.splitlines() if line.startswith("| good") and "| before |" in line)
    assert "| 0 |" in good and "| 50.0 [" in good
    assert "AVERE-7B" in published and "AVERE-7B" not in measured and "twin" not in published


def test_promotion_moves_the_champion_only_if_nothing_got_worse(
    world: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def holder(alias: str) -> str | None:
        found = alias_of(world["uri"], "m", alias)
        return found.run_id if found is not None else None

    assert holder("champion") is None
    assert avere(world, "promote", "good", "--model", "m") == 0
    assert "no task of good after it is significantly worse" in capsys.readouterr().out
    assert (holder("champion"), holder("candidate")) == (world["good"], world["good"])
    assert avere(world, "promote", "worse", "--model", "m") == 1
    assert "modality_agreement is significantly worse: 100.0 to 0.0" in capsys.readouterr().out
    assert (holder("champion"), holder("candidate")) == (world["good"], world["worse"])
    assert avere(world, "promote", world["twin0"], "--model", "m") == 0
    assert holder("champion") == world["twin0"]
    assert avere(world, "promote", world["twin0"], "--model", "m") == 0
    assert "is the champion already (version 3)" in capsys.readouterr().out
