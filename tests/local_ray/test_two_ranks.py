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


CASES = ("lora 3", "full with projectors 3", "lora 1")
"""What is trained, and the ZeRO stage."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes wrote what came of each case; they take one after the other."""
    folder = tmp_path_factory.mktemp("ranks")
    run_both(folder)
    return folder


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", CASES)
def test_unequal_pairs_do_not_lock_and_a_bad_value_stops_both(ranks: Path, case: str) -> None:
    """Rank 0 has one pair of words where rank 1 has two with clips and swaps, then the other way round.

    The loss runs swapped branches apart and reads the text prior; with LoRA the reference is the adapter switched off.
    """
    answers: list[dict[str, Any]] = [json.loads((ranks / f"{case}-rank{rank}.json").read_text()) for rank in range(2)]
    assert all(len(a["norms"]) == 4 for a in answers)
    assert answers[0]["norms"] == answers[1]["norms"], "both took the same optimizer steps"
    assert all(a["off_start"] < 1e-4 for a in answers), "at step 0 the policy is its reference"
    assert answers[0]["encoded"] == answers[1]["encoded"] == 4, "each encodes its own two clips, once"
    assert [[len(step) for step in a["losses"]] for a in answers] == [[2, 1, 2, 1], [1, 2, 1, 2]]
    messages = [a["refused"] for a in answers]
    assert messages[0] == messages[1]
    assert "gradient is not finite at step 9 for pair(s) rank1-pair" in messages[0]
    assert answers[0]["weights_after_refusal"] == answers[0]["weights_before"]


def run_both(folder: Path) -> None:
    """Runs the two processes to their end."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "two_ranks", str(folder), *CASES],
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
