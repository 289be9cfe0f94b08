"""How sure a figure is, and whether two runs differ: intervals, paired tests and corrections, numpy and scipy only.

Questions about one clip are not independent, so everything that resamples draws whole clips. Sources: cluster
bootstrap, Davison & Hinkley 1997, section 3.8; small-sample widening of percentile intervals, Hesterberg 2015
(The American Statistician 69:4); McNemar 1947; exact binomial interval, Clopper & Pearson 1934; Fisher 1935; Holm
1979; effect size h, Cohen 1988, chapter 6. Shape letters: B = resamples, C = clips, D = numbers per clip.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
EXACT_LIMIT = 1000
"""Discordant pairs up to which McNemar's test is exact."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval; NaN at both ends where none can be given."""

    low: float
    high: float


NO_INTERVAL = Interval(math.nan, math.nan)
PERCENT = (0.0, 100.0)
"""Bounds of a share in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """What a test of two runs on the same questions says."""

    name: str
    """"mcnemar_exact", "mcnemar_chi2", "sign_flip_by_clip"; "unpaired_normal" or "fisher_by_clip" for other clips;
    "none" when nothing differs."""
    p: float
    """Two-sided p-value, before any correction."""


def clip_weights(clips: int, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each clip is drawn in each bootstrap resample, float64 [B, C]; every row sums to C."""
    draws = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1.0 / clips), size=resamples)
    return draws.astype(np.float64)


def percentile_interval(replicates: np.ndarray, clips: int, *, level: float = LEVEL) -> Interval:
    """Percentile interval of bootstrap replicates [B], widened for few clips; NaN replicates are left out.

    The tail share is that of Student's t with C - 1 degrees of freedom, scaled by sqrt(C / (C - 1)), so that a mean
    over few clips is not claimed to be surer than the t-interval says.
    """
    values = replicates[np.isfinite(replicates)]
    if clips < 2 or values.size < max(20, replicates.size // 2):
        return NO_INTERVAL
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(clips / (clips - 1)) * stdtrit(clips - 1, (1 - level) / 2)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def spread_interval(replicates: np.ndarray, clips: int) -> Interval:
    """Percentile interval of replicates that vary; none where resampling changes nothing."""
    varies = np.nanmax(replicates, initial=-np.inf) > np.nanmin(replicates, initial=np.inf)
    return percentile_interval(replicates, clips) if varies else NO_INTERVAL


def exact_interval(right: int, n: int, *, level: float = LEVEL) -> Interval:
    """Clopper-Pearson interval of a share, 0 to 1; never empty, also where all or none are right."""
    if n == 0:
        return NO_INTERVAL
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(right, n - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, n - right, 1 - tail)) if right < n else 1.0
    return Interval(low, high)


def mcnemar(fixed: int, broke: int) -> PairedTest:
    """McNemar's test from the questions only one of two runs got right; exact up to `EXACT_LIMIT` of them.

    Beyond that, chi-squared with one degree of freedom and continuity correction.
    """
    n = fixed + broke
    if n == 0:
        return PairedTest(name="none", p=1.0)
    if n <= EXACT_LIMIT:
        from scipy.special import bdtr

        return PairedTest(name="mcnemar_exact", p=min(1.0, 2.0 * float(bdtr(min(fixed, broke), n, 0.5))))
    from scipy.special import chdtrc

    return PairedTest(name="mcnemar_chi2", p=float(chdtrc(1, max(abs(fixed - broke) - 1, 0) ** 2 / n)))


def sign_flip(differences: np.ndarray, *, resamples: int = 10000, seed: int = 0) -> PairedTest:
    """Permutation test of clips' differences [C]: under no difference each is as likely to have the other sign.

    Exact over all sign patterns up to 12 differing clips, else Monte Carlo with the observed one counted in.
    """
    moved = differences[differences != 0]
    if moved.size == 0:
        return PairedTest(name="none", p=1.0)
    observed = abs(float(moved.sum()))
    if moved.size <= 12:
        bits = np.arange(2**moved.size)[:, None] >> np.arange(moved.size)
        sums = np.abs((1 - 2 * (bits & 1)) @ moved)
        return PairedTest(name="sign_flip_by_clip", p=float(np.mean(sums >= observed * (1 - 1e-9))))
    rng, hits = np.random.default_rng(seed), 0
    for start in range(0, resamples, 1000):
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(min(1000, resamples - start), moved.size))
        hits += int(np.sum(np.abs(signs @ moved) >= observed * (1 - 1e-9)))
    return PairedTest(name="sign_flip_by_clip", p=(hits + 1) / (resamples + 1))


