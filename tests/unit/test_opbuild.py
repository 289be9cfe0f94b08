"""Building DeepSpeed's operator: one builder at a time, no waiting for a dead one, nothing outside the environment."""

import os
import sys
from pathlib import Path

import pytest

from avere_ray.errors import TrainingError
from avere_ray.learner import opbuild


def test_a_lock_is_removed_when_it_is_old_and_nobody_has_it_open(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not opbuild.remove_stale(lock)
    lock.touch()
    assert not opbuild.remove_stale(lock), "it is young"
    os.utime(lock, (0, 0))
    with lock.open("rb"):
        assert not opbuild.remove_stale(lock), "somebody has it open"
    assert opbuild.remove_stale(lock)
    assert not lock.exists()


def test_a_second_builder_waits_and_says_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opbuild, "_WAIT_S", 0.0)
    lock = tmp_path / "op.lock"
    with (
        opbuild.one_at_a_time(lock),
        pytest.raises(TrainingError, match="another process has held"),
        opbuild.one_at_a_time(lock),
    ):
        pass
    with opbuild.one_at_a_time(lock):
        pass


def test_what_is_built_lies_in_the_virtual_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    opbuild._build_inside_venv()
    assert Path(os.environ["TORCH_EXTENSIONS_DIR"]) == tmp_path / "torch_extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "elsewhere")
    opbuild._build_inside_venv()
    assert os.environ["TORCH_EXTENSIONS_DIR"] == "elsewhere", "what the user sets is left alone"
