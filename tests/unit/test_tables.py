"""Rates of count tables against scikit-learn, and the intervals around them."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from avere_ray.evaluation.tables import (
    Outcome,
    accuracy,
    f1,
    figures,
    macro_f1,
    precision,
    recall,
    tables,
    unweighted_average_recall,
    weighted_f1,
    yes_no_measures,
)

LABELS = ("a", "b", "c", "d")


def outcomes(n: int = 200, seed: int = 0, per_clip: int = 2) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    gold, said = rng.choice(LABELS[:3], n), rng.choice(LABELS[:3], n)
    return [Outcome(sample_id=str(i), clip_id=str(i // per_clip), gold=g, said=s)
            for i, (g, s) in enumerate(zip(gold.tolist(), said.tolist(), strict=True))]  # fmt: skip


def test_rates_are_scikit_learns_over_the_classes_that_have_samples() -> None:
    found = outcomes()
    gold, said = [o.gold for o in found], [o.said for o in found]
    table = tables(found, LABELS, sorted({o.clip_id for o in found})).sum(0)
    assert accuracy(table).value == pytest.approx(100 * sk.accuracy_score(gold, said))
    assert unweighted_average_recall(table).value == pytest.approx(100 * sk.recall_score(gold, said, average="macro"))
    assert macro_f1(table).value == pytest.approx(100 * sk.f1_score(gold, said, average="macro"))
    assert weighted_f1(table).value == pytest.approx(100 * sk.f1_score(gold, said, average="weighted"))
    for row, label in enumerate(LABELS[:3]):
        assert precision(table, row).value == pytest.approx(
            100 * sk.precision_score(gold, said, labels=[label], average="macro")
        )
        assert recall(table, row).value == pytest.approx(
            100 * sk.recall_score(gold, said, labels=[label], average="macro")
        )
    assert math.isnan(float(recall(table, 3).value)) and math.isnan(float(f1(table, 3).value))


def test_answers_that_are_no_class_are_wrong() -> None:
    found = [
        Outcome(sample_id="1", clip_id="1", gold="a", said="a"),
        Outcome(sample_id="2", clip_id="2", gold="a", said=None),
        Outcome(sample_id="3", clip_id="3", gold="a", said="boredom"),
        Outcome(sample_id="4", clip_id="4", gold="a", said=None, missing=True),
    ]
    table = tables(found, LABELS, ["1", "2", "3", "4"]).sum(0)
    assert table[0].tolist() == [1, 0, 0, 0, 3]
    assert accuracy(table).value == 25.0


def test_every_figure_has_n_and_an_interval_around_it() -> None:
    found = outcomes(120)
    counts = {"x": tables(found, LABELS, sorted({o.clip_id for o in found}))}
    figure = figures(counts, lambda by: {"accuracy": accuracy(by["x"]), "recall_a": recall(by["x"], 0)})["accuracy"]
    assert figure.n == 120
    assert figure.interval.low < figure.value < figure.interval.high
    half = 196 * math.sqrt(figure.value / 100 * (1 - figure.value / 100) / 120)
    assert figure.interval.high - figure.interval.low == pytest.approx(2 * half, rel=0.25)
    again = figures(counts, lambda by: {"accuracy": accuracy(by["x"])})["accuracy"]
    assert again.interval == figure.interval


def test_a_share_on_which_all_clips_agree_gets_the_exact_interval_over_clips() -> None:
    found = [Outcome(sample_id=str(i), clip_id=str(i // 4), gold="a", said="a") for i in range(40)]
    counts = {"x": tables(found, LABELS, sorted({o.clip_id for o in found}))}
    found_figures = figures(counts, lambda by: {"accuracy": accuracy(by["x"]), "macro_f1": macro_f1(by["x"])})
    assert found_figures["accuracy"].interval.low == pytest.approx(100 * 0.025 ** (1 / 10))
    assert found_figures["accuracy"].interval.high == 100.0
    assert math.isnan(found_figures["macro_f1"].interval.low)


def test_yes_no_figures_by_hand() -> None:
    # gold yes: 3 yes, 1 no; gold no: 3 yes, 2 no, 1 other
    table = np.array([[3.0, 1.0, 0.0], [3.0, 2.0, 1.0]])
    found = {name: float(m.value) for name, m in yes_no_measures(table).items()}
    assert found == pytest.approx({
        "overall_accuracy": 50.0, "yes_percentage": 60.0, "precision": 75.0, "recall": 100 / 3,
        "f1_score": 2 * 75 * (100 / 3) / (75 + 100 / 3), "standard_precision": 50.0, "standard_recall": 75.0,
        "standard_f1": 60.0})  # fmt: skip


def test_rates_of_an_empty_table_are_nan_not_errors() -> None:
    found = yes_no_measures(np.zeros((2, 3)))
    assert all(math.isnan(float(measure.value)) for measure in found.values())
