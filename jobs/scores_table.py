"""Scores as a person reads them in a terminal."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def print_evaluation(folder: Path) -> None:
    """Prints the figures of a finished evaluation, and what each robustness mode costs."""
    console = wide_console()
    for path in sorted(folder.glob("*_scores.json")):
        name, scores = path.name.removesuffix("_scores.json"), json.loads(path.read_text(encoding="utf-8"))
        rows: list[tuple[str, ...]]
        rows = [(metric, _plain(value), _spread(scores["intervals"][metric]), str(scores["intervals"][metric]["n"]))
                for metric, value in scores["metrics"].items()]  # fmt: skip
        console.print(_table(name, ("metric", "value", "95 % interval", "n"), rows, plain=not console.is_terminal))
        console.print(_counted(scores), markup=False)
    for path in sorted(folder.glob("*_grounding.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for modes in report.values() for mode, kinds in modes.items() for row in _grounding(mode, kinds)]
        title = f"{path.name.removesuffix('_grounding.json')}: what the model loses without a medium"
        head = ("mode", "asked about", "n", "accuracy", "in the mode", "drop", "95 % interval", "shift, nats")
        console.print(_table(title, head, rows, plain=not console.is_terminal))


def _counted(scores: Mapping[str, Any]) -> str:
    """One line on what the figures rest on."""
    rated = next((note for note in scores["notes"] if note.startswith("rated by ")), "")
    if rated:
        return (f"{scores['scored']} of {scores['n']} descriptions, {rated}; {scores['missing']} missing ones have the "
                f"lowest score, {scores['unparsable']} ratings cannot be read and are left out")  # fmt: skip
    return (f"{scores['scored']} of {scores['n']} questions scored; {scores['missing']} missing and "
            f"{scores['unparsable']} unparsable answers count as wrong")  # fmt: skip


def _grounding(mode: str, kinds: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for asked, row in kinds.items():
        shift = row["shift_nats"]
        lost = "-" if shift is None else f"{shift['value']:+.3f} ({_spread(shift, 3) or 'no interval'})"
        yield (mode, asked, str(row["n"]), f"{row['accuracy']:.1f}", f"{row['accuracy_changed']:.1f}",
               f"{row['drop']['value']:+.1f}", _spread(row["drop"]), lost)  # fmt: skip


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, plain: bool) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.ASCII if plain else box.ROUNDED)
    for i, column in enumerate(head):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _spread(row: Mapping[str, Any], digits: int = 1) -> str:
    return "" if row["low"] is None else f"{row['low']:.{digits}f} to {row['high']:.{digits}f}"


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
