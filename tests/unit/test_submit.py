"""Submission without a cluster: what is packed, planned, written and said, and how a job's end becomes an exit code."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from avere_ray.config import load_config
from avere_ray.errors import ClusterError, ConfigError, InputError
from avere_ray.manifests.workloads import parse_entrypoint
from jobs import job_server, package, submit
from jobs.job_server import Plan, submit_and_follow
from jobs.package import CONFIG, build
from jobs.submit import main, make_plan
from tests.unit.manifest_edits import ROOT

DEMO = ROOT / "jobs" / "configs" / "demo.yaml"
PLACES = (
    "--data.clips=/mnt/avere/clips",
    "--data.benchmark=/mnt/avere/emorealm.json",
    "--model.path=/mnt/avere/models/Qwen2.5-Omni-7B",
)
SEVEN = ROOT / "jobs" / "configs" / "qwen2_5_omni_7b.yaml"


@pytest.fixture(autouse=True)
def no_cluster_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)


def checkout(folder: Path) -> Path:
    """A small checkout with things that stay at home."""
    files = ("avere_ray/a.py", "actors/b.py", "jobs/c.py", "jobs/__pycache__/c.pyc", "jobs/x.partial", "runs/big")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def plan_of(*overrides: str, **flags: str) -> Plan:
    return make_plan(load_config(DEMO, ["--run_dir=/mnt/runs/x", *overrides]), flags)


def test_a_package_holds_the_code_and_the_config_alone(tmp_path: Path) -> None:
    made = build(checkout(tmp_path / "repo"), "seed: 1\n")
    assert list(made.files) == ["avere_ray/a.py", "actors/b.py", "jobs/c.py"]
    folder = made.write(tmp_path / "out")
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert found == ["actors/b.py", "avere_ray/a.py", "jobs/c.py", CONFIG]
    assert made.size == sum((folder / name).stat().st_size for name in found)


def test_the_digest_follows_content_and_config_only(tmp_path: Path) -> None:
    first, second = checkout(tmp_path / "a"), checkout(tmp_path / "b")
    assert build(first, "x").digest == build(second, "x").digest
    assert build(first, "x").digest != build(first, "y").digest
    (second / "jobs" / "c.py").write_text("changed")
    assert build(first, "x").digest != build(second, "x").digest


def test_a_package_that_is_too_large_names_the_largest_files(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    (root / "jobs" / "weights.bin").write_bytes(b"0" * 4096)
    with pytest.raises(InputError, match=r"Largest: jobs/weights\.bin"):
        build(root, "", limit=4096)
    with pytest.raises(InputError, match="has no avere_ray, actors, jobs: run this in a checkout"):
        build(root / "runs", "")


def test_the_real_package_is_far_below_rays_limit() -> None:
    made = plan_of().package
    assert made.size < package.LIMIT_BYTES / 10
    assert "avere_ray/synthetic/tiny_base/model.safetensors" in made.files
    assert not [name for name in made.files if name.startswith(("tests/", "docs/", "cluster/"))]


def test_the_same_run_has_the_same_id_and_another_has_another() -> None:
    assert plan_of() == plan_of()
    assert plan_of().submission_id.startswith("demo-pipeline-")
    ids = {plan_of().submission_id, plan_of("--seed=1").submission_id, plan_of(verb="train").submission_id}
    assert len(ids) == 3
    assert plan_of(**{"submission-id": "mine"}).submission_id == "mine"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "run_dir is runs/demo, relative"),
        (["--run_dir=/x", "--verb=serve"], "--verb=serve: allowed are pipeline"),
        (["--run_dir=/x", "--submission-id=a b"], "letters, digits"),
        (["--run_dir=/x", "--address"], "--address needs a value"),
        (["--run_dir=/x", "--address=nowhere"], "is no address of a Ray job server"),
        (["--run_dir=/x", "--manifest=m.yaml"], "--manifest needs --overlay"),
        (["--run_dir=/x", "--overlay=nowhere"], "nowhere does not exist"),
        (["--run_dir=/x", "--sed=1"], "unrecognized arguments: --sed=1"),
    ],
)
def test_mistakes_end_in_words(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(DEMO), *argv]) == 2
    assert words in capsys.readouterr().err


def test_a_flag_and_a_variable_that_disagree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert plan_of().address == "http://127.0.0.1:1"
    with pytest.raises(ConfigError, match="which Ray would follow"):
        plan_of(address="http://127.0.0.1:2")


def test_a_dry_run_says_what_would_happen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(DEMO), "--run_dir=/mnt/runs/x", "--dry-run", "--address", "http://127.0.0.1:7"]) == 0
    shown = capsys.readouterr().out
    assert f"would send {plan_of().submission_id} to http://127.0.0.1:7" in shown
    assert f"entrypoint: python -m jobs.pipeline --config {CONFIG}" in shown
    assert "train.workers=2, each 1 CPU" in shown


def test_a_config_that_does_not_fit_the_overlay_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", str(SEVEN), "--run_dir=/mnt/avere/r", f"--overlay={ROOT}/cluster/overlays/dev-cpu", "--dry-run"]
    assert main([*argv, *PLACES]) == 2
    shown = capsys.readouterr().err
    assert "train.workers=6: 6 of them, with 4 CPU and 1 GPU each, find no room" in shown
    assert "The groups offer all (role any): 1 x 3 CPU" in shown


def test_paths_that_no_other_machine_has_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", str(SEVEN), "--run_dir=/mnt/avere/r", "--dry-run"]
    assert main(argv) == 2
    shown = capsys.readouterr().err
    for setting in ("--data.clips=data/clips", "--data.benchmark=data/emorealm.json", "--model.path=models/Qwen2.5"):
        assert setting in shown
    assert main([*argv, *PLACES, "--data.store=jobs"]) == 2
    assert "--data.store=jobs is relative to a folder that goes with the job" in capsys.readouterr().err
    assert main([*argv, *PLACES]) == 0
    assert main([*argv, *PLACES, "--data.clips=/data/clips", f"--overlay={ROOT}/cluster/overlays/h100"]) == 2
    assert "--data.clips=/data/clips is not on a claim that head mounts" in capsys.readouterr().err


def test_what_the_manifests_are_held_to_holds_for_a_submission_too(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--config", str(DEMO), "--run_dir=/mnt/avere/r", "--dry-run", f"--overlay={ROOT}/cluster/overlays/dev-cpu"]
    assert main(argv) == 2
    assert "rollout.engines=1 reserves no CPU and no GPU" in capsys.readouterr().err
    assert main([*argv, "--placement.rollout=any"]) == 0
    capsys.readouterr()
    argv = ["--config", str(SEVEN), "--run_dir=/mnt/avere/r", *PLACES, "--dry-run", "--placement.decode=decode"]
    assert main([*argv, "--verb=decode", f"--overlay={ROOT}/cluster/overlays/h100"]) == 2
    assert "no node with role decode is there at the start" in capsys.readouterr().err


def test_a_manifest_is_the_overlays_job_with_this_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "job.yaml"
    overlay = f"--overlay={ROOT}/cluster/overlays/h100"
    argv = ["--config", str(SEVEN), "--verb=train", overlay, f"--manifest={target}", "--seed=3"]
    assert main([*argv, "--run_dir=/mnt/avere/runs/mine"]) == 0
    body = yaml.safe_load(target.read_text())
    assert body["kind"] == "RayJob"
    assert body["metadata"]["name"].startswith("qwen2-5-omni-7b-train-")
    assert body["spec"]["entrypoint"].split() == [
        *("python", "-m", "jobs.train", "--config", "/opt/avere_ray/jobs/configs/qwen2_5_omni_7b.yaml"),
        *(
            "--run_dir=/mnt/avere/runs/mine",
            *PLACES,
            "--tracking.uri=http://mlflow:5000",
            "--placement.learner=learner",
        ),
        "--seed=3",
    ]
    assert "suspend" not in body["spec"]
    assert "kubectl apply -f" in capsys.readouterr().out
    assert main([*argv, "--run_dir=/elsewhere"]) == 2
    assert "--run_dir=/elsewhere is not on a claim" in capsys.readouterr().err


def written(tmp_path: Path, overlay: str, *settings: str) -> tuple[int, dict[str, Any]]:
    """Exit code and RayJob of a submission that writes the training job of an overlay."""
    target = tmp_path / "job.yaml"
    argv = ["--config", str(SEVEN), "--verb=train", f"--overlay={ROOT}/cluster/overlays/{overlay}"]
    code = main([*argv, f"--manifest={target}", *settings])
    return code, yaml.safe_load(target.read_text()) if target.exists() else {}


def test_settings_with_spaces_reach_the_job_and_signs_of_a_shell_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, body = written(tmp_path, "h100", "--tracking.experiment", "two words", "--train.workers", "4")
    assert code == 0
    found = parse_entrypoint(body["spec"]["entrypoint"]).overrides
    assert {"--tracking.experiment=two words", "--train.workers=4", "--run_dir=/mnt/avere/runs/qwen2_5_omni_7b"} <= set(
        found
    )
    assert written(tmp_path, "h100", "--tracking.experiment=$HOME")[0] == 2
    assert "leave out '$'" in capsys.readouterr().err


def test_a_written_job_waits_in_the_queue_of_its_overlay(tmp_path: Path) -> None:
    _, body = written(tmp_path, "kueue")
    assert body["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "avere-ray"}
    assert body["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}
    _, body = written(tmp_path, "h100-2x8")
    assert "labels" not in body["metadata"]
    assert "--train.workers=16" in body["spec"]["entrypoint"]


class Jobs:
    """Stands in for Ray's job server: jobs by id, each with a state, and what was sent."""

    def __init__(self, states: dict[str, str], *, ends: str = "SUCCEEDED", code: int | None = 0) -> None:
        self.states, self.ends, self.code = states, ends, code
        self.sent: list[dict[str, Any]] = []
        plan = plan_of()
        self.metadata: dict[str, str] | None = {
            "avere_ray_package": plan.package.digest,
            "avere_ray_verb": plan.verb,
        }
        self.packed: list[str] = []

    def get_job_status(self, name: str) -> Any:
        if name not in self.states:
            raise RuntimeError(f"Request failed with status code 404: Job {name} does not exist")
        return SimpleNamespace(value=self.states[name])

    def submit_job(self, **job: Any) -> None:
        self.sent.append(job)
        folder = Path(job["runtime_env"]["working_dir"])
        self.packed = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        self.states[job["submission_id"]] = "RUNNING"

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for line in ("decode: ", "done\n"):
            await asyncio.sleep(0)
            yield line
        self.states[name] = self.ends

    def get_job_info(self, name: str) -> Any:
        message = "avere-ray: bad config: x" if self.code else ""
        return SimpleNamespace(
            status=self.get_job_status(name), message=message, driver_exit_code=self.code, metadata=self.metadata
        )


