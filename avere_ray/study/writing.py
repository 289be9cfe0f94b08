"""A finished study as Markdown and as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from avere_ray.comparison.differences import Pair
from avere_ray.comparison.wording import markdown_table, p_value
from avere_ray.study import chosen
from avere_ray.study.methods import BASE, label_of
from avere_ray.study.probes import PERCEPTION
from avere_ray.study.results import (
    METRICS,
    RETENTION_POINTS,
    TRAINING,
    Outcome,
    kinds_perceived,
    late_means,
    lost_perception,
    summary,
)
from avere_ray.study.seeds import AVERAGE, SeedTest, seed_tests

ABOUT = "about"
"""Key of the JSON file beside the methods."""
_TASKS = {
    "reasoning_stress_audio": "stress, audio",
    "reasoning_stress_video": "stress, video",
    "modality_agreement": "agreement",
}
"""Tasks that the page tests, as it names them."""
_TESTS = {
    "mcnemar_exact": "McNemar's exact test",
    "mcnemar_chi2": "McNemar's chi-squared test",
    "sign_flip_by_clip": "a sign flip by clip",
}
_KINDS = {"average": "average", "task": "tasks", "subtype": "sub-types (JSON file)"}


def to_json(found: Outcome) -> dict[str, Any]:
    """{method: {metric: {mean, low, high, per_seed}}}, and what belongs to it under "about"."""
    about = {
        **found.about,
        "search": {method: list(rows) for method, rows in found.search.items()},
        "doses": {dose: dict(rows) for dose, rows in found.doses.items()},
        "search_edges": {method: chosen.edges(rows) for method, rows in found.search.items()},
        "tests": [_test_row(pair, _over_seeds(found)) for pair in found.tests],
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
        "pairs are the same for all methods of a seed. "
        + (f"{_searched_names(found)} of each method were chosen on the validation split of another world."
           if found.search else "Learning rate and beta were given, not searched."),
        "The upper rows are of the benchmark's questions about all held-out clips. The average without the clip, "
        f"emotions, descriptions and perception are of {about['probe_clips']} of them.",
        _means(found),
        _retention(found),
        "## Paired tests",
        _what_is_tested(found),
        _averages(found),
        _tasks(found),
        "## Settings",
        *_settings(found.about["settings"]),
        *_doses(found),
        *_training(found),
        *_searched(found),
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
    """Who lost more than what may be, in the mean over the kinds of cues, and of each kind."""
    whole = _changes(lost_perception(found.figures, BASE))
    kinds = {
        kind: _changes(lost_perception(found.figures, BASE, f"{PERCEPTION}{kind}"))
        for kind in kinds_perceived(found.figures, BASE)
    }
    named = "; ".join(f"{kind}: {changes}" for kind, changes in kinds.items() if changes)
    return (
        (f"Lost more than {RETENTION_POINTS:g} points of perception: {whole}." if whole
         else f"No method lost more than {RETENTION_POINTS:g} points of perception.")
        + (f" Of single kinds of cues more was lost by, {named}." if named else "")
    )  # fmt: skip


def _changes(lost: Mapping[str, float]) -> str:
    return ", ".join(f"{label_of(method)} ({change:+.1f})" for method, change in lost.items())


def _over_seeds(found: Outcome) -> dict[tuple[str, str], dict[str, SeedTest]]:
    """Tests over seeds, by comparison and metric."""
    compared = [(pair.first, pair.second) for pair in found.tests]
    by_pair: dict[tuple[str, str], dict[str, SeedTest]] = {pair: {} for pair in compared}
    for test in seed_tests(found.figures, compared, list(METRICS)):
        by_pair[test.first, test.second][test.metric] = test
    return by_pair


def _what_is_tested(found: Outcome) -> str:
    """Which tests there are, what their p-values tell, and over how many comparisons they are corrected."""
    seeds = len(found.about["seeds"])
    used: dict[str, dict[str, None]] = {kind: {} for kind in _KINDS}
    for task in (task for pair in found.tests for task in pair.tasks if task.kind in used and task.test.name != "none"):
        used[task.kind][_TESTS.get(task.test.name, task.test.name)] = None
    named = "; ".join(f"{_KINDS[kind]}: {', '.join(names)}" for kind, names in used.items() if names)
    drawn = (
        f"**p, seeds** is a paired t test of one figure per seed (n = {seeds}, {seeds - 1} degrees of freedom, "
        "two-sided): whether the methods differ when world, pairs and training are drawn anew, from the same base with "
        "the same settings. Few seeds show large and steady differences alone; a dash stands where they do not vary."
    )
    return (
        f"**p, questions** pairs the questions of all seeds ({named or 'no question was answered differently'}). It "
        "takes the trainings as they are: it tells whether these answer differently, not whether others of the same "
        f"methods would. {drawn if seeds > 1 else 'There is one seed, so nothing tests that.'} Holm: corrected over "
        f"all comparisons of the average ({len(found.tests)}), or of the tasks."
    )


def _averages(found: Outcome) -> str:
    head = ["against", "method", "average", "95 % over seeds", "p, questions (Holm)", "p, seeds", "p, seeds (Holm)"]
    over, rows = _over_seeds(found), []
    for pair in found.tests:
        pooled = next((t for t in pair.tasks if t.kind == "average"), None)
        seeds = over[pair.first, pair.second].get(AVERAGE)
        rows.append([
            label_of(pair.first),
            label_of(pair.second),
            "-" if pooled is None else f"{pooled.difference:+.1f}",
            "-" if seeds is None or math.isnan(seeds.interval.low)
            else f"{seeds.interval.low:+.1f} to {seeds.interval.high:+.1f}",
            p_value(math.nan if pooled is None else pooled.p_holm),
            *(p_value(p) for p in ((seeds.p, seeds.p_holm) if seeds else (math.nan, math.nan))),
        ])  # fmt: skip
    return markdown_table(head, rows)


def _tasks(found: Outcome) -> str:
    """The tasks of the comparisons, with Holm's correction."""
    head = ["against", "method"]
    for title in _TASKS.values():
        head += [title, "p, questions", "p, seeds"]
    over, rows = _over_seeds(found), []
    for pair in found.tests:
        tasks = {t.task: t for t in pair.tasks if t.kind == "task"}
        cells = []
        for name in _TASKS:
            pooled, seeds = tasks.get(name), over[pair.first, pair.second].get(f"{name}_overall_accuracy")
            cells += [
                "-" if pooled is None else f"{pooled.difference:+.1f}",
                p_value(math.nan if pooled is None else pooled.p_holm),
                p_value(math.nan if seeds is None else seeds.p_holm),
            ]
        rows.append([label_of(pair.first), label_of(pair.second), *cells])
    return markdown_table(head, rows)


