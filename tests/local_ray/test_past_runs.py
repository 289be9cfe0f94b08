"""Past runs from a real MLflow database: found, compared, listed and promoted."""

import json
import math
from pathlib import Path

import pytest
from runfolders import Says, write_run

from avere_ray.config import RunConfig, TrackingConfig
from avere_ray.learner.checkpoints import Checkpoint, finish, step_folder
from avere_ray.metrics import MetricSpool
from avere_ray.stages import StageFolder, file_digest, read_manifest, write_json, write_text
from avere_ray.tracking import Tracker
from avere_ray.tracking.past import find_run, mlflow_client, run_folder, search_runs
from avere_ray.tracking.registry import alias_of, fetch_adapter
from jobs.main import main
from jobs.tracked import tracked as tracked_by

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


def told(folder: Path, name: str, after: Says, times: int = 1) -> str:
    """A run with its evaluations, pairs and adapter told to MLflow as the pipeline tells them, again and again."""
    write_run(folder, {"before": yes, "round=0": after}, name=name)
    write_text(folder / "adapters" / "round=0" / "adapter_model.safetensors", "weights")
    for _ in range(times):
        with Tracker(folder, TrackingConfig(), run_name=name, say=lambda line: None) as tracker:
            tracker.start({"name": name, "run_dir": str(folder), "seed": 0, "rounds": 1})
            tracker.log_table("rollouts_round_0.json", {"verdict": ["faithful", "spurious"], "answered": ["(A)", "No"]})
            for step, stage in enumerate(("before", "round=0")):
                manifest = read_manifest(folder / "evals" / stage)
                assert manifest is not None
                child = "evals" if stage == "before" else f"{stage}/evals"
                metrics = {f"eval/{k}": v for k, v in manifest.summary["metrics"].items()}
                tracker.log(metrics, step=step, source=manifest.key)
                tracker.log_child(child, run_name=child, key=manifest.output_digest, metrics=metrics, step=step,
                                  start_ms=1000, tags={"stage": f"evals/{stage}"},
                                  model="adapter-round0" if step else "")  # fmt: skip
                tracker.log_dataset("emorealm", "d" * 32, source="x.json", context="evaluation",
                                    profile={"questions": 90}, child=child)  # fmt: skip
                tracker.log_artifacts(folder / "evals" / stage, "evaluation", child=child)
            tracker.log_model("adapter-round0", folder / "adapters" / "round=0", step=1, tags={"adapter.version": "1"},
                              child="round=0/adapters")  # fmt: skip
            tracker.log_child("round=0", run_name="round 0", key="k", metrics={}, step=1, start_ms=1000)
            tracker.finish()
            assert tracker.close() == 0
            assert tracker._sender.refused == 0
    assert tracker.run_id is not None
    return tracker.run_id


def trained(folder: Path, times: int) -> str:
    """A round of training as its stages leave it, with two checkpoints, told to MLflow again and again."""
    cfg = RunConfig(run_dir=folder, name="trained")
    for stage, summary in (("pairs", {}), ("adapters", {"steps": 60})):
        place = StageFolder(folder / stage / "round=0", stage=stage, key=stage)
        place.begin()
        write_text(place.path / "adapter_model.safetensors", "weights")
        manifest = place.finish(inputs=9, used=9, summary=summary)
    for step, loss in ((20, 0.5), (40, 0.4), (60, 0.3)):
        path = step_folder(folder / "checkpoints" / "round=0", step)
        write_text(path / "adapter" / "adapter_model.safetensors", f"weights {step}")
        made = Checkpoint(step=step, cursor=step, epoch=step / 60, key="k", world=1, zero_stage=2, dtype="float32",
                          base_digest="b", mlflow_run_id=None, metrics={"loss": loss, "nothing": math.nan})  # fmt: skip
        finish(path, made)
        MetricSpool(folder / "metrics", "train-round0").log({"loss": loss}, step=step)
    for _ in range(times):
        with tracked_by(cfg) as log:
            log.training(cfg, 0, lambda: manifest)
            assert log.tracker.close() == 0
            assert log.tracker._sender.refused == 0
    return log.tracker.run_id


def test_every_checkpoint_is_a_model_with_its_figures_once(tmp_path: Path) -> None:
    run_id = trained(tmp_path / "trained", times=2)
    with mlflow_client(f"sqlite:///{tmp_path / 'mlflow.db'}") as client:
        run = client.get_run(run_id)
        models = {model.name: model for model in client.search_logged_models([run.info.experiment_id])}
        figures = {name: [(m.key, m.value, m.step) for m in model.metrics] for name, model in models.items()}
        assert figures == {
            "adapter-round0-step000020": [("loss", 0.5, 20)],
            "adapter-round0-step000040": [("loss", 0.4, 40)],
            "adapter-round0": [("loss", 0.3, 60)],
        }
        assert {(model.status, model.source_run_id) for model in models.values()} == {("READY", run_id)}
        early = models["adapter-round0-step000020"]
        assert (early.tags["adapter.version"], early.tags["checkpoint.epoch"]) == ("1", "0.333333")
        [file] = client.list_logged_model_artifacts(early.model_id)
        assert file.path == "adapter_model.safetensors"
        [child] = client.search_runs([run.info.experiment_id], "tags.stage = 'adapters/round=0'")
        assert {output.model_id for output in child.outputs.model_outputs} == {m.model_id for m in models.values()}
        assert len(client.get_metric_history(child.info.run_id, "loss")) == 3