def test_a_job_is_sent_with_its_package_followed_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    client, plan = Jobs({}), plan_of()
    assert submit_and_follow(client, plan) == 0
    assert [job["submission_id"] for job in client.sent] == [plan.submission_id]
    assert CONFIG in client.packed
    assert "jobs/pipeline.py" in client.packed
    assert not Path(client.sent[0]["runtime_env"]["working_dir"]).exists()
    shown = capsys.readouterr().out
    assert "decode: done\n" in shown
    assert f"{plan.submission_id} succeeded" in shown


def test_a_failed_job_gives_its_exit_code_and_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert submit_and_follow(Jobs({}, ends="FAILED", code=2), plan_of()) == 2
    assert "failed: avere-ray: bad config: x" in capsys.readouterr().out
    assert submit_and_follow(Jobs({}, ends="STOPPED", code=None), plan_of()) == 1
    assert submit_and_follow(Jobs({}, ends="FAILED", code=-9), plan_of()) == 137  # as a shell says of signal 9


@pytest.mark.parametrize("state", ["RUNNING", "SUCCEEDED"])
def test_an_id_of_another_job_is_refused(state: str) -> None:
    mine = plan_of(**{"submission-id": "mine"})
    client = Jobs({"mine": state})
    assert submit_and_follow(client, mine) == 0
    for other, words in (
        (plan_of("--seed=1", **{"submission-id": "mine"}), "another code or config;"),
        (plan_of(verb="train", **{"submission-id": "mine"}), "another verb;"),
    ):
        with pytest.raises(ConfigError, match=words):
            submit_and_follow(client, other)
    client.metadata = None
    with pytest.raises(ConfigError, match="another code or config and another verb"):
        submit_and_follow(client, mine)
    assert client.sent == []


