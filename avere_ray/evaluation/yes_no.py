"""Scores of yes/no questions about what is seen and heard, shared by AVHBench and CMM.

The answer is the first word, or a "yes" or "no" set off by punctuation; anything else is unparsable and wrong.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from avere_ray.evaluation.emotion_scores import confusion
from avere_ray.evaluation.scorer import Item, Responses, Scores, missing_of, unparsable_of
from avere_ray.evaluation.tables import Measure, Outcome, figures, tables
from avere_ray.responses import yes_or_no

LABELS = ("yes", "no")


def yes_no_outcomes(items: Sequence[Item], responses: Responses) -> list[Outcome]:
    """Every item with the answer its response gives."""
    return [_outcome(item, responses.get(item.sample_id)) for item in items]


def score_yes_no(
    name: str,
    items: Sequence[Item],
    responses: Responses,
    groups: Callable[[Item], Sequence[str]],
    measures: Callable[[Mapping[str, np.ndarray]], dict[str, Measure]],
) -> Scores:
    """Figures of `measures` over the tables of each group an item belongs to."""
    outcomes = yes_no_outcomes(items, responses)
    clips = sorted({outcome.clip_id for outcome in outcomes})
    members: dict[str, list[Outcome]] = {}
    for item, outcome in zip(items, outcomes, strict=True):
        for group in groups(item):
            members.setdefault(group, []).append(outcome)
    counts = {group: tables(found, LABELS, clips) for group, found in sorted(members.items())}
    return Scores(
        benchmark=name,
        legacy=False,
        n=len(items),
        scored=len(items),
        missing=missing_of(outcomes),
        unparsable=unparsable_of(outcomes),
        figures=figures(counts, measures),
        confusion={group: confusion(table.sum(0), LABELS) for group, table in counts.items()},
    )


def _outcome(item: Item, text: str | None) -> Outcome:
    said = yes_or_no(text) if text is not None else None
    return Outcome(sample_id=item.sample_id, clip_id=item.clip_id or item.sample_id, gold=item.gold,
                   said=None if said is None else LABELS[not said], missing=text is None, task=item.task,
                   subtype=item.subtype)  # fmt: skip
