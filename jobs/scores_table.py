"""Scores as a person reads them in a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from avere_ray.evaluation.scorer import Scores
    from avere_ray.evaluation.tables import Figure

_WIDEST_CONFUSION = 9


def print_scores(scores: "Scores", *, console: "Console | None" = None) -> None:
    """Prints figures with n and interval, confusion tables, and what was missing, unparsable or left out."""
    console = console or wide_console()
    console.print(_figures(scores, plain=not console.is_terminal))
    for task, rows in scores.confusion.items():
        if rows and len(rows) <= _WIDEST_CONFUSION:
            console.print(_confusion(task, rows, plain=not console.is_terminal))
    for line in summary_lines(scores):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def wide_console() -> "Console":
    """The terminal, or for a pipe or file something wide enough not to cut a row."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)


def summary_lines(scores: "Scores") -> list[str]:
    """What is said below the tables."""
    missing = "skipped" if scores.legacy else "counted as wrong"
    lines = [f"{scores.scored} of {scores.n} samples scored"]
    if scores.missing:
        lines.append(f"missing: {len(scores.missing)} without a prediction, {missing}: {_some(scores.missing)}")
    if scores.unparsable:
        lines.append(f"unparsable: {len(scores.unparsable)} predictions give no answer: {_some(scores.unparsable)}")
    lines += [f"left out: {n} ({reason})" for reason, n in scores.left_out.items()]
    if scores.unused:
        lines.append(f"unused: {scores.unused} predictions belong to no sample that is scored")
    return lines + [f"note: {note}" for note in scores.notes]


def _figures(scores: "Scores", *, plain: bool) -> "Table":
    from rich import box
    from rich.table import Table

    rules = "released rules" if scores.legacy else "strict"
    table = Table(title=f"{scores.benchmark}, {rules}", box=box.ASCII if plain else box.ROUNDED)
    for column in ("metric", "value", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    digits = 4 if scores.legacy and scores.benchmark != "emorealm" else 2
    for name, figure in scores.figures.items():
        table.add_row(name, cell(figure.value, digits), interval(figure, digits), str(figure.n))
    return table


def cell(value: float, digits: int = 2) -> str:
    """A figure, or "-" where there is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def interval(figure: "Figure", digits: int = 2) -> str:
    """ "61.2 to 78.4", or "" where no interval can be given."""
    if math.isnan(figure.interval.low):
        return ""
    return f"{figure.interval.low:.{digits}f} to {figure.interval.high:.{digits}f}"


def _confusion(task: str, rows: Mapping[str, Mapping[str, int]], *, plain: bool) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=f"{task}: right class by class answered", box=box.ASCII if plain else box.ROUNDED)
    table.add_column("", no_wrap=True)
    for said in next(iter(rows.values())):
        table.add_column(said, justify="right", no_wrap=True)
    for gold, counts in rows.items():
        table.add_row(gold, *(str(count) for count in counts.values()))
    return table


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
