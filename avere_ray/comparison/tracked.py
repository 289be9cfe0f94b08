"""Runs as MLflow knows them, with their answers: from their folder where that is here, else from their artifacts."""

import dataclasses
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path

from avere_ray.comparison.leaderboard import LeaderboardRun
from avere_ray.comparison.proven import ONE_REJECT
from avere_ray.comparison.results import (
    BEFORE,
    CURVES,
    Evaluation,
    RunResult,
    evaluation_stages,
    read_evaluation,
    read_run_folder,
    stage_order,
)
from avere_ray.errors import InputError
from avere_ray.sources import media_root
from avere_ray.synthetic.drawn import OWN
from avere_ray.tracking.past import (
    TrackedRun,
    default_uri,
    evaluation_artifacts,
    find_run,
    metric_history,
    run_folder,
    search_runs,
)

_PREFIX = "eval/"


def find_result(selector: str, uri: str | None, experiment: str) -> RunResult:
    """The run a user means: a run folder, else an MLflow run id or name.

    What holds evaluations, is absolute or has a slash is taken as a folder.

    Raises:
        InputError: there is no such run, several have the name, or it has no evaluation.
        StageError: MLflow does not answer.
    """
    folder = Path(selector)
    if (folder / "evals").is_dir() or "/" in selector:
        return read_run_folder(folder.resolve())
    return from_selector(uri, experiment, selector)


def from_selector(uri: str | None, experiment: str, selector: str) -> RunResult:
    """The run with this MLflow id or name.

    Raises:
        InputError: there is none, several have the name, or it has no evaluation.
        StageError: MLflow does not answer.
    """
    uri = default_uri(uri)
    return _result(uri, find_run(uri, experiment, selector))


def from_mlflow(uri: str | None, experiment: str, filter_string: str) -> list[RunResult]:
    """Runs a filter finds that have an evaluation.

    Raises:
        InputError: none has.
        StageError: MLflow does not answer.
    """
    uri = default_uri(uri)
    runs = [run for run in search_runs(uri, experiment, filter_string) if _evaluated(run)]
    if not runs:
        raise InputError(f"none of the runs that {filter_string!r} finds was evaluated")
    return [_result(uri, run) for run in runs]


def leaderboard_runs(uri: str | None, experiment: str, filter_string: str) -> list[LeaderboardRun]:
    """Runs a filter finds that have an evaluation, for the leaderboard.

    Raises:
        InputError: none has.
        StageError: MLflow does not answer.
    """
    uri = default_uri(uri)
    runs = [run for run in search_runs(uri, experiment, filter_string) if _evaluated(run)]
    return [LeaderboardRun(result=_result(uri, run), start_ms=run.start_ms, commit=run.tags.get("git.commit", ""))
            for run in runs]  # fmt: skip


def _kept_evaluations(uri: str, run: TrackedRun) -> dict[str, Evaluation]:
    """Evaluations with their answers, as the run left them in the artifacts of its child runs."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="answers-") as scratch:
        for tag, place in evaluation_artifacts(uri, run.run_id, Path(scratch)).items():
            stage = tag.rpartition("/")[2]
            found[stage] = read_evaluation(place, stage, media_root(Path(run.params.get("data.clips", "") or scratch)))
    return {stage: found[stage] for stage in sorted(found, key=stage_order)}


def _evaluated(run: TrackedRun) -> bool:
    return any(name.startswith(_PREFIX) for name in run.metrics)


def _result(uri: str, run: TrackedRun) -> RunResult:
    folder = run_folder(run, uri)
    if folder is not None and evaluation_stages(folder):
        own = read_run_folder(folder)
        return dataclasses.replace(
            own,
            name=run.name,
            run_id=run.run_id,
            params=_with_proven(run.params, own.params),
            tags={**run.tags, **{name: text for name, text in own.tags.items() if text != OWN or name not in run.tags}},
            start_ms=run.start_ms,
            tracking_uri=uri,
        )
    if not _evaluated(run):
        raise InputError(f"run {run.name} ({run.run_id}) was never evaluated, so there is nothing to compare")
    return RunResult(
        name=run.name,
        run_id=run.run_id,
        params=run.params,
        evaluations=_evaluations(uri, run),
        curves=metric_history(uri, run.run_id, [name for name in CURVES if name in run.metrics]),
        folder=None,
        tracking_uri=uri,
        tags=run.tags,
        start_ms=run.start_ms,
    )


def _with_proven(params: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """MLflow's params with what the run's folder proves and they do not say."""
    return {**({ONE_REJECT: own[ONE_REJECT]} if ONE_REJECT in own else {}), **params}


def _evaluations(uri: str, run: TrackedRun) -> dict[str, Evaluation]:
    """Figures by the optimizer step they were logged at: at step 0 before training, else after a round."""
    kept = _kept_evaluations(uri, run)
    if kept:
        return kept
    names = [name for name in run.metrics if name.startswith(_PREFIX)]
    history = metric_history(uri, run.run_id, names)
    steps = sorted({step for points in history.values() for step, _ in points})
    rounds = itertools.count()
    found = {}
    for step in steps:
        stage = BEFORE if step == 0 else f"round={next(rounds)}"
        metrics = {name.removeprefix(_PREFIX): dict(points)[step]
                   for name, points in history.items() if step in dict(points)}  # fmt: skip
        found[stage] = Evaluation(stage=stage, metrics=metrics)
    return found
