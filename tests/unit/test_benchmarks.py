"""The measurements can be started: every module imports, and the one of serving agrees with the code it measures."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import benchmarks
from benchmarks import scale, serve

MODULES = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_it_imports(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


def test_the_servers_run_is_read_and_its_threads_are_known(tmp_path: Path) -> None:
    run_dir = serve.write_run(tmp_path)
    cfg = serve.run_config(run_dir)
    assert (cfg.run_dir, cfg.serve.num_replicas) == (run_dir, 1)
    assert int(serve.server_threads(cfg)["OMP_NUM_THREADS"]) >= 1
    assert serve.serve_spec(cfg).base == "tiny_base"


def test_the_servers_figures_make_a_table() -> None:
    block = serve.Block(first=[0.1, 0.2], whole=[0.3, 0.4], took=1.0)
    figures = serve.compared({way: serve.summed([block]) for way in serve.WAYS})
    assert "requests/s" in serve.table([{"at_once": 1, **figures}])


def test_the_clips_that_scale_is_measured_with_are_all_different(tmp_path: Path) -> None:
    clips = scale._corpus(tmp_path / "clips", 4)
    files = [(tmp_path / "clips" / clip.uri).read_bytes() for clip in clips]
    assert len(set(files)) == 4
    assert len(set(map(len, files))) > 1
