"""Every shipped YAML file is a valid config."""

import math
import re
import shlex
from pathlib import Path

import pytest

from avere_ray.config import RunConfig, load_config
from jobs.reproduce import check_trainings
from jobs.study_search import check_grid

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "jobs" / "configs").glob("*.yaml"))


def test_the_demo_is_shipped() -> None:
    assert "demo.yaml" in [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_shipped_config_loads(path: Path) -> None:
    assert isinstance(load_config(path), RunConfig)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("demo", 0),
        ("fine_tuned", 0),
        ("demo-gpu", 1),
        ("avem_dpo_paper", 8),
        ("avem_dpo_lora", 8),
        ("qwen2_5_omni_7b", 8),
    ],
)
def test_a_shipped_config_needs_the_gpus_that_it_says(name: str, most: int) -> None:
    """Engines, scorer and learner live at the same time; none of a model of billions is left to the CPU."""
    cfg = load_config(next(path for path in FILES if path.stem == name))
    assert math.ceil(cfg.gpus) == most
    assert bool(most) == bool(cfg.rollout.scorer_gpus) == bool(cfg.rollout.num_gpus) == cfg.train.use_gpu


def test_the_lora_preset_is_the_papers_but_for_its_rate() -> None:
    paper, lora = (load_config(FILES[0].parent / f"avem_dpo_{name}.yaml").model_dump() for name in ("paper", "lora"))
    assert lora["train"].pop("learning_rate") > paper["train"].pop("learning_rate")
    for preset in (paper, lora):
        del preset["name"], preset["run_dir"]
    assert lora == paper


def test_the_shipped_study_can_train_every_method_with_every_value_and_searches_none_on_its_own_worlds() -> None:
    cfg = load_config(ROOT / "jobs/configs/miniature.yaml")
    check_trainings(cfg)
    check_grid(cfg)
    assert len(cfg.study.seeds) >= 3 and len(cfg.study.methods) == 10 and len(cfg.study.doses) >= 3


def test_the_glimpse_of_the_study_is_one_that_the_study_takes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    quick = re.search(r"^QUICK_STUDY := (.+)$", makefile, re.MULTILINE)
    assert quick
    cfg = load_config(ROOT / "jobs/configs/miniature.yaml", shlex.split(quick[1]))
    check_trainings(cfg)
    check_grid(cfg)
    assert cfg.study.seeds == (0,) and not cfg.study.doses
    assert {"dpo", "avem_dpo"} < set(cfg.study.methods)
    assert math.prod(map(len, (cfg.study.learning_rates, cfg.study.betas))) == 1, "nothing is searched"
