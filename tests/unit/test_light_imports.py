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


BARE_MACHINE = (
    *("ray", "vllm", "deepspeed", "pydantic", "pydantic_settings", "pyarrow", "mlflow", "av"),
    "mistral_common",  # comes with vLLM
)
"""Libraries that a machine lent for a benchmark need not have; torch, transformers and peft it has."""
LEARNER_FLOOR = (
    "avere_ray.backbones",
    "avere_ray.backbones.qwen2_5_omni",
    "avere_ray.losses",
    "avere_ray.reference",
    "avere_ray.learner.objective",
    "benchmarks.learner_step",
    "benchmarks.trl_step",
)
BENCHMARK_FIELDS = (
    *("baseline_s", "tree_s", "tree_ref_cached_s", "tree_all_cached_s"),
    *("speedup", "speedup_ref_cached", "speedup_all_cached", "flop_bound", "share_of_bound"),
    *("peak_bytes_baseline", "peak_bytes_tree", "max_abs_logp_diff", "max_rel_grad_diff", "shape", "device"),
    *("share_of_matmul_peak_tree", "tokens_per_s_tree"),
)
BLOCK = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {BARE_MACHINE!r} else self.finder.find_spec(name, path, target)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""
"""Makes the rest of a program find none of them, as if they were not installed."""


def run_python(code: str, limit_s: float = 50) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=limit_s, check=False)


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


@pytest.mark.timeout(240)
def test_the_learner_floor_needs_torch_transformers_and_peft_alone() -> None:
    """Imports, and takes the benchmark's steps on the smallest shape: its JSON line has the fields that others read."""
    done = run_python(
        f"{BLOCK}\nimport {', '.join(LEARNER_FLOOR)}\nfrom benchmarks.learner_step import main\n"
        "raise SystemExit(main(['--shape', 'mini', '--repeats', '1', '--json']))",
        limit_s=200,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(BENCHMARK_FIELDS) <= figures.keys()
    assert (figures["shape"], figures["device"], figures["matmul_peak_flops_per_s"]) == ("mini", "cpu", None)
    assert 0 < figures["max_abs_logp_diff"] < 1e-4
    assert 0 < figures["max_rel_grad_diff"] < 1e-4
    assert figures["peak_bytes_tree"] < figures["peak_bytes_baseline"]
    assert 1 < figures["flop_bound"] < figures["flop_bound_ref_cached"] < figures["flop_bound_all_cached"]


def test_what_a_bare_machine_lacks_is_really_kept_out() -> None:
    assert "No" in run_python(f"{BLOCK}\ntry:\n    import pydantic\nexcept ImportError:\n    print('No')").stdout


def test_the_check_sees_what_it_looks_for() -> None:
    assert heavy_after("import pyarrow")[1] == ["pyarrow"]
