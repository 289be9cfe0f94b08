"""Arguments of a verb besides the settings: what it works on, and options of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from avere_ray.config import RunConfig
from avere_ray.errors import ConfigError
from jobs.command import run_command


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """What a verb takes: positions in order, options with a value, flags without."""

    positions: tuple[str, ...]
    """Names shown in errors, for instance ("FROM", "TO"); all are needed."""
    options: tuple[str, ...] = ()
    """Names without dashes; "row" is given as --row 3 or --row=3."""
    flags: tuple[str, ...] = ()
    """Names without dashes; given as --no-decode."""

    def usage(self) -> str:
        """How they are typed, for `--help`."""
        options = [f"[--{name} VALUE]" for name in self.options] + [f"[--{name}]" for name in self.flags]
        return " ".join([*self.positions, *options])

    def split(self, argv: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
        """Positions, options and flags by name (a flag has the value "yes"), and the settings that are left.

        Raises:
            ConfigError: a position is missing or there is one too many, or an option has no value.
        """
        given: list[str] = []
        values: dict[str, str] = {}
        rest: list[str] = []
        arguments = iter(argv)
        for argument in arguments:
            name, sign, value = argument.removeprefix("--").partition("=")
            if argument == "--config":
                rest += [argument, next(arguments, "")]
            elif not argument.startswith("--"):
                given.append(argument)
            elif name in self.flags and not sign:
                values[name] = "yes"
            elif name in self.options:
                values[name] = value if sign else next(arguments, "")
                if not values[name] or values[name].startswith("--"):
                    raise ConfigError(f"--{name} needs a value, for instance --{name}=...")
            else:
                rest.append(argument)
        if len(given) != len(self.positions):
            wanted, found = " ".join(self.positions), " ".join(given) or "nothing"
            raise ConfigError(f"give {wanted}, got {found}; see --help")
        return given, values, rest


def run_with_arguments(
    prog: str,
    description: str | None,
    own: Arguments,
    run: Callable[[RunConfig, list[str], dict[str, str]], object],
    argv: Sequence[str],
    *,
    settings: Callable[[list[str]], list[str]] = lambda given: [],
) -> int:
    """`jobs.command.run_command` for a verb with arguments of its own; wrong ones end like wrong settings.

    `settings` gives overrides that follow from the positions.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        return run_command(prog, description, lambda cfg: None, argv, takes=own.usage())
    try:
        given, values, rest = own.split(argv)
    except ConfigError as error:
        return run_command(prog, description, _raising(error), [])
    return run_command(prog, description, lambda cfg: run(cfg, given, values), [*rest, *settings(given)])


def _raising(error: ConfigError) -> Callable[[RunConfig], object]:
    def fail(cfg: RunConfig) -> None:
        raise error

    return fail
