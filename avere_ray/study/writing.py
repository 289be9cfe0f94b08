"""A finished study as Markdown and as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from avere_ray.comparison.differences import Pair
from avere_ray.comparison.wording import markdown_table, p_value
from avere_ray.study.methods import BASE, label_of
from avere_ray.study.results import (
    METRICS,
    RETENTION_POINTS,
    TRAINING,
    Outcome,
    late_means,
    lost_perception,
    summary,
)

ABOUT = "about"
"""Key of the JSON file beside the methods."""


def to_json(found: Outcome) -> dict[str, Any]:
    """{method: {metric: {mean, low, high, per_seed}}}, and what belongs to it under "about"."""
    about = {
        **found.about,
        "search": {method: list(rows) for method, rows in found.search.items()},
        "doses": {dose: dict(rows) for dose, rows in found.doses.items()},
        "tests": [_test_row(pair) for pair in found.tests],
        "lost_perception": lost_perception(found.figures, BASE),
    }
    return {**summary(found.figures), ABOUT: about}


def to_markdown(found: Outcome, pictures: Sequence[str]) -> str:
    """The study as a page; `pictures` are paths relative to it."""
    about = found.about
    seeds = ", ".join(str(seed) for seed in about["seeds"])
    return "\n\n".join([
        "# The method comparison in miniature",
        f"{about['date']}, {about['machine']}. Seeds {seeds}; {about['test_clips']} held-out clips and "
        f"{about['pairs']} preference pairs each, {about['steps']} optimizer steps for every method, from the same "
        f"base. Written by `{about['command']}` in {about['minutes']:.0f} minutes.",
        "Means over seeds in percent, with 95 % intervals (Student's t over seeds, cut at 0 and 100). The base and its "
        "pairs are the same for all methods of a seed. Learning rate and beta of each method were chosen on the "
        "validation split of another world.",
        _means(found),
        _retention(found),
        "## Paired tests",
        "The questions of all seeds, before and after or between two methods: McNemar for tasks and sub-types, a sign "
        "flip by clip for the average; p with Holm's correction over all the comparisons of tasks, of sub-types, and "
        "of averages.",
        _tests(found.tests),
        *_doses(found),
        *_training(found),
        "## Search",
        f"Accuracy on {about['search_clips']} validation clips of world {about['search_seed']}; the same candidates "
        "for every method. Methods that are not listed are variants of AVEm-DPO and have its settings.",
        _search(found.search),
        "## Pictures",
        *(f"![{path.rpartition('/')[2].removesuffix('.png').replace('_', ' ')}]({path})" for path in pictures),
    ]) + "\n"  # fmt: skip


def _means(found: Outcome) -> str:
    table = summary(found.figures)
    methods = list(table)
    rows = [
        [title, *(_mean(table[method].get(metric)) for method in methods)]
        for metric, title in METRICS.items()
        if any(metric in table[method] for method in methods)
    ]
    return markdown_table(["", *(label_of(method) for method in methods)], rows)


def _mean(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row["low"] is None:
        return f"{row['mean']:.1f}"
    return f"{row['mean']:.1f} ({max(0.0, row['low']):.1f} to {min(100.0, row['high']):.1f})"


def _retention(found: Outcome) -> str:
    lost = lost_perception(found.figures, BASE)
    if not lost:
        return f"No method lost more than {RETENTION_POINTS:g} points of perception."
    named = ", ".join(f"{label_of(method)} ({change:+.1f})" for method, change in lost.items())
    return f"Lost more than {RETENTION_POINTS:g} points of perception: {named}."


def _tests(pairs: Sequence[Pair]) -> str:
    head = ["against", "method", "average", "p", "stress, audio", "p", "stress, video", "p", "agreement", "p"]
    shown = ("average", "reasoning_stress_audio", "reasoning_stress_video", "modality_agreement")
    rows = []
    for pair in pairs:
        tasks = {t.kind if t.kind == "average" else t.task: t for t in pair.tasks}
        cells = []
        for name in shown:
            task = tasks.get(name)
            p = math.nan if task is None else task.p_holm
            cells += ["-" if task is None else f"{task.difference:+.1f}", p_value(p)]
        rows.append([label_of(pair.first), label_of(pair.second), *cells])
    return markdown_table(head, rows)


def _test_row(pair: Pair) -> dict[str, Any]:
    return {
        "against": pair.first,
        "method": pair.second,
        "questions": pair.shared,
        "tasks": {
            t.task: {
                "difference": t.difference,
                "low": _plain(t.interval.low),
                "high": _plain(t.interval.high),
                "fixed": t.fixed,
                "broke": t.broke,
                "test": t.test.name,
                "p": _plain(t.test.p),
                "p_holm": _plain(t.p_holm),
            }
            for t in pair.tasks
        },
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _doses(found: Outcome) -> list[str]:
    if not found.doses:
        return []
    methods = list(next(iter(found.doses.values())))
    metrics = {k: METRICS[k] for k in ("average_accuracy", "spurious_accuracy", "hallucination_accuracy")}
    rows = [
        [dose, *(f"{rows[method].get(metric, math.nan):.1f}" for metric in metrics for method in methods)]
        for dose, rows in found.doses.items()
    ]
    head = ["bias", *(f"{title}: {label_of(method)}" for title in metrics.values() for method in methods)]
    return [
        "## Dose and response",
        f"The base is taught anew for {found.about['dose_steps']} steps with each strength of the planted bias, and "
        "its pairs are drawn from clips with that bias. Same learning rate and beta as above, one seed, percent.",
        markdown_table(head, rows),
    ]


def _training(found: Outcome) -> list[str]:
    """What the losses did to the pairs they were trained on."""
    known = {m: {n: late_means(p) for n, p in rows.items() if n in TRAINING} for m, rows in found.curves.items()}
    known = {method: values for method, values in known.items() if values}
    if not known:
        return []
    rows = [
        [title, *(f"{values[name]:.2f}" if name in values else "-" for values in known.values())]
        for name, title in TRAINING.items()
        if any(name in values for values in known.values())
    ]
    return [
        "## Training",
        "Means over the last quarter of the steps, first seed, on the pairs that were trained on. Rewards and margins "
        "hold beta, which differs by method.",
        markdown_table(["", *(label_of(method) for method in known)], rows),
    ]


def _search(search: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    rows = [
        [label_of(method), *("; ".join(_candidate(c) for c in part) for part in (candidates[:1], candidates[1:]))]
        for method, candidates in search.items()
    ]
    return markdown_table(["method", "chosen", "others"], rows) if rows else "No search; see `about` in the JSON file."


def _candidate(row: Mapping[str, float]) -> str:
    return f"lr {row['learning_rate']:g}, beta {row['beta']:g}: {row['accuracy']:.1f}"
