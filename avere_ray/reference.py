"""Frozen-reference log-probs of pairs: what the learner's loss compares with, computed once.

One pair is one prefix tree: the clip's branches (chosen, rejects), the chosen response under the mismatched input, and
the same responses after the prompt alone (the text prior).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from avere_ray.backbones.qwen2_5_omni import Policy, Sample
from avere_ray.errors import StageError
from avere_ray.media_cache import MediaCache, irrelevant_swap
from avere_ray.records import ModalitySwap, PreferencePair, ReferenceLogps
from avere_ray.stages import digest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which branches of a pair are scored, beside the responses under the pair's own clip."""

    relevant: bool = True
    """The chosen response with the modality that the prompt asks about replaced."""
    relevant_rejects: bool = False
    """The rejects under the same input."""
    irrelevant: bool = False
    """The chosen response with only the other modality replaced."""
    irrelevant_rejects: bool = False
    """The rejects under the same input."""
    text_prior: bool = False
    """All responses after the prompt alone, without media."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ByBranch(Generic[T]):
    """One value for each branch of a pair; chosen first in every list, empty where a branch is not there."""

    clean: tuple[T, ...]
    """Under the pair's own clip, [1 + K]."""
    relevant: tuple[T, ...] = ()
    """With the modality that the prompt asks about replaced."""
    irrelevant: tuple[T, ...] = ()
    """With only the other modality replaced."""
    text: tuple[T, ...] = ()
    """Without media, [1 + K]."""

    def flat(self) -> list[T]:
        """All values, in the order of the fields."""
        return [*self.clean, *self.relevant, *self.irrelevant, *self.text]

    def like(self, values: "Iterator[S]") -> "ByBranch[S]":
        """Other values in the same places."""
        clean, relevant, irrelevant, text = (
            tuple(next(values) for _ in part) for part in (self.clean, self.relevant, self.irrelevant, self.text)
        )
        return ByBranch(clean=clean, relevant=relevant, irrelevant=irrelevant, text=text)


S = TypeVar("S")


def pair_samples(cache: MediaCache, pair: PreferencePair, wanted: Wanted) -> ByBranch[Sample]:
    """The branches of one pair; the cache holds its media."""
    texts = (pair.chosen, *(r.text for r in pair.rejects))

    def under(swap: ModalitySwap | None, responses: Sequence[str]) -> tuple[Sample, ...]:
        media = cache.own(pair) if swap is None else cache.mismatched(pair, swap)
        shown, heard = (media.shown(), media.heard()) if media else (None, None)
        return tuple(cache.processor.sample(pair.prompt, text, video=shown, audio=heard) for text in responses)

    def replaced(swap: ModalitySwap | None, chosen: bool, rejects: bool) -> tuple[Sample, ...]:
        if swap is None or not chosen:
            return ()
        return under(swap, texts if rejects else texts[:1])

    return ByBranch(
        clean=under(None, texts),
        relevant=replaced(pair.swap, wanted.relevant, wanted.relevant_rejects),
        irrelevant=replaced(irrelevant_swap(pair), wanted.irrelevant, wanted.irrelevant_rejects),
        text=tuple(cache.processor.sample(pair.prompt, text) for text in texts) if wanted.text_prior else (),
    )


def reference_key(pair: PreferencePair, *, base_digest: str, decode_spec: str, dtype: str) -> str:
    """Digest of everything that changes a pair's reference figures."""
    return digest(
        pair.clip_id,
        pair.prompt,
        pair.chosen,
        [r.text for r in pair.rejects],
        [pair.swap.audio_clip_id, pair.swap.video_clip_id] if pair.swap else None,
        base_digest,
        decode_spec,
        dtype,
    )


@torch.no_grad()
def score_pairs(
    policy: Policy,
    cache: MediaCache,
    pairs: Sequence[PreferencePair],
    *,
    base_digest: str,
    decode_spec: str,
    dtype: str,
    batch: int = 8,
) -> Iterator[ReferenceLogps]:
    """Reference log-probs of each pair, in order."""
    wanted = Wanted(irrelevant=True, text_prior=True)
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        cache.ensure(policy, part, irrelevant=True)
        rows = [pair_samples(cache, pair, wanted) for pair in part]
        scores = iter(policy([row.flat() for row in rows], cache.embeds).tolist())
        for pair, row in zip(part, rows, strict=True):
            key = reference_key(pair, base_digest=base_digest, decode_spec=decode_spec, dtype=dtype)
            yield reference_record(pair, row.like(scores), key)


def reference_record(pair: PreferencePair, scores: ByBranch[float], key: str) -> ReferenceLogps:
    """The figures of one pair as a record; NaN where a branch does not exist."""
    return ReferenceLogps(
        pair_id=pair.pair_id,
        key=key,
        responses=scores.clean,
        swapped=next(iter(scores.relevant), math.nan),
        irrelevant=next(iter(scores.irrelevant), math.nan),
        text_prior=scores.text,
    )


def check_complete(pairs: Sequence[PreferencePair], scored: Sequence[ReferenceLogps]) -> None:
    """Refuses a reference table with gaps.

    Raises:
        StageError: names the pairs without figures.
    """
    have = {r.pair_id for r in scored}
    missing = [p.pair_id for p in pairs if p.pair_id not in have]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(pairs)} pairs have no reference log-probs, for instance "
            f"{', '.join(missing[:5])}. Delete the reference folder of this round and run again."
        )
