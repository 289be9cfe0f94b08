"""Two workers whose pairs differ in media, swaps and number, and one of whose values is not finite: nobody waits, all
stop together.

Without Ray: a run's objective over two processes with gloo and DeepSpeed, whose collectives give up in time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("tuning", "stage"),
    [("lora", 3), ("full with projectors", 3), ("lora", 1)],
    ids=["lora zero3", "full with projectors zero3", "lora zero1"],
)
def test_unequal_pairs_do_not_lock_and_a_bad_value_stops_both(tmp_path: Path, tuning: str, stage: int) -> None:
    """Rank 0 has one pair of words where rank 1 has two with clips and swaps, then the other way round.

    The loss runs swapped branches apart and reads the text prior; with LoRA the reference is the adapter switched off.
    """
    answers = run_both(tmp_path, tuning, stage)
    assert all(len(a["norms"]) == 4 for a in answers)
    assert answers[0]["norms"] == answers[1]["norms"], "both took the same optimizer steps"
    assert all(a["off_start"] < 1e-4 for a in answers), "at step 0 the policy is its reference"
    assert answers[0]["encoded"] == answers[1]["encoded"] == 4, "each encodes its own two clips, once"
    assert [[len(step) for step in a["losses"]] for a in answers] == [[2, 1, 2, 1], [1, 2, 1, 2]]
    messages = [a["refused"] for a in answers]
    assert messages[0] == messages[1]
    assert "gradient is not finite at step 9 for pair(s) rank1-pair" in messages[0]
    assert answers[0]["weights_after_refusal"] == answers[0]["weights_before"]


def run_both(folder: Path, tuning: str, stage: int) -> list[dict[str, Any]]:
    """What the two processes wrote."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "two_ranks", str(folder), tuning, str(stage)],
            cwd=ROOT,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=280)[0] for p in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(o[-3000:] for o in outputs)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
