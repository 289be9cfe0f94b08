"""Replicas of the service start on the nodes that placement.rollout names."""

from pathlib import Path

import pytest

from avere_ray.config import RunConfig
from avere_ray.stages import write_text
from jobs.serve import ServeArgs, build_app


@pytest.mark.parametrize(
    ("placement", "selector"), [({"rollout": "any"}, {"avere-ray/role": "any"}), ({}, {})], ids=["role", "anywhere"]
)
def test_replicas_are_kept_to_their_role(tmp_path: Path, placement: dict[str, str], selector: dict[str, str]) -> None:
    cfg = RunConfig.model_validate({"run_dir": tmp_path / "run", "placement": placement})
    write_text(cfg.run_dir / "config.yaml", cfg.to_yaml())
    app = build_app(ServeArgs(run_dir=cfg.run_dir))
    assert app._bound_deployment.ray_actor_options["label_selector"] == selector
