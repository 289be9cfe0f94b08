"""Arguments of the verbs that read files and past runs instead of a run's config.

A verb builds an `ArgumentParser` and hands it to `run_with`, which ends like every other verb: an AvereError as one
line on stderr with its exit code, an unknown or missing argument with what is allowed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from avere_ray.errors import AvereError, ConfigError
from jobs.command import TRACEBACK_VARIABLE


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ConfigErrors."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=(description or "").strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong with the arguments, and how to see what is allowed."""
        raise ConfigError(f"{message}. `{self.prog} --help` shows what is allowed.")


def run_with(parser: Parser, run: Callable[[argparse.Namespace], int], argv: Sequence[str]) -> int:
    """Parses the arguments, runs the verb and returns its exit code; 130 when interrupted."""
    if any(argument in ("-h", "--help") for argument in argv):
        parser.print_help()
        return 0
    try:
        return run(parser.parse_args(list(argv)))
    except AvereError as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            sys.excepthook(type(error), error, error.__traceback__)
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
