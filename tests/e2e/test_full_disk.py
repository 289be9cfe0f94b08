"""A disk that is full while a run writes: the last line says so, nothing half-written counts, the next run goes on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import runs

from avere_ray.errors import StorageError

SYNTH = [sys.executable, "-m", "jobs.synth", "--config", runs.CONFIG, *runs.SMALL]
SCRIPT = """
set -e
disk=$1; shift
mount -t tmpfs -o size=400k none "$disk"
code=0
"$@" "--run_dir=$disk/run" || code=$?
echo "exit code $code"
find "$disk" '(' -name manifest.json -o -name '*.partial' ')' -printf 'left %f\\n'
mount -o remount,size=64m "$disk"
"$@" "--run_dir=$disk/run"
find "$disk" '(' -name manifest.json -o -name '*.partial' ')' -printf 'then %f\\n'
"""
"""Runs a command on a disk of its own of 400 KiB, and again on a larger one."""


def _own_disk(folder: Path) -> list[str]:
    """How a command gets file systems of its own: as the user if the kernel allows that, else as root."""
    for namespace in (["unshare", "-Urm"], ["unshare", "-m"]):
        mount = [*namespace, "mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)]
        if shutil.which("unshare") and subprocess.run(mount, capture_output=True, timeout=60).returncode == 0:
            return namespace
    pytest.skip("this machine lets a test mount no disk of its own (unshare, Linux)")


def test_a_full_disk_ends_the_run_in_words_and_the_next_one_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*_own_disk(disk), "sh", "-c", SCRIPT, "sh", str(disk), *SYNTH]
    done = subprocess.run(command, cwd=runs.ROOT, env=runs.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"exit code {StorageError.exit_code}\n" in done.stdout
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for words in ("avere-ray synth: cannot write", str(disk), "the disk is full", "Free some space", "run_dir"):
        assert words in last, done.stderr
    assert "left" not in done.stdout
    assert "clips: 22 clips in" in done.stdout
    assert done.stdout.count("then manifest.json") == done.stdout.count("then ") == 1
