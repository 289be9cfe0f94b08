"""Statistics against closed forms, scipy's own tests, and simulations of coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from avere_ray.evaluation.statistics import (
    EXACT_LIMIT,
    Interval,
    by_clip,
    clip_weights,
    cohens_d,
    cohens_h,
    exact_interval,
    holm,
    mcnemar,
    odds_ratio,
    over_seeds,
    paired_test,
    percentile_interval,
    sign_flip,
    unpaired_test,
)

# tests ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fixed", "broke"), [(8, 1), (1, 8), (5, 5), (0, 6), (40, 22), (1, 0), (300, 260)])
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(fixed: int, broke: int) -> None:
    test = mcnemar(fixed, broke)
    assert test.name == "mcnemar_exact"
    assert test.p == pytest.approx(stats.binomtest(fixed, fixed + broke).pvalue, rel=1e-9)


def test_mcnemar_of_many_is_the_corrected_chi_squared() -> None:
    fixed, broke = EXACT_LIMIT // 2 + 60, EXACT_LIMIT // 2
    test = mcnemar(fixed, broke)
    statistic = (abs(fixed - broke) - 1) ** 2 / (fixed + broke)
    assert (test.name, test.p) == ("mcnemar_chi2", pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-9))
    assert test.p == pytest.approx(stats.binomtest(fixed, fixed + broke).pvalue, abs=2e-3)


def test_nothing_that_differs_is_no_evidence() -> None:
    assert (mcnemar(0, 0).name, mcnemar(0, 0).p) == ("none", 1.0)
    assert (sign_flip(np.zeros(9)).name, sign_flip(np.zeros(9)).p) == ("none", 1.0)


def test_sign_flips_of_ones_are_mcnemar() -> None:
    few = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 30)
    assert sign_flip(few).p == pytest.approx(mcnemar(8, 2).p)
    many = np.array([1.0] * 30 + [-1.0] * 14)
    assert sign_flip(many).p == pytest.approx(mcnemar(30, 14).p, abs=0.006)


def test_several_questions_of_a_clip_count_as_one_observation() -> None:
    first, second = np.zeros(40), np.ones(40)
    apart = paired_test(first, second, [str(i) for i in range(40)])
    together = paired_test(first, second, [str(i // 10) for i in range(40)])
    assert (apart.name, together.name) == ("mcnemar_exact", "sign_flip_by_clip")
    assert apart.p < 1e-9
    assert together.p == pytest.approx(2 / 2**4)


def test_clips_are_summed_by_name() -> None:
    assert by_clip(np.array([1.0, -1.0, 2.0]), ["b", "a", "b"]).tolist() == [-1.0, 3.0]


def test_a_clustered_null_is_rejected_as_often_as_it_should_be() -> None:
    """20 clips of 6 questions that hang together: the sign-flip test keeps 5 %, McNemar would not."""
    rng = np.random.default_rng(1)
    clips = [str(i // 6) for i in range(120)]
    rejected = naive = 0
    for _ in range(400):
        clip_effect = rng.choice([-1, 0, 1], size=20, p=[0.25, 0.5, 0.25])
        change = np.repeat(clip_effect, 6)
        first, second = (change < 0).astype(float), (change > 0).astype(float)
        rejected += sign_flip(by_clip(second - first, clips), resamples=500).p <= 0.05
        naive += mcnemar(int(np.sum(second > first)), int(np.sum(second < first))).p <= 0.05
    assert rejected / 400 < 0.09
    assert naive / 400 > 0.2


# intervals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (3, 10), (57, 100), (1, 1)])
def test_the_exact_interval_is_clopper_pearson(right: int, n: int) -> None:
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="exact")
    found = exact_interval(right, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_no_interval_where_nothing_can_be_said() -> None:
    assert math.isnan(exact_interval(0, 0).low)
    assert math.isnan(percentile_interval(np.arange(100.0), 1).low)
    assert math.isnan(percentile_interval(np.full(100, math.nan), 30).low)


def test_weights_draw_as_many_clips_as_there_are_and_repeat() -> None:
    weights = clip_weights(7, resamples=50, seed=3)
    assert weights.shape == (50, 7)
    assert (weights.sum(1) == 7).all()
    assert (weights == clip_weights(7, resamples=50, seed=3)).all()
    assert (weights != clip_weights(7, resamples=50, seed=4)).any()


def test_the_interval_of_a_mean_is_close_to_students() -> None:
    values = np.random.default_rng(5).normal(10, 2, size=25)
    found = percentile_interval(clip_weights(25, resamples=20000) @ values / 25, 25)
    half = stats.t.ppf(0.975, 24) * values.std(ddof=1) / 5
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.12)


@pytest.mark.parametrize("clips", [12, 60])
def test_clustered_intervals_cover_what_they_promise(clips: int) -> None:
    """Questions of a clip share its difficulty; resampling questions instead of clips would cover far less."""
    rng = np.random.default_rng(clips)
    covered = naive = 0
    runs = 300
    for run in range(runs):
        ease = rng.beta(1.2, 1.2, size=clips)
        right = (rng.random((clips, 8)) < ease[:, None]).mean(1)
        found = percentile_interval(clip_weights(clips, resamples=400, seed=run) @ right / clips, clips)
        covered += found.low <= 0.5 <= found.high
        share = right.mean()
        naive += abs(share - 0.5) <= 1.96 * math.sqrt(share * (1 - share) / (8 * clips))
    assert 0.91 <= covered / runs <= 0.99
    assert naive / runs < 0.85


# corrections, effects, seeds ------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_holm_leaves_out_what_was_not_tested() -> None:
    found = holm({"a": 0.02, "b": math.nan, "c": 0.5})
    assert (found["a"], found["c"]) == (0.04, 0.5)
    assert math.isnan(found["b"])


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(0)
    wrong = sum(min(holm(dict(enumerate(row))).values()) <= 0.05 for row in rng.random((2000, 5)))  # type: ignore[arg-type]
    assert wrong / 2000 < 0.065


def test_effect_sizes_by_hand() -> None:
    assert cohens_h(0.5, 0.5) == 0.0
    assert cohens_h(0.0, 1.0) == pytest.approx(math.pi)
    assert cohens_h(0.25, 0.5) == pytest.approx(math.pi / 6)
    assert odds_ratio(9, 2) == pytest.approx(3.8)
    assert math.isfinite(odds_ratio(4, 0))
    assert cohens_d(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert all(math.isnan(cohens_d(np.array(values))) for values in ([3.0, 3.0], [1.0], [0.0, 0.0]))


def test_seeds_are_summed_up_with_students_interval() -> None:
    values = [49.8, 47.0, 52.4]
    found = over_seeds(values)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.seeds) == (pytest.approx(np.mean(values)), 3)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)
    assert math.isnan(over_seeds([1.0]).interval.low)
    assert over_seeds([1.0, 99.0], bounds=(0.0, 100.0)).interval == Interval(0.0, 100.0)
    same = over_seeds([5.0, 5.0, 5.0])
    assert (same.mean, same.sd) == (5.0, 0.0) and math.isnan(same.interval.low)


def test_a_difference_of_unpaired_runs_is_held_against_its_spread() -> None:
    replicates = np.random.default_rng(0).normal(5, 2.5, size=4000)
    test = unpaired_test(5.0, replicates, (30, 30))
    assert (test.name, test.p) == ("unpaired_normal", pytest.approx(2 * stats.norm.sf(2), abs=0.006))
    assert unpaired_test(0.0, np.zeros(10), (30, 30)).p == 1.0


@pytest.mark.parametrize(("left", "right"), [(30, 30), (5, 8), (1, 1), (2, 9)])
def test_runs_whose_clips_are_all_alike_are_held_against_fisher(left: int, right: int) -> None:
    """100 % against 0 %: nothing varies when clips are drawn again."""
    test = unpaired_test(-100.0, np.full(10, -100.0) + np.linspace(0, 1e-13, 10), (left, right))
    assert test.name == "fisher_by_clip"
    assert test.p == pytest.approx(stats.fisher_exact([[left, 0], [0, right]]).pvalue)
