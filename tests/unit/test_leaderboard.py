"""The leaderboard's rows: which runs are one, how many seeds and questions, and how sure each figure is."""

import dataclasses
from pathlib import Path

import pytest
from runfolders import write_run

from avere_ray.comparison.leaderboard import LeaderboardRun, to_markdown
from avere_ray.comparison.report import make_report
from avere_ray.comparison.results import BEFORE, Evaluation, RunResult, read_run_folder
from avere_ray.comparison.settings import METHOD, is_drawn
from avere_ray.comparison.tracked import _result
from avere_ray.config import RunConfig
from avere_ray.preferences import study_pairs_key
from avere_ray.stages import StageFolder, digest, write_json
from avere_ray.synthetic.drawn import OWN, SEED, WORLD, drawn_tags, world_key
from avere_ray.tracking.past import TrackedRun
from jobs.study_runs import method_config, world_config

DOCS = Path(__file__).parents[2] / "docs"


def run(
    seed: int,
    accuracy: float,
    *,
    n: float | None = 40.0,
    commit: str = "abc",
    start_ms: int | None = None,
    stage: str = "round=0",
    name: str = "r",
    tags: dict[str, str] | None = None,
    **params: str,
) -> LeaderboardRun:
    metrics = {"a_overall_accuracy": accuracy, "average_accuracy": accuracy}
    metrics |= {"a_n": n} if n is not None else {}
    start_ms = seed if start_ms is None else start_ms
    result = RunResult(
        name=name,
        run_id=f"{start_ms}" * 32,
        params={"seed": str(seed), "rounds": "1", **{key.replace("__", "."): value for key, value in params.items()}},
        evaluations={stage: Evaluation(stage=stage, metrics=metrics)},
        curves={},
        folder=None,
        tags=tags or {},
    )
    return LeaderboardRun(result=result, start_ms=start_ms, commit=commit)


def rows(*runs: LeaderboardRun) -> list[str]:
    measured = to_markdown(runs).partition("## Published")[0]
    return [line for line in measured.splitlines() if line.startswith("| ") and not line.startswith("| run ")]


def row(*runs: LeaderboardRun) -> str:
    [found] = rows(*runs)
    return found


# figures --------------------------------------------------------------------------------------------------------------


def test_several_seeds_have_their_number_and_students_interval() -> None:
    """Mean 70, sd 10, t of 2 degrees of freedom 4.3027: half width 4.3027 * 10 / sqrt(3) = 24.84."""
    found = row(run(0, 60.0), run(1, 70.0), run(2, 80.0))
    assert "| after | 3 (0, 1, 2) | 40 | 70.0 [45.2, 94.8] | 70.0 [45.2, 94.8] |" in found
    assert "±" not in to_markdown([run(0, 60.0), run(1, 70.0)])


def test_an_interval_ends_where_the_scale_does_and_equal_seeds_have_none() -> None:
    assert "| 70.0 [0.0, 100.0] |" in row(run(0, 60.0), run(1, 80.0))
    assert "| 60.0 | 60.0 |" in row(run(0, 60.0), run(1, 60.0))


def test_one_seed_without_its_answers_claims_no_interval() -> None:
    assert "| after | 1 (0) | 40 | 60.0 | 60.0 |" in row(run(0, 60.0))


@pytest.mark.parametrize(("sizes", "shown"), [((40.0, 40.0), "40"), ((40.0, 38.0), "40, 38"), ((40.0, None), "-")])
def test_the_questions_of_each_seed_are_told(sizes: tuple[float | None, ...], shown: str) -> None:
    found = row(*(run(seed, 60.0 + seed, n=n) for seed, n in enumerate(sizes)))
    assert f"| 2 (0, 1) | {shown} | 60.5 [" in found


def test_what_is_in_brackets_is_said() -> None:
    text = to_markdown([run(0, 60.0)])
    assert "n: questions of each seed" in text and "Student's t over the seeds" in text and "bootstrap" in text


def test_the_published_part_of_the_file_is_what_is_written() -> None:
    kept = (DOCS / "leaderboard.md").read_text(encoding="utf-8")
    assert kept.partition("## Published by others")[2] == to_markdown([]).partition("## Published by others")[2]


# which runs are one row -----------------------------------------------------------------------------------------------


def right(i: int, task: str, gold: str) -> str:
    return f"({gold})"


