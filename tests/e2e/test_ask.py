"""`avere-ray ask` as a user types it: a real clip, the real engine, base and adapter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from adaptermaker import TINY_BASE, write_adapter_run

from avere_ray.synthetic.samples import sample_clips

BASE = TINY_BASE.name


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ask") / "grief.mp4"
    path.write_bytes(sample_clips(["grief"])[0].media)
    return path


def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AVERE_RAY_"))}
    command = [sys.executable, "-m", "jobs.main", "ask", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)


def test_base_and_adapter_are_asked_and_the_answer_rests_on_the_clip(clip: Path, tmp_path: Path) -> None:
    cfg = write_adapter_run(tmp_path / "run")
    question = "How does the person feel, and how can you tell?"
    done = ask(clip, question, "--run", cfg.run_dir, "--compare-base", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    base, adapter = found["answers"]
    assert (base["model"], adapter["model"]) == (BASE, f"{BASE}:adapter-1")
    assert base["answer"] != adapter["answer"]
    assert base["emotion"] == "sadness"  # what the drawn face and voice show, which the base perceives
    assert {(c["text"], c["modality"]) for c in base["cues"]} >= {("tears", "video"), ("slow low voice", "audio")}
    assert (base["agreement"]["face"], base["agreement"]["voice"]) == ("sadness", "sadness")
    grounding = base["grounding"]
    assert grounding["references"] == 2 and grounding["text_only"] > 5
    assert all(grounding[m][how] > 1 for m in ("audio", "video") for how in ("removed", "swapped"))
    assert base["cost"]["passes"] == 1 + 2 * len({c["text"] for c in base["cues"]}) + 14 + 4 + 2 * 2
