"""Whether a model's sureness can be believed: reliability of the probabilities it gives its answers.

Probabilities are the options' log-likelihoods, normalised over the options. Expected calibration error: Guo et al.,
ICML 2017; equal-width bins of the probability of the option chosen. Intervals are 95 %, from resampled clips; over few
questions the error comes out too large, in the interval more than in the figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avere_ray.evaluation.scorer import Item
from avere_ray.evaluation.statistics import Interval, by_clip, clip_weights, spread_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Answers whose probability lies in one bin."""

    n: int
    confidence: float
    """Mean probability of the answers, 0 to 1."""
    accuracy: float
    """Share of right answers, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Reliability over all questions that have likelihoods."""

    n: int
    error: float
    """Expected calibration error, 0 to 1."""
    error_interval: Interval
    brier: float
    """Mean squared distance of the probabilities to the right option, 0 to 2."""
    brier_interval: Interval
    bins: tuple[Bin, ...]
    """Bins that hold answers, from unsure to sure."""


def calibration(
    items: Sequence[Item], logps: Mapping[str, Mapping[str, float]], *, bins: int = 10
) -> Calibration | None:
    """Reliability of the options' log-likelihoods (nats), by question id; None when no question has them."""
    chosen, right, brier, clips = [], [], [], []
    for item in items:
        options = logps.get(item.sample_id)
        if not options or item.gold not in options:
            continue
        names = list(options)
        values = np.array([options[name] for name in names])
        shares = np.exp(values - np.logaddexp.reduce(values))
        best = int(shares.argmax())
        chosen.append(float(shares[best]))
        right.append(float(names[best] == item.gold))
        target = np.array([float(name == item.gold) for name in names])
        brier.append(float(((shares - target) ** 2).sum()))
        clips.append(item.clip_id or item.sample_id)
    if not chosen:
        return None
    sure, hits = np.array(chosen), np.array(right)
    index = np.minimum((sure * bins).astype(int), bins - 1)
    found = _bins(sure, hits, index, bins)
    error = sum(b.n * abs(b.confidence - b.accuracy) for b in found) / len(chosen)
    weights = clip_weights(len(set(clips)))
    drawn = weights @ by_clip(np.ones(len(clips)), clips)
    gaps = np.stack([by_clip((sure - hits) * (index == i), clips) for i in range(bins)], axis=1)
    errors = np.abs(weights @ gaps).sum(1) / drawn
    briers = (weights @ by_clip(np.array(brier), clips)) / drawn
    return Calibration(
        n=len(chosen),
        error=error,
        error_interval=spread_interval(errors, len(set(clips))),
        brier=float(np.mean(brier)),
        brier_interval=spread_interval(briers, len(set(clips))),
        bins=tuple(found),
    )


def _bins(chosen: np.ndarray, right: np.ndarray, index: np.ndarray, bins: int) -> list[Bin]:
    return [
        Bin(
            n=int(np.sum(index == i)),
            confidence=float(chosen[index == i].mean()),
            accuracy=float(right[index == i].mean()),
        )
        for i in range(bins)
        if np.any(index == i)
    ]
