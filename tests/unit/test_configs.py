"""Every shipped YAML file is a valid config."""

from pathlib import Path

import pytest

from avere_ray.config import RunConfig, load_config

FILES = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def test_the_demo_is_shipped() -> None:
    assert "demo.yaml" in [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_shipped_config_loads(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)
