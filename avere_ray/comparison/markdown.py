"""A comparison as Markdown."""

from avere_ray.comparison.differences import Flip, Pair
from avere_ray.comparison.report import Report
from avere_ray.comparison.wording import (
    CALIBRATION_HEAD,
    GROUNDING_HEAD,
    GROUNDING_NOTE,
    PAIR_HEAD,
    RATING_HEAD,
    SEED_HEAD,
    calibration_rows,
    figure_rows,
    grounding_rows,
    markdown_table,
    other_rows,
    pair_rows,
    param_rows,
    rated_rows,
    rating_rows,
    seed_rows,
)

FLIPS = 20
"""Questions listed at most per pair and direction."""


def to_markdown(report: Report) -> str:
    """The whole comparison."""
    parts = ["# Comparison of " + " and ".join(column.label for column in report.columns)]
    if report.tasks:
        head = ["task", *(column.label for column in report.columns)]
        parts.append("## Accuracy, percent\n\n" + markdown_table(head, figure_rows(report)))
    if rated := rated_rows(report):
        head = ["criterion", *(column.label for column in report.columns)]
        parts.append("## Descriptions, rated from 1 to 10\n\n" + markdown_table(head, rated))
    parts += [_pair(pair) for pair in report.pairs]
    if report.losses:
        table = markdown_table(GROUNDING_HEAD, grounding_rows(report))
        parts.append(f"## Grounding\n\n{GROUNDING_NOTE}\n\n{table}")
    if report.other:
        head = ["figure", *(column.label for column in report.columns)]
        parts.append("## Other figures, percent\n\n" + markdown_table(head, other_rows(report)))
    for group in report.seeds:
        title = f"## {group.label} over the seeds {', '.join(group.seeds)} (mean ± standard deviation)"
        parts.append(f"{title}\n\n" + markdown_table(SEED_HEAD, seed_rows(group)))
    if report.params:
        rows = markdown_table(["setting", *report.run_labels], param_rows(report))
        parts.append("## Settings that differ\n\n" + rows)
    if report.calibrations:
        parts.append("## Calibration\n\n" + markdown_table(CALIBRATION_HEAD, calibration_rows(report)))
    parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _pair(pair: Pair) -> str:
    title = f"## {pair.second} against {pair.first}"
    if not (pair.tasks or pair.ratings):
        return f"{title}\n\nThe answers of one of them are not here: nothing can be tested."
    parts = [title]
    parts += [markdown_table(PAIR_HEAD, pair_rows(pair))] if pair.tasks else []
    parts += [markdown_table(RATING_HEAD, rating_rows(pair))] if pair.ratings else []
    for fixed, word in ((False, "broke"), (True, "fixed")):
        flips = [flip for flip in pair.flips if flip.fixed == fixed]
        if flips:
            more = f", and {len(flips) - FLIPS} more" if len(flips) > FLIPS else ""
            parts.append(f"{len(flips)} {word}:\n\n" + "\n".join(_flip(flip) for flip in flips[:FLIPS]) + more)
    return "\n\n".join(parts)


def _flip(flip: Flip) -> str:
    item = flip.question.item
    was, now = _quote(flip.first), _quote(flip.second)
    return f"- `{item.sample_id}` {flip.question.text} Right: {item.gold}. Was: {was}; now: {now}"


def _quote(text: str) -> str:
    return '"' + " ".join(text.split())[:120] + '"'
