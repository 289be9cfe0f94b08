"""`--help` and the plain modules answer at once, because nothing heavy is imported for them."""

import functools
import json
import subprocess
import sys
from typing import Any

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
    "jobs.serve",
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


HELP_OF_EACH = f"""
import contextlib, io, json, sys
from jobs.main import main
found = {{}}
for verb in {tuple(VERBS)!r}:
    before, output = set(sys.modules), io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main([verb, "--help"])
    found[verb] = code, output.getvalue(), [n for n in {HEAVY!r} if n in sys.modules and n not in before]
print(json.dumps(found))
"""
IMPORT_OF_EACH = f"""
import importlib, json, sys
found = {{}}
for name in {LIGHT_MODULES!r}:
    before = set(sys.modules)
    importlib.import_module(name)
    found[name] = [n for n in {HEAVY!r} if n in sys.modules and n not in before]
print(json.dumps(found))
"""
"""One process for all: a library is put down to the first that imports it, which is enough to find it."""


@functools.cache
def found_by(code: str) -> dict[str, Any]:
    """What one of these programs prints."""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    code, output, heavy = found_by(HELP_OF_EACH)[verb]
    assert (code, heavy) == (0, [])
    assert output.startswith(f"usage: avere-ray {verb}")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_a_plain_module_imports_nothing_heavy(module: str) -> None:
    assert found_by(IMPORT_OF_EACH)[module] == []


def test_the_check_sees_what_it_looks_for() -> None:
    assert heavy_after("import pyarrow")[1] == ["pyarrow"]


def test_processes_that_only_pass_rows_on_do_not_import_a_model_library() -> None:
    _, heavy = heavy_after("import actors.scoring, avere_ray.learner.stream, avere_ray.data")
    assert not {"torch", "transformers", "vllm", "deepspeed", "mlflow"} & set(heavy)