def study_run(study: Path, seed: int, method: str, *, drawn_seed: int | None = None, said: bool = True) -> RunResult:
    """A run as a study leaves it, in a world of its own that lies at the study's place. `said`: whether its config says
    how many rejects the method saw."""
    world = world_config(RunConfig(run_dir=study), f"seed={seed}", seed=seed)
    cfg = method_config(world, method, {"learning_rate": 1e-3, "beta": 0.1})
    key = world_key(world.world.model_dump(), seed if drawn_seed is None else drawn_seed)
    source = _stage(world.run_dir / "clips", "clips", key)
    source = _stage(world.run_dir / "pairs" / "round=0", "pairs", f"pairs of {seed}")
    seen = study_pairs_key(source, one_reject=cfg.data.pairs.one_reject)
    _stage(cfg.run_dir / "pairs" / "round=0", "pairs", seen)
    settings = cfg.resolved()
    if not said:
        del settings["data"]["pairs"]["one_reject"]
    write_run(cfg.run_dir, {"round=0": right if seed else lambda *_: "(A)"}, clips=2, settings=settings)
    return read_run_folder(cfg.run_dir)


def _stage(place: Path, stage: str, key: str) -> str:
    folder = StageFolder(place, stage=stage, key=key)
    folder.begin()
    return folder.finish(inputs=1, used=1).output_digest


def board(*results: RunResult) -> list[LeaderboardRun]:
    return [LeaderboardRun(result=result, start_ms=i) for i, result in enumerate(results)]


def test_the_seeds_of_a_study_are_one_row_though_each_has_a_clip_folder_of_its_own(tmp_path: Path) -> None:
    found = [study_run(tmp_path, seed, "avem_dpo") for seed in (0, 1, 2)]
    assert all(is_drawn(result) for result in found)
    text = to_markdown(board(*found))
    assert text.count("\n### Controlled world, 120 held-out clips of each seed") == 1
    assert "| after | 3 (0, 1, 2) |" in row(*board(*found))
    assert str(tmp_path) not in text and row(*board(*found)).startswith("| avem_dpo: ")
    [group] = make_report([(result, None) for result in found]).seeds
    assert (group.label, group.seeds) == ("avem_dpo", ("0", "1", "2"))


def test_clips_that_another_key_drew_stay_apart(tmp_path: Path) -> None:
    found = [study_run(tmp_path, seed, "avem_dpo", drawn_seed=9) for seed in (0, 1)]
    assert not any(is_drawn(result) for result in found)
    text = to_markdown(board(*found))
    assert "### Questions beside seed=0/base/clips" in text and "### Questions beside seed=1/base/clips" in text
    assert str(tmp_path) not in text
    assert make_report([(result, None) for result in found]).seeds == ()


@pytest.mark.parametrize("said", [True, False])
def test_a_method_and_its_variant_without_rejects_are_two_rows(tmp_path: Path, said: bool) -> None:
    methods = ("avem_dpo", "avem_dpo_without_rejects")
    found = [study_run(tmp_path, seed, method, said=said) for method in methods for seed in (0, 1)]
    shown = rows(*board(*found))
    assert [line.partition(":")[0] for line in shown] == [f"| {method}" for method in methods]
    assert "data.pairs.one_reject=false" in shown[0] and "data.pairs.one_reject=true" in shown[1]
    assert "Not shown" not in to_markdown(board(*found))


def test_the_tag_names_a_row() -> None:
    found = row(run(0, 60.0, name="seed0-m", tags={METHOD: "naive DPO"}), run(1, 61.0, name="seed1-m",
                                                                             tags={METHOD: "naive DPO"}))  # fmt: skip
    assert found.startswith("| naive DPO: rounds=1 |")


def test_mlflows_tags_prove_a_world_where_the_folder_is_gone() -> None:
    own = {"data__clips": "/away/seed0/clips"}
    assert "| 2 (0, 1) |" in row(*(run(s, 60.0, tags={WORLD: "w", SEED: str(s)}, **own) for s in (0, 1)))
    assert len(rows(*(run(s, 60.0, tags={WORLD: "w", SEED: "7"}, data__clips=f"/away/{s}/clips") for s in (0, 1)))) == 2


