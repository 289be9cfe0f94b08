"""The swap partner service as a long-lived process: queries in, mismatched inputs out."""

from collections.abc import Iterable, Mapping, Sequence

import ray

from avere_ray.modality import DEFAULT_LEVEL, PartnerIndex
from avere_ray.records import Clip, ModalitySwap, Query


class ModalitySwapWorker:
    """Chooses swap partners; holds an index of the clips without their media, so it may be restarted at any time."""

    def __init__(
        self,
        clips: Iterable[Clip],
        *,
        strategy: str,
        seed: int,
        durations_s: Mapping[str, float] | None = None,
        level: float = DEFAULT_LEVEL,
    ) -> None:
        """`strategy` is `preference.swap`, `level` its `swap_level`; `durations_s` the length of each clip in seconds,
        where known."""
        self.index = PartnerIndex(clips, durations_s)
        self.strategy = strategy
        self.seed = seed
        self.level = level

    def swap(self, queries: Sequence[Query]) -> list[ModalitySwap | None]:
        """The mismatched input of each query, or None where the corpus offers no partner.

        Raises:
            InputError: a query is about an unknown clip, or no clip has another emotion.
        """
        return [self.index.choose(query, strategy=self.strategy, seed=self.seed, level=self.level) for query in queries]


ModalitySwapActor = ray.remote(ModalitySwapWorker)
