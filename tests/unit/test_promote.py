"""The gate before a champion: what is significantly worse, or was not tested, keeps an adapter from becoming it."""

import dataclasses
from pathlib import Path

import pytest
from runfolders import write_run

from avere_ray.comparison.differences import Pair, compare, correct
from avere_ray.comparison.results import Evaluation, read_run_folder
from jobs.promote import gate


def right(i: int, task: str, gold: str) -> str:
    return f"({gold})"


def worse(i: int, task: str, gold: str) -> str:
    return "maybe" if task == "modality_agreement" else f"({gold})"


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluation(tmp_path_factory.mktemp("champion"), right)


def evaluation(folder: Path, says: object, seed: int = 0) -> Evaluation:
    return read_run_folder(write_run(folder, {"round=0": says}, clips=8, seed=seed)).last()  # type: ignore[dict-item]


def pair_of(first: Evaluation, second: Evaluation) -> Pair:
    return correct([compare(first, second, ("the champion", "the candidate"))])[0]


def test_the_same_answers_pass(champion: Evaluation) -> None:
    assert gate(pair_of(champion, champion)) == []


def test_a_task_that_is_all_wrong_on_other_clips_is_an_objection(champion: Evaluation, tmp_path: Path) -> None:
    """From 100 % to 0 % on clips of another seed, where no bootstrap sample varies."""
    found = gate(pair_of(champion, evaluation(tmp_path, worse, seed=1)))
    assert any("modality_agreement is significantly worse: 100.0 to 0.0" in line for line in found)
    assert any("24 questions are not the same in both" in line for line in found)


def test_a_task_that_the_candidate_was_not_asked_is_an_objection(champion: Evaluation) -> None:
    kept = {name: q for name, q in champion.questions.items() if q.item.task != "modality_agreement"}
    found = gate(pair_of(champion, dataclasses.replace(champion, questions=kept)))
    assert any(line.startswith("modality_agreement is not tested") and "was not asked" in line for line in found)
    assert any("8 questions are not the same in both" in line for line in found)


def test_answers_that_are_not_here_are_an_objection(champion: Evaluation) -> None:
    [line] = gate(pair_of(champion, Evaluation(stage="round=0", metrics=champion.metrics)))
    assert "the answers of one of them are not here" in line
