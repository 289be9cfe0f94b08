"""The leaderboard as Markdown: what was measured here, from MLflow, and what others published, in tables of their own.

Measured runs are grouped by what they were asked about; a row is one setting, over its seeds. Runs that differ in seed,
name and folder only are one setting; of a setting and seed the newest finished run counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avere_ray.comparison.differences import AVERAGE, OWN_PARAMS, accuracies
from avere_ray.comparison.published import PUBLISHED, PublishedTable
from avere_ray.comparison.results import BEFORE, Evaluation, RunResult
from avere_ray.comparison.wording import markdown_table
from avere_ray.evaluation.emer import CRITERIA, DESCRIBED
from avere_ray.evaluation.statistics import NO_INTERVAL, Interval, over_seeds
from avere_ray.evaluation.tables import Figure

HEAD = """# Leaderboard

Written by `avere-ray leaderboard` from MLflow; do not edit by hand. Two kinds of figures, never in one table:
**measured** ones come from runs of this repository, **published** ones are copied from the source named above them and
were not reproduced here. They were obtained on different data with different models, so no row of one can be ranked
against a row of the other.
"""
_SHOWN = ("rounds", "loss.kind", "loss.beta", "loss.sft_weight", "train.learning_rate")
"""Settings named in a row, where a run has them."""
_SURE = (
    "In brackets the 95 % interval: with several seeds Student's t over the seeds, with one a bootstrap over clips, "
    "where the answers are known."
)


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
    table = markdown_table(["run", "stage", "seeds", "n", *tasks, "runs, commit"], rows)
    return f"{table}\n\nAccuracy, percent; n: questions of each seed. {_SURE}"


def _rated(settings: Sequence[Sequence[LeaderboardRun]]) -> list[str]:
    """A table for each benchmark of descriptions, with the judge that rated them; none where there are no ratings."""
    tables = []
    for name in DESCRIBED:
        rows = [row for runs in settings for row in _rating_rows(name, runs)]
        if rows:
            table = markdown_table(["run", "stage", "seeds", "n", "rated by", *CRITERIA, "runs, commit"], rows)
            tables.append(f"{name}: n descriptions of each seed, rated from 1 to 10. {_SURE}\n\n{table}")
    return tables


def _rating_rows(name: str, runs: Sequence[LeaderboardRun]) -> list[list[str]]:
    runs = sorted(runs, key=lambda run: run.result.params.get("seed", ""))
    head = f"{runs[0].result.name}: {_setting(runs[0].result.params)}"
    seeds, origin = _seeds(runs), _origin(runs)
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
        sizes = [max((figure.n for figure in found.values()), default=0) for found in figures]
        rows.append([head, said, seeds, _sizes(sizes), str(*raters), *cells, origin])
    return rows


def _rating_cell(found: Sequence[Figure], seeds: int) -> str:
    if len(found) < seeds:
        return "-"
    if seeds > 1:
        summary = over_seeds([figure.value for figure in found])
        return _with_interval(summary.mean, summary.interval, 2)
    [figure] = found
    return _with_interval(figure.value, figure.interval, 2)


def _with_interval(value: float, interval: Interval, digits: int) -> str:
    """A figure and, where one is known, its interval."""
    if math.isnan(interval.low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _seeds(runs: Sequence[LeaderboardRun]) -> str:
    """How many seeds, and which."""
    return f"{len(runs)} ({', '.join(run.result.params.get('seed', '?') for run in runs)})"


def _sizes(sizes: Sequence[int]) -> str:
    """Questions of each seed: one number where all have as many; "-" where a run does not say it."""
    return "-" if not all(sizes) else ", ".join(str(n) for n in (sizes if len(set(sizes)) > 1 else sizes[:1]))


def _questions(evaluation: Evaluation) -> int:
    """Questions that the accuracies of an evaluation rest on; 0 where it does not say."""
    tasks = [task for task in accuracies(evaluation.metrics) if task != AVERAGE]
    counted = [evaluation.metrics.get(f"{task}_n") for task in tasks]
    return 0 if None in counted else sum(int(n) for n in counted if n is not None)


def _origin(runs: Sequence[LeaderboardRun]) -> str:
    return ", ".join(run.result.run_id[:8] for run in runs) + _commits(runs)


def _setting_rows(runs: Sequence[LeaderboardRun], tasks: Sequence[str]) -> list[list[str]]:
    runs = sorted(runs, key=lambda run: run.result.params.get("seed", ""))
    seeds = _seeds(runs)
    name = f"{runs[0].result.name}: {_setting(runs[0].result.params)}"
    origin = _origin(runs)
    rows = []

    def row(said: str, stage: str | None) -> list[str]:
        evaluations = [run.result.evaluations[stage] if stage else run.result.last() for run in runs]
        sizes = _sizes([_questions(evaluation) for evaluation in evaluations])
        return [name, said, seeds, sizes, *(_cell(evaluations, task) for task in tasks), origin]

    if all(list(run.result.evaluations) == [BEFORE] for run in runs):
        return [row("as it is", None)]
    if all(BEFORE in run.result.evaluations for run in runs):
        rows.append(row("before", BEFORE))
    return [*rows, row("after", None)]


def _cell(evaluations: Sequence[Evaluation], task: str) -> str:
    values = [accuracies(evaluation.metrics).get(task, math.nan) for evaluation in evaluations]
    if any(math.isnan(value) for value in values):
        return "-"
    if len(values) > 1:
        summary = over_seeds(values)
        return _with_interval(summary.mean, summary.interval, 1)
    scores = evaluations[0].scores()
    figure = (
        scores.figures.get("average_accuracy" if task == AVERAGE else f"{task}_overall_accuracy") if scores else None
    )
    return _with_interval(values[0], figure.interval if figure is not None else NO_INTERVAL, 1)


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
