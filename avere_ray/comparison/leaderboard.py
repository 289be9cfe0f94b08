"""The leaderboard as Markdown: what was measured here, from MLflow, and what others published, in tables of their own.

Measured runs are grouped by what they were asked about; a row is one setting, over its seeds. Runs that differ in seed,
name and folder only are one setting; of a setting and seed the newest finished run counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avere_ray.comparison.differences import AVERAGE, OWN_PARAMS, accuracies
from avere_ray.comparison.published import PUBLISHED, PublishedTable
from avere_ray.comparison.results import BEFORE, RunResult
from avere_ray.comparison.wording import markdown_table
from avere_ray.evaluation.emer import CRITERIA, DESCRIBED
from avere_ray.evaluation.statistics import over_seeds
from avere_ray.evaluation.tables import Figure

HEAD = """# Leaderboard

Written by `avere-ray leaderboard` from MLflow; do not edit by hand. Two kinds of figures, never in one table:
**measured** ones come from runs of this repository, **published** ones are copied from the source named above them and
were not reproduced here. They were obtained on different data with different models, so no row of one can be ranked
against a row of the other.
"""
_SHOWN = ("rounds", "loss.kind", "loss.beta", "loss.sft_weight", "train.learning_rate")
"""Settings named in a row, where a run has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardRun:
    """A measured run with when it began."""

    result: RunResult
    start_ms: int
    commit: str = ""


def to_markdown(runs: Sequence[LeaderboardRun]) -> str:
    """The whole file."""
    parts = [HEAD.strip(), "## Measured here"]
    groups = _grouped(runs)
    if not groups:
        parts.append("No finished run has been evaluated yet.")
    for title, settings in sorted(groups.items()):
        parts.append(f"### {title}")
        parts.append(_measured(list(settings.values())))
        parts += _rated(list(settings.values()))
    parts.append("## Published by others")
    parts += [_published(table) for table in PUBLISHED]
    return "\n\n".join(parts) + "\n"


def _grouped(runs: Sequence[LeaderboardRun]) -> dict[str, dict[object, list[LeaderboardRun]]]:
    """Runs by benchmark, then by setting; the newest of each setting and seed."""
    newest: dict[tuple[str, object, str], LeaderboardRun] = {}
    for run in sorted(runs, key=lambda run: run.start_ms):
        params = run.result.params
        setting = tuple(sorted((k, v) for k, v in params.items() if k not in OWN_PARAMS))
        newest[_benchmark(params), setting, params.get("seed", "")] = run
    groups: dict[str, dict[object, list[LeaderboardRun]]] = {}
    for (title, key, _), run in newest.items():
        groups.setdefault(title, {}).setdefault(key, []).append(run)
    return groups


def _benchmark(params: Mapping[str, str]) -> str:
    if params.get("data.benchmark", "null") != "null":
        return f"Questions of {params['data.benchmark']}"
    if params.get("data.clips", "null") != "null":
        return f"Questions beside {params['data.clips']}"
    return f"Controlled world, {params.get('world.test_clips', '?')} held-out clips of each seed (EmoReAlM's tasks)"


def _measured(settings: Sequence[Sequence[LeaderboardRun]]) -> str:
    tasks = sorted({task for runs in settings for run in runs for task in accuracies(run.result.last().metrics)})
    tasks = [task for task in tasks if task != AVERAGE] + [AVERAGE]
    rows = [row for runs in settings for row in _setting_rows(runs, tasks)] if tasks != [AVERAGE] else []
    if not rows:
        return "No accuracies."
    sure = "With several seeds: mean ± standard deviation over seeds; with one: 95 % interval over clips, where known."
    return markdown_table(["run", "stage", "seeds", *tasks, "runs, commit"], rows) + f"\n\n{sure} Accuracy, percent."


def _rated(settings: Sequence[Sequence[LeaderboardRun]]) -> list[str]:
    """A table for each benchmark of descriptions, with the judge that rated them; none where there are no ratings."""
    tables = []
    for name in DESCRIBED:
        rows = [row for runs in settings for row in _rating_rows(name, runs)]
        if rows:
            table = markdown_table(["run", "stage", "seeds", "rated by", *CRITERIA, "runs, commit"], rows)
            tables.append(f"{name}: descriptions rated from 1 to 10.\n\n{table}")
    return tables


