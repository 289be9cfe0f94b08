"""Preference data in and out: our Parquet records, AVERE's JSON, TRL, ms-swift, VeRL-Omni; one file per format.

`read_data` and `write_data` are the way in and out. What a row lacks or says wrongly becomes a drop with file, row and
field; what foreign rows do not say (which modality a prompt asks about, which kind a reject is) is decided by the rules
in `ReadOptions` and counted.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from avere_ray.errors import InputError, RowError
from avere_ray.formats import avere, native, swift, trl, verl_omni
from avere_ray.formats.data import PreferenceData, ReadOptions, from_examples, to_examples
from avere_ray.formats.example import OWN, Example, Media, absolute, join_branches, row_name
from avere_ray.ledger import Ledger
from avere_ray.rows import Row, read_rows, write_rows

__all__ = [
    "FORMATS",
    "NATIVE",
    "Example",
    "Media",
    "PreferenceData",
    "ReadOptions",
    "find_format",
    "read_data",
    "to_examples",
    "write_data",
]

NATIVE = "avere_ray"
"""Name of our own format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One foreign format."""

    read_row: Callable[..., Example]
    """(row, place, ignore_system=...) -> example; raises RowError."""
    write_rows: Callable[[Example], list[Row]]
    """One example as rows."""
    fits: Callable[[Row], bool]
    """Whether a row looks like this format."""
    suffixes: tuple[str, ...]
    """Files it is written to; the first is usual."""


FORMATS: dict[str, Format] = {
    "swift": Format(
        read_row=swift.read_row, write_rows=swift.write_rows, fits=swift.fits, suffixes=(".jsonl", ".json")
    ),
    "avere": Format(read_row=avere.read_row, write_rows=avere.write_rows, fits=avere.fits, suffixes=(".json",)),
    "verl_omni": Format(
        read_row=verl_omni.read_row, write_rows=verl_omni.write_rows, fits=verl_omni.fits, suffixes=(".parquet",)
    ),
    "trl": Format(
        read_row=trl.read_row, write_rows=trl.write_rows, fits=trl.fits, suffixes=(".jsonl", ".json", ".parquet")
    ),
}
"""Foreign formats by name, the one with the plainest marks first."""


def find_format(path: Path) -> str:
    """The format of a data set, from its files and its first row.

    Raises:
        InputError: it is missing, empty, or like none of the formats.
    """
    if native.is_native(path):
        return NATIVE
    if path.is_dir():
        raise InputError(f"{path} is a folder without {native.PAIRS}; name a data file, or a folder of our records.")
    first = next(iter(read_rows(path)), None)
    if first is None:
        raise InputError(f"{path} has no rows.")
    for name, form in FORMATS.items():
        if form.fits({k: v for k, v in first[1].items() if v is not None}):
            return name
    raise InputError(
        f"{first[0]} is like none of the formats {', '.join(FORMATS)}: it has the fields {', '.join(first[1])}. Name "
        "the format with --from, or rename its fields."
    )


def read_data(path: Path, options: ReadOptions, ledger: Ledger, *, form: str = "") -> PreferenceData:
    """A preference data set as our records; what cannot be used goes to the ledger.

    Args:
        form: name of the format; "" finds it.

    Raises:
        InputError: the file cannot be read at all, or the format is unknown.
    """
    name = form or find_format(path)
    if name == NATIVE:
        return native.read(path, options.media, ledger)
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}; known are {NATIVE}, {', '.join(FORMATS)}")
    root = (options.media or path.parent).absolute()
    rows: Counter[str] = Counter()
    examples = (_moved(e, lambda p: absolute(p, root)) for e in _examples(path, FORMATS[name], options, ledger, rows))
    joined = join_branches(examples)
    data = from_examples(joined, options, ledger)
    data.inputs = rows["read"] - sum(example.rows - 1 for example in joined)
    return data


def write_data(path: Path, data: PreferenceData, form: str, *, relative_to: Path | None = None) -> int:
    """Writes a data set in a format; returns how many rows.

    Args:
        relative_to: media below this folder get paths relative to it; None: relative to the file's own folder. Other
            media get absolute paths.

    Raises:
        InputError: the format is unknown, the file has another suffix, or a prompt cannot be held.
        StorageError: see `stages.atomic_path`.
    """
    root = (relative_to or (path if form == NATIVE else path.parent)).absolute()
    if form == NATIVE:
        native.write(path, data, lambda p: _below(p, root))
        return len(data.pairs)
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}; known are {NATIVE}, {', '.join(FORMATS)}")
    if path.suffix.lower() not in FORMATS[form].suffixes:
        raise InputError(f"{path}: format {form} is written to {' or '.join(FORMATS[form].suffixes)} files. Rename it.")
    rows = [row for e in to_examples(data) for row in FORMATS[form].write_rows(_moved(e, lambda p: _below(p, root)))]
    if path.suffix.lower() == ".parquet":
        rows = [{**row, OWN: json.dumps(row[OWN], ensure_ascii=False)} if OWN in row else row for row in rows]
    write_rows(path, rows)
    return len(rows)


def _examples(path: Path, form: Format, options: ReadOptions, ledger: Ledger, rows: Counter[str]) -> Iterator[Example]:
    for place, row in read_rows(path):
        rows["read"] += 1
        present = {name: value for name, value in row.items() if value is not None}
        try:
            yield form.read_row(present, place, ignore_system=options.ignore_system)
        except RowError as error:
            ledger.drop(row_name(place), error.reason, error.message)


def _moved(example: Example, place: Callable[[str], str]) -> Example:
    """The example with every media path put through `place`, those in our own field too."""
    own = dict(example.own) if example.own else None
    if own and own.get("partners"):
        own["partners"] = {c: {k: place(p) if p else "" for k, p in m.items()} for c, m in own["partners"].items()}
    return replace(
        example,
        media=_moved_media(example.media, place),
        rejected_media=_moved_media(example.rejected_media, place) if example.rejected_media else None,
        own=own,
    )


def _moved_media(media: Media, place: Callable[[str], str]) -> Media:
    return Media(video=place(media.video), audio=place(media.audio) if media.audio else "")


def _below(path: str, root: Path) -> str:
    """The path relative to `root` when it is below it; else as it is."""
    if "://" in path:
        return path
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path
