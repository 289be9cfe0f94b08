"""Our own Parquet records: pairs.parquet, with clips.parquet and queries.parquet.

A folder with these three, as `avere-ray convert` writes it, or the folder of a run's pairs (RUN/pairs/round=K), whose
clips and queries are found in the run.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from avere_ray.errors import InputError
from avere_ray.formats.data import PreferenceData
from avere_ray.formats.example import absolute, row_name
from avere_ray.ledger import Ledger
from avere_ray.modality import is_made
from avere_ray.records import Clip, PreferencePair, Query
from avere_ray.stages import read_records, write_records

PAIRS, CLIPS, QUERIES = "pairs.parquet", "clips.parquet", "queries.parquet"
_R = TypeVar("_R")


def is_native(path: Path) -> bool:
    """Whether a path is a folder with our pairs, or the file itself."""
    return (path / PAIRS).is_file() or (path.is_file() and path.name == PAIRS)


def read(path: Path, media: Path | None, ledger: Ledger) -> PreferenceData:
    """Pairs with their clips and queries; a pair whose clip is unknown becomes a drop ("unknown_clip").

    Args:
        path: the folder, or its pairs.parquet.
        media: folder that uris are relative to; None finds it.

    Raises:
        InputError: there is no table of clips.
        StageError: a table cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    table = _first([folder / CLIPS, *(run / "decoded" / CLIPS for run in _runs(folder))])
    if table is None:
        raise InputError(
            f"{folder} has {PAIRS} but no {CLIPS}, which names the media; put it there, or name a folder inside a run."
        )
    queries = _first([folder / QUERIES, *(run / "rollouts" / folder.name / QUERIES for run in _runs(folder))])
    data = PreferenceData(root=media or _media_root(table))
    data.clips = {c.clip_id: c for c in read_records(table, Clip)}
    data.queries = {q.query_id: q for q in (read_records(queries, Query) if queries else ())}
    for number, pair in enumerate(read_records(folder / PAIRS, PreferencePair), start=1):
        data.inputs += 1
        place = f"{folder / PAIRS} row {number}"
        missing = _missing_clip(pair, data)
        if missing:
            ledger.drop(
                row_name(place), "unknown_clip", f"{place}: field {missing}: no such clip in {table}. Add it there."
            )
        else:
            data.pairs.append(pair)
            data.places[pair.pair_id] = place
    return data


def write(folder: Path, data: PreferenceData, place: Callable[[str], str]) -> None:
    """Writes the three tables; `place` turns an absolute media path into the one to store.

    Raises:
        StorageError: see `stages.atomic_path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / CLIPS, Clip, [_placed(c, data.root, place) for c in data.clips.values()])
    write_records(folder / QUERIES, Query, data.queries.values())
    write_records(folder / PAIRS, PreferencePair, data.pairs)


def _placed(clip: Clip, root: Path, place: Callable[[str], str]) -> Clip:
    audio = place(absolute(clip.audio_uri, root)) if clip.audio_uri else ""
    return replace(clip, uri=place(absolute(clip.uri, root)), audio_uri=audio)


def _missing_clip(pair: PreferencePair, data: PreferenceData) -> str:
    """The first field that names an unknown clip, with the name; "" when all are known."""
    fields: list[tuple[str, str]] = [("clip_id", pair.clip_id)]
    if pair.swap is not None and not is_made(pair.swap):
        fields += [("swap.video_clip_id", pair.swap.video_clip_id), ("swap.audio_clip_id", pair.swap.audio_clip_id)]
    return next((f"{name} = {value!r}" for name, value in fields if value not in data.clips), "")


def _runs(folder: Path) -> list[Path]:
    """Run folders that a folder of pairs may be in: RUN/pairs/round=K."""
    return [parent for parent in folder.absolute().parents[:2] if (parent / "decoded").is_dir()]


def _media_root(table: Path) -> Path:
    """The folder that uris of a table of clips are relative to: its own, or the clips of the run it is in."""
    run = table.parent.parent
    if table.parent.name != "decoded" or not (run / "config.yaml").is_file():
        return table.parent.absolute()
    named: Any = (yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) or {}).get("data") or {}
    clips = Path(named["clips"]) if named.get("clips") else run / "clips"
    return Path(os.path.abspath(clips.parent if clips.is_file() else clips))


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)
