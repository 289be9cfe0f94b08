"""Frozen-reference log-probs of pairs: what the learner's loss compares with. Three sources, one interface.

    AdapterOff    the policy with its adapter switched off, in the learner itself, every step: one more forward pass
                  over a micro-batch, as the adapter cannot be on and off in one
    Cached        the same, but each pair once: kept over steps, rounds and runs by content (`logp_cache.py`)
    Precomputed   a stage of its own before training; the learner only reads

What is kept (Cached, Precomputed) is scored pair by pair, each as one tree by itself: such a figure depends on nothing
but the pair and the weights. Beside other pairs in one row it may differ in the last digits.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from avere_ray.backbones.types import Policy, Sample
from avere_ray.branches import ByBranch, Wanted, pair_samples
from avere_ray.errors import StageError
from avere_ray.logp_cache import LogpCache
from avere_ray.media_cache import MediaCache, irrelevant_swap
from avere_ray.records import PreferencePair, ReferenceLogps

STORED = Wanted(relevant=True, irrelevant=True, text_prior=True)
"""What is kept of each pair: everything that any of the losses reads of its reference."""


class ReferenceSource(Protocol):
    """Gives the reference figures of pairs, in order."""

    def figures(self, pairs: Sequence[PreferencePair]) -> list[ByBranch[float]]: ...


class AdapterOff:
    """The policy without its adapter; for adapters on a frozen base, where that is the reference."""

    def __init__(self, policy: Policy, media: MediaCache, wanted: Wanted = STORED) -> None:
        self.policy, self.media, self.wanted = policy, media, wanted

    def figures(self, pairs: Sequence[PreferencePair]) -> list[ByBranch[float]]:
        """Scores the pairs now, in one forward pass over their trees side by side."""
        return self._scored(self.rows(pairs))

    def rows(self, pairs: Sequence[PreferencePair]) -> list[ByBranch[Sample]]:
        """The branches of pairs, their media encoded."""
        self.media.ensure(self.policy, pairs, relevant=self.wanted.relevant, irrelevant=self.wanted.irrelevant)
        return [pair_samples(self.media, pair, self.wanted) for pair in pairs]

    def score(self, row: ByBranch[Sample]) -> ByBranch[float]:
        """Scores the branches of one pair by itself."""
        return self._scored([row])[0]

    @torch.no_grad()
    def _scored(self, rows: Sequence[ByBranch[Sample]]) -> list[ByBranch[float]]:
        with self._weights():
            scores = self.policy([row.flat() for row in rows], self.media.embeds)
        values = iter(scores.double().tolist())
        return [row.like(values) for row in rows]

    def _weights(self) -> AbstractContextManager[Any]:
        """Within it the policy is the reference."""
        return self.policy.without_adapter()


class AsIs(AdapterOff):
    """The policy as it stands, for a reference that is an adapter itself (the round before)."""

    def _weights(self) -> AbstractContextManager[Any]:
        return nullcontext()


class Cached:
    """Another source, asked once for each pair; `weights` is the digest of everything the source computes with."""

    def __init__(self, source: AdapterOff, cache: LogpCache, *, weights: str, dtype: str) -> None:
        self.source, self.cache, self.weights, self.dtype = source, cache, weights, dtype

    def figures(self, pairs: Sequence[PreferencePair]) -> list[ByBranch[float]]:
        """Looks the pairs up, and scores and keeps those that are new."""
        return [self.keyed(row)[1] for row in self.source.rows(pairs)]

    def keyed(self, row: ByBranch[Sample]) -> tuple[str, ByBranch[float]]:
        """Key and figures of one pair."""
        key = pair_key(row, weights=self.weights, dtype=self.dtype)
        known = self.cache.get(key)
        if known is not None and all(map(math.isfinite, known)):
            return key, row.like(iter(known))
        scores = self.source.score(row)
        if all(map(math.isfinite, scores.flat())):  # what overflowed is not kept over runs
            self.cache.put(key, scores.flat())
        return key, scores


class Precomputed:
    """A finished reference table.

    Raises:
        StageError: figures of some pairs are missing.
    """

    def __init__(self, pairs: Sequence[PreferencePair], records: Sequence[ReferenceLogps]) -> None:
        check_complete(pairs, records)
        self._records: Mapping[str, ReferenceLogps] = {r.pair_id: r for r in records}

    def figures(self, pairs: Sequence[PreferencePair]) -> list[ByBranch[float]]:
        """Reads the figures."""
        return [from_record(self._records[p.pair_id]) for p in pairs]


def pair_key(row: ByBranch[Sample], *, weights: str, dtype: str) -> str:
    """Digest (hex, 32 bytes) of everything that changes a pair's figures: prompt and response token ids, position ids,
    the content of what is shown and heard, the weights and their dtype."""
    sha = hashlib.sha256(f"{weights} {dtype}".encode())
    for part in (row.clean, row.relevant, row.irrelevant, row.text):
        sha.update(f"|{len(part)}".encode())
        for sample in part:
            sha.update(f" {sample.video_id} {sample.audio_id} {sample.branch.response_start} ".encode())
            sha.update(sample.token_ids.tobytes())
            sha.update(sample.branch.positions.tobytes())
    return sha.hexdigest()


def to_record(pair: PreferencePair, scores: ByBranch[float], key: str) -> ReferenceLogps:
    """The figures of one pair as a record; NaN where a branch does not exist."""
    return ReferenceLogps(
        pair_id=pair.pair_id,
        key=key,
        responses=scores.clean,
        swapped=next(iter(scores.relevant), math.nan),
        irrelevant=next(iter(scores.irrelevant), math.nan),
        text_prior=scores.text,
    )


def unscored(pair: PreferencePair) -> ReferenceLogps:
    """The record of a pair before it is scored: NaN everywhere, which `check_complete` refuses."""
    blank = (math.nan,) * (1 + len(pair.rejects))
    return to_record(pair, ByBranch(clean=blank, relevant=blank[:1], irrelevant=blank[:1], text=blank), "")


def from_record(record: ReferenceLogps) -> ByBranch[float]:
    """The inverse of `to_record`."""
    return ByBranch(
        clean=record.responses,
        relevant=() if math.isnan(record.swapped) else (record.swapped,),
        irrelevant=() if math.isnan(record.irrelevant) else (record.irrelevant,),
        text=record.text_prior,
    )


def check_complete(pairs: Sequence[PreferencePair], scored: Sequence[ReferenceLogps]) -> None:
    """Refuses a reference table with gaps: pairs without a row, and rows that still hold NaN where a figure belongs.

    Raises:
        StageError: names the pairs.
    """
    have = {r.pair_id: r for r in scored}
    missing = [p.pair_id for p in pairs if p.pair_id not in have or not _whole(p, have[p.pair_id])]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(pairs)} pairs have no reference log-probs, for instance "
            f"{', '.join(missing[:5])}. Delete the reference folder of this round and run again."
        )


def check_finite(scored: Sequence[ReferenceLogps]) -> None:
    """Refuses figures that overflowed; NaN stands for a branch that is not there.

    Raises:
        StageError: names the pairs.
    """
    bad = [r.pair_id for r in scored if any(map(math.isinf, from_record(r).flat()))]
    if bad:
        raise StageError(
            f"the reference log-probs of {len(bad)} pairs are infinite, for instance of {', '.join(bad[:5])}. The "
            "model overflows on them: try model.dtype=float32, or look at the weights and at these pairs."
        )


def _whole(pair: PreferencePair, record: ReferenceLogps) -> bool:
    width = 1 + len(pair.rejects)
    swaps = [record.swapped] * (pair.swap is not None) + [record.irrelevant] * (irrelevant_swap(pair) is not None)
    figures = [*record.responses, *record.text_prior, *swaps]
    return len(record.responses) == width == len(record.text_prior) and not any(math.isnan(f) for f in figures)
