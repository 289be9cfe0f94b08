"""Rollouts sampled while the round before trains: what they record, after a kill, and when the option is turned off."""

import signal
from pathlib import Path

from striking import Run, completed, digests, in_call, steps

from avere_ray.records import Rollout
from avere_ray.stages import read_records

ADAPTIVE = "--loss.text_prior=adaptive"
AHEAD = ("--rounds=2", "--rollout.overlap=true", ADAPTIVE)
PER_ROUND = ("rollouts", "verdicts", "pairs", "reference", "adapters")
BOTH = ("decoded", *(f"{stage}/round={k}" for k in (0, 1) for stage in PER_ROUND), "evals/round=1")


def versions(run_dir: Path, round_: int) -> set[int]:
    rollouts = read_records(run_dir / f"rollouts/round={round_}" / "rollouts.parquet", Rollout)
    return {rollout.adapter_version for rollout in rollouts}


def test_a_run_killed_while_it_trains_and_samples_ends_like_another(tmp_path: Path) -> None:
    undisturbed, run_dir = tmp_path / "a" / "run", tmp_path / "b" / "run"
    with completed(undisturbed, *AHEAD) as output:
        assert "rollouts (round 1): sampled from adapter version 0 while round 0 trains" in output
    assert [versions(undisturbed, k) for k in (0, 1)] == [{0}, {0}]
    with Run(run_dir, *AHEAD) as run:
        run.strike_driver(in_call("RolloutWorker", "generate", nth=2, after="reference/round=0"), signal.SIGKILL)
    assert not (run_dir / "adapters/round=0/manifest.json").exists()
    assert not (run_dir / "rollouts/round=1/manifest.json").exists()
    with completed(run_dir, *AHEAD):
        assert digests(run_dir, BOTH) == digests(undisturbed, BOTH)
        assert [steps(run_dir, k) for k in (0, 1)] == [steps(undisturbed, k) for k in (0, 1)]
    with completed(run_dir, "--rounds=2", ADAPTIVE) as output:  # on-policy: the rollouts of round 1 are not those
        assert "training of round 0: finished earlier, reused" in output
        assert "rollouts of round 1: finished earlier" not in output
    assert [versions(run_dir, k) for k in (0, 1)] == [{0}, {1}]