def paired_test(first: np.ndarray, second: np.ndarray, clips: Sequence[str]) -> PairedTest:
    """Test of right answers (0 or 1) of two runs to the same questions.

    McNemar's where every clip has one question; where clips have several, whose answers hang together, the sign-flip
    test over clips.
    """
    if len(set(clips)) == len(clips):
        return mcnemar(int(np.sum(second > first)), int(np.sum(second < first)))
    return sign_flip(by_clip((second - first).astype(np.float64), clips))


def by_clip(values: np.ndarray, clips: Sequence[str]) -> np.ndarray:
    """Sums of values [n] over the questions of each clip, [C], clips in sorted order."""
    names, index = np.unique(np.asarray(clips), return_inverse=True)
    return np.bincount(index, weights=values, minlength=len(names))


def unpaired_test(difference: float, replicates: np.ndarray, clips: tuple[int, int]) -> PairedTest:
    """Test of a difference between two runs on other clips, from the spread of its bootstrap replicates.

    Where these do not vary, all clips of each run are alike, and Fisher's exact test tells how likely it is that
    `clips` clips fall apart like this. (With every clip of a run alike it is the permutation test over clips.)
    """
    spread = float(np.nanstd(replicates))
    if spread > 1e-9:  # less is what rounding leaves
        from scipy.special import ndtr

        return PairedTest(name="unpaired_normal", p=float(2 * ndtr(-abs(difference) / spread)))
    if difference == 0:
        return PairedTest(name="none", p=1.0)
    ways = 2 if clips[0] == clips[1] else 1  # the two runs the other way round are as far apart
    return PairedTest(name="fisher_by_clip", p=ways / math.comb(sum(clips), clips[0]))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction: adjusted p-values by the same names, never below the given ones; NaN stays NaN."""
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted = dict.fromkeys(p_values, math.nan)
    worst = 0.0
    for rank, (p, name) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * p))
        adjusted[name] = worst
    return adjusted


def cohens_h(first: float, second: float) -> float:
    """Effect size of two shares (0 to 1): 2 asin(sqrt(b)) - 2 asin(sqrt(a)); 0.2 small, 0.5 medium, 0.8 large."""
    return 2 * math.asin(math.sqrt(second)) - 2 * math.asin(math.sqrt(first))


def cohens_d(differences: np.ndarray) -> float:
    """Effect size of paired differences: their mean over their standard deviation; NaN where they do not vary."""
    spread = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else math.nan


def odds_ratio(fixed: int, broke: int) -> float:
    """How much likelier a question is fixed than broken; 0.5 is added to both, so that it is always finite."""
    return (fixed + 0.5) / (broke + 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedSummary:
    """One figure over runs that differ in their seed only."""

    mean: float
    sd: float
    """Standard deviation over seeds; NaN for one."""
    interval: Interval
    """Student's t-interval of the mean; none for one seed, or where the seeds do not differ."""
    seeds: int


def over_seeds(
    values: Sequence[float], *, bounds: tuple[float, float] = (-math.inf, math.inf), level: float = LEVEL
) -> SeedSummary:
    """Mean, spread and t-interval of one figure per seed; the interval ends at the bounds of the figure."""
    array = np.asarray(values, dtype=np.float64)
    n, mean = array.size, float(array.mean())
    if n < 2:
        return SeedSummary(mean=mean, sd=math.nan, interval=NO_INTERVAL, seeds=n)
    from scipy.special import stdtrit

    sd = float(array.std(ddof=1))
    if not sd:
        return SeedSummary(mean=mean, sd=sd, interval=NO_INTERVAL, seeds=n)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    interval = Interval(max(mean - half, bounds[0]), min(mean + half, bounds[1]))
    return SeedSummary(mean=mean, sd=sd, interval=interval, seeds=n)
