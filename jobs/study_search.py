"""The search for each method's settings, on a world of its own whose held-out clips are of the validation split.

One setting after the other, in the order of `study.chosen.SEARCHED`: all its values with the best of what was settled
before, and the first value of what was not. So every method has the same number of trainings, and three settings cost
less than the product of their grids. The best is the most accurate on the benchmark's questions, where perception lost
beyond `study.retention` counts against it: a higher rate repairs more and forgets more.
"""

import itertools
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError
from avere_ray.progress import say
from avere_ray.study import METHODS
from avere_ray.study.chosen import SEARCHED, best_first
from avere_ray.study.probes import PERCEPTION_ALONE
from jobs.layout import require
from jobs.study_runs import method_config, prepare, train_and_score, world_config
from jobs.workers import Workers

Point = dict[str, float]
"""A value of each setting of SEARCHED."""
Chosen = dict[str, Point]
"""The settings of each method."""


def search_settings(cfg: RunConfig) -> dict[str, list[Point]]:
    """Every candidate of each method with its validation accuracy and the points of perception that it lost, the best
    first; one candidate alone is not tried."""
    wanted = dict.fromkeys(_leader(cfg, method) for method in _trained(cfg))
    grids = {method: _grid(cfg, method) for method in wanted}
    if all(len(values) == 1 for grid in grids.values() for values in grid.values()):
        return {method: [{**_first(grid), **dict.fromkeys(_FOUND, float("nan"))}] for method, grid in grids.items()}
    world = world_config(
        cfg, "search", seed=cfg.study.search_seed, rounds=1,
        world={"held_out": "validation", "test_clips": cfg.study.search_clips}, evaluation={"modes": ()},
    )  # fmt: skip
    with Workers(world) as workers:
        prepare(world, workers, PERCEPTION_ALONE)
        found: dict[str, list[Point]] = {method: [] for method in wanted}
        for setting in SEARCHED:
            bests = {method: _best(cfg, rows) for method, rows in found.items()}
            todo = [(method, point) for method in wanted for point in _line(grids[method], setting, bests[method])]
            say(f"study: search for {SEARCHED[setting]}, {len(todo)} runs")
            runs = [(_candidate(world, method, point), method) for method, point in todo]
            train_and_score(world, runs, workers, cfg.study.learners, PERCEPTION_ALONE)
            for (method, point), (run, _) in zip(todo, runs, strict=True):
                found[method].append({**point, **_found(world, run)})
    return {method: best_first(rows, retention=cfg.study.retention) for method, rows in found.items()}


def chosen_settings(cfg: RunConfig, search: Mapping[str, Sequence[Mapping[str, float]]]) -> Chosen:
    """Settings of every method: the best of its search, or of that of the method it is a variant of."""
    return {method: _settings(search[_leader(cfg, method)][0]) for method in _trained(cfg)}


def check_grid(cfg: RunConfig) -> None:
    """Refuses values with which a method cannot be trained, before anything is.

    Raises:
        ConfigError: names the method, the values, and the rule they break.
    """
    world = world_config(cfg, "search", seed=cfg.study.search_seed)
    for method in _trained(cfg):
        grid = _grid(cfg, _leader(cfg, method))
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            try:
                method_config(world, method, point)
            except ValidationError as error:
                named = ", ".join(f"{name} {value:g}" for name, value in point.items())
                raise ConfigError(
                    f"the study cannot train {method} with {named}: {_rule(error)}. Change the values in "
                    "study.learning_rates, study.betas (for this method alone study.betas_of) or study.sft_weights, or "
                    "leave the method out of study.methods"
                ) from error


def _trained(cfg: RunConfig) -> tuple[str, ...]:
    """Methods that are trained: those of the table, and those of the dose-response study where there is one."""
    return (*cfg.study.methods, *dose_methods(cfg))


def dose_methods(cfg: RunConfig) -> tuple[str, ...]:
    """Methods of the dose-response study: those named for it, else those compared that are no variant of another."""
    study = cfg.study
    if not study.doses:
        return ()
    return study.dose_methods or tuple(m for m in study.methods if _leader(cfg, m) == m)


def _leader(cfg: RunConfig, method: str) -> str:
    """The method whose search settles the settings of this one."""
    leader = METHODS[method].variant_of
    return leader if leader in cfg.study.methods and not cfg.study.search_variants else method


def _grid(cfg: RunConfig, method: str) -> dict[str, tuple[float, ...]]:
    """Values of each setting that a method's search tries, the one it starts from first."""
    known, study, usual = METHODS[method], cfg.study, (cfg.loss.sft_weight,)
    betas = study.betas_of.get(method, study.betas)  # type: ignore[call-overload]
    return {
        "learning_rate": study.learning_rates,
        "beta": betas if known.has_beta else betas[:1],
        "sft_weight": (known.loss["sft_weight"],) if "sft_weight" in known.loss else study.sft_weights or usual,
    }


def _first(grid: Mapping[str, Sequence[float]]) -> Point:
    return {setting: values[0] for setting, values in grid.items()}


def _best(cfg: RunConfig, tried: Sequence[Point]) -> Point:
    """Settings of the best that was tried; empty where nothing was."""
    return _settings(best_first(tried, retention=cfg.study.retention)[0]) if tried else {}


def _line(grid: Mapping[str, Sequence[float]], setting: str, best: Point) -> list[Point]:
    """Candidates that differ in one setting from the best so far, and are not it; without one, from the first."""
    start = best or _first(grid)
    return [{**start, setting: value} for value in grid[setting] if value != best.get(setting)]


def _rule(error: ValidationError) -> str:
    return "; ".join(found["msg"].removeprefix("Value error, ") for found in error.errors())


def _candidate(world: RunConfig, method: str, point: Point) -> RunConfig:
    folder = f"{method},lr={point['learning_rate']:g},beta={point['beta']:g},sft={point['sft_weight']:g}"
    return method_config(world, method, point, folder)


_FOUND = ("accuracy", "perception_lost")
"""What is found of a candidate beside its settings: percent, and points."""


def _settings(row: Mapping[str, float]) -> Point:
    return {name: value for name, value in row.items() if name not in _FOUND}


def _found(world: RunConfig, run: RunConfig) -> Point:
    before, after = require(world, "probes", -1), require(run, "probes", 0)
    lost = before.summary["metrics"]["perception"] - after.summary["metrics"]["perception"]
    accuracy = require(run, "evals", 0).summary["metrics"]["average_accuracy"]
    return dict(zip(_FOUND, (float(accuracy), float(lost)), strict=True))
