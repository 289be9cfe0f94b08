"""Who trains on which pair when: a function of seed, epoch, lengths and number of workers, and of nothing else.

The pairs of all epochs form one line, each epoch in an order of its own. Every `pairs_per_step` of them are a step; a
step is dealt to the workers in equal parts, and each part is cut into micro-batches, by pairs or by tokens. With a
token budget a part is put in order of length first, longest in front: pairs of like length share a row, and at the same
time all workers have their long ones. All workers do the same number of forward passes in a step: who has fewer does
the missing ones with weight 0. So collectives stay in step, and the last, incomplete step loses no pair.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avere_ray.config import RunConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShare:
    """One worker's part of one optimizer step."""

    step: int
    epoch: float
    micro: tuple[tuple[int, ...], ...]
    """Indices of pairs, micro-batch by micro-batch; every worker has the same number of micro-batches."""
    weights: tuple[tuple[float, ...], ...]
    """Weight of each pair's loss; 0 for the fill-ins of an incomplete step."""
    rank: int = 0
    cursor: int = 0
    """Pairs of the line that are done when this step is."""

    def to_json(self) -> str:
        """As text, exactly."""
        return json.dumps([self.step, self.rank, self.epoch, self.cursor, self.micro, self.weights])

    @classmethod
    def from_json(cls, text: str) -> "StepShare":
        """The inverse of `to_json`."""
        step, rank, epoch, cursor, micro, weights = json.loads(text)
        return cls(step=step, rank=rank, epoch=epoch, cursor=cursor, micro=_tuples(micro), weights=_tuples(weights))


def count_steps(num_pairs: int, epochs: int, pairs_per_step: int) -> int:
    """Optimizer steps of a round; the last one may be incomplete."""
    return math.ceil(num_pairs * epochs / pairs_per_step)


def rate_factor(step: int, total: int, warmup_ratio: float) -> float:
    """Linear rise over the warm-up, then linear fall to 0 after the last step."""
    warmup = max(1, round(total * warmup_ratio))
    return (step + 1) / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup + 1))


def plan_steps(
    num_pairs: int, cfg: "RunConfig", *, world: int, sizes: Sequence[int] | None = None
) -> Iterator[tuple[StepShare, ...]]:
    """Every step of a round, each as the shares of all workers by rank.

    Args:
        sizes: tokens of each pair; needed when train.tokens_per_micro is set.
    """
    train = cfg.train
    order = [
        i
        for epoch in range(train.epochs)
        for i in random.Random(f"{cfg.seed}/{epoch}").sample(range(num_pairs), num_pairs)
    ]
    per_worker = train.pairs_per_step // world
    for step, start in enumerate(range(0, len(order), train.pairs_per_step)):
        picked = order[start : start + train.pairs_per_step]
        weights = [1.0 / len(picked)] * len(picked) + [0.0] * (train.pairs_per_step - len(picked))
        cursor = start + len(picked)
        picked = (picked + order[:1] * train.pairs_per_step)[: train.pairs_per_step]
        lengths = sizes if train.tokens_per_micro is not None else None
        bounds = [slice(rank * per_worker, (rank + 1) * per_worker) for rank in range(world)]
        parts = [_by_length(picked[b], weights[b], lengths) for b in bounds]
        cuts = [_micro_batches(mine, train.micro_pairs, train.tokens_per_micro, sizes) for mine, _ in parts]
        passes = max(len(cut) for cut in cuts)
        yield tuple(
            _share(step, rank, start / num_pairs, cursor, *parts[rank], cut, passes) for rank, cut in enumerate(cuts)
        )


def step_shares(
    num_pairs: int, cfg: "RunConfig", *, rank: int, world: int, sizes: Sequence[int] | None = None
) -> Iterator[StepShare]:
    """One worker's share of every step of a round."""
    for shares in plan_steps(num_pairs, cfg, world=world, sizes=sizes):
        yield shares[rank]


def most_passes(num_pairs: int, cfg: "RunConfig", *, world: int, sizes: Sequence[int] | None = None) -> int:
    """Largest number of micro-batches in a step of a round."""
    return max(len(shares[0].micro) for shares in plan_steps(num_pairs, cfg, world=world, sizes=sizes))


def _by_length(
    picked: Sequence[int], weights: Sequence[float], sizes: Sequence[int] | None
) -> tuple[list[int], list[float]]:
    """A worker's part of a step, longest pair first; as it is without sizes."""
    places = list(range(len(picked)))
    if sizes is not None:
        places.sort(key=lambda i: -sizes[picked[i]])
    return [picked[i] for i in places], [weights[i] for i in places]


def _micro_batches(picked: Sequence[int], pairs: int, tokens: int | None, sizes: Sequence[int] | None) -> list[int]:
    """Lengths of the micro-batches: at most `pairs` each, and at most `tokens` unless one pair alone has more."""
    if tokens is None or sizes is None:
        return [len(picked[i : i + pairs]) for i in range(0, len(picked), pairs)]
    cuts: list[int] = []
    room = 0
    for index in picked:
        if cuts and cuts[-1] < pairs and sizes[index] <= room:
            cuts[-1] += 1
            room -= sizes[index]
        else:
            cuts.append(1)
            room = tokens - sizes[index]
    return cuts


def _share(
    step: int,
    rank: int,
    epoch: float,
    cursor: int,
    picked: Sequence[int],
    weights: Sequence[float],
    cut: Sequence[int],
    passes: int,
) -> StepShare:
    mine, theirs = iter(picked), iter(weights)
    micro = [tuple(islice(mine, size)) for size in cut]
    weight = [tuple(islice(theirs, size)) for size in cut]
    missing = passes - len(cut)
    return StepShare(
        step=step,
        rank=rank,
        epoch=epoch,
        cursor=cursor,
        micro=(*micro, *[(picked[0],)] * missing),
        weights=(*weight, *[(0.0,)] * missing),
    )


def _tuples(rows: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in rows)
