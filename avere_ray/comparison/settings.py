"""What a run's setting is, apart from its seed and from where it lies; runs of one setting are summed up over seeds."""

from collections.abc import Sequence
from pathlib import Path

from avere_ray.comparison.results import RunResult
from avere_ray.synthetic.drawn import OWN, SEED, WORLD

OWN_PARAMS = ("seed", "name", "run_dir")
"""Settings in which runs of the same kind differ."""
_MACHINE = ("tracking.", "cache.", "ray.", "placement.")
"""Sections that say where a run works and is kept, not what it does."""
METHOD = "study.method"
"""Tag of a study's run: which method it is, in words."""
_CLIPS = "data.clips"
_NONE = "null"


def setting_of(run: RunResult) -> dict[str, str]:
    """The params of a run without `OWN_PARAMS`, without those about machine and tracking, and without the folder of
    clips that are drawn: world and seed say all about these."""
    left_out = (*OWN_PARAMS, _CLIPS) if is_drawn(run) else OWN_PARAMS
    return {name: value for name, value in run.params.items() if name not in left_out and not name.startswith(_MACHINE)}


def is_drawn(run: RunResult) -> bool:
    """Whether its clips are those of its world and seed, drawn by itself or proven by its tags."""
    if run.params.get(_CLIPS, _NONE) == _NONE:
        return True
    return WORLD in run.tags and run.tags.get(SEED, OWN) == run.params.get("seed")


def label_of(runs: Sequence[RunResult]) -> str:
    """What runs of one setting are called: their method, else the name they share, else the folder name they share."""
    for names in (
        {run.tags.get(METHOD, "") for run in runs},
        {run.name for run in runs},
        {Path(run.params.get("run_dir", "")).name for run in runs},
    ):
        if len(names) == 1 and any(names):
            return names.pop()
    return runs[0].name


def newest_of_each_seed(runs: Sequence[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """One run of each seed, the newest, by seed; and the others."""
    newest: dict[str, RunResult] = {}
    for run in sorted(runs, key=lambda run: run.start_ms):
        newest[run.params.get("seed", "")] = run
    kept = sorted(newest.values(), key=lambda run: seed_order(run.params.get("seed", "")))
    return kept, [run for run in runs if not any(run is other for other in kept)]


def seed_order(seed: str) -> tuple[int, str]:
    """Place of a seed among others: 2 before 10."""
    return (int(seed), "") if seed.isdigit() else (0, seed)
