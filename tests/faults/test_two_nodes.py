"""A run on two nodes, decode and learner: the head is lost and the run submitted again, then a learner node is lost."""

import sys
from collections import Counter
from pathlib import Path

from raynodes import Nodes

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import runs
from submitted import finish, logged_steps, submit, wait_for_step


def roles(found: list[dict[str, str]]) -> dict[str, set[str]]:
    """Roles of the nodes by class or task name."""
    by_name: dict[str, set[str]] = {}
    for one in found:
        by_name.setdefault(one.get("class") or one["name"], set()).add(one["role"])
    return by_name


def test_stages_keep_to_their_nodes_and_a_run_outlives_them(tmp_path: Path) -> None:
    run_dir = tmp_path / "shared" / "run"
    with Nodes(runs.environment(), tmp_path) as nodes:
        nodes.start(decode=2, learner=2)
        first = submit(nodes, run_dir)
        runs.wait_for(run_dir / "decoded" / "manifest.json", first)
        assert roles(nodes.tasks())["MapBatches(decode_batch)"] == {"decode"}
        nodes.lose("decode")  # the head, and the run with it
        output = finish(first)
        assert first.returncode == 5, output
        assert "submit again to follow it" in output.strip().splitlines()[-1].lower()

        nodes.start(decode=2, learner=2)
        second = submit(nodes, run_dir)
        wait_for_step(run_dir, 5, second)
        nodes.lose("learner")
        nodes.add("learner", 2)
        output = finish(second)
        assert second.returncode == 0, output
        assert "decode: finished earlier, reused" in output
        where = roles(nodes.actors())
        for name in ("RolloutWorker", "ScorerWorker", "JudgeWorker", "ModalitySwapWorker"):
            assert where[name] == {"decode"}, where
        assert where["RayTrainWorker"] == {"learner"}, where

        again = submit(nodes, run_dir)
        assert "has succeeded before" in finish(again)
        assert again.returncode == 0
    figures = runs.report(run_dir)
    assert figures["inputs"] == figures["used"] == 14
    assert figures["steps"] > 12
    assert Counter(logged_steps(run_dir)) == Counter(range(figures["steps"])), "each step is logged once"