def test_a_run_that_was_tracked_without_tags_is_read_with_what_its_folder_proves(tmp_path: Path) -> None:
    found = study_run(tmp_path, 1, "avem_dpo_without_rejects", said=False)
    assert found.folder is not None
    write_json(found.folder / "mlflow.json", {"run_id": "a" * 32})
    params = {name: text for name, text in found.params.items() if name != "data.pairs.one_reject"}
    told = TrackedRun(run_id="a" * 32, name="r", status="FINISHED", start_ms=5, params=params, metrics={},
                      tags={"git.commit": "c"})  # fmt: skip
    result = _result("http://127.0.0.1:9", told)
    assert is_drawn(result) and result.params["data.pairs.one_reject"] == "true"
    assert (result.tags[SEED], result.tags["git.commit"], result.start_ms) == ("1", "c", 5)


def test_a_replaced_run_is_named_below_the_table() -> None:
    text = to_markdown([run(0, 60.0, start_ms=1), run(0, 70.0, start_ms=2)])
    assert "Not shown, since a newer run has the same setting and seed: r (11111111)." in text
    assert "| 70.0 | 70.0 |" in text


def test_where_runs_worked_and_were_tracked_does_not_part_them() -> None:
    here = {"tracking__uri": "sqlite:////a/mlflow.db", "ray__num_cpus": "2", "cache__folder": "a"}
    there = {"tracking__uri": "http://mlflow:5000", "ray__num_cpus": "8", "placement__learner": "big"}
    found = row(run(0, 60.0, **here), run(1, 70.0, **there), run(2, 80.0))
    assert "3 (0, 1, 2)" in found and "mlflow" not in found


def test_settings_that_vary_in_a_table_are_shown() -> None:
    shown = rows(
        run(0, 60.0, stage=BEFORE, evaluation__few_shot="0", model__path="/m/a", tags={"base.digest": "a" * 64}),
        run(0, 61.0, stage=BEFORE, evaluation__few_shot="4", model__path="/m/a", tags={"base.digest": "a" * 64}),
        run(0, 62.0, stage=BEFORE, evaluation__few_shot="4", model__path="/m/b"),
    )
    assert [line.split(" | ")[0] for line in shown] == [
        "| r: base=aaaaaaaa, evaluation.few_shot=0",
        "| r: base=aaaaaaaa, evaluation.few_shot=4",
        "| r: base=b, evaluation.few_shot=4",
    ]


def test_a_model_as_it_is_says_nothing_of_training() -> None:
    asis = run(0, 50.0, stage=BEFORE, name="base", data__pairs__one_reject="false")
    shown = rows(asis, run(0, 60.0, data__pairs__one_reject="true"))
    assert [line.split(" | ")[0] for line in shown] == ["| base: -", "| r: rounds=1, data.pairs.one_reject=true"]


def test_no_two_rows_begin_alike() -> None:
    shown = rows(run(0, 60.0, loss__lambda_av="0.0"), run(0, 61.0, loss__lambda_av="0.5"))
    assert [line.split(" | ")[0] for line in shown] == [
        "| r: rounds=1, loss.lambda_av=0.0",
        "| r: rounds=1, loss.lambda_av=0.5",
    ]


def test_a_corpus_with_a_manifest_of_its_own_is_not_taken_for_a_drawn_world(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('[{"uri": "a.mp4"}]')
    cfg = RunConfig.model_validate({"data": {"clips": tmp_path}})
    assert drawn_tags(cfg.resolved()) == {WORLD: OWN, SEED: OWN}
    own = RunConfig(seed=3)
    assert drawn_tags(own.resolved()) == {WORLD: digest(own.world.model_dump()), SEED: "3"}


# seeds ----------------------------------------------------------------------------------------------------------------


def test_of_a_seed_the_newest_run_counts_and_the_report_says_so(tmp_path: Path) -> None:
    found = [read_run_folder(write_run(tmp_path / f"s{i}", {"before": right, "round=0": right}, clips=2, seed=i // 2))
             for i in range(3)]  # fmt: skip
    found = [dataclasses.replace(result, start_ms=9 - i, name=f"n{i}") for i, result in enumerate(found)]
    report = make_report([(result, None) for result in found])
    assert [group.seeds for group in report.seeds] == [("0", "1")]
    assert report.seeds[0].left_out == (found[1],)
    assert any("n1 (s1) has the seed of a newer run" in note for note in report.notes)


def test_one_run_read_twice_counts_once(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"s{i}", {"before": right, "round=0": right}, clips=2, seed=i) for i in range(2)]
    report = make_report([(read_run_folder(folder), None) for folder in (*folders, folders[0])])
    assert [group.seeds for group in report.seeds] == [("0", "1")]
    assert report.seeds[0].left_out == ()
