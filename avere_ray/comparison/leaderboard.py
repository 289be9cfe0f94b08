"""The leaderboard as Markdown: what was measured here, from MLflow, and what others published, in tables of their own.

Measured runs are grouped by what they were asked about; a row is one setting (see `settings.setting_of`), over its
seeds; of a setting and seed the newest finished run counts, and the others are named below the table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avere_ray.comparison.differences import AVERAGE, accuracies, differing_params
from avere_ray.comparison.proven import ONE_REJECT
from avere_ray.comparison.published import PUBLISHED, PublishedTable
from avere_ray.comparison.results import BEFORE, Evaluation, RunResult
from avere_ray.comparison.settings import is_drawn, label_of, seed_order, setting_of
from avere_ray.comparison.wording import markdown_table
from avere_ray.evaluation.emer import CRITERIA, DESCRIBED, HIGHEST, LOWEST
from avere_ray.evaluation.statistics import NO_INTERVAL, PERCENT, Interval, over_seeds
from avere_ray.evaluation.tables import Figure

HEAD = """# Leaderboard

Written by `avere-ray leaderboard` from MLflow; do not edit by hand. Two kinds of figures, never in one table:
**measured** ones come from runs of this repository, **published** ones are copied from the source named above them and
were not reproduced here. They were obtained on different data with different models, so no row of one can be ranked
against a row of the other.
"""
_SHOWN = ("rounds", "loss.kind", "loss.beta", "loss.sft_weight", "train.learning_rate")
"""Settings named in a row of a trained model, where a run has them."""
_MODEL = "model.path"
_WHERE_VARIED = (_MODEL, "world.bias", "world.text_prior", "world.dominance", ONE_REJECT,
                 "evaluation.few_shot", "evaluation.decoding", "evaluation.fold", "evaluation.channel")  # fmt: skip
"""Settings named in the rows of a table in which they vary."""
_SURE = (
    "In brackets the 95 % interval, where one can be given: with several seeds that differ Student's t over the seeds, "
    "cut at the scale's ends, with one a bootstrap over clips, where the answers are known."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardRun:
    """A measured run with when it began."""

    result: RunResult
    start_ms: int
    commit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """The runs of one setting, one of each seed, in order of seeds."""

    runs: tuple[LeaderboardRun, ...]
    head: str
    """How the rows begin: what the runs are called, and what their setting is."""

    @property
    def untrained(self) -> bool:
        """Whether a model was evaluated as it is."""
        return _untrained([run.result for run in self.runs])


def to_markdown(runs: Sequence[LeaderboardRun]) -> str:
    """The whole file."""
    parts = [HEAD.strip(), "## Measured here"]
    sections = _sections(runs)
    if not sections:
        parts.append("No finished run has been evaluated yet.")
    for title, found in sections:
        groups, replaced = _grouped(found)
        parts += [f"### {title}", _measured(groups), *_rated(groups)]
        if replaced:
            parts.append(f"Not shown, since a newer run has the same setting and seed: {', '.join(replaced)}.")
    parts.append("## Published by others")
    parts += [_published(table) for table in PUBLISHED]
    return "\n\n".join(parts) + "\n"


def _sections(runs: Sequence[LeaderboardRun]) -> list[tuple[str, list[LeaderboardRun]]]:
    """Runs by what they were asked about, with its title; paths are shown as far as they tell two apart."""
    found: dict[tuple[str, str], list[LeaderboardRun]] = {}
    for run in runs:
        found.setdefault(_subject(run.result), []).append(run)
    paths = [Path(name) for kind, name in found if kind != _WORLD]
    titles = {key: f"{kind} {_tail(Path(name), paths) if kind != _WORLD else name}"
              for key in found for kind, name in [key]}  # fmt: skip
    return sorted(((titles[key], own) for key, own in found.items()), key=lambda section: section[0])


_WORLD = "Controlled world,"


def _subject(run: RunResult) -> tuple[str, str]:
    """What a run was asked about: the first words of the title, and the world, or the path of its own questions."""
    params = run.params
    if params.get("data.benchmark", "null") != "null":
        return "Questions of", params["data.benchmark"]
    if not is_drawn(run):
        return "Questions beside", params["data.clips"]
    world = [params.get(f"world.{name}", said) for name, said in (("test_clips", "?"), ("held_out", "test"),
                                                                  ("speech", "tones"))]  # fmt: skip
    return _WORLD, f"{world[0]} held-out clips of each seed (split {world[1]}, voices {world[2]}, EmoReAlM's tasks)"


def _tail(path: Path, others: Sequence[Path]) -> str:
    """The last parts of a path, as many as no other one ends with; never with what an absolute path begins with."""
    parts = [part for part in path.parts if part != path.anchor]
    for n in range(1, len(parts) + 1):
        if not any(other != path and list(other.parts[-n:]) == parts[-n:] for other in others):
            return "/".join(parts[-n:])
    return "/".join(parts)


def _grouped(runs: Sequence[LeaderboardRun]) -> tuple[list[_Group], list[str]]:
    """The settings of one section; and the names of the runs that a newer one of the same setting and seed replaces."""
    settings: dict[object, dict[str, LeaderboardRun]] = {}
    replaced = []
    for run in sorted(runs, key=lambda run: run.start_ms):
        key = tuple(sorted(setting_of(run.result).items()))
        own, seed = settings.setdefault(key, {}), run.result.params.get("seed", "")
        if (older := own.get(seed)) is not None:
            replaced.append(f"{older.result.name} ({older.result.run_id[:8]})")
        own[seed] = run
    found = [[own[seed] for seed in sorted(own, key=seed_order)] for own in settings.values()]
    heads = row_heads([[run.result for run in group] for group in found])
    return [_Group(runs=tuple(group), head=head) for group, head in zip(found, heads, strict=True)], replaced


def row_heads(groups: Sequence[Sequence[RunResult]]) -> list[str]:
    """How the rows of a table's settings begin; no two alike."""
    firsts = [group[0] for group in groups]
    varied = [name for name in _WHERE_VARIED if len({_value(run, name) for run in firsts}) > 1]
    heads = [f"{label_of(group)}: {_setting(group[0], untrained=_untrained(group), varied=varied)}" for group in groups]
    for head in {head for head in heads if heads.count(head) > 1}:
        same = [i for i, other in enumerate(heads) if other == head]
        for i in same:
            told = differing_params([firsts[k] for k in same])
            apart = (f"{name}={_short(values[same.index(i)])}" for name, values in told.items() if name != "seed")
            heads[i] = f"{head}, {', '.join(apart)}"
    return heads


