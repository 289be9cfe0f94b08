"""Two workers whose pairs differ in media, and one of whose values is not finite: nobody waits, all stop together.

Without Ray: two processes with gloo and DeepSpeed ZeRO-3, whose collectives give up after a minute.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("projectors", [False, True], ids=["lora", "full with projectors"])
def test_mixed_media_do_not_lock_and_a_bad_value_stops_both(tmp_path: Path, projectors: bool) -> None:
    """Rank 0 has text only where rank 1 has video and audio, then the other way round; each encodes only its own."""
    answers = run_both(tmp_path, projectors)
    assert all(len(a["norms"]) == 4 for a in answers)
    assert answers[0]["norms"] == answers[1]["norms"], "both took the same optimizer steps"
    assert answers[0]["encoded"] == answers[1]["encoded"] == 1
    messages = [a["refused"] for a in answers]
    assert messages[0] == messages[1]
    assert "gradient is not finite at step 9 for pair(s) rank1-pair" in messages[0]
    assert answers[0]["weights_after_refusal"] == answers[0]["weights_before"]


def run_both(folder: Path, projectors: bool) -> list[dict[str, Any]]:
    """What the two processes wrote."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "two_ranks", str(folder), str(int(projectors))],
            cwd=ROOT,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=240)[0] for p in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(o[-3000:] for o in outputs)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
