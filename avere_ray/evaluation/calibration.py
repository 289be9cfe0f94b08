"""Whether a model's sureness can be believed: reliability of the probabilities it gives its answers.

Probabilities are the options' log-likelihoods, normalised over the options. Expected calibration error: Guo et al.,
ICML 2017; equal-width bins of the probability of the option chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avere_ray.evaluation.scorer import Item


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
    brier: float
    """Mean squared distance of the probabilities to the right option, 0 to 2."""
    bins: tuple[Bin, ...]
    """Bins that hold answers, from unsure to sure."""


def calibration(
    items: Sequence[Item], logps: Mapping[str, Mapping[str, float]], *, bins: int = 10
) -> Calibration | None:
    """Reliability of the options' log-likelihoods (nats), by question id; None when no question has them."""
    chosen, right, brier = [], [], []
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
    if not chosen:
        return None
    found = _bins(np.array(chosen), np.array(right), bins)
    error = sum(b.n * abs(b.confidence - b.accuracy) for b in found) / len(chosen)
    return Calibration(n=len(chosen), error=error, brier=float(np.mean(brier)), bins=tuple(found))


def _bins(chosen: np.ndarray, right: np.ndarray, bins: int) -> list[Bin]:
    index = np.minimum((chosen * bins).astype(int), bins - 1)
    return [
        Bin(
            n=int(np.sum(index == i)),
            confidence=float(chosen[index == i].mean()),
            accuracy=float(right[index == i].mean()),
        )
        for i in range(bins)
        if np.any(index == i)
    ]
