"""What scoring a benchmark needs and gives: annotations and responses in, figures with intervals out, no model."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avere_ray.errors import ConfigError, InputError
from avere_ray.evaluation.predictions import read_predictions
from avere_ray.evaluation.tables import Figure, Outcome

Responses = Mapping[str, str]
"""Responses as the model wrote them, by sample id."""
EXAMPLES = 20
"""Sample ids listed at most where answers are missing or unparsable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One annotated sample."""

    sample_id: str
    """Names its prediction."""
    gold: str
    """The right answer: a letter, a class, "yes" or "no"; a description for described samples."""
    clip_id: str = ""
    """The clip it is about; the sample id when every sample is a clip."""
    task: str = ""
    """Part of the benchmark."""
    subtype: str = ""
    """Part of the task; empty when not labelled."""
    choices: tuple[str, ...] = ()
    """Answer choices as shown; empty for open questions."""
    media: str = ""
    """Name of the media file, where it is not the clip's."""
    question: str = ""
    """The words asked, where every sample has its own and the file holds them."""
    written: str = ""
    """The right answer as the file has it, in lower case, where released rules look at that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """Which part of a benchmark is read."""

    fold: int | None = None
    """Fold of the cross-validation, from 1."""
    channel: str | None = None
    """"speech", "song" or "both"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """Annotated samples, and how many were left out by the benchmark's own rules."""

    items: tuple[Item, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of samples by reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """All figures of one set of responses."""

    benchmark: str
    legacy: bool
    """Whether the released scorer's rules were used."""
    n: int
    """Annotated samples."""
    scored: int
    """Samples the figures rest on."""
    missing: tuple[str, ...] = ()
    """Samples without a response."""
    unparsable: tuple[str, ...] = ()
    """Samples whose response gives no answer."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Annotated samples the benchmark does not use, by reason."""
    unused: int = 0
    """Responses that belong to no annotated sample."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Metric name to figure."""
    confusion: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """Counts by task, right class and class answered."""
    notes: tuple[str, ...] = ()
    """What a reader must know."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes null."""
        return {
            "benchmark": self.benchmark,
            "legacy": self.legacy,
            "n": self.n,
            "scored": self.scored,
            "missing": len(self.missing),
            "unparsable": len(self.unparsable),
            "unused_predictions": self.unused,
            "left_out": dict(self.left_out),
            "metrics": {name: number(figure.value) for name, figure in self.figures.items()},
            "intervals": {name: as_json(figure) for name, figure in self.figures.items()},
            "confusion": {task: {g: dict(row) for g, row in rows.items()} for task, rows in self.confusion.items()},
            "missing_ids": list(self.missing[:EXAMPLES]),
            "unparsable_ids": list(self.unparsable[:EXAMPLES]),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """How one benchmark is scored from files."""

    name: str
    """Name in `SCORERS`."""
    read: Callable[[Path, ReadOptions], Annotations]
    """Annotated samples of a file."""
    score: Callable[[Sequence[Item], Responses], Scores]
    """Default rules: strict parsing, missing answers count as wrong."""
    legacy: Callable[[Sequence[Item], Responses], Scores] | None = None
    """The released scorer's rules; None when no released rules are known."""
    options: tuple[str, ...] = ()
    """Which of `ReadOptions` it knows."""
    responses: Callable[[Path], dict[str, str]] = read_predictions
    """Reads the responses."""


def score_files(scorer: Scorer, annotations: Annotations, responses: Responses, *, legacy: bool = False) -> Scores:
    """Scores of responses; says which belong to no sample and which samples were left out.

    Raises:
        ConfigError: the benchmark has no released rules.
        InputError: no response belongs to an annotated sample, or the released rules have nothing to score.
    """
    if legacy and scorer.legacy is None:
        raise ConfigError(f"no released scorer of {scorer.name} is known; leave --legacy out")
    known = {item.sample_id for item in annotations.items}
    if not known & set(responses):
        raise InputError(
            f"none of the {len(responses)} predictions belongs to one of the {len(known)} annotated samples: "
            f"predictions are called {_some(responses)}, samples {_some(known)}. "
            "A prediction is named by its sample's id."
        )
    rules = scorer.legacy if legacy and scorer.legacy is not None else scorer.score
    scores = rules(annotations.items, responses)
    unused = sum(name not in known for name in responses)
    return dataclasses.replace(scores, benchmark=scorer.name, left_out=dict(annotations.left_out), unused=unused)


def check_options(scorer: Scorer, options: ReadOptions) -> None:
    """Refuses options that a benchmark does not have.

    Raises:
        ConfigError: see above.
    """
    for name, value in dataclasses.asdict(options).items():
        if value is not None and name not in scorer.options:
            raise ConfigError(f"--{name} {value} means nothing to {scorer.name}; leave it out")


def unique(items: Sequence[Item], path: Path) -> tuple[Item, ...]:
    """The items, when no sample id occurs twice and there is one at least.

    Raises:
        InputError: see above.
    """
    if not items:
        raise InputError(f"{path} holds no sample that this benchmark scores")
    seen: set[str] = set()
    for item in items:
        if item.sample_id in seen:
            raise InputError(f"{path}: sample id {item.sample_id!r} occurs twice; ids name the predictions")
        seen.add(item.sample_id)
    return tuple(items)


def missing_of(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Sample ids without a response."""
    return tuple(outcome.sample_id for outcome in outcomes if outcome.missing)


def unparsable_of(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Sample ids whose response gives no answer."""
    return tuple(outcome.sample_id for outcome in outcomes if outcome.unparsable)


def number(value: float) -> float | None:
    """The value, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def as_json(figure: Figure) -> dict[str, float | int | None]:
    """A figure's interval and n."""
    return {"low": number(figure.interval.low), "high": number(figure.interval.high), "n": figure.n}


def _some(names: Sequence[str] | set[str] | Responses) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