def _untrained(runs: Sequence[RunResult]) -> bool:
    return all(list(run.evaluations) == [BEFORE] for run in runs)


def _setting(run: RunResult, *, untrained: bool, varied: Sequence[str]) -> str:
    shown = [] if untrained else [name for name in _SHOWN if name in run.params]
    said = [f"{name}={run.params[name]}" for name in shown]
    told = [name for name in varied if not (untrained and name == ONE_REJECT)]
    said += [f"{'base' if name == _MODEL else name}={_value(run, name)}" for name in told]
    if run.params.get("evaluation.endpoint.url"):
        said = [f"remote model {run.params.get('evaluation.endpoint.model', '?')}"]
    return ", ".join(said) or "-"


def _value(run: RunResult, name: str) -> str:
    """A setting as it is shown; of the model its digest, where that is known."""
    digest = run.tags.get("base.digest", "")
    return digest[:8] if name == _MODEL and digest else _short(run.params.get(name, "-"))


def _short(value: str) -> str:
    """A value; of an absolute path its last part."""
    return Path(value).name if value.startswith("/") else value


def _measured(groups: Sequence[_Group]) -> str:
    tasks = sorted({task for group in groups for run in group.runs for task in accuracies(run.result.last().metrics)})
    tasks = [task for task in tasks if task != AVERAGE] + [AVERAGE]
    rows = [row for group in groups for row in _setting_rows(group, tasks)] if tasks != [AVERAGE] else []
    if not rows:
        return "No accuracies."
    table = markdown_table(["run", "stage", "seeds", "n", *tasks, "runs, commit"], rows)
    return f"{table}\n\nAccuracy, percent; n: questions of each seed. {_SURE}"


