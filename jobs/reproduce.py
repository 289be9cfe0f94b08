"""The method comparison in miniature: every method from the same base, on the same pairs, over several drawn worlds.

    avere-ray reproduce --config jobs/configs/miniature.yaml

For each method learning rate, beta and the weight of the SFT term are searched on a validation world (variants of
AVEm-DPO take what is chosen for it); then it is trained and scored on the world of each seed, and naive DPO and
AVEm-DPO repair bases that were taught with a weaker or stronger bias (dose and response). Writes STUDY.OUT.md,
STUDY.OUT.json and pictures. What is finished is used again, so an interrupted study goes on.
"""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avere_ray.backbones import model_digest
from avere_ray.comparison.results import Evaluation, RunResult, read_run_folder
from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError, StageError
from avere_ray.progress import say
from avere_ray.stages import StageFolder, digest, read_manifest, write_json, write_text
from avere_ray.study import BASE, METHODS
from avere_ray.study.probes import EVERY_PROBE
from avere_ray.study.results import CURVES, Figures, Outcome, derived, paired_tests
from avere_ray.study.seeds import comparisons
from jobs.command import run_command
from jobs.layout import stage_path
from jobs.session import ray_session
from jobs.study_runs import SHARED, method_config, prepare, train_and_score, world_config
from jobs.study_search import Chosen, check_grid, chosen_settings, dose_methods, search_settings

STAGE = "model"
MINUTES = "minutes.json"
"""File of a study's folder that says how long it has taken, over all its runs."""