def _rating_rows(name: str, runs: Sequence[LeaderboardRun]) -> list[list[str]]:
    runs = sorted(runs, key=lambda run: run.result.params.get("seed", ""))
    head = f"{runs[0].result.name}: {_setting(runs[0].result.params)}"
    seeds, origin = ", ".join(run.result.params.get("seed", "?") for run in runs), _origin(runs)
    alone = all(list(run.result.evaluations) == [BEFORE] for run in runs)
    rows = []
    for stage, said in ((BEFORE, "as it is"),) if alone else ((BEFORE, "before"), (None, "after")):
        if any(stage not in run.result.evaluations for run in runs if stage):
            continue
        evaluations = [run.result.evaluations[stage] if stage else run.result.last() for run in runs]
        raters = {evaluation.beside.raters.get(name) for evaluation in evaluations}
        if None in raters or len(raters) > 1:
            continue
        figures = [evaluation.beside.ratings[name] for evaluation in evaluations]
        cells = [_rating_cell([found[key] for found in figures if key in found], len(runs)) for key in CRITERIA]
        rows.append([head, said, seeds, str(*raters), *cells, origin])
    return rows


def _rating_cell(found: Sequence[Figure], seeds: int) -> str:
    if len(found) < seeds:
        return "-"
    if seeds > 1:
        summary = over_seeds([figure.value for figure in found])
        return f"{summary.mean:.2f} ± {summary.sd:.2f}"
    [figure] = found
    if math.isnan(figure.interval.low):
        return f"{figure.value:.2f}"
    return f"{figure.value:.2f} [{figure.interval.low:.2f}, {figure.interval.high:.2f}]"


def _origin(runs: Sequence[LeaderboardRun]) -> str:
    return ", ".join(run.result.run_id[:8] for run in runs) + _commits(runs)


def _setting_rows(runs: Sequence[LeaderboardRun], tasks: Sequence[str]) -> list[list[str]]:
    runs = sorted(runs, key=lambda run: run.result.params.get("seed", ""))
    seeds = ", ".join(run.result.params.get("seed", "?") for run in runs)
    name = f"{runs[0].result.name}: {_setting(runs[0].result.params)}"
    origin = _origin(runs)
    rows = []
    if all(list(run.result.evaluations) == [BEFORE] for run in runs):
        return [[name, "as it is", seeds, *(_cell(runs, task, None) for task in tasks), origin]]
    if all(BEFORE in run.result.evaluations for run in runs):
        rows.append([name, "before", seeds, *(_cell(runs, task, BEFORE) for task in tasks), origin])
    return [*rows, [name, "after", seeds, *(_cell(runs, task, None) for task in tasks), origin]]


def _cell(runs: Sequence[LeaderboardRun], task: str, stage: str | None) -> str:
    evaluations = [run.result.evaluations[stage] if stage else run.result.last() for run in runs]
    values = [accuracies(evaluation.metrics).get(task, math.nan) for evaluation in evaluations]
    if any(math.isnan(value) for value in values):
        return "-"
    if len(values) > 1:
        summary = over_seeds(values)
        return f"{summary.mean:.1f} ± {summary.sd:.1f}"
    scores = evaluations[0].scores()
    figure = (
        scores.figures.get("average_accuracy" if task == AVERAGE else f"{task}_overall_accuracy") if scores else None
    )
    if figure is None or math.isnan(figure.interval.low):
        return f"{values[0]:.1f}"
    return f"{values[0]:.1f} [{figure.interval.low:.1f}, {figure.interval.high:.1f}]"


def _setting(params: Mapping[str, str]) -> str:
    if params.get("evaluation.endpoint.url"):
        return f"remote model {params.get('evaluation.endpoint.model', '?')}"
    return ", ".join(f"{name}={params[name]}" for name in _SHOWN if name in params) or "-"


def _commits(runs: Sequence[LeaderboardRun]) -> str:
    commits = sorted({run.commit[:8] for run in runs if run.commit})
    return f"; {', '.join(commits)}" if commits else ""


def _published(table: PublishedTable) -> str:
    text = f"### {table.title} (published)\n\nSource: {table.source}.\n\n" + markdown_table(table.head, table.rows)
    return text + "".join(f"\n\n{note}" for note in table.notes)
