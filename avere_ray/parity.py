"""The parity gate: engine and learner must see the same tokens and give them the same log-probs.

Without it a wrong frame size, a doubled start token or an adapter that the engine silently ignores would turn into
preference data about another model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from avere_ray.errors import ParityError
from avere_ray.records import Modality, Query

Grid = Mapping[str, tuple[float, ...]]
"""How a model sees the media of a prompt: "video" (patches over time, height and width), "seconds" (between temporal
patches), "audio" (tokens)."""


_CLEAR = 8.0
"""How many times its noise the adapter's effect has to be, so that a wrong word about it takes four deviations."""

BOTH: Modality = "audio_video"
"""The media that a prompt of a rollout has, whatever it asks about."""


class Scored(NamedTuple):
    """What one side makes of a probe."""

    token_ids: list[int]
    """Of the prompt, media expanded."""
    logps: list[float]
    """Log-prob (nats) of each response token."""
    grid: Grid


def choose_probes(queries: Sequence[Query], count: int) -> list[Query]:
    """`count` queries, modalities in turn, so that audio, video and both are compared; about other clips each as far as
    there are such, so that what a cache gives for the wrong clip is seen."""
    by_modality = {m: [q for q in queries if q.modality == m] for m in ("video", "audio", "audio_video")}
    turns = [list(column) for column in by_modality.values() if column]
    chosen: list[Query] = []
    while len(chosen) < count and any(turns):
        for column in filter(None, turns):
            asked = {query.clip_id for query in chosen}
            fresh = next((i for i, query in enumerate(column) if query.clip_id not in asked), 0)
            chosen.append(column.pop(fresh))
    return chosen[:count]


def ways_to_show(queries: Sequence[Query]) -> list[tuple[Query, Modality]]:
    """Each query with sound and picture, as rollouts and the learner have it; one that is about a single medium also
    with that medium alone."""
    return [(query, shown) for query in queries for shown in dict.fromkeys((BOTH, query.modality))]


def compare(
    probes: Sequence[Query],
    engine: Sequence[Scored],
    learner: Sequence[Scored],
    *,
    max_abs_diff: float,
    adapter_version: int,
) -> float:
    """Largest difference of a response token's log-prob (nats) over all probes.

    Raises:
        ParityError: token ids or media grids differ, or a log-prob differs by more than `max_abs_diff`; names probe and
            token.
    """
    worst = 0.0
    for query, (engine_ids, engine_logps, seen), (learner_ids, learner_logps, meant) in zip(
        probes, engine, learner, strict=True
    ):
        _compare_grids(query, seen, meant)
        if engine_ids != learner_ids:
            at = next(
                (i for i, (a, b) in enumerate(zip(engine_ids, learner_ids, strict=False)) if a != b),
                min(len(engine_ids), len(learner_ids)),
            )
            raise ParityError(
                f"engine and learner see different prompts for {query.query_id}: {len(engine_ids)} and "
                f"{len(learner_ids)} tokens, first difference at token {at}. Frame count, frame size, audio length or "
                "the chat template differ; both must use the same model folder and data.decode."
            )
        for i, (a, b) in enumerate(zip(engine_logps, learner_logps, strict=True)):
            worst = max(worst, abs(a - b))
            if not abs(a - b) <= max_abs_diff:  # so that NaN is no agreement
                hint = (
                    " The adapter may not be applied: its keys must have the full model's prefix."
                    if adapter_version
                    else " Weights or precision differ: both must read the same model folder with the same model.dtype."
                )
                raise ParityError(
                    f"engine and learner disagree with adapter version {adapter_version}: response token {i} of "
                    f"{query.query_id} has log-prob {a:.6f} in the engine and {b:.6f} in the learner; "
                    f"parity.max_abs_diff is {max_abs_diff:g}.{hint}"
                )
    return worst


def check_applied(
    engine: Sequence[Scored], learner: Sequence[Scored], base: Sequence[Scored], *, adapter_version: int
) -> bool:
    """Whether the engine's log-probs show that it applies the adapter; False where they cannot show it.

    With d the learner's log-probs with the adapter less those without, over all N response tokens, and e the engine's
    less the learner's without, <e, d> / <d, d> is 1 for an engine that applies it and 0 for one that does not, give or
    take r / |d|, where r is the root mean square of what engine and learner differ by. It is looked at where |d| > 8 r.
    A bound on r alone (`compare`), as wide as bfloat16 needs it, would let an adapter with small weights be missed.

    Raises:
        ParityError: the engine answers as without the adapter.
    """
    with_it, without, own = ([x for scored in side for x in scored.logps] for side in (learner, base, engine))
    effect = [a - b for a, b in zip(with_it, without, strict=True)]
    noise = [a - b for a, b in zip(own, with_it, strict=True)]
    size = math.sqrt(sum(d * d for d in effect))
    if not size > _CLEAR * math.sqrt(sum(n * n for n in noise) / max(1, len(noise))):
        return False
    share = 1.0 + sum(n * d for n, d in zip(noise, effect, strict=True)) / size**2
    if share < 0.5:
        raise ParityError(
            f"the engine answers as without adapter version {adapter_version}: of what it changes in the log-probs of "
            f"{len(effect)} response tokens, the engine shows {100 * share:.0f} %. The adapter may not be applied: its "
            "keys must have the full model's prefix."
        )
    return True


def _compare_grids(query: Query, engine: Grid, learner: Grid) -> None:
    for name in sorted({*engine, *learner}):
        ours, theirs = engine.get(name, ()), learner.get(name, ())
        pairs = zip(ours, theirs, strict=False)
        if len(ours) == len(theirs) and all(math.isclose(a, b, rel_tol=1e-4) for a, b in pairs):
            continue
        raise ParityError(
            f"engine and learner see other media grids for {query.query_id}: {name} is {_words(ours)} in the engine "
            f"and {_words(theirs)} in the learner. Frame rate, frame size or audio length differ; both must use "
            "the same decoded clips, model folder and data.decode."
        )


def _words(grid: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in grid) or "absent"
