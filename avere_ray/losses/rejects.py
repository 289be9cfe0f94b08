"""Weights of the rejects of a pair, and which reject is of which kind."""

from collections.abc import Sequence

import torch

from avere_ray.records import RejectKind


def reject_weights(kinds: Sequence[Sequence[str]], spurious_weight: float) -> torch.Tensor:
    """Weights [P, K] of the rejects of each pair from their kinds.

    A pair with spurious and other rejects gives `spurious_weight` to the spurious and the rest to the others, each
    shared evenly; a pair with one sort gives it all. K is the longest list; missing rejects weigh 0.
    """
    width = max(len(row) for row in kinds)
    weights = torch.zeros(len(kinds), width)
    for p, row in enumerate(kinds):
        spurious = sum(kind == RejectKind.SPURIOUS for kind in row)
        share = 1.0 if spurious == len(row) else 0.0 if not spurious else spurious_weight
        for k, kind in enumerate(row):
            weights[p, k] = share / spurious if kind == RejectKind.SPURIOUS else (1.0 - share) / (len(row) - spurious)
    return weights


def of_kind(kinds: Sequence[Sequence[str]], kind: str, like_PK: torch.Tensor) -> torch.Tensor:
    """bool [P, K]: the k-th reject of the pair exists and is of this kind."""
    width = like_PK.shape[1]
    rows = [[k < len(row) and row[k] == kind for k in range(width)] for row in kinds]
    return torch.tensor(rows, device=like_PK.device)