@pytest.fixture(scope="module")
def told_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two runs whose folders are gone, as on another machine."""
    runs = tmp_path_factory.mktemp("told")
    ids = {"first": told(runs / "first", "first", right, times=2), "second": told(runs / "second", "second", worse)}
    for name in ids:
        (runs / name).rename(runs / f"{name}, elsewhere")
    return ids | {"uri": f"sqlite:///{runs / 'mlflow.db'}"}


def test_stages_are_child_runs_and_everything_is_there_once(told_runs: dict[str, str], tmp_path: Path) -> None:
    run_id = told_runs["first"]
    with mlflow_client(told_runs["uri"]) as client:
        experiment = client.get_run(run_id).info.experiment_id
        hanging = client.search_runs([experiment], f"tags.`avere_ray.root` = '{run_id}'")
        runs = {run.info.run_name: run for run in [client.get_run(run_id), *hanging]}
        assert set(runs) == {"first", "evals", "round 0", "round=0/evals", "round 0/adapters"}
        above = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
        inside = runs["round 0"].info.run_id
        assert above == {"first": None, "evals": run_id, "round 0": run_id, "round=0/evals": inside,
                         "round 0/adapters": inside}  # fmt: skip
        after = runs["round=0/evals"]
        assert (after.info.status, after.data.metrics["eval/average_accuracy"]) == ("FINISHED", 100.0)
        assert len(client.get_metric_history(after.info.run_id, "eval/average_accuracy")) == 1
        [given] = after.inputs.dataset_inputs
        assert (given.dataset.name, given.dataset.digest) == ("emorealm", "d" * 32)
        [model] = [m for m in client.search_logged_models([experiment]) if m.source_run_id == run_id]
        assert (model.name, model.status, model.tags["adapter.version"]) == ("adapter-round0", "READY", "1")
        assert {m.key: m.value for m in model.metrics}["eval/average_accuracy"] == 100.0
        assert [file.path for file in client.list_logged_model_artifacts(model.model_id)] == [
            "adapter_model.safetensors"
        ]
        table = json.loads(Path(client.download_artifacts(run_id, "rollouts_round_0.json", str(tmp_path))).read_text())
        assert table == {"columns": ["verdict", "answered"], "data": [["faithful", "(A)"], ["spurious", "No"]]}
        assert json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"]) == [
            {"path": "rollouts_round_0.json", "type": "table"}
        ]
    found = search_runs(told_runs["uri"], EXPERIMENT, "attributes.status = 'FINISHED'")
    assert [run.name for run in found] == ["first", "second"]


def test_runs_are_compared_by_the_answers_they_left_in_mlflow(told_runs: dict[str, str], tmp_path: Path) -> None:
    assert avere(told_runs, "compare", "first", "second", "--no-log", "--out", str(tmp_path / "out")) == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    [pair] = found["pairs"]
    assert (pair["shared"], pair["apart"]) == (90, 0)
    assert pair["tasks"]["modality_agreement"]["verdict"] == "worse"
    assert len(pair["flips"]) == 30


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
    assert "| 2 (0, 1) |" in twin and "| 100.0 | 100.0 |" in twin and world["twin1"][:8] in twin
    good = next(line for line in measured.splitlines() if line.startswith("| good") and "| before |" in line)
    assert "| 1 (0) |" in good and "| 50.0 [" in good
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


def evaluated(cfg: RunConfig, round_: int, after: Says, weights: str) -> None:
    """A round's adapter and evaluation as its stages leave them, told to MLflow."""
    write_run(cfg.run_dir, {"before": yes, f"round={round_}": after}, name=cfg.name)
    place = StageFolder(cfg.run_dir / "adapters" / f"round={round_}", stage="adapters", key=weights)
    place.begin()
    write_text(place.path / "adapter_model.safetensors", weights)
    write_json(
        place.path / "adapter_manifest.json",
        {"weights_sha256": file_digest(place.path / "adapter_model.safetensors")},
    )
    place.finish(inputs=9, used=9, summary={"steps": 60})
    with tracked_by(cfg) as log:
        for k in (-1, round_):
            manifest = read_manifest(cfg.run_dir / "evals" / ("before" if k < 0 else f"round={k}"))
            assert manifest is not None
            log.evaluation(cfg, k, lambda manifest=manifest: manifest)
        assert log.tracker.close() == 0 and log.tracker._sender.refused == 0


def test_a_champion_that_is_trained_further_has_to_pass_the_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = RunConfig(run_dir=tmp_path / "further", name="further")
    world = {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}

    def champion_weights() -> str:
        found = alias_of(world["uri"], "f", "champion")
        assert found is not None
        return (fetch_adapter(world["uri"], found.run_id, tmp_path / "s") / "adapter_model.safetensors").read_text()

    evaluated(cfg, 0, right, "one")
    assert avere(world, "promote", str(cfg.run_dir), "--model", "f") == 0
    assert champion_weights() == "one"
    evaluated(cfg, 1, worse, "two")
    assert avere(world, "promote", str(cfg.run_dir), "--model", "f") == 1
    assert "modality_agreement is significantly worse: 100.0 to 0.0" in capsys.readouterr().out
    assert champion_weights() == "one"
    evaluated(cfg, 1, right, "three")
    assert avere(world, "promote", str(cfg.run_dir), "--model", "f") == 0
    assert champion_weights() == "three"
    assert avere(world, "promote", str(cfg.run_dir), "--model", "f") == 0
    assert "is the champion already (version 3)" in capsys.readouterr().out
