"""The leaderboard's rows: how many seeds and questions, and how sure each figure is."""

import pytest

from avere_ray.comparison.leaderboard import LeaderboardRun, to_markdown
from avere_ray.comparison.results import Evaluation, RunResult


def run(seed: int, accuracy: float, *, n: float | None = 40.0, commit: str = "abc") -> LeaderboardRun:
    metrics = {"a_overall_accuracy": accuracy, "average_accuracy": accuracy}
    metrics |= {"a_n": n} if n is not None else {}
    result = RunResult(
        name="r",
        run_id=f"{seed}" * 32,
        params={"seed": str(seed), "rounds": "1"},
        evaluations={"round=0": Evaluation(stage="round=0", metrics=metrics)},
        curves={},
        folder=None,
    )
    return LeaderboardRun(result=result, start_ms=seed, commit=commit)


def row(*runs: LeaderboardRun) -> str:
    [found] = [line for line in to_markdown(runs).splitlines() if line.startswith("| r:")]
    return found


def test_several_seeds_have_their_number_and_students_interval() -> None:
    """Mean 70, sd 10, t of 2 degrees of freedom 4.3027: half width 4.3027 * 10 / sqrt(3) = 24.84."""
    found = row(run(0, 60.0), run(1, 70.0), run(2, 80.0))
    assert "| after | 3 (0, 1, 2) | 40 | 70.0 [45.2, 94.8] | 70.0 [45.2, 94.8] |" in found
    assert "±" not in to_markdown([run(0, 60.0), run(1, 70.0)])


def test_one_seed_without_its_answers_claims_no_interval() -> None:
    assert "| after | 1 (0) | 40 | 60.0 | 60.0 |" in row(run(0, 60.0))


@pytest.mark.parametrize(("sizes", "shown"), [((40.0, 40.0), "40"), ((40.0, 38.0), "40, 38"), ((40.0, None), "-")])
def test_the_questions_of_each_seed_are_told(sizes: tuple[float | None, ...], shown: str) -> None:
    found = row(*(run(seed, 60.0, n=n) for seed, n in enumerate(sizes)))
    assert f"| 2 (0, 1) | {shown} | 60.0 [" in found


def test_what_is_in_brackets_is_said() -> None:
    text = to_markdown([run(0, 60.0)])
    assert "n: questions of each seed" in text and "Student's t over the seeds" in text and "bootstrap" in text
