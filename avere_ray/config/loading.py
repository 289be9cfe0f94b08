"""YAML file and command line to a config, and what is wrong with them in words."""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import ValidationError
from pydantic_settings import CliSettingsSource
from pydantic_settings.exceptions import SettingsError

from avere_ray.config.run import RunConfig
from avere_ray.errors import ConfigError

_WORD, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def load_config(path: Path | None, overrides: Sequence[str] = (), *, prog: str = "avere-ray") -> RunConfig:
    """Reads a YAML file and applies overrides such as `--train.learning_rate=1.0e-5`, or with a space for the `=`.

    Raises:
        ConfigError: the file is missing, cannot be read or is not YAML, a key is unknown, stands there twice or is no
            word, a value has the wrong type, or two settings contradict each other; the message names the key, the
            value and what is allowed.
    """
    values = _read_yaml(path) if path is not None else {}
    overrides = with_equals(overrides)
    try:
        if not overrides:
            return RunConfig(**values)
        source = _command_line(prog)(args=_tables_as_json(overrides))
        return RunConfig(_cli_settings_source=source, **values)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    except SettingsError as error:
        raise ConfigError(f"{_last_line(error)}. See `{prog} --help` for every setting.") from error


def with_equals(arguments: Sequence[str]) -> list[str]:
    """Overrides as `--setting=value`, also those given as `--setting value`.

    Raises:
        ConfigError: an argument is neither.
    """
    joined: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            joined.append(argument)
        elif joined and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            raise ConfigError(f"unexpected argument {argument!r}; overrides look like --train.learning_rate=1.0e-5")
    return joined


@functools.cache
def _command_line(prog: str) -> Any:
    """The parser of every setting; it takes a tenth of a second to make, and forgets what it parsed before."""
    return CliSettingsSource(RunConfig, cli_exit_on_error=False, cli_prog_name=prog)


def _tables_as_json(overrides: Sequence[str]) -> list[str]:
    """The overrides with entries of tables, such as `--evaluation.annotations.dfew=FILE`, put together as JSON."""
    rest: list[str] = []
    entries: dict[str, dict[str, str]] = {}
    for argument in overrides:
        key, equals, value = argument.removeprefix("--").partition("=")
        table = next((name for name in _tables(RunConfig) if key.startswith(f"{name}.")), None)
        if table is None or not equals:
            rest.append(argument)
        else:
            entries.setdefault(table, {})[key.removeprefix(f"{table}.")] = value
    return rest + [f"--{table}={json.dumps(found)}" for table, found in entries.items()]


def _tables(model: Any, prefix: str = "") -> Iterator[str]:
    """Settings whose entries have names of the user's, with dots."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is dict:
            yield f"{prefix}{name}"
        elif hasattr(field.annotation, "model_fields"):
            yield from _tables(field.annotation, f"{prefix}{name}.")


def help_text(prog: str) -> str:
    """Every setting with its documentation, as shown by `--help`."""
    source: Any = CliSettingsSource(RunConfig, cli_parse_args=[], cli_prog_name=prog)
    return source.root_parser.format_help()


def _read_yaml(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        values = yaml.load(text, Loader=_Loader)
    except _BadKey as error:
        raise ConfigError(f"bad config in {path}: {error}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # The last three come of values that are not what they look like or are tagged as, such as the date 2026-13-45.
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a config is a mapping of settings")
    for name in values:
        if name.startswith("_"):  # pydantic-settings would take these for arguments of its own
            known = ", ".join(sorted(RunConfig.model_fields))
            raise ConfigError(f"bad config in {path}: unknown setting {name} = {values[name]!r}; allowed here: {known}")
    return values


def _read_text(path: Path) -> str:
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"config file {path} cannot be read: {error.strerror}. Check its name and permissions, or name another one."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"config file {path} is not UTF-8: {error.reason} at byte {error.start}. Save it as UTF-8."
        ) from error
    shipped = sorted(p.name for p in Path("jobs/configs").glob("*.yaml"))
    hint = f" Shipped configs: {', '.join('jobs/configs/' + n for n in shipped)}." if shipped else ""
    raise ConfigError(f"config file {path} does not exist.{hint}")


class _BadKey(yaml.YAMLError):
    """A key that is no word, or stands twice in one section."""


class _Loader(yaml.SafeLoader):
    """Safe YAML whose keys are words, each once in its section; merge keys (<<) are neither."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                continue
            if key.tag != _WORD:
                raise _BadKey(_no_word(key, line))
            if key.value in lines:
                raise _BadKey(
                    f"{key.value} is set twice in one section, in line {lines[key.value]} and in line {line}. Remove "
                    "one, or put the two together."
                )
            lines[key.value] = line
        return node


def _no_word(key: yaml.Node, line: int) -> str:
    written = f" {key.value!r}" if isinstance(key, yaml.ScalarNode) else ""
    kind = key.tag.rpartition(":")[2]
    return f"the key{written} in line {line} is read as {kind}, but keys are words. Put it in quotes or remove it."


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "config"
        if item["type"] == "extra_forbidden":
            lines.append(
                f"unknown setting {key} = {item['input']!r}; allowed here: {', '.join(_siblings(item['loc']))}"
            )
        elif item["type"] == "value_error":
            lines.append(str(item["msg"]).removeprefix("Value error, "))
        else:
            lines.append(f"{key} = {item['input']!r}: {item['msg']}")
    where = f" in {path} or its overrides" if path else ""
    return f"bad config{where}: " + "; ".join(lines)


def _siblings(location: tuple[Any, ...]) -> list[str]:
    fields: Any = RunConfig.model_fields
    for part in location[:-1]:
        annotation = fields[part].annotation if part in fields else None
        fields = getattr(annotation, "model_fields", {})
    return sorted(fields)


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
