"""Sets runs side by side: settings that differ, figures with intervals, paired tests, and which questions flipped.

RUN is a run folder, an MLflow run id or an MLflow run name; RUN@before or RUN@round=K names one of its evaluations,
else its last is taken. One RUN is compared with itself before training, several with the first. --filter adds the runs
that an MLflow filter finds, for instance --filter "params.seed = '0'".

Prints tables, writes compare.md, compare.html and compare.json to --out, and puts the page into the artifacts of the
runs that MLflow knows (--no-log leaves that out). The page needs no network.
"""

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.errors import ConfigError, StageError
from jobs.arguments import Parser, run_with

if TYPE_CHECKING:
    from avere_ray.comparison.report import Report
    from avere_ray.comparison.results import RunResult

PAGE, TEXT, DATA = "compare.html", "compare.md", "compare.json"
ARTIFACTS = "comparisons"


def run(args: argparse.Namespace) -> int:
    """Compares the runs and tells where the files are.

    Raises:
        ConfigError: no run is named.
        InputError: a run cannot be found, or has nothing to compare.
        StageError: MLflow does not answer while runs are looked up.
    """
    from avere_ray.comparison.markdown import to_markdown
    from avere_ray.comparison.page import to_html
    from avere_ray.comparison.report import make_report
    from avere_ray.stages import write_json, write_text

    if not args.runs and not args.filter:
        raise ConfigError("name a run folder, an MLflow run id or name, or use --filter")
    report = make_report(find_runs(args))
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / TEXT, to_markdown(report))
    write_text(args.out / PAGE, to_html(report))
    write_json(args.out / DATA, report.to_json())
    if args.json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _print(report)
        print(f"page: {args.out / PAGE}; also {TEXT} and {DATA}")
    if not args.no_log:
        _log(report, args.out / PAGE, quiet=args.json)
    return 0


def find_runs(args: argparse.Namespace) -> "list[tuple[RunResult, str | None]]":
    """The runs named, each with its stage or None for the last, then those the filter finds."""
    from avere_ray.comparison.tracked import find_result, from_mlflow

    found = []
    read = functools.cache(lambda name: find_result(name, args.tracking_uri, args.tracking_experiment))
    for selector in args.runs:
        name, _, stage = selector.partition("@")
        found.append((read(name), stage or None))
    if args.filter:
        known = {result.run_id for result, _ in found}
        tracked = from_mlflow(args.tracking_uri, args.tracking_experiment, args.filter)
        found += [(result, None) for result in tracked if result.run_id not in known]
    return found


def _print(report: "Report") -> None:
    from rich import box
    from rich.table import Table

    from jobs.scores_table import wide_console

    console = wide_console()
    for title, head, rows in _tables(report):
        if not rows:
            continue
        table = Table(title=title, box=box.ROUNDED if console.is_terminal else box.ASCII)
        for i, column in enumerate(head):
            table.add_column(column, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for pair in report.pairs:
        if not any(task.paired for task in pair.tasks):
            continue  # other questions: a note says so
        fixed = sum(flip.fixed for flip in pair.flips)
        console.print(f"{pair.second}: {fixed} questions fixed, {len(pair.flips) - fixed} broke", markup=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _tables(report: "Report") -> "list[tuple[str, Sequence[str], list[list[str]]]]":
    """Title, head and rows of what is printed; a table without rows is left out."""
    from avere_ray.comparison import wording

    labels = [column.label for column in report.columns]
    tables: list[tuple[str, Sequence[str], list[list[str]]]] = [
        ("settings that differ", ["setting", *report.run_labels], wording.param_rows(report)),
        ("accuracy, percent", ["task", *labels], wording.figure_rows(report)),
        ("descriptions, rated from 1 to 10", ["criterion", *labels], wording.rated_rows(report)),
    ]
    for pair in report.pairs:
        title = f"{pair.second} against {pair.first}"
        tables.append((title, wording.PAIR_HEAD, wording.pair_rows(pair)))
        tables.append((f"{title}: descriptions", wording.RATING_HEAD, wording.rating_rows(pair)))
    lost = "grounding: what is lost without a medium"
    tables.append((lost, wording.GROUNDING_HEAD, wording.grounding_rows(report)))
    tables.append(("calibration", wording.CALIBRATION_HEAD, wording.calibration_rows(report)))
    seeds = [(f"{g.label} over seeds {', '.join(g.seeds)}", wording.SEED_HEAD, wording.seed_rows(g))
             for g in report.seeds]  # fmt: skip
    return tables + seeds


def _log(report: "Report", page: Path, *, quiet: bool) -> None:
    """Puts the page into the artifacts of every run that MLflow knows; an outage is told, not raised."""
    from avere_ray.errors import InputError
    from avere_ray.tracking.past import default_uri, log_file

    for run_id, uri in dict.fromkeys((run.run_id, run.tracking_uri) for run in report.runs if run.run_id):
        try:
            log_file(default_uri(uri), run_id, page, ARTIFACTS)
        except (StageError, InputError) as error:
            print(f"the page was not logged to MLflow run {run_id}: {error}", file=sys.stderr)
        else:
            if not quiet:
                print(f"logged to MLflow run {run_id}: {ARTIFACTS}/{page.name}")


def parser() -> Parser:
    """The arguments of `avere-ray compare`."""
    made = Parser("avere-ray compare", __doc__)
    made.add_argument("runs", nargs="*", metavar="RUN", help="run folder, MLflow run id or name; @before, @round=K")
    made.add_argument("--filter", metavar="TEXT", help="MLflow filter that finds more runs")
    made.add_argument("--out", type=Path, default=Path("compare"), metavar="DIR", help="where files go (compare)")
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    made.add_argument("--no-log", action="store_true", help="leave MLflow as it is")
    add_tracking(made)
    return made


def add_tracking(made: Parser) -> None:
    """The two arguments that say where MLflow is."""
    made.add_argument("--tracking.uri", dest="tracking_uri", metavar="URI", help="MLflow (runs/mlflow.db)")
    made.add_argument("--tracking.experiment", dest="tracking_experiment", default="avere_ray", metavar="NAME",
                      help="experiment (avere_ray)")  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_with(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
