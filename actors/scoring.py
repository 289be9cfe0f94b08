"""Asking a scorer that lives in another process. Apart from the scorer, so that whoever asks does not import torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.service import answer
from avere_ray.records import PreferencePair, ReferenceLogps


def score_remotely(
    pairs: Sequence[PreferencePair],
    *,
    scorer: Any,
    weights: str,
    dtype: str,
    adapter: Path | None,
    limit_s: float,
) -> list[ReferenceLogps]:
    """`ScorerWorker.score_pairs` of a scorer.

    Raises:
        ActorLost: it died, or gave no answer within `limit_s` seconds.
    """
    return answer(scorer.score_pairs.remote(list(pairs), weights=weights, dtype=dtype, adapter=adapter), limit_s)
