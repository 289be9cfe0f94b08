"""The whole loop on real components: interrupted, continued as a submitted job, again; with a broken clip.

One run serves most tests: it is started by hand, interrupted by Ctrl-C, and finished by `ray job submit`. Its MLflow
server never answers, so MLflow has it from `avere-ray track`.
"""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import jobcluster
import runs
from imported import SAYS

from avere_ray.stages import read_manifest

TASKS = (
    "reasoning_basic_audio",
    "reasoning_basic_video",
    "modality_agreement",
    "reasoning_stress_audio",
    "reasoning_stress_video",
)
SETTINGS = ("--world.corrupt_clips=1", "--data.drop_budget=0.05", "--tracking.system_every_s=1",
            '--evaluation.modes=["muted"]', "--evaluation.few_shot=1")  # fmt: skip
SILENT = ("--tracking.uri=http://127.0.0.1:9", "--tracking.timeout_s=2")
"""An MLflow server that is not there."""
STAGES = tuple(f"{name}/round=0" for name in ("rollouts", "verdicts", "pairs", "reference", "adapters", "evals"))
"""Of the one round; besides them there are clips, decoded and evals/before."""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """A small run that was interrupted while it decoded and started its engine: folder, output, exit code."""
    run_dir = tmp_path_factory.mktemp("e2e") / "run"
    process = runs.start(run_dir, *SETTINGS, *SILENT)
    try:
        runs.wait_for(run_dir / "clips" / "manifest.json", process)
        runs.wait_for(run_dir / "decoded", process)
        runs.press_ctrl_c(process)
        output, _ = process.communicate(timeout=90)
    finally:
        runs.end(process)
    return run_dir, output, process.returncode


@pytest.fixture(scope="module")
def submitted(
    interrupted: tuple[Path, str, int], tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str], list[str]]:
    """The run sent to a cluster once more, then a job whose config is wrong, and that job's log; it first says where a
    worker finds the code."""
    job = ("python", "-m", "jobs.pipeline", "--config", runs.CONFIG)
    with jobcluster.cluster(tmp_path_factory.mktemp("head")) as env:
        good = jobcluster.submit(env, *job, f"--run_dir={interrupted[0]}", *runs.SMALL, *SETTINGS, *SILENT)
        bad_job = f"python -m tests.e2e.imported; {' '.join(job)} --train.zero_stage=7"
        bad = jobcluster.submit(env, "sh", "-c", bad_job)
        names = re.findall(r"raysubmit_\w+", bad.stdout + bad.stderr)
        return good, bad, jobcluster.job_log(env, names[0]) if names else []


@pytest.fixture(scope="module")
def finished(interrupted: tuple[Path, str, int], submitted: Any) -> tuple[Path, str]:
    """The run, with one corrupt clip, after it was finished as a job; what was printed then."""
    done, _, _ = submitted
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return interrupted[0], output


