"""The learner's benchmark where torch, transformers and peft alone are installed, as on a machine lent for it."""

import json
import subprocess
import sys

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


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def test_the_learner_floor_needs_torch_transformers_and_peft_alone() -> None:
    """Imports, and takes the benchmark's steps on the smallest shape: its JSON line has the fields that others read."""
    done = run_python(
        f"{BLOCK}\nimport {', '.join(LEARNER_FLOOR)}\nfrom benchmarks.learner_step import main\n"
        "raise SystemExit(main(['--shape', 'mini', '--repeats', '1', '--json']))",
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(BENCHMARK_FIELDS) <= figures.keys()
    assert (figures["shape"], figures["device"], figures["matmul_peak_flops_per_s"]) == ("mini", "cpu", None)
    assert 0 <= figures["max_abs_logp_diff"] < 1e-4  # so few tokens may agree to the last bit
    assert 0 < figures["max_rel_grad_diff"] < 1e-4
    assert figures["peak_bytes_tree"] < figures["peak_bytes_baseline"]
    assert 1 < figures["flop_bound"] < figures["flop_bound_ref_cached"] < figures["flop_bound_all_cached"]


def test_what_a_bare_machine_lacks_is_really_kept_out() -> None:
    assert "No" in run_python(f"{BLOCK}\ntry:\n    import pydantic\nexcept ImportError:\n    print('No')").stdout
