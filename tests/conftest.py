"""Tiers: the folder of a test gives it its marker, its time limit and its place in the order; one shared Ray.

With several pytest workers (`make test`) the longest tests come first and the quick ones fill what is left; a file
stays on one worker, so that what its tests share is made once. So does the whole model tier, since importing
transformers' model takes longer than most files do.
"""

import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avere_ray.config import RayConfig
from avere_ray.environment import own_environment
from jobs.session import LOOPBACK_VARIABLE, ray_session

os.environ.setdefault(LOOPBACK_VARIABLE, "0")  # read when a test imports Ray, whichever does so first

TESTS = Path(__file__).parent
TIERS = {"unit": 60, "media": 60, "server": 60, "page": 60, "model": 300, "local_ray": 300, "e2e": 900, "faults": 1800,
         "gpu": 600}  # fmt: skip
"""Folder (and marker) to time limit in seconds, in the order they run."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = _tier(item)
        if tier != "unit":
            item.add_marker(getattr(pytest.mark, tier))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIERS[tier]))
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    items.sort(key=lambda item: list(TIERS).index(_tier(item)) * (1 if alone else -1))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist=loadfile`, with the model tier as if it were one file; None leaves it to pytest-xdist."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrModelTier(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/model" if nodeid.startswith("tests/model/") else super()._split_scope(nodeid)

    return ByFileOrModelTier(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _tier(item) == "e2e" and "ray" in sys.modules:
        sys.modules["ray"].shutdown()  # whole jobs bring their own; the shared one is not needed any more
    if item.get_closest_marker("gpu") and (reason := _no_gpu()):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Any]:
    """A Ray of its own with 2 CPUs, on 127.0.0.1 only; gives the `ray` module."""
    before = dict(os.environ)
    os.environ.update({**own_environment(os.environ), "RAY_AUTH_MODE": "disabled"})
    os.environ.pop("RAY_ADDRESS", None)
    try:
        with ray_session(RayConfig(address="local", num_cpus=2, object_store_mb=256)):
            import ray

            yield ray
    finally:
        os.environ.clear()
        os.environ.update(before)


def _tier(item: pytest.Item) -> str:
    folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else "unit"
    return folder if folder in TIERS else "unit"


@functools.cache
def _no_gpu() -> str:
    import torch

    if torch.version.cuda is None:
        return "gpu tier: this torch is built for CPU only (make test ACCEL=gpu)"
    return "" if torch.cuda.is_available() else "gpu tier: torch finds no NVIDIA GPU on this machine"
