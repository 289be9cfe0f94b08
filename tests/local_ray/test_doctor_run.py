"""The doctor as a user runs it, with the shipped model and a real engine."""

import subprocess
import sys

import pytest

DEMO = "jobs/configs/demo.yaml"


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.main", "doctor", "--config", DEMO, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def found(done: subprocess.CompletedProcess[str]) -> str:
    """The second column of the table, unwrapped."""
    cells = [line.split("│")[2].strip() for line in done.stdout.splitlines() if line.count("│") >= 3]
    return " ".join(cells)


def test_the_demo_can_start_here() -> None:
    done = doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vLLM and the learner see the same" in found(done)
    assert "the run can start" in done.stdout


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--ray.address=127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("--model.path=no/such/model", "model folder no/such/model does not exist"),
    ],
)
def test_what_would_fail_is_said_and_ends_with_1(override: str, words: str) -> None:
    done = doctor(override, "--data.queries=no/such.parquet", "--ray.connect_timeout_s=5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert words in found(done)
    assert "data.queries: no/such.parquet does not exist" in found(done)
    assert "checks failed" in done.stdout
