"""What the study's page says of its tests, its losses and the limits of its search; tests over seeds."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from avere_ray.comparison.results import Evaluation, Question
from avere_ray.config import RunConfig
from avere_ray.evaluation.scorer import Item
from avere_ray.study import BASE, METHODS
from avere_ray.study.chosen import edges, same_for_all, that_differ, without_interior
from avere_ray.study.results import Outcome, paired_tests
from avere_ray.study.seeds import comparisons, paired_t, seed_tests
from avere_ray.study.writing import to_json, to_markdown
from jobs import reproduce, study_search
from jobs.study_runs import method_config, world_config

TASK = "reasoning_stress_audio"
TASK_METRIC = f"{TASK}_overall_accuracy"
METHOD_NAMES = ["dpo", "mdpo", "avem_dpo", "avem_dpo_plus", "avem_dpo_without_sft"]
RIGHT = {BASE: 10, "dpo": 22, "mdpo": 16, "avem_dpo": 19, "avem_dpo_plus": 20, "avem_dpo_without_sft": 18}


def row(rate: float, beta: float, accuracy: float) -> dict[str, float]:
    return {"learning_rate": rate, "beta": beta, "sft_weight": 1.0, "accuracy": accuracy, "perception_lost": 1.5}


SEARCH = {
    "dpo": [row(2e-3, 0.1, 70.0), row(1e-3, 0.3, 65.0)],
    "avem_dpo": [row(1e-3, 0.1, 63.0), row(2e-3, 0.3, 60.0)],
}


def evaluation(right: int, per_clip: int = 1) -> Evaluation:
    """Thirty Yes/No questions of which the first `right` are answered well."""
    items = [
        Item(sample_id=f"q{i}", gold="A", clip_id=f"c{i // per_clip}", task=TASK, subtype="spurious",
             choices=("(A) Yes", "(B) No"))
        for i in range(30)
    ]  # fmt: skip
    return Evaluation(
        stage="before",
        metrics={},
        questions={x.sample_id: Question(item=x, text="?", identity=(x.sample_id, "?"), media=None) for x in items},
        responses={x.sample_id: "(A)" if i < right else "(B)" for i, x in enumerate(items)},
    )


def outcome(search: dict, per_clip: int = 1, sft_weight: float = 1.0) -> Outcome:
    cfg = RunConfig.model_validate({
        "run_dir": "runs", "loss": {"sft_weight": sft_weight}, "study": {"methods": METHOD_NAMES, "dose_methods": []},
    })  # fmt: skip
    point = {"learning_rate": 1e-3, "beta": 0.1}
    figures = {
        name: [{"average_accuracy": 2.0 * n + s, TASK_METRIC: 3.0 * n + s * (n % 3)} for s in range(3)]
        for name, n in RIGHT.items()
    }
    return Outcome(
        figures=figures,
        tests=paired_tests({m: [evaluation(n, per_clip)] * 3 for m, n in RIGHT.items()}, comparisons(list(RIGHT))),
        doses={},
        curves={},
        search=search,
        about={"date": "2026-01-01", "machine": "m", "seeds": [0, 1, 2], "test_clips": 2, "probe_clips": 2,
               "pairs": 3, "steps": 4, "command": "make reproduce", "minutes": 5.0,
               "search_seed": 9, "search_clips": 2, "retention": 3.0, "dose_steps": 7,
               "settings": {name: reproduce._resolved(cfg, name, point) for name in METHOD_NAMES}},
    )  # fmt: skip


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_methods_are_compared_with_the_base_with_naive_dpo_and_with_what_they_vary() -> None:
    assert comparisons([BASE, "dpo", "mdpo", "avem_dpo", "avem_dpo_plus", "dpo_without_sft"]) == [
        (BASE, "dpo"), (BASE, "mdpo"), (BASE, "avem_dpo"), (BASE, "avem_dpo_plus"), (BASE, "dpo_without_sft"),
        ("dpo", "mdpo"), ("dpo", "avem_dpo"), ("dpo", "avem_dpo_plus"), ("dpo", "dpo_without_sft"),
        ("avem_dpo", "avem_dpo_plus"),
    ]  # fmt: skip
    assert comparisons([BASE, "avem_dpo_plus"]) == [(BASE, "avem_dpo_plus")]


def test_the_paired_t_test_is_that_of_the_textbook() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for values in ([1.0, 2.0, 3.0], [-4.0, 1.0, 0.5, 2.0], [0.1, -0.1]):
        assert paired_t(values) == pytest.approx(scipy.ttest_1samp(values, 0.0).pvalue)
    assert paired_t([0.0, 0.0, 0.0]) == 1.0
    assert math.isnan(paired_t([2.0, 2.0, 2.0])) and math.isnan(paired_t([2.0]))


def test_seeds_are_paired_and_corrected_by_family() -> None:
    figures = {
        BASE: [{"average_accuracy": 40.0, "perception": 9.0}, {"average_accuracy": 41.0, "perception": 9.0}],
        "dpo": [{"average_accuracy": 50.0, "perception": 8.0}, {"average_accuracy": 52.0, "perception": 9.5}],
        "mdpo": [{"average_accuracy": 50.0}, {"average_accuracy": 41.0}],
    }
    found = seed_tests(figures, [(BASE, "dpo"), (BASE, "mdpo")], ["average_accuracy", "perception"])
    assert [(t.second, t.metric, t.difference) for t in found] == [
        ("dpo", "average_accuracy", 10.5), ("dpo", "perception", -0.25), ("mdpo", "average_accuracy", 5.0),
    ]  # fmt: skip
    assert found[0].interval.low == pytest.approx(10.5 - 12.706 * 0.5, abs=1e-3)  # t(1) = 12.706, sd / sqrt(2) = 0.5
    assert found[0].p_holm == pytest.approx(2 * found[0].p)
    assert found[1].p_holm == found[1].p


def test_the_page_says_what_each_p_tells_beside_each_other() -> None:
    found = outcome({})
    tests = section(to_markdown(found, []), "Paired tests")
    assert "(average: a sign flip by clip; tasks: McNemar's exact test; sub-types (JSON file): McNemar's exact" in tests
    assert "not whether others of the same methods would" in tests
    assert "(n = 3, 2 degrees of freedom, two-sided)" in tests
    assert "over all comparisons of the average (11)" in tests
    lines = [line for line in tests.splitlines() if line.startswith("| AVEm-DPO |")]
    assert [line.split(" | ")[1] for line in lines] == ["AVEm-DPO, TPD sign +", "AVEm-DPO without SFT"] * 2
    table = to_json(found)["about"]["tests"]
    json.dumps(table, allow_nan=False)
    assert table[0]["seeds"][TASK_METRIC]["n"] == 3
    assert table[0]["tasks"]["average"]["p_holm"] is not None
    assert all({"p", "p_holm", "low", "high"} <= set(row) for row in table[0]["seeds"].values())


def test_one_seed_tests_no_method() -> None:
    found = outcome({})
    one = {name: rows[:1] for name, rows in found.figures.items()}
    found = dataclasses.replace(found, figures=one, about={**found.about, "seeds": [0]})
    tests = section(to_markdown(found, []), "Paired tests")
    assert "There is one seed, so nothing tests that." in tests
    assert "**p, seeds**" not in tests
    json.dumps(to_json(found), allow_nan=False)


def test_the_page_names_the_tests_that_were_used() -> None:
    tests = section(to_markdown(outcome({}, per_clip=2), []), "Paired tests")
    assert "(average: a sign flip by clip; tasks: a sign flip by clip; sub-types (JSON file): a sign flip by" in tests


def test_the_page_says_that_the_losses_have_a_term_that_the_papers_have_not() -> None:
    found = outcome({})
    settings = section(to_markdown(found, []), "Settings")
    assert "All losses but those of AVEm-DPO without SFT have an SFT term" in settings
    assert "with weight 1 (`sft_weight`). The papers' losses have none." in settings
    assert "| text_prior_gamma | - | - | 0.2 | 0.2 | 0.2 |" in settings
    assert "| rejects | one | one | all | all | all |" in settings
    assert "| sft_weight | 1 | 1 | 1 | 1 | 0 |" in settings
    assert "The same for all methods: learning_rate 0.001" in settings
    without = section(to_markdown(outcome({}, sft_weight=0.0), []), "Settings")
    assert "No loss has an SFT term, as in the papers." in without
    assert to_json(found)["about"]["settings"]["mdpo"]["anchor_weight"] == 1.0


def test_the_page_says_what_is_at_the_edge_of_its_grid() -> None:
    found = outcome(SEARCH)
    search = section(to_markdown(found, []), "Search")
    assert (
        "| naive DPO | lr 0.002, beta 0.1, SFT 1: 70.0 (-1.5) | lr 0.001, beta 0.3, SFT 1: 65.0 (-1.5) | "
        "learning rate (highest), beta (lowest) |" in search
    )
    assert "a value beyond it may be better: naive DPO, AVEm-DPO." in search
    assert "Two values were tried of learning rate and of beta, so every choice is at an edge." in search
    assert "(`text_prior_gamma`) is not searched" in search
    assert to_json(found)["about"]["search_edges"]["avem_dpo"] == {"learning_rate": "lowest", "beta": "lowest"}


def test_a_choice_within_its_grid_is_not_at_an_edge() -> None:
    rows = [row(rate, 0.1, 1.0) for rate in (2e-3, 1e-3, 4e-3)]
    assert edges(rows) == {}
    assert without_interior({"dpo": rows}) == []
    search = section(to_markdown(outcome({"dpo": rows}), []), "Search")
    assert "No chosen value is at the edge of its grid." in search
    assert "not searched" not in search and "every choice" not in search
    assert edges(rows[1:] + rows[:1]) == {"learning_rate": "lowest"}


def test_settings_are_told_once_where_they_are_the_same() -> None:
    settings = {"a": {"beta": 0.1, "gamma": 0.2, "kind": "x"}, "b": {"beta": 0.1, "kind": "y"}}
    assert same_for_all(settings) == {"beta": 0.1}
    assert that_differ(settings) == {"gamma": [0.2, None], "kind": ["x", "y"]}


def test_methods_about_the_sft_term_differ_in_it_alone(tmp_path: Path) -> None:
    cfg = RunConfig.model_validate({"run_dir": tmp_path, "loss": {"sft_weight": 0.7}})
    assert not {"sft", "dpo_without_sft", "avem_dpo_without_sft"} & set(cfg.study.methods)
    world = world_config(cfg, "seed=0", seed=0)
    losses = {name: method_config(world, name, {"learning_rate": 1e-3, "beta": 0.2}).loss for name in METHODS}
    for name in ("dpo", "avem_dpo"):
        whole, without = losses[name], losses[f"{name}_without_sft"]
        assert whole.sft_weight == 0.7
        assert without == whole.model_copy(update={"sft_weight": 0.0})
        assert METHODS[f"{name}_without_sft"].one_reject == METHODS[name].one_reject
    assert (losses["sft"].kind, losses["sft"].sft_weight) == ("sft", 1.0)


def test_sft_alone_is_searched_over_rates_and_not_over_beta() -> None:
    cfg = RunConfig.model_validate({"study": {"learning_rates": [0.1, 0.2], "betas": [0.3, 0.4]}})
    assert study_search._grid(cfg, "sft") == {"learning_rate": (0.1, 0.2), "beta": (0.3,), "sft_weight": (1.0,)}
    assert study_search._grid(cfg, "dpo")["beta"] == cfg.study.betas
    assert "beta" not in reproduce._resolved(cfg, "sft", {"learning_rate": 0.1, "beta": 0.3})