def test_submitting_again_follows_what_runs_and_repeats_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of()
    running = Jobs({plan.submission_id: "RUNNING"})
    assert submit_and_follow(running, plan) == 0
    assert running.sent == []
    assert submit_and_follow(running, plan) == 0
    assert "has succeeded before" in capsys.readouterr().out
    failed = Jobs({plan.submission_id: "FAILED", f"{plan.submission_id}-2": "STOPPED"})
    assert submit_and_follow(failed, plan) == 0
    assert [job["submission_id"] for job in failed.sent] == [f"{plan.submission_id}-3"]


def test_a_cluster_that_is_starting_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "_AGAIN_AFTER_S", 0.001)
    client, refusals = Jobs({}), iter([RuntimeError("status code 500: No available agent to submit job")] * 2)
    send = client.submit_job

    def refuse_at_first(**job: Any) -> None:
        if error := next(refusals, None):
            raise error
        send(**job)

    client.submit_job = refuse_at_first  # type: ignore[method-assign]
    assert submit_and_follow(client, plan_of(), patience_s=5) == 0
    assert len(client.sent) == 1
    refusals = iter([RuntimeError("No available agent")])
    with pytest.raises(ClusterError, match="Ray refuses"):
        submit_and_follow(client, plan_of(**{"submission-id": "other"}))


def test_a_log_that_ends_early_and_a_lost_server_are_said() -> None:
    plan = plan_of()
    with pytest.raises(ClusterError, match="ended while it is running"):
        submit_and_follow(Jobs({}, ends="RUNNING"), plan)
    client = Jobs({})
    client.get_job_status = lambda name: (_ for _ in ()).throw(ConnectionError("gone"))  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match="cannot ask for"):
        submit_and_follow(client, plan)


def test_a_silent_connection_to_a_server_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "_SILENCE_S", 0.01)
    client, plan = Jobs({}), plan_of(address="http://127.0.0.1:9")

    async def silent(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(60)
        yield ""

    client.tail_job_logs = silent  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"lost http://127\.0\.0\.1:9 while following .*Submit again"):
        submit_and_follow(client, plan)


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(DEMO), "--run_dir=/x", "--address=http://127.0.0.1:9"]) == 5
    assert "no Ray job server at http://127.0.0.1:9" in capsys.readouterr().err
    assert submit.split_flags(["--dry-run", "--verb", "train", "--seed=1"]) == (
        {"dry-run": "yes", "verb": "train"},
        ["--seed=1"],
    )
