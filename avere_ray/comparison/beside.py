"""What lies beside an evaluation's answers: figures with intervals, ratings of descriptions, grounding reports."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avere_ray.errors import StageError
from avere_ray.evaluation.asking import MAIN
from avere_ray.evaluation.emer import DESCRIBED, read_judgements
from avere_ray.evaluation.ratings import JUDGEMENTS
from avere_ray.evaluation.statistics import Interval
from avere_ray.evaluation.tables import Figure

CHOICES = ("emorealm", "world")
"""Benchmarks whose figures are computed anew from the answers."""
_SCORES, _GROUNDING = "_scores.json", "_grounding.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingLoss:
    """What is lost in one robustness mode, over one kind of question."""

    benchmark: str
    without: str
    """The medium that is taken away: "audio", "video" or "audio and video"."""
    mode: str
    asked: str
    """What the questions are about: "audio", "video", "audio_video", or "all"."""
    plain: float
    """Accuracy with the clip as it is, percent."""
    changed: float
    """Accuracy in the mode, percent."""
    drop: Figure
    """Accuracy lost, percentage points."""
    shift: Figure | None
    """Log-likelihood of the right answer lost, nats; None where there are no likelihoods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """Files of one evaluation folder; empty where it has none."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Figures of benchmarks without choices, by `<benchmark>_<metric>`; percent."""
    ratings: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    """Mean ratings from 1 to 10, by benchmark and criterion."""
    raters: Mapping[str, str] = field(default_factory=dict)
    """Who rated, by benchmark."""
    replies: Mapping[str, str] = field(default_factory=dict)
    """What the judge replied, by question id."""
    grounding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By benchmark: what each mode costs, see `evaluation.grounding.to_json`."""
    losses: tuple[GroundingLoss, ...] = ()
    """The same as rows."""


def read_beside(place: Path) -> Beside:
    """
    Raises:
        StageError: a file is not what an evaluation writes.
    """
    try:
        return _read(place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(
            f"a file in {place} cannot be read ({error!r}); evaluate again with another run_dir"
        ) from error


def _read(place: Path) -> Beside:
    scores = _by_benchmark(place, _SCORES)
    replies: dict[str, str] = {}
    for path in sorted(place.glob(f"*{JUDGEMENTS}")):
        replies |= read_judgements(path) if path.stat().st_size else {}
    grounding = _by_benchmark(place, _GROUNDING)
    return Beside(
        figures={k: f for name, found in scores.items() if name not in (*CHOICES, *DESCRIBED)
                 for k, f in _flat(name, found).items()},
        ratings={name: _figures(scores[name]) for name in DESCRIBED if name in scores},
        raters={name: _rater(scores[name]) for name in DESCRIBED if name in scores},
        replies=replies,
        grounding=grounding,
        losses=tuple(loss for name, report in grounding.items() for loss in _losses(name, report)),
    )  # fmt: skip


def _losses(benchmark: str, report: Mapping[str, Any]) -> Iterator[GroundingLoss]:
    rows = ((medium, mode, asked, row) for medium, modes in report.items() for mode, kinds in modes.items()
            for asked, row in kinds.items())  # fmt: skip
    for medium, mode, asked, row in rows:
        shift = row["shift_nats"]
        yield GroundingLoss(
            benchmark=benchmark,
            without=medium,
            mode=mode,
            asked=asked,
            plain=float(row["accuracy"]),
            changed=float(row["accuracy_changed"]),
            drop=_figure(row["drop"]["value"], row["drop"]),
            shift=_figure(shift["value"], shift) if shift else None,
        )


def _by_benchmark(place: Path, ending: str) -> dict[str, Any]:
    return {path.name.removesuffix(ending): json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(place.glob(f"*{ending}"))}  # fmt: skip


def _flat(name: str, scores: Mapping[str, Any]) -> dict[str, Figure]:
    """Figures after the benchmark's name, and the one that stands for it as `<name>_overall_accuracy`."""
    found = _figures(scores)
    main = next((found[key] for key in MAIN if key in found), None)
    flat = {f"{name}_{key}": figure for key, figure in found.items()}
    return flat | ({f"{name}_overall_accuracy": main} if main is not None else {})


def _figures(scores: Mapping[str, Any]) -> dict[str, Figure]:
    return {key: _figure(value, scores["intervals"][key])
            for key, value in scores["metrics"].items() if value is not None}  # fmt: skip


def _figure(value: float | None, spread: Mapping[str, Any]) -> Figure:
    """A figure from its value and {"low", "high", "n"}, where null is NaN."""
    low, high = (math.nan if spread[end] is None else float(spread[end]) for end in ("low", "high"))
    return Figure(math.nan if value is None else float(value), Interval(low, high), int(spread["n"]))


def _rater(scores: Mapping[str, Any]) -> str:
    return next((note.removeprefix("rated by ") for note in scores["notes"] if note.startswith("rated by ")), "")
