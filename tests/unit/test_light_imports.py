"""`--help` and the plain modules answer at once, because nothing heavy is imported for them."""

import subprocess
import sys

import pytest

from jobs.main import VERBS

HEAVY = ("torch", "torchvision", "ray", "vllm", "transformers", "peft", "deepspeed", "mlflow", "av", "pyarrow")
LIGHT_MODULES = (
    "avere_ray",
    "avere_ray.config",
    "avere_ray.environment",
    "avere_ray.errors",
    "avere_ray.ledger",
    "avere_ray.progress",
    "avere_ray.prompts",
    "avere_ray.protocols",
    "avere_ray.records",
    "avere_ray.stages",
    "avere_ray.verdicts",
    "jobs.command",
    "jobs.main",
)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)


def heavy_after(code: str) -> tuple[str, list[str]]:
    """What a program prints, and which heavy libraries it imported."""
    report = f"import sys; print('HEAVY', *[n for n in {HEAVY!r} if n in sys.modules])"
    done = run_python(f"{code}\n{report}")
    assert done.returncode == 0, done.stderr
    output, _, found = done.stdout.rpartition("HEAVY")
    return output, found.split()


def test_the_overview_names_every_verb_and_imports_nothing_heavy() -> None:
    output, heavy = heavy_after("from jobs.main import main; assert main(['--help']) == 0")
    assert heavy == []
    assert all(f"  {verb} " in output for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    output, heavy = heavy_after(f"from jobs.main import main; assert main([{verb!r}, '--help']) == 0")
    assert heavy == []
    assert output.startswith(f"usage: avere-ray {verb}")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_a_plain_module_imports_nothing_heavy(module: str) -> None:
    assert heavy_after(f"import {module}")[1] == []


def test_the_check_sees_what_it_looks_for() -> None:
    assert heavy_after("import pyarrow")[1] == ["pyarrow"]