def run(cfg: RunConfig, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Runs what is not finished of the study, writes its result and returns the table as in OUT.json.

    `arguments` are those of the command line, for the page.

    Raises:
        ConfigError: the settings are not those of many small trainings, or not of every method; see `check_trainings`
            and `check_grid`.
    """
    check_trainings(cfg)
    check_grid(cfg)
    study = cfg.study
    with _time_noted(cfg), ray_session(cfg.ray):
        search = search_settings(cfg)
        chosen = chosen_settings(cfg, search)
        for seed in study.seeds:
            world = world_config(cfg, f"seed={seed}", seed=seed, rounds=1)
            compare_in(world, {method: chosen[method] for method in study.methods}, study.learners, EVERY_PROBE)
        for dose in study.doses:
            settings: Chosen = {method: chosen[method] for method in dose_methods(cfg)}
            compare_in(dose_world(cfg, dose), settings, study.learners, ())
    return write_result(cfg, search, minutes=_minutes(cfg), arguments=arguments)


def check_trainings(cfg: RunConfig) -> None:
    """Refuses settings that no training of a study could have, before hours of sampling.

    Raises:
        ConfigError: names the setting.
    """
    if cfg.train.reference_source == "precomputed":
        raise ConfigError(
            "train.reference_source is precomputed, but the methods of a study train on pairs of their own, for which "
            "no stage scores the reference. Set train.reference_source=cached (or adapter_off), as "
            "jobs/configs/miniature.yaml does"
        )
    if cfg.train.workers != 1:
        raise ConfigError(
            f"train.workers is {cfg.train.workers}, but a training of a study runs in one process. Set "
            "train.workers=1; study.learners says how many train side by side"
        )


@contextmanager
def _time_noted(cfg: RunConfig) -> Iterator[None]:
    """Adds the time that passes to that of earlier, interrupted runs of the study."""
    began, before = time.monotonic(), _minutes(cfg)
    try:
        yield
    finally:
        write_json(cfg.run_dir / MINUTES, {"minutes": before + (time.monotonic() - began) / 60})


def _minutes(cfg: RunConfig) -> float:
    """Minutes that the study has taken so far."""
    path = cfg.run_dir / MINUTES
    return float(json.loads(path.read_text(encoding="utf-8"))["minutes"]) if path.is_file() else 0.0


def compare_in(world: RunConfig, chosen: Chosen, learners: int, probes: Sequence[str]) -> None:
    """Trains and scores every method in a world, with the settings chosen for it, and asks these probes too."""
    from jobs.workers import Workers

    runs = [(method_config(world, method, point), method) for method, point in chosen.items()]
    say(f"study: {world.run_dir.parent.name}, {len(runs)} runs")
    with Workers(world) as workers:
        prepare(world, workers, probes)
        train_and_score(world, runs, workers, learners, probes)


def dose_world(cfg: RunConfig, dose: float) -> RunConfig:
    """A world with a weaker or stronger bias, and its base, which is taught that bias if it has not been yet."""
    folder = StageFolder(
        stage_path(cfg, STAGE) / f"dose={dose:g}",
        stage=STAGE,
        config=cfg.to_yaml(),
        key=digest(STAGE, model_digest(cfg.model.path), dose, cfg.study.dose_steps, cfg.study.dose_clips),
    )
    if folder.finished() is None:
        from avere_ray.synthetic.reteach import teach_bias
        from jobs.tiny_base import decode_scenes

        folder.begin()
        teach_bias(cfg.model.path, folder.path / "weights", bias=dose, steps=cfg.study.dose_steps,
                   clips=cfg.study.dose_clips, decode=decode_scenes, say=say)  # fmt: skip
        folder.finish(inputs=cfg.study.dose_clips, used=cfg.study.dose_clips)
    return world_config(
        cfg, f"dose={dose:g}", seed=cfg.study.seeds[0], rounds=1,
        world={"bias": dose}, model={"path": folder.path / "weights"}, evaluation={"modes": ()},
    )  # fmt: skip


def write_result(
    cfg: RunConfig,
    search: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    minutes: float,
    arguments: Sequence[str],
) -> dict[str, Any]:
    """Reads what the runs left, and writes the page, the table and the pictures."""
    from avere_ray.study import figures, writing

    found = _outcome(cfg, search, minutes, shlex.join(("avere-ray", "reproduce", *arguments)))
    out = cfg.study.out
    pictures = figures.draw(found, out)
    table = writing.to_json(found)
    write_json(out.with_suffix(".json"), table)
    write_text(out.with_suffix(".md"), writing.to_markdown(found, [f"{out.name}/{path.name}" for path in pictures]))
    say(f"study: {out.with_suffix('.md')}, {out.with_suffix('.json')} and {len(pictures)} pictures in {out}")
    return table


def _outcome(
    cfg: RunConfig, search: Mapping[str, Sequence[Mapping[str, float]]], minutes: float, command: str
) -> Outcome:
    study = cfg.study
    worlds = [cfg.run_dir / f"seed={seed}" for seed in study.seeds]
    results = {method: [_result(world, method) for world in worlds] for method in (BASE, *study.methods)}
    first = next(iter(study.methods))
    pairs = read_manifest(worlds[0] / first / "pairs" / "round=0")
    return Outcome(
        figures={method: [_all_figures(world, method) for world in worlds] for method in results},
        tests=paired_tests({method: [_evaluation(method, r) for r in rows] for method, rows in results.items()},
                           comparisons(list(results))),
        doses={f"{dose:g}": {method: _all_figures(cfg.run_dir / f"dose={dose:g}", method)
                             for method in (BASE, *dose_methods(cfg))} for dose in study.doses},
        curves={method: results[method][0].curves for method in study.methods},
        search=search if any(len(rows) > 1 for rows in search.values()) else {},
        about={
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, {platform.system()}",
            "command": command,
            "minutes": minutes,
            "seeds": list(study.seeds),
            "test_clips": cfg.world.test_clips,
            "train_clips": cfg.world.train_clips,
            "probe_clips": min(study.probe_clips, cfg.world.test_clips),
            "pairs": pairs.used if pairs else 0,
            "steps": max(steps_taken(world, study.methods) for world in worlds),
            "search_seed": study.search_seed,
            "search_clips": study.search_clips,
            "retention": study.retention,
            "dose_steps": study.dose_steps,
            "settings": {method: _resolved(cfg, method, point)
                         for method, point in chosen_settings(cfg, search).items()},
        },
    )  # fmt: skip


def steps_taken(world: Path, methods: Sequence[str]) -> int:
    """Optimizer steps of every method in a world.

    Raises:
        StageError: they did not take the same number, so that they cannot be compared.
    """
    adapters = {method: read_manifest(world / method / "adapters" / "round=0") for method in methods}
    taken = {method: int(found.summary["steps"]) for method, found in adapters.items() if found is not None}
    if len(set(taken.values())) > 1:
        named = ", ".join(f"{method} {steps}" for method, steps in taken.items())
        raise StageError(
            f"the methods of {world.name} did not take the same number of optimizer steps ({named}), so they cannot be "
            "compared; give all of them the same train.pairs_per_step and train.epochs"
        )
    return max(taken.values(), default=0)


def _resolved(cfg: RunConfig, method: str, point: Mapping[str, float]) -> dict[str, Any]:
    """Learning rate, rejects, and every setting of its loss that a method uses."""
    known = METHODS[method]
    run = method_config(world_config(cfg, f"seed={cfg.study.seeds[0]}", seed=cfg.study.seeds[0]), method, point)
    loss = {name: value for name, value in run.loss.model_dump().items() if value is not None}
    if not known.has_beta:
        del loss["beta"]
    return {"learning_rate": run.train.learning_rate, "rejects": "one" if known.one_reject else "all", **loss}


def _result(world: Path, method: str) -> RunResult:
    return read_run_folder(world / (SHARED if method == BASE else method), CURVES)


def _evaluation(method: str, result: RunResult) -> Evaluation:
    return result.evaluations["before" if method == BASE else "round=0"]


def _all_figures(world: Path, method: str) -> Figures:
    place = "before" if method == BASE else "round=0"
    folder = world / (SHARED if method == BASE else method)
    found: dict[str, float] = {}
    for stage in ("evals", "probes"):
        manifest = read_manifest(folder / stage / place)
        found |= manifest.summary["metrics"] if manifest else {}
    return found | derived(found)


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray reproduce", __doc__, lambda cfg: run(cfg, argv) and None, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
