"""The branches of a pair: which sequences its loss compares, as samples or as one figure for each.

clean        chosen and rejects under the pair's own clip
relevant     with the modality that the prompt asks about replaced
irrelevant   with only the other modality replaced
text         after the prompt alone, without media (the text prior)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from avere_ray.backbones.types import Sample
from avere_ray.media_cache import MediaCache, irrelevant_swap
from avere_ray.records import ModalitySwap, PreferencePair

T = TypeVar("T")
S = TypeVar("S")


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