def _rated(groups: Sequence[_Group]) -> list[str]:
    """A table for each benchmark of descriptions, with the judge that rated them; none where there are no ratings."""
    tables = []
    for name in DESCRIBED:
        rows = [row for group in groups for row in _rating_rows(name, group)]
        if rows:
            table = markdown_table(["run", "stage", "seeds", "n", "rated by", *CRITERIA, "runs, commit"], rows)
            tables.append(f"{name}: n descriptions of each seed, rated from 1 to 10. {_SURE}\n\n{table}")
    return tables


def _rating_rows(name: str, group: _Group) -> list[list[str]]:
    runs, seeds, origin = group.runs, _seeds(group.runs), _origin(group.runs)
    rows = []
    for stage, said in ((BEFORE, "as it is"),) if group.untrained else ((BEFORE, "before"), (None, "after")):
        if any(stage not in run.result.evaluations for run in runs if stage):
            continue
        evaluations = [run.result.evaluations[stage] if stage else run.result.last() for run in runs]
        raters = {evaluation.beside.raters.get(name) for evaluation in evaluations}
        if None in raters or len(raters) > 1:
            continue
        figures = [evaluation.beside.ratings[name] for evaluation in evaluations]
        cells = [_rating_cell([found[key] for found in figures if key in found], len(runs)) for key in CRITERIA]
        sizes = [max((figure.n for figure in found.values()), default=0) for found in figures]
        rows.append([group.head, said, seeds, _sizes(sizes), str(*raters), *cells, origin])
    return rows


def _rating_cell(found: Sequence[Figure], seeds: int) -> str:
    if len(found) < seeds:
        return "-"
    if seeds > 1:
        summary = over_seeds([figure.value for figure in found], bounds=(LOWEST, HIGHEST))
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


def _setting_rows(group: _Group, tasks: Sequence[str]) -> list[list[str]]:
    runs, seeds, origin = group.runs, _seeds(group.runs), _origin(group.runs)
    rows = []

    def row(said: str, stage: str | None) -> list[str]:
        evaluations = [run.result.evaluations[stage] if stage else run.result.last() for run in runs]
        sizes = _sizes([_questions(evaluation) for evaluation in evaluations])
        return [group.head, said, seeds, sizes, *(_cell(evaluations, task) for task in tasks), origin]

    if group.untrained:
        return [row("as it is", None)]
    if all(BEFORE in run.result.evaluations for run in runs):
        rows.append(row("before", BEFORE))
    return [*rows, row("after", None)]


def _cell(evaluations: Sequence[Evaluation], task: str) -> str:
    values = [accuracies(evaluation.metrics).get(task, math.nan) for evaluation in evaluations]
    if any(math.isnan(value) for value in values):
        return "-"
    if len(values) > 1:
        summary = over_seeds(values, bounds=PERCENT)
        return _with_interval(summary.mean, summary.interval, 1)
    scores = evaluations[0].scores()
    figure = (
        scores.figures.get("average_accuracy" if task == AVERAGE else f"{task}_overall_accuracy") if scores else None
    )
    return _with_interval(values[0], figure.interval if figure is not None else NO_INTERVAL, 1)


def _commits(runs: Sequence[LeaderboardRun]) -> str:
    commits = sorted({run.commit[:8] for run in runs if run.commit})
    return f"; {', '.join(commits)}" if commits else ""


def _published(table: PublishedTable) -> str:
    text = f"### {table.title} (published)\n\nSource: {table.source}.\n\n" + markdown_table(table.head, table.rows)
    return text + "".join(f"\n\n{note}" for note in table.notes)
