"""What every verb does around its work: reads the config, shows the help, and ends in words a person can act on.

A job module hands its `run(cfg)` to `run_command` and is done:

    def main(argv: Sequence[str]) -> int:
        return run_command("avere-ray decode", __doc__, run, argv)

Importing this module imports nothing heavy, so that `--help` answers at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from avere_ray.config import RunConfig, help_text, load_config
from avere_ray.environment import own_environment
from avere_ray.errors import AvereError, ConfigError

INTERRUPTED = "interrupted: finished stages are kept; run the same command again to continue"
TRACEBACK_VARIABLE = "AVERE_RAY_TRACEBACK"

_SIGINT_EXIT = 128 + signal.SIGINT
_SIGTERM_EXIT = 128 + signal.SIGTERM
_RAY_SHUTDOWN_S = 30.0


class Terminated(KeyboardInterrupt):
    """Raised in the main thread when the process is asked to end (SIGTERM), so that it closes what it opened."""


_TERM = threading.Event()
"""Set once SIGTERM has come: a call of Ray that is interrupted by `Terminated` raises a plain KeyboardInterrupt."""


def run_command(
    prog: str, description: str | None, run: Callable[[RunConfig], object], argv: Sequence[str], *, takes: str = ""
) -> int:
    """Runs one verb and returns the exit code of the process.

    Args:
        prog: the command as typed, for instance "avere-ray decode".
        description: what it does, usually the module's docstring; shown by `--help`.
        run: the work; what it returns is ignored unless it is an int above 0, which becomes the exit code.
        argv: `--config FILE` and overrides such as `--train.learning_rate=1.0e-5`.
        takes: what stands before the settings, for the usage line of `--help`, for instance "[RUN]".

    An AvereError ends as one line, the last on stderr, with the error's exit code; an interruption with 130 or 143.
    Anything else is a bug and keeps its traceback. AVERE_RAY_TRACEBACK=1 shows the traceback of every error.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        print(command_help(prog, description, takes))
        return 0
    os.environ.update(own_environment(os.environ))  # Ray workers may compile for a GPU, and .venv may not be activated
    raise_on_sigterm()
    try:
        config, overrides = split_arguments(argv)
        result = run(load_config(config, overrides, prog=prog))
    except AvereError as error:
        return _fail(prog, error)
    except KeyboardInterrupt as error:
        return _interrupted(prog, error, _SIGTERM_EXIT if _TERM.is_set() else _SIGINT_EXIT)
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # what Ray's own handler exits with while Ray starts
            raise
        return _interrupted(prog, error, _SIGTERM_EXIT)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def split_arguments(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The config file named by `--config FILE` or `--config=FILE`, and the remaining arguments.

    Raises:
        ConfigError: `--config` is given twice or without a file.
    """
    found: list[str] = []
    overrides: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--config":
            found.append(next(arguments, ""))
        elif argument.startswith("--config="):
            found.append(argument.removeprefix("--config="))
        else:
            overrides.append(argument)
    if len(found) > 1:
        raise ConfigError(f"--config is given {len(found)} times ({', '.join(found)}); name one file")
    if found and (not found[0] or found[0].startswith("--")):
        raise ConfigError("--config needs a file, for instance --config jobs/configs/demo.yaml")
    return (Path(found[0]) if found else None), overrides


def run_on_folder(prog: str, description: str | None, run: Callable[[RunConfig], object], argv: Sequence[str]) -> int:
    """`run_command` for a verb about one run: a first argument without dashes is its folder."""
    arguments = list(argv)
    if arguments and not arguments[0].startswith("-"):
        arguments[0] = f"--run_dir={arguments[0]}"
    return run_command(prog, description, run, arguments, takes="[RUN]")


def command_help(prog: str, description: str | None, takes: str = "") -> str:
    """The text shown by `<prog> --help`: usage, what it does, and every setting."""
    _, _, settings = help_text(prog).partition("options:\n")
    config = "  --config FILE         YAML file with settings; the ones given on the command line win."
    usage = " ".join(filter(None, ["usage:", prog, takes, "[--config FILE] [--setting=value ...]"]))
    return "\n\n".join([usage, (description or "").strip(), f"settings:\n{config}\n{settings}".rstrip()])


def _fail(prog: str, error: AvereError) -> int:
    cause = getattr(error, "cause", None)  # Ray wraps what a task raised, and puts its traceback into the message
    error = cause if isinstance(cause, AvereError) else error
    _say_last(f"{prog}: {_one_line(str(error)) or type(error).__name__}", error)
    return error.exit_code


def _interrupted(prog: str, error: BaseException, exit_code: int) -> int:
    _say_last(f"{prog}: {INTERRUPTED}", error)
    return exit_code


def _say_last(line: str, error: BaseException) -> None:
    """Prints one line as the last on stderr: what could still print, Ray above all, is closed before."""
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        sys.excepthook(type(error), error, error.__traceback__)
    _close_ray()
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)


def _close_ray() -> None:
    ray: Any = sys.modules.get("ray")
    if ray is None or not hasattr(ray, "is_initialized") or not ray.is_initialized():
        return
    closing = threading.Thread(target=ray.shutdown, daemon=True)
    closing.start()
    closing.join(_RAY_SHUTDOWN_S)


def printable(text: str) -> str:
    """Words of others as a terminal may be given them: line breaks become spaces, what else would steer it becomes "�".

    There are as many characters as before.
    """
    return "".join(c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd" for c in text)


_JOINERS = "\u200c\u200d"
"""Shape the letters and signs beside them."""


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def raise_on_sigterm() -> None:
    """From now on, SIGTERM raises `Terminated` in the main thread; nothing changes when called in another."""

    def terminate(signum: int, frame: FrameType | None) -> None:
        _TERM.set()
        raise Terminated

    _TERM.clear()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
