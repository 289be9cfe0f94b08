"""The study's methods, what it asks besides the benchmark, its figures, and its pages."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from pairmaker import make_pair
from runfolders import write_run

from avere_ray.comparison.results import Evaluation, Question, read_run_folder
from avere_ray.config import LossConfig, RunConfig
from avere_ray.errors import ConfigError
from avere_ray.evaluation.scorer import Item
from avere_ray.metrics import MetricSpool
from avere_ray.preferences import seen_pairs
from avere_ray.prompts import OPEN_TASKS, all_queries
from avere_ray.study import BASE, METHODS
from avere_ray.study.chosen import best_first
from avere_ray.study.figures import draw
from avere_ray.study.probes import (
    description_figures,
    length_figures,
    perception_figures,
    probe_queries,
    text_only_figures,
)
from avere_ray.study.results import CURVES, Outcome, derived, lost_perception, paired_tests, summary
from avere_ray.study.seeds import comparisons
from avere_ray.study.writing import to_json, to_markdown
from avere_ray.synthetic.clips import benchmark_queries
from avere_ray.synthetic.scene import clip_of, sample_scene
from avere_ray.verdicts import judge_text
from jobs import study_search
from jobs.study_runs import method_config, world_config
from jobs.study_search import chosen_settings

CLIPS = [clip_of(sample_scene(f"test{i:05d}", "test", 0, bias=0.0, mismatch=0.5), f"{i}.mp4") for i in range(8)]
TASK = "reasoning_stress_audio"


def evaluation(right: int, clips: int = 20) -> Evaluation:
    """Yes/No questions of which the first `right` are answered well."""
    choices = ("(A) Yes", "(B) No")
    items = [
        Item(sample_id=f"q{i}", gold="A", clip_id=f"c{i}", task=TASK, subtype="spurious", choices=choices)
        for i in range(clips)
    ]
    return Evaluation(
        stage="before",
        metrics={},
        questions={x.sample_id: Question(item=x, text="?", identity=(x.sample_id, "?"), media=None) for x in items},
        responses={x.sample_id: "(A)" if i < right else "(B)" for i, x in enumerate(items)},
    )


def outcome(**figures: list[dict[str, float]]) -> Outcome:
    usual = {"beta": 0.1, "sft_weight": 1.0}
    return Outcome(
        figures=figures,
        tests=paired_tests({n: [evaluation(5 + 5 * i)] for i, n in enumerate(figures)}, comparisons(list(figures))),
        doses={"0.5": {BASE: {"average_accuracy": 40.0}, "dpo": {"average_accuracy": 50.0}}},
        curves={"dpo": {"loss": [(0, 0.7), (1, 0.5)]}},
        search={"dpo": [{**usual, "learning_rate": rate, "accuracy": accuracy, "perception_lost": 2.0}
                        for rate, accuracy in ((2e-3, 60.0), (1e-3, 50.0))]},
        about={"date": "2026-01-01", "machine": "m", "seeds": [0, 1], "test_clips": 2, "probe_clips": 2,
               "pairs": 3, "steps": 4, "command": "make reproduce", "minutes": 5.0,
               "search_seed": 9, "search_clips": 2, "retention": 3.0, "dose_steps": 7,
               "settings": {"dpo": {"learning_rate": 2e-3, "rejects": "one", "kind": "dpo", "sft_weight": 1.0}}},
    )  # fmt: skip


def test_every_method_is_a_loss_that_the_config_takes() -> None:
    for method in METHODS.values():
        LossConfig.model_validate({**method.loss, "beta": 0.2, "sft_weight": 0.5})
    assert len({json.dumps([dict(m.loss), m.one_reject], sort_keys=True) for m in METHODS.values()}) == len(METHODS)


def test_a_method_of_one_reject_sees_either_kind_and_always_the_same() -> None:
    pairs = [dataclasses.replace(make_pair(0, 3), pair_id=f"p{i}") for i in range(20)]
    seen = seen_pairs(pairs, one_reject=True)
    assert {p.rejects[0].kind for p in seen} == {r.kind for r in pairs[0].rejects}
    assert all(len(p.rejects) == 1 for p in seen)
    assert seen == seen_pairs(pairs, one_reject=True)
    assert seen_pairs(pairs, one_reject=False) == pairs


def test_a_methods_run_differs_from_its_world_in_loss_rate_name_and_folder_only(tmp_path: Path) -> None:
    cfg = RunConfig(run_dir=tmp_path, loss=LossConfig(sft_weight=0.7))
    world = world_config(cfg, "seed=3", seed=3)
    run = method_config(world, "vista_dpo", {"learning_rate": 1e-3, "beta": 0.4})
    assert (run.loss.kind, run.loss.beta, run.loss.sft_weight, run.train.learning_rate) == ("vista_dpo", 0.4, 0.7, 1e-3)
    assert (run.run_dir, run.name, run.seed) == (tmp_path / "seed=3" / "vista_dpo", "seed3-vista_dpo", 3)
    own = {"loss", "train", "run_dir", "name", "data"}
    assert run.model_dump(exclude=own) == world.model_dump(exclude=own)
    assert run.data == world.data.model_copy(update={"clips": tmp_path / "seed=3/base/clips"})
    one = method_config(world, "avem_dpo_without_rejects", {"learning_rate": 1e-3, "beta": 0.4})
    both = method_config(world, "avem_dpo", {"learning_rate": 1e-3, "beta": 0.4})
    assert (one.data.pairs.one_reject, both.data.pairs.one_reject) == (True, False)
    assert one.loss == both.loss  # told apart by the rejects alone
    assert run.train == world.train.model_copy(update={"learning_rate": 1e-3})


def test_variants_take_the_settings_of_their_method_unless_they_are_searched_too(tmp_path: Path) -> None:
    found = {"dpo": [{"learning_rate": 1.0, "beta": 0.1, "accuracy": 9.0}, {"learning_rate": 2.0, "beta": 0.1}]}
    found |= {"avem_dpo": [{"learning_rate": 3.0, "beta": 0.3}], "avem_dpo_plus": [{"learning_rate": 4.0, "beta": 0.3}]}
    study = {"methods": ["dpo", "avem_dpo", "avem_dpo_plus"]}
    cfg = RunConfig.model_validate({"run_dir": tmp_path, "study": study})
    one, three = {"learning_rate": 1.0, "beta": 0.1}, {"learning_rate": 3.0, "beta": 0.3}
    assert chosen_settings(cfg, found) == {"dpo": one, "avem_dpo": three, "avem_dpo_plus": three}
    every = RunConfig.model_validate({"run_dir": tmp_path, "study": study | {"search_variants": True}})
    assert chosen_settings(every, found)["avem_dpo_plus"] == {"learning_rate": 4.0, "beta": 0.3}
    alone = RunConfig.model_validate({"study": {"methods": ["avem_dpo_plus"], "dose_methods": ["avem_dpo_plus"]}})
    assert chosen_settings(alone, found) == {"avem_dpo_plus": {"learning_rate": 4.0, "beta": 0.3}}


def test_each_dose_is_repaired_by_the_methods_named_or_by_all_compared_but_variants() -> None:
    def named(**study: object) -> tuple[str, ...]:
        return study_search.dose_methods(RunConfig.model_validate({"study": study}))

    assert named() == ("dpo", "vista_dpo", "mdpo", "mod_dpo_pp", "avem_dpo")
    assert named(methods=["dpo", "avem_dpo_plus"]) == ("dpo", "avem_dpo_plus"), "varies nothing compared"
    assert named(dose_methods=["avem_dpo_plus"]) == ("avem_dpo_plus",)
    assert named(doses=[]) == ()


def test_settings_are_searched_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = {"methods": ["dpo", "avem_dpo", "avem_dpo_plus"], "learning_rates": [1.0, 2.0, 4.0], "betas": [0.1, 0.3],
             "sft_weights": [1.0, 0.0], "doses": []}  # fmt: skip
    cfg = RunConfig.model_validate({"run_dir": tmp_path, "study": study})
    trained: list[RunConfig] = []
    monkeypatch.setattr(study_search, "Workers", lambda world: contextlib.nullcontext())
    monkeypatch.setattr(study_search, "prepare", lambda world, workers, probes: None)
    monkeypatch.setattr(
        study_search, "train_and_score",
        lambda world, runs, workers, learners, probes: trained.extend(run for run, _ in runs),
    )  # fmt: skip

    def figures(world: RunConfig, run: RunConfig) -> dict[str, float]:
        """Most accurate at rate 4, where too much is forgotten, then at 2; at beta 0.3; without SFT for AVEm-DPO."""
        sft = run.loss.sft_weight * (1 if run.loss.kind == "dpo" else -1)
        rate = run.train.learning_rate
        return {"accuracy": 50 + rate + run.loss.beta + sft, "perception_lost": rate**3 / 8}

    monkeypatch.setattr(study_search, "_found", figures)
    found = study_search.search_settings(cfg)
    assert list(found) == ["dpo", "avem_dpo"]
    assert [len(rows) for rows in found.values()] == [5, 5]
    assert len({run.run_dir for run in trained}) == len(trained) == 10
    assert all(run.world.held_out == "validation" and run.seed == cfg.study.search_seed for run in trained)
    chosen = chosen_settings(cfg, found)
    assert chosen["dpo"] == {"learning_rate": 2.0, "beta": 0.3, "sft_weight": 1.0}
    assert chosen["avem_dpo"] == chosen["avem_dpo_plus"] == {"learning_rate": 2.0, "beta": 0.3, "sft_weight": 0.0}
    one = {"learning_rates": [1.0], "betas": [0.1], "sft_weights": []}
    alone = study_search.search_settings(RunConfig.model_validate({"run_dir": tmp_path, "study": study | one}))
    assert [len(rows) for rows in alone.values()] == [1, 1] and len(trained) == 10


def test_a_value_with_which_a_method_cannot_be_trained_is_refused_before_anything_is() -> None:
    def study(**values: object) -> RunConfig:
        return RunConfig.model_validate({"study": {"learning_rates": [1e-3], "betas": [0.1, 0.03], **values}})

    with pytest.raises(
        ConfigError, match=r"mod_dpo_pp with .*beta 0\.03.*beta_sens \(0\.05\) must be below.*study\.betas"
    ):
        study_search.check_grid(study())
    study_search.check_grid(study(methods=["dpo", "avem_dpo"], dose_methods=["dpo"]))
    study_search.check_grid(study(betas_of={"mod_dpo_pp": [0.1, 0.06]}))


def test_a_method_with_values_of_its_own_is_searched_as_often_as_the_others() -> None:
    own = RunConfig.model_validate({"study": {"betas": [0.1, 0.03], "betas_of": {"mdpo": [0.2, 0.4]}}})
    assert study_search._grid(own, "mdpo")["beta"] == (0.2, 0.4)
    assert study_search._grid(own, "dpo")["beta"] == (0.1, 0.03)
    with pytest.raises(ValueError, match=r"study\.betas_of\.mdpo is \[0\.2\]; it must hold as many .* study\.betas, 2"):
        RunConfig.model_validate({"study": {"betas": [0.1, 0.03], "betas_of": {"mdpo": [0.2]}}})
    one = RunConfig.model_validate({"study": {"betas": [0.1], "betas_of": {"mdpo": [1, 2]}, "methods": ["dpo"]}})
    assert study_search._grid(one, "dpo")["beta"] == (0.1,), "a method that is not compared needs no values"


def test_perception_lost_beyond_what_may_be_counts_as_accuracy_lost() -> None:
    def candidate(accuracy: float, lost: float) -> dict[str, float]:
        return {"accuracy": accuracy, "perception_lost": lost}

    keeping, near, weak, forgetful = candidate(70, 3.0), candidate(72, 3.5), candidate(65, -9.0), candidate(80, 20.0)
    assert best_first([forgetful, weak, keeping, near], retention=3.0) == [near, keeping, weak, forgetful]
    assert best_first([weak, near, keeping, forgetful], retention=20.0)[0] == forgetful
    assert best_first([keeping, candidate(70, 1.0)], retention=3.0)[0] == keeping, "of equals the first stays first"


def test_perception_is_asked_by_letter_and_right_answers_score_100() -> None:
    queries = [q for q in probe_queries(CLIPS, 0) if q.choices]
    assert len(queries) == 7 * len(CLIPS)
    figures = perception_figures(queries, {q.query_id: f"({q.answer})" for q in queries})
    assert set(figures.values()) == {100.0}
    some = {q.query_id: q.reference for q in queries if q.task != "perception_face"}
    assert perception_figures(queries, some)["perception_face"] == 0.0
    assert perception_figures(queries, some)["perception"] == pytest.approx(600 / 7)


def test_figures_follow_from_those_of_the_evaluation() -> None:
    figures = {"hallucination_accuracy": 10.0, "no_hallucination_accuracy": 100.0, "average_accuracy": 60.0,
               "a_n": 30.0, "a_unparsable": 3.0, "b_n": 20.0,
               "b_unparsable": 2.0}  # fmt: skip
    assert derived(figures) == {"cue_presence": 55.0, "unreadable": 10.0}
    assert derived({"average_accuracy": 60.0}) == {}


def test_what_is_known_without_the_clip_is_the_mean_over_tasks() -> None:
    queries = list(benchmark_queries(CLIPS, 0))
    assert text_only_figures(queries, {q.query_id: q.reference for q in queries}) == {"text_only_accuracy": 100.0}
    one = {q.query_id: q.reference for q in queries if q.task == TASK}
    assert text_only_figures(queries, one)["text_only_accuracy"] == pytest.approx(100 / len({q.task for q in queries}))
    assert text_only_figures([], {}) == {}


def test_descriptions_tell_faithfulness_and_emotion() -> None:
    queries = [q for clip in CLIPS for q in all_queries(clip, 0) if q.task in OPEN_TASKS]
    by_id = {clip.clip_id: clip for clip in CLIPS}
    true = {q.query_id: judge_text(q.reference, q, by_id[q.clip_id]) for q in queries}
    figures = description_figures(queries, true, by_id)
    assert figures["description_faithful"] == figures["emotion_war"] == figures["emotion_uar"] == 100.0
    neutral = {q.query_id: judge_text("The person looks neutral.", q, by_id[q.clip_id]) for q in queries}
    lost = description_figures(queries, neutral, by_id)
    spoken = [e for clip in CLIPS for e in (clip.face_emotion, clip.voice_emotion)]
    assert lost["emotion_war"] == pytest.approx(100 * spoken.count("neutral") / len(spoken))
    assert lost["emotion_uar"] <= 50.0


def test_means_have_an_interval_when_there_is_more_than_one_seed() -> None:
    table = summary({"dpo": [{"a": 1.0, "b": 5.0}, {"a": 3.0}], "mdpo": [{"a": 1.0}]})
    assert table["dpo"]["a"]["mean"] == 2.0
    assert table["dpo"]["a"]["per_seed"] == [1.0, 3.0]
    assert table["dpo"]["a"]["high"] == pytest.approx(2.0 + 12.706, abs=1e-3)  # t(1) = 12.706, sd / sqrt(2) = 1
    assert "b" not in table["dpo"]
    assert table["mdpo"]["a"] == {"mean": 1.0, "low": None, "high": None, "per_seed": [1.0]}


def test_the_questions_of_all_seeds_are_paired() -> None:
    found = paired_tests(
        {BASE: [evaluation(5), evaluation(5)], "dpo": [evaluation(15), evaluation(20)], "mdpo": [evaluation(5)] * 2},
        [(BASE, "dpo"), (BASE, "mdpo"), ("dpo", "mdpo")],
    )
    assert [(p.first, p.second) for p in found] == [(BASE, "dpo"), (BASE, "mdpo"), ("dpo", "mdpo")]
    task = next(t for t in found[0].tasks if t.task == TASK)
    assert (task.n, task.fixed, task.broke, task.difference) == (40, 25, 0, 62.5)
    assert next(t for t in found[1].tasks if t.task == TASK).test.p == 1.0
    averages = [next(t for t in pair.tasks if t.kind == "average") for pair in found]
    assert averages[0].p_holm == pytest.approx(3 * averages[0].test.p)
    assert averages[0].p_holm < averages[1].p_holm == 1.0


def test_the_length_of_descriptions_is_told() -> None:
    assert length_figures(["one two", "one two three four"]) == {"description_words": 3.0}
    assert length_figures([]) == {}


def test_lost_perception_is_named() -> None:
    figures = {BASE: [{"perception": 90.0}], "dpo": [{"perception": 86.9}], "mdpo": [{"perception": 87.1}]}
    assert list(lost_perception(figures, BASE)) == ["dpo"]


def test_what_single_kinds_of_cues_lost_is_not_hidden_by_the_mean() -> None:
    before, after = {"perception": 90.0, "perception_body": 80.0}, {"perception": 89.0, "perception_body": 74.5}
    page = to_markdown(outcome(base=[before, before], dpo=[after, after]), [])
    assert (
        "No method lost more than 3 points of perception. Of single kinds of cues more was lost by, "
        "body: naive DPO (-5.5)." in page
    )


def test_the_pages_hold_every_method_and_what_was_searched(tmp_path: Path) -> None:
    rows = {"average_accuracy": 41.0, "perception": 90.0}
    other = {"average_accuracy": 39.0, "perception": 90.0}
    found = outcome(base=[rows, other], dpo=[{"average_accuracy": 55.5, "perception": 80.0}] * 2)
    table = to_json(found)
    assert table["dpo"]["average_accuracy"]["mean"] == 55.5
    assert set(table) == {"base", "dpo", "about"}
    json.dumps(table, allow_nan=False)
    page = to_markdown(found, ["miniature/average_accuracy.png"])
    assert "| average of the five tasks | 40.0 (27.3 to 52.7) | 55.5 |" in page
    assert "Lost more than 3 points of perception: naive DPO (-10.0)" in page
    assert "lr 0.002, beta 0.1, SFT 1: 60.0" in page
    assert "![average accuracy](miniature/average_accuracy.png)" in page


def test_the_page_tells_what_training_did_late(tmp_path: Path) -> None:
    found = outcome(base=[{"average_accuracy": 1.0}], dpo=[{"average_accuracy": 2.0}])
    curves = {
        "dpo": {"rewards/margins": [(i, float(i)) for i in range(8)]},
        "avem_dpo": {"text_prior/gap": [(0, -3.0)]},
    }
    page = to_markdown(dataclasses.replace(found, curves=curves), [])
    assert "| reward margin | 6.50 | - |" in page
    assert "| text prior, chosen minus rejects (nats) | - | -3.00 |" in page
    assert "## Training" not in to_markdown(dataclasses.replace(found, curves={}), [])


def test_a_study_reads_the_controller_from_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"before": lambda i, task, answer: f"({answer})"}, clips=2)
    values = {"rewards/margins": 0.5, "text_prior/reliance_audio": 0.4, "text_prior/gamma_video": 0.2, "other": 1.0}
    MetricSpool(run / "metrics", "more").log(values, step=7)
    found = read_run_folder(run, CURVES).curves
    assert {name: found[name] for name in values if name != "other"} == {
        name: [(7, value)] for name, value in values.items() if name != "other"
    }
    assert set(found) == {*values, "loss"} - {"other"}


def test_settings_may_not_be_searched_on_a_test_world() -> None:
    with pytest.raises(ValueError, match=r"study\.search_seed \(1\) is also one of study\.seeds"):
        RunConfig.model_validate({"study": {"search_seed": 1, "seeds": [0, 1]}})
    with pytest.raises(ValueError, match=r"study\.betas is \[\]"):
        RunConfig.model_validate({"study": {"betas": []}})


def test_there_is_a_picture_per_score_of_the_curves_the_controller_and_the_doses(tmp_path: Path) -> None:
    rows = {"average_accuracy": 41.0, "perception": 90.0}
    found = outcome(base=[rows, rows], avem_dpo_adaptive=[rows, {"average_accuracy": 60.0, "perception": 91.0}])
    points = [(0, 0.2), (1, 0.3)]
    curves = {"loss": points, "text_prior/gamma_audio": points, "text_prior/reliance_audio": points}
    pictures = draw(dataclasses.replace(found, curves={"avem_dpo_adaptive": curves}), tmp_path)
    names = ["average_accuracy", "perception", "training_curves", "adaptive_text_prior", "dose_response"]
    assert [path.stem for path in pictures] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
