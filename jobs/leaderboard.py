"""Writes the leaderboard: what the finished runs in MLflow measured, and what others published, in separate tables.

Runs that differ only in their seed are one row. --published-only needs no MLflow and leaves the measured runs out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.arguments import Parser, run_with
from jobs.compare import add_tracking

FINISHED = "attributes.status = 'FINISHED'"


def run(args: argparse.Namespace) -> int:
    """Writes the file and tells how many runs it shows.

    Raises:
        InputError: there is no MLflow database, or no finished run in it.
        StageError: MLflow does not answer.
    """
    from avere_ray.comparison.leaderboard import to_markdown
    from avere_ray.comparison.tracked import leaderboard_runs
    from avere_ray.stages import write_text

    runs = []
    if not args.published_only:
        runs = leaderboard_runs(args.tracking_uri, args.tracking_experiment, args.filter or FINISHED)
    write_text(args.out, to_markdown(runs))
    print(f"{args.out}: {len(runs)} measured runs, and the published tables")
    return 0


def parser() -> Parser:
    """The arguments of `avere-ray leaderboard`."""
    made = Parser("avere-ray leaderboard", __doc__)
    made.add_argument("--out", type=Path, default=Path("docs/leaderboard.md"), metavar="FILE",
                      help="the file to write (docs/leaderboard.md)")  # fmt: skip
    made.add_argument("--filter", metavar="TEXT", help=f'MLflow filter ("{FINISHED}")')
    made.add_argument("--published-only", action="store_true", help="leave the measured runs out")
    add_tracking(made)
    return made


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_with(parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