@pytest.fixture(scope="module")
def tracked(finished: tuple[Path, str]) -> tuple[Path, str, str]:
    """The run after `avere-ray track` has sent it to a database, the id of its MLflow run, and what was printed."""
    run_dir, _ = finished
    assert not list((run_dir / "metrics").glob("*.sent"))
    uri = f"--tracking.uri=sqlite:///{run_dir.parent / 'mlflow.db'}"
    done = subprocess.run([sys.executable, "-m", "jobs.main", "track", str(run_dir), uri], cwd=runs.ROOT,
                          env=runs.environment(), capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, runs.mlflow_run(run_dir), done.stdout


def test_the_run_goes_on_as_a_submitted_job(finished: tuple[Path, str]) -> None:
    assert "succeeded" in finished[1]
    assert "rollouts (round 0)" in finished[1], "the job's log is followed"


def test_a_submitted_job_with_a_broken_config_fails_with_its_error_as_the_last_line(submitted: Any) -> None:
    _, done, log = submitted
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" in done.stdout + done.stderr
    assert log and re.search(r"train\.zero_stage = '?7'?", log[-1]), log


def test_the_workers_of_a_submitted_job_import_the_code_that_it_brought(submitted: Any) -> None:
    """Not this checkout, which is installed in the environment that they run in."""
    *_, log = submitted
    files = [Path(line.removeprefix(SAYS)) for line in log if line.startswith(SAYS)]
    assert [file.parent.name for file in files] == ["avere_ray", "actors", "jobs"], log
    assert all("working_dir_files" in file.parts and not file.is_relative_to(runs.ROOT) for file in files), files


def test_ctrl_c_ends_a_run_in_words_and_leaves_what_is_finished(
    interrupted: tuple[Path, str, int], finished: tuple[Path, str]
) -> None:
    _, output, code = interrupted
    assert code == 130, output
    assert output.strip().splitlines()[-1].endswith("finished stages are kept; run the same command again to continue")
    assert "Traceback" not in output
    assert "clips: finished earlier, reused" in finished[1]


def test_the_report_accounts_for_everything(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    figures = runs.report(run_dir)
    assert figures["inputs"] == 22
    assert figures["dropped"] == 1
    assert figures["inputs"] == figures["used"] + figures["dropped"]
    assert figures["rollouts"] == 15 * 2 * 2 == sum(figures["verdicts"].values())
    assert 0 < figures["pairs"] <= 30
    assert figures["steps"] == -(-figures["pairs"] // 8)
    assert figures["parity_max_abs_diff"] < 1e-4
    assert figures["seed"] == 0
    for side in ("before", "after"):
        accuracies = [figures[side][f"{task}_overall_accuracy"] for task in TASKS]
        assert figures[side]["average_accuracy"] == pytest.approx(sum(accuracies) / 5)
    assert (run_dir / figures["adapter"] / "adapter_model.safetensors").is_file()


def test_the_corrupt_clip_is_recorded_with_its_reason(finished: tuple[Path, str]) -> None:
    from avere_ray.stages import read_drops

    [drop] = read_drops(finished[0] / "decoded")
    assert drop.sample_id == "train00000"
    assert drop.reason == "corrupt"
    assert drop.bytes == 1500


def test_the_output_shows_progress_a_sample_and_what_to_do_next(finished: tuple[Path, str]) -> None:
    _, output = finished
    for words in ("decode", "rollouts (round 0)", "judge (round 0)", "parity:", "before", "after", "MLflow", "serve"):
        assert words in output


def test_the_resolved_config_lies_beside_every_artefact(finished: tuple[Path, str]) -> None:
    resolved = (finished[0] / "config.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(resolved)
    assert settings["world"]["corrupt_clips"] == 1, "given on the command line"
    assert settings["ray"]["connect_timeout_s"] == 60.0, "named nowhere"
    for stage in ("clips", "decoded", "evals/before", *STAGES):
        assert (finished[0] / stage / "config.yaml").read_text(encoding="utf-8") == resolved, stage


def test_a_server_that_does_not_answer_stops_nothing_and_track_sends_what_was_kept(
    finished: tuple[Path, str], tracked: tuple[Path, str, str]
) -> None:
    run_dir, output = finished
    assert "MLflow at http://127.0.0.1:9 does not answer" in output
    assert re.search(r"MLflow: [1-9]\d* events are not sent yet; they are kept in .*metrics", output)
    assert f"track {run_dir}` sends it when http://127.0.0.1:9 answers" in output, "the last words of the summary"
    figures = runs.report(run_dir)
    assert (figures["mlflow_run_id"], figures["mlflow_tracking_uri"]) == (None, "http://127.0.0.1:9")
    assert f"everything of {run_dir} is in MLflow, run {tracked[1]}" in tracked[2]
    spools = {path.stem for path in (run_dir / "metrics").glob("*.jsonl")}
    assert {path.stem for path in (run_dir / "metrics").glob("*.sent")} == spools > {"driver", "files", "train-round0"}
    assert not (run_dir / "metrics" / "refused.txt").exists()


def test_every_number_is_in_mlflow(tracked: tuple[Path, str, str]) -> None:
    run_dir, run_id, _ = tracked
    figures = runs.report(run_dir)
    with sqlite3.connect(run_dir.parent / "mlflow.db") as database:
        rows = database.execute("select key, value, step from metrics where run_uuid = ?", (run_id,))
        metrics = {(key, step): value for key, value, step in rows}
        params = dict(database.execute("select key, value from params where run_uuid = ?", (run_id,)))
    assert params["train.zero_stage"] == "2"
    assert metrics["eval/average_accuracy", 0] == figures["before"]["average_accuracy"]
    assert metrics["eval/average_accuracy", figures["steps"]] == figures["after"]["average_accuracy"]
    assert {step for key, step in metrics if key == "rewards/margins"} == set(range(figures["steps"]))


def test_the_evaluation_says_what_is_lost_without_sound(finished: tuple[Path, str]) -> None:
    place = finished[0] / "evals" / "round=0"
    loss = json.loads((place / "emorealm_grounding.json").read_text())["audio"]["muted"]["all"]
    assert loss["n"] == 30
    assert loss["drop"]["value"] == pytest.approx(loss["accuracy"] - loss["accuracy_changed"])
    assert loss["shift_nats"]["n"] == 30
    rows = [json.loads(line) for line in (place / "option_logps.jsonl").read_text().splitlines()]
    assert {len(row["logps"]) for row in rows} == {2, 4}
    assert all(value < 0 for row in rows for value in row["logps"].values())
    assert (place / "predictions_muted.parquet").is_file()
    assert not (finished[0] / "evals" / "unfinished").exists()


def test_mlflow_has_a_child_run_per_stage_with_data_answers_models_and_a_table(
    tracked: tuple[Path, str, str], tmp_path: Path
) -> None:
    from avere_ray.tracking.past import mlflow_client

    run_dir, run_id, _ = tracked
    with mlflow_client(f"sqlite:///{run_dir.parent / 'mlflow.db'}") as client:
        run = client.get_run(run_id)
        assert {"git.commit", "git.dirty", "host", "gpu", "base.digest", "data.digest"} <= set(run.data.tags)
        assert run.data.tags["adapter.version"] == "1"
        assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["clips"]
        assert any(name.startswith("system/") and name.endswith("/cpu_percent") for name in run.data.metrics)
        found = client.search_runs([run.info.experiment_id], f"tags.`avere_ray.root` = '{run_id}'")
        children = {child.data.tags["stage"]: child for child in found}
        assert set(children) == {*STAGES, "clips", "decoded", "evals/before", "round=0"}
        assert {child.info.status for child in found} == {"FINISHED"}
        pairs = read_manifest(run_dir / "pairs" / "round=0")
        assert pairs is not None
        assert children["pairs/round=0"].data.tags["output.digest"] == pairs.output_digest
        assert run.data.metrics["pairs/texts_written_share"] == pairs.summary["texts_written_share"]
        counted = {k: n for k, n in runs.report(run_dir)["verdicts"].items() if n}
        assert {k: run.data.metrics[f"verdicts/{k}_count"] for k in counted} == counted
        assert {file.path for file in client.list_artifacts(run_id, "run")} == {"run/config.yaml", "run/report.json"}
        resolved = Path(client.download_artifacts(run_id, "run/config.yaml", str(tmp_path)))
        assert resolved.read_text() == (run_dir / "config.yaml").read_text()
        after = children["evals/round=0"]
        assert after.data.tags["mlflow.parentRunId"] == children["round=0"].info.run_id
        answers = after.data.tags["answers"]
        assert f"{answers}/predictions.parquet" in [
            file.path for file in client.list_artifacts(after.info.run_id, answers)
        ]
        assert answers == f"evaluation/{after.data.tags['avere_ray.key']}"
        adapter = run.data.tags["evaluated.round0"]
        assert f"adapter/{adapter}/adapter_model.safetensors" in [
            file.path for file in client.list_artifacts(run_id, f"adapter/{adapter}")
        ]
        [model] = client.search_logged_models([run.info.experiment_id])
        scores = {metric.key: metric.value for metric in model.metrics}
        assert scores["eval/average_accuracy"] == runs.report(run_dir)["after"]["average_accuracy"]
        [table] = (run_dir / "metrics" / "artifacts").glob("rollouts_round_0.json")
        assert len(json.loads(table.read_text())["data"]) == 10
        assert json.loads(run.data.tags["mlflow.loggedArtifacts"])[0]["path"] == table.name


def test_a_second_run_reuses_every_stage_and_says_so(tracked: tuple[Path, str, str]) -> None:
    """Its figures go straight to the database, which has them already."""
    run_dir, run_id, _ = tracked
    before = runs.without_timing(runs.report(run_dir))
    code, output = runs.complete(run_dir, *SETTINGS)
    assert code == 0, output
    assert output.count("reused") >= 8
    assert "starting" not in output  # no engine
    assert f"mlflow ui --backend-store-uri sqlite:///{run_dir.parent / 'mlflow.db'}" in output
    assert runs.without_timing(runs.report(run_dir)) == before
    assert runs.report(run_dir)["mlflow_run_id"] == run_id
    assert set(runs.points(run_dir).values()) == {1}


@pytest.mark.faults  # with `make faults`: another start of everything takes minutes
def test_a_run_trained_on_answers_is_held_against_the_same_base(finished: tuple[Path, str]) -> None:
    """Decoded clips and the base's evaluation are those of the run above; the engine starts for the adapter alone."""
    from avere_ray.records import Clip, PreferencePair
    from avere_ray.stages import read_records

    run_dir, tuned = finished[0], finished[0].parent / "tuned"
    for stage in ("clips", "decoded", "evals/before"):
        shutil.copytree(run_dir / stage, tuned / stage)
    code, output = runs.complete(tuned, *SETTINGS, "--data.pairs.source=answers", "--loss.kind=dpo",
                                 "--loss.lambda_av=None", "--loss.text_prior_gamma=None")  # fmt: skip
    assert code == 0, output
    assert output.count("reused") >= 2
    assert not (tuned / "rollouts").exists() and not (tuned / "verdicts").exists()
    figures = runs.report(tuned)
    assert figures["before"] == runs.report(run_dir)["before"]
    assert figures["after"].keys() == figures["before"].keys() and "verdicts" not in figures
    people = {clip.clip_id: clip.identity for clip in read_records(tuned / "decoded" / "clips.parquet", Clip)}
    held_out = {people[c.clip_id] for c in read_records(tuned / "evals/round=0/clips.parquet", Clip)}
    pairs = read_records(tuned / "pairs" / "round=0" / "pairs.parquet", PreferencePair)
    assert len(pairs) == figures["pairs"] and figures["steps"] == -(-len(pairs) // 8)
    assert len(held_out) > 1 and not held_out & {people[pair.clip_id] for pair in pairs}
    assert (tuned / figures["adapter"] / "adapter_model.safetensors").is_file()


@pytest.mark.faults  # with `make faults`: two more starts of everything, of which one has two engines, take minutes
def test_an_interrupted_run_goes_on_with_more_engines_and_ends_the_same(
    tracked: tuple[Path, str, str], tmp_path: Path
) -> None:
    """The first half and the run it is held against have one engine and batches of 16 questions."""
    run_dir = tmp_path / "interrupted"
    process = runs.start(run_dir, *SETTINGS)
    try:
        runs.wait_for(run_dir / "rollouts" / "round=0" / "manifest.json", process)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    finally:
        runs.end(process)
    assert process.returncode == 130, output
    assert "finished stages are kept" in output.strip().splitlines()[-1]
    assert not (run_dir / "report.json").exists()
    code, output = runs.complete(run_dir, *SETTINGS, "--rollout.engines=2", "--rollout.batch_queries=5")
    assert code == 0, output
    assert "rollouts of round 0" in output
    for name in ("predictions.parquet", "predictions_muted.parquet", "option_logps.jsonl"):  # bit for bit
        one, two = (folder / "evals" / "round=0" / name for folder in (tracked[0], run_dir))
        assert one.read_bytes() == two.read_bytes(), name
    uninterrupted = runs.report(tracked[0])
    assert runs.without_timing(runs.report(run_dir)) == runs.without_timing(uninterrupted)
    assert runs.points(run_dir) == runs.points(tracked[0])
    assert set(runs.points(run_dir).values()) == {1}


def test_too_many_broken_clips_stop_the_run_with_the_budgets_exit_code(tmp_path: Path) -> None:
    code, output = runs.complete(tmp_path / "run", "--world.corrupt_clips=4", "--data.drop_budget=0.1")
    assert code == 3
    assert "data.drop_budget" in output.strip().splitlines()[-1]
