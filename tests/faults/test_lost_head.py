"""The head is lost, or the job stopped, in mid-training: the next one goes on. A placement without nodes says so."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from raynodes import Nodes

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import runs
from submitted import finish, logged_steps, submit, wait_for_step


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that every cluster of the test sees."""
    return tmp_path / "shared"


def test_a_new_cluster_goes_on_from_the_checkpoint(tmp_path: Path, shared: Path) -> None:
    run_dir = shared / "run"
    with Nodes(runs.environment(), tmp_path) as nodes:
        nodes.start(decode=2, learner=2)
        first = submit(nodes, run_dir)
        wait_for_step(run_dir, 9, first)
        nodes.lose("decode")
        assert "submit again to follow it" in finish(first).lower()
        assert first.returncode == 5
        nodes.start(decode=2, learner=2)
        second = submit(nodes, run_dir)
        output = finish(second, 1200)
    assert second.returncode == 0, output
    assert "goes on from the checkpoint after step" in output
    for stage in ("decode", "rollouts of round 0", "reference of round 0"):
        assert f"{stage}: finished earlier, reused" in output
    steps = runs.report(run_dir)["steps"]
    assert Counter(logged_steps(run_dir)) == Counter(range(steps)), "each step is logged once"


def test_a_stopped_job_goes_on_when_it_is_submitted_again(tmp_path: Path, shared: Path) -> None:
    """`ray job stop` asks the driver to end and kills it a few seconds later."""
    run_dir, ray = shared / "run", str(Path(sys.executable).with_name("ray"))
    with Nodes(runs.environment(), tmp_path) as nodes:
        nodes.start(decode=2, learner=2)
        first = submit(nodes, run_dir)
        wait_for_step(run_dir, 9, first)
        listed = subprocess.run([ray, "job", "list", "--address", nodes.address], env=nodes.env, capture_output=True,
                                text=True, timeout=120)  # fmt: skip
        [job] = re.findall(r"submission_id='([^']+)'", listed.stdout)
        subprocess.run([ray, "job", "stop", "--address", nodes.address, job], env=nodes.env, check=True, timeout=120)
        assert "stopped" in finish(first).lower()
        assert first.returncode != 0
        assert not (run_dir / "adapters/round=0/manifest.json").exists()
        second = submit(nodes, run_dir)
        output = finish(second, 1200)
    assert second.returncode == 0, output
    assert "goes on from the checkpoint after step" in output
    steps = runs.report(run_dir)["steps"]
    assert Counter(logged_steps(run_dir)) == Counter(range(steps)), "each step is logged once"


def test_a_placement_without_nodes_ends_with_the_group_that_lacks_what(tmp_path: Path, shared: Path) -> None:
    """The job and the doctor say the same; neither waits for what never comes."""
    with Nodes(runs.environment(), tmp_path) as nodes:
        nodes.start(decode=2, learner=1)
        job = submit(nodes, shared / "run", "--ray.nodes_timeout_s=3")
        output = finish(job)
        assert job.returncode == 5, output
        assert "train.workers=2: 1 of them, with 1 CPU each, find no room on nodes with role learner" in output
        assert "Group learner lacks 1 CPU" in output
        address = nodes.ask("gcs")["address"]
        code = (
            "import sys; from jobs.doctor import ray_findings; from avere_ray.config import load_config\n"
            "for f in ray_findings(load_config(None, sys.argv[1:])): print(f.level, f.what)"
        )
        placed = ["--placement.learner=learner", "--train.workers=2", f"--ray.address={address}"]
        done = subprocess.run(
            [sys.executable, "-c", code, *placed], cwd=runs.ROOT, env=nodes.env, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert "fail train.workers=2: 1 of them" in done.stdout, done.stdout + done.stderr
        assert "learner (role learner): 1 x 1 CPU" in done.stdout