def _test_row(pair: Pair, over: Mapping[tuple[str, str], Mapping[str, SeedTest]]) -> dict[str, Any]:
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
        "seeds": {
            metric: {
                "difference": t.difference,
                "low": _plain(t.interval.low),
                "high": _plain(t.interval.high),
                "n": t.seeds,
                "p": _plain(t.p),
                "p_holm": _plain(t.p_holm),
            }
            for metric, t in over[pair.first, pair.second].items()
        },
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _doses(found: Outcome) -> list[str]:
    if not found.doses:
        return []
    methods = list(next(iter(found.doses.values())))
    metrics = {k: METRICS[k] for k in ("average_accuracy", "spurious_accuracy", "hallucination_accuracy")}
    table = [
        [title, dose, *(f"{rows[method].get(metric, math.nan):.1f}" for method in methods)]
        for metric, title in metrics.items()
        for dose, rows in found.doses.items()
    ]
    return [
        "## Dose and response",
        f"The base is taught anew for {found.about['dose_steps']} steps with each strength of the planted bias, and "
        "its pairs are drawn from clips with that bias. Same learning rate and beta as above, one seed, percent.",
        markdown_table(["", "bias", *(label_of(method) for method in methods)], table),
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


def _settings(settings: chosen.Settings) -> list[str]:
    """What each loss is made of: first the SFT term, which is ours, then what is the same for all, then the rest."""
    same = ", ".join(f"{name} {_value(value)}" for name, value in chosen.same_for_all(settings).items())
    rows = [[name, *(_value(value) for value in values)] for name, values in chosen.that_differ(settings).items()]
    parts = [_sft_note(settings), f"The same for all methods: {same}." if same else ""]
    table = [markdown_table(["", *(label_of(method) for method in settings)], rows)] if rows else []
    return [*(part for part in parts if part), *table]


def _sft_note(settings: chosen.Settings) -> str:
    weights = {method: float(row["sft_weight"]) for method, row in settings.items()}
    without = [label_of(method) for method, weight in weights.items() if not weight]
    if len(without) == len(weights):
        return "No loss has an SFT term, as in the papers."
    but = f" but those of {', '.join(without)}" if without else ""
    heavy = " or ".join(f"{weight:g}" for weight in sorted({w for w in weights.values() if w}))
    return (
        f"All losses{but} have an SFT term: the mean negative log-prob of the chosen response per token, with weight "
        f"{heavy} (`sft_weight`). The papers' losses have none. What it does alone, and what is left without it, is "
        "told by the methods `sft`, `dpo_without_sft` and `avem_dpo_without_sft` of `study.methods`."
    )


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _searched(found: Outcome) -> list[str]:
    if not found.search:
        return []
    about = found.about
    return [
        "## Search",
        f"Accuracy on {about['search_clips']} validation clips of world {about['search_seed']}. One setting after the "
        f"other ({', '.join(chosen.SEARCHED.values())}), each with the best of those before: the same number of "
        "trainings for every method, as far as it has the settings. The best has the highest accuracy, less each point "
        f"of perception that it lost beyond {about['retention']:g}. In brackets: the points perception changed by. "
        "Methods that are not listed are variants of one that is, and have its settings.",
        _search(found.search),
        *_search_limits(found),
    ]


def _searched_names(found: Outcome) -> str:
    """The settings of which more than one value was tried: "Learning rate, beta and SFT weight"."""
    tried = {name: {row[name] for rows in found.search.values() for row in rows} for name in chosen.SEARCHED}
    names = [title for name, title in chosen.SEARCHED.items() if len(tried[name]) > 1]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return listed[0].upper() + listed[1:]


def _search(search: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    rows = [
        [
            label_of(method),
            *("; ".join(_candidate(c) for c in part) for part in (candidates[:1], candidates[1:])),
            ", ".join(f"{chosen.SEARCHED[name]} ({end})" for name, end in chosen.edges(candidates).items()) or "none",
        ]
        for method, candidates in search.items()
    ]
    head = ["method", "chosen", "others", "at the edge of the grid"]
    return markdown_table(head, rows)


def _search_limits(found: Outcome) -> list[str]:
    """What the search cannot tell: values beyond its grid, and gamma."""
    edge = [label_of(method) for method, rows in found.search.items() if chosen.edges(rows)]
    notes = ["No chosen value is at the edge of its grid."]
    if edge:
        notes = [f"At the edge of the grid, so that a value beyond it may be better: {', '.join(edge)}."]
    narrow = chosen.without_interior(found.search)
    if narrow:
        notes.append(f"Two values were tried of {' and of '.join(narrow)}, so every choice is at an edge.")
    searched = [found.about["settings"].get(method, {}) for method in found.search]
    betas = {row["beta"] for rows in found.search.values() for row in rows}
    if len(betas) > 1 and any(row.get("text_prior_gamma") for row in searched):
        notes.append(
            "The text prior's strength (`text_prior_gamma`) is not searched: it stays the same while beta, which "
            "scales the rest of the margin, moves."
        )
    return [" ".join(notes)]


def _candidate(row: Mapping[str, float]) -> str:
    setting = f"lr {row['learning_rate']:g}, beta {row['beta']:g}, SFT {row['sft_weight']:g}"
    return f"{setting}: {row['accuracy']:.1f} ({-row['perception_lost']:+.1f})"
