"""Opening a preference data set: with the options of convert, inspect and validate, or with those of a run."""

from pathlib import Path
from typing import Any, get_args

from avere_ray.config import PairsConfig
from avere_ray.errors import ConfigError, InputError
from avere_ray.formats import FORMATS, NATIVE, PreferenceData, ReadOptions, find_format, read_data
from avere_ray.ledger import Ledger
from avere_ray.modality import partner_ids
from avere_ray.progress import say
from avere_ray.records import Modality, PreferencePair, RejectKind

READ_OPTIONS = ("from", "media", "modality", "unclear", "reject-kinds")
READ_FLAGS = ("ignore-system",)
STAGE = "read"


def read_options(values: dict[str, str]) -> ReadOptions:
    """The options of `READ_OPTIONS` and `READ_FLAGS`.

    Raises:
        ConfigError: a value is not allowed.
    """
    known = [kind.value for kind in RejectKind]
    kinds = values.get("reject-kinds", "").split(",") if "reject-kinds" in values else None
    if kinds is not None and not set(kinds) <= set(known):
        raise ConfigError(f"--reject-kinds {values['reject-kinds']}: allowed are {', '.join(known)}, with commas.")
    default = ReadOptions()
    return ReadOptions(
        media=Path(values["media"]) if "media" in values else None,
        modality=_modality(values, "modality"),
        unclear=_modality(values, "unclear"),
        kinds=tuple(RejectKind(kind) for kind in kinds) if kinds else default.kinds,
        ignore_system="ignore-system" in values,
    )


def format_name(values: dict[str, str], option: str, path: Path) -> str:
    """The format named by an option, or that of an existing data set.

    Raises:
        ConfigError: no such format.
        InputError: the data set is like none of the formats.
    """
    name = values.get(option, "")
    if name and name not in (NATIVE, *FORMATS):
        raise ConfigError(f"--{option} {name}: allowed are {NATIVE}, {', '.join(FORMATS)}.")
    return name or find_format(path)


def given_data(cfg: PairsConfig, ledger: Ledger) -> PreferenceData:
    """The preference data that a run trains on, with the clips that its pairs show and no others.

    Raises:
        InputError: see `avere_ray.formats.read_data`.
    """
    assert cfg.path is not None
    options = ReadOptions(
        media=cfg.media,
        modality=cfg.modality,
        unclear=cfg.unclear,
        kinds=tuple(RejectKind(kind) for kind in cfg.reject_kinds),
        ignore_system=cfg.ignore_system,
    )
    if not cfg.path.exists():
        raise InputError(f"{cfg.path} does not exist. Set data.pairs.path to a data file, or a folder of our records.")
    data = read_data(cfg.path, options, ledger)
    shown = {clip for pair in data.pairs for clip in shown_clips(pair)}
    data.clips = {name: clip for name, clip in data.clips.items() if name in shown}
    return data


def shown_clips(pair: PreferencePair) -> list[str]:
    """The clips that a pair needs decoded: its own, and the partners of its mismatched input."""
    partners = partner_ids(pair.swap, pair.clip_id) if pair.swap else ()
    return [clip for clip in (pair.clip_id, *partners) if clip]


def open_data(path: Path, values: dict[str, str], ledger: Ledger) -> tuple[PreferenceData, str]:
    """The data set and its format; says how what foreign rows leave open was decided.

    Raises:
        ConfigError, InputError: see `read_options` and `avere_ray.formats.read_data`.
    """
    options = read_options(values)
    if not path.exists():
        raise InputError(f"{path} does not exist. Give a data file, or a folder of our records.")
    form = format_name(values, "from", path)
    data = read_data(path, options, ledger, form=form)
    foreign = {how: n for how, n in data.decided.items() if how != "row"}
    if foreign:
        counts = ", ".join(f"{n} by {how}" for how, n in sorted(foreign.items()))
        say(f"what prompts ask about, where the rows do not say it: {counts}. --modality overrides it.")
    if form != NATIVE and any(r.source == "data" for p in data.pairs for r in p.rejects):
        kinds = ", ".join(kind.value for kind in options.kinds)
        say(f"kinds of the rejects, where the rows do not say it: {kinds}. --reject-kinds overrides it.")
    return data, form


def _modality(values: dict[str, str], option: str) -> Any:
    value = values.get(option)
    if value is not None and value not in get_args(Modality):
        raise ConfigError(f"--{option} {value}: allowed are {', '.join(get_args(Modality))}.")
    return value
