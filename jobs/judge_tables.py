"""A judge's report as a person reads it in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from avere_ray.judges.agreement import accuracy, cohens_kappa, confusion, macro_f1
from avere_ray.judges.report import JudgeReport
from jobs.scores_table import wide_console

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 10


def print_report(report: JudgeReport, *, console: "Console | None" = None) -> None:
    """Prints figures, precision and recall, the confusion table, kinds, orders and some of the disagreements."""
    console = console or wide_console()
    _table(console, "precision and recall", ("label", "n", "precision", "recall", "F1"),
           [(label.value, str(s.n), _share(s.precision), _share(s.recall), _share(s.f1))
            for label, s in report.labels.items()])  # fmt: skip
    counts = confusion(report.right, report.said)
    shown = [label.value for label in report.labels]
    _table(console, "a person's label by the judge's", ("", *shown),
           [(a, *(str(counts[a][b]) for b in shown)) for a in shown])  # fmt: skip
    _table(console, "by kind of response", ("kind", "n", "accuracy"),
           [(kind, str(n), _share(right / n)) for kind, (right, n) in report.by("kind").items()])  # fmt: skip
    for line in summary_lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_lines(report: JudgeReport) -> list[str]:
    """What is said below the tables."""
    right, said = report.right, report.said
    lines = [
        f"judge {report.judge} on {report.labelled}: {len(right)} responses, accuracy {accuracy(right, said):.3f}, "
        f"macro-F1 {macro_f1(right, said):.3f}, kappa with the person {cohens_kappa(right, said):.3f}"
    ]
    if report.agreement is not None:
        a = report.agreement
        lines.append(f"agreement with {a.other}: {a.share:.3f}, Cohen's kappa {a.kappa:.3f}")
    lines += [f"order of {name} turned round: {o.changed} of {o.n} labels change" for name, o in report.orders.items()]
    places = ", ".join(f"{place} {_share(r / n)} of {n}" for place, (r, n) in report.by("place").items())
    lines += [f"accuracy by place of the right choice: {places}"] if places else []
    wrong = [(e, v) for e, v in zip(report.examples, report.verdicts, strict=True) if e.label is not v.label]
    lines += [f"{e.id}: {e.label.value}, judged {v.label.value}: {e.text!r}" for e, v in wrong[:_SHOWN]]
    return lines + ([f"... and {len(wrong) - _SHOWN} more; --json has all"] if len(wrong) > _SHOWN else [])


def _table(console: "Console", title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.ROUNDED if console.is_terminal else box.ASCII)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _share(value: float) -> str:
    return f"{value:.3f}"
