"""What the decode stage does around the decoder: what to decode, what came of it, and the order in the store.

Plain functions over clips and the AV store; `avere_ray.data` runs them in Ray Data tasks.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from avere_ray.av_store import AvStore, Medium, Place, key_content, key_part, media_key
from avere_ray.clip_files import located, remote_notes, size_and_time
from avere_ray.config import DecodeConfig
from avere_ray.errors import ClipDecodeError, StorageError
from avere_ray.records import Clip, DecodedClip, Drop
from avere_ray.remote import is_remote
from avere_ray.remote_notes import RemoteNotes
from avere_ray.stages import file_digest

if TYPE_CHECKING:
    import pyarrow as pa

DecodeFn = Callable[[Clip, DecodeConfig, frozenset[str]], tuple[DecodedClip | None, str]]
"""As `clip_files.decode_media`: nothing instead of a clip, when what its files hold is among what is given."""

SHARD_BYTES = 256 * 1024 * 1024
"""A shard is closed earlier when its media take this much memory."""
_T = TypeVar("_T")
_READERS = 8
_FEW = 8
"""Media of one size that a task is told of, to find the clip's own by its digest."""
_GLIMPSE = 4096
MAY_PASS = frozenset({"timeout", "decoder_crashed", "out_of_memory", "unreadable"})
"""Reasons that may be due to the machine, the network or a limit, and not to the file."""
REMOTE_MAY_PASS = MAY_PASS | {"remote_unreachable", "remote_refused", "file_missing"}
"""The same for remote files, of which nothing is known before they are asked for."""
_STORAGE = "storage"
"""Reason of an outcome that is no fault of the clip: the store cannot be written."""


class DecodePlan:
    """Which clips have to pass through the tasks: one of those with the same medium each.

    Files are compared by size, then by a few blocks, and only then by their digest; so few are read here. What may be
    in the store already, by its size, is told the task, which compares digests; where the store has many media of one
    size, the digest is taken here, so that a row names few of them however many there are.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        root: Path,
        places: Mapping[str, Place],
        spec: DecodeConfig,
        notes: RemoteNotes | None = None,
    ) -> None:
        """`places`: what the store holds for the spec; `rows`: one per distinct clip, for `decode_rows`."""
        clips = [located(clip, root) for clip in clips]
        sizes = [size_and_time(clip.uri)[0] for clip in clips]
        self._groups = {group[0]: group for group in _distinct(clips, sizes, spec.max_bytes)}
        distinct = [clips[position] for position in self._groups]
        likely = _likely(distinct, [sizes[position] for position in self._groups], places, notes)
        self.rows: list[dict[str, Any]] = [
            {
                "position": position,
                "clip_id": clip.clip_id,
                "uri": clip.uri,
                "audio_uri": clip.audio_uri,
                "start_s": clip.start_s,
                "end_s": clip.end_s,
                "size": sizes[position],
                "known": [_known_row(place) for place in found],
            }
            for position, clip, found in zip(self._groups, distinct, likely, strict=True)
        ]
        self._at = {position: at for at, position in enumerate(self._groups)}

    def alike(self, position: int) -> list[int]:
        """Positions of the clips that have the medium of this one, itself included."""
        return self._groups[position]

    def row(self, position: int) -> dict[str, Any]:
        """The row of the distinct clip at a position."""
        return self.rows[self._at[position]]

    def likely_shards(self) -> set[str]:
        """The shards that the store had and that the clips may need, as far as is known before files are read."""
        return {known["shard"] for row in self.rows for known in row["known"]}


def _likely(
    clips: Sequence[Clip], sizes: Sequence[int], places: Mapping[str, Place], notes: RemoteNotes | None
) -> list[list[Place]]:
    """For each clip the media of the store that may be its own, at most _FEW."""
    known: dict[tuple[int, str], list[Place]] = collections.defaultdict(list)
    for place in places.values():
        known[place.medium.size, key_part(place.medium.key)].append(place)
    likely = [
        [p for key in _noted_keys(clip, notes) if (p := places.get(key)) is not None]
        if is_remote(clip.uri)
        else known.get((size, key_part(media_key("", clip.start_s, clip.end_s))), [])
        for clip, size in zip(clips, sizes, strict=True)
    ]
    many = [i for i, found in enumerate(likely) if len(found) > _FEW]
    paths = sorted({uri for i in many for uri in (clips[i].uri, clips[i].audio_uri) if uri and not is_remote(uri)})
    with ThreadPoolExecutor(_READERS) as readers:
        digests = dict(zip(paths, readers.map(_digest, map(Path, paths)), strict=True))
    for i in many:
        clip = clips[i]
        contents = [digests.get(uri) for uri in (clip.uri, clip.audio_uri) if uri]
        own = places.get(media_key("+".join(c or "" for c in contents), clip.start_s, clip.end_s))
        likely[i] = [] if own is None else [own]
    return likely


def _known_row(place: Place) -> dict[str, Any]:
    return {"shard": place.shard, "row": place.row, **dataclasses.asdict(place.medium)}


def _noted_keys(clip: Clip, notes: RemoteNotes | None) -> list[str]:
    """The key that a remote clip had when its files were fetched last."""
    uris = [uri for uri in (clip.uri, clip.audio_uri) if uri]
    found = [notes.get(uri) for uri in uris] if notes is not None else []
    contents = [note.sha256 for note in found if note is not None]
    return [media_key("+".join(contents), clip.start_s, clip.end_s)] if len(contents) == len(uris) else []


def _distinct(clips: Sequence[Clip], sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Positions of clips in groups with the same medium, in the order of their first ones."""

    def beside(position: int) -> tuple[str, float, float | None]:
        return clips[position].audio_uri, clips[position].start_s, clips[position].end_s

    files = _grouped(range(len(clips)), lambda i: (clips[i].uri, *beside(i)))
    rivals = _grouped(files, lambda f: (sizes[f[0]], *beside(f[0])))
    suspects = [group for group in rivals if len(group) > 1 and 0 < sizes[group[0][0]] <= limit]
    with ThreadPoolExecutor(_READERS) as readers:
        for look in (_glimpse, _digest):
            suspects = _refined(suspects, lambda file: Path(clips[file[0]].uri), look, readers)
    merged = {id(file): group for group in suspects for file in group}
    for file in files:
        group = merged.get(id(file), [file])
        if file is group[0]:
            yield sorted(position for same in group for position in same)


def _refined(
    groups: list[list[_T]], path_of: Callable[[_T], Path], look: Callable[[Path], Any], readers: ThreadPoolExecutor
) -> list[list[_T]]:
    """The groups parted by what their files look like; without those of one file."""
    flat = [item for group in groups for item in group]
    looks = dict(zip(map(id, flat), readers.map(look, map(path_of, flat)), strict=True))
    return [part for group in groups for part in _grouped(group, lambda item: looks[id(item)]) if len(part) > 1]


def _grouped(items: Iterable[_T], key: Callable[[_T], Any]) -> list[list[_T]]:
    """Items with equal keys together, in the order of first appearance; an item whose key is None stays alone."""
    groups: dict[Any, list[_T]] = {}
    for number, item in enumerate(items):
        found = key(item)
        groups.setdefault((number,) if found is None else (found,), []).append(item)
    return list(groups.values())


def _glimpse(path: Path) -> bytes | None:
    """First, middle and last block of a file; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            blocks = []
            for start in (0, size // 2, max(size - _GLIMPSE, 0)):
                file.seek(start)
                blocks.append(file.read(_GLIMPSE))
            return b"".join(blocks)
    except OSError:
        return None


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one clip: its place in the store, or why it has none."""

    position: int
    place: Place | None = None
    decoded: bool = False
    """Whether it was decoded now; else the store had it."""
    reason: str = ""
    message: str = ""
    bytes: int = 0

    def to_row(self) -> dict[str, Any]:
        """As a row of `schema`."""
        names = ("position", "decoded", "reason", "message", "bytes")
        known = [] if self.place is None else [_known_row(self.place)]
        return {**{name: getattr(self, name) for name in names}, "place": known}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Outcome":
        """The inverse of `to_row`."""
        return cls(**{**row, "place": _known_place(row["place"][0]) if row["place"] else None})

    @staticmethod
    def schema() -> "pa.Schema":
        """Arrow schema of the rows."""
        import pyarrow as pa

        return pa.schema(
            [
                ("position", pa.int64()),
                ("decoded", pa.bool_()),
                ("reason", pa.string()),
                ("message", pa.string()),
                ("bytes", pa.int64()),
                ("place", pa.list_(_known_type())),
            ]
        )


def decode_rows(rows: Sequence[dict[str, Any]], store: AvStore, spec: DecodeConfig, decode: DecodeFn) -> list[Outcome]:
    """Decodes those rows of a `DecodePlan` that the store does not have, and puts them there, as one shard if small.

    A store or temporary folder that cannot be written is told as an outcome too (`raise_storage` raises it where it can
    be acted on).
    """
    from avere_ray.media import spec_digest

    shelf = _Shelf(store, spec_digest(spec))
    outcomes: list[Outcome] = []
    there = functools.cache(lambda shard: store.holds([shard]))  # of each shard once, however many rows name it
    for row in rows:
        clip = Clip(**{name: row[name] for name in ("clip_id", "uri", "audio_uri", "start_s", "end_s")})
        # One that is too long now is refused as if it were new.
        likely = [place for place in map(_known_place, row["known"]) if place.medium.duration_s <= spec.max_duration_s]
        known = {key_content(place.medium.key): place for place in likely if there(place.shard)}
        try:
            outcomes += _decode_row(row, clip, spec, known, shelf, decode)
        except ClipDecodeError as error:
            size, _ = size_and_time(clip.uri)
            outcomes.append(Outcome(position=row["position"], reason=error.reason, message=error.message, bytes=size))
        except StorageError as error:  # of a temporary copy; no other clip would fare better
            outcomes.append(Outcome(position=row["position"], reason=_STORAGE, message=str(error)))
            break
    return sorted([*outcomes, *shelf.close()], key=lambda outcome: outcome.position)


def _decode_row(
    row: dict[str, Any],
    clip: Clip,
    spec: DecodeConfig,
    known: dict[str, Place],
    shelf: "_Shelf",
    decode: DecodeFn,
) -> list[Outcome]:
    """What has come of rows up to this one.

    Raises:
        ClipDecodeError: it cannot be fetched or decoded.
        StorageError: there is no room for a copy of its remote files.
    """
    remote = is_remote(clip.uri) or is_remote(clip.audio_uri)
    waiting = shelf.contents(clip) if remote else frozenset[str]()
    decoded, content = decode(clip, spec, frozenset(known) | waiting)
    key = media_key(content, clip.start_s, clip.end_s)
    if decoded is None and content not in waiting:
        place = known.get(content) or shelf.noted(key)
        if place is not None and shelf.store.touch([place.shard]):
            return [Outcome(position=row["position"], place=place)]
        shelf.forget(key)  # given up meanwhile
        decoded, content = decode(clip, spec, frozenset())
        key = media_key(content, clip.start_s, clip.end_s)
    return shelf.put(row["position"], key, row["size"], decoded, remote=remote)


class _Shelf:
    """Decoded media on their way into a shard; `put` and `close` give the outcomes of those that have arrived."""

    def __init__(self, store: AvStore, spec: str) -> None:
        self.store = store
        self.spec = spec
        self._notes = remote_notes(store)
        self._items: dict[str, tuple[int, DecodedClip]] = {}
        self._positions: list[tuple[int, str]] = []
        self._remote: set[str] = set()

    def contents(self, clip: Clip) -> frozenset[str]:
        """What the files hold whose same part as the clip's is waiting."""
        part = key_part(media_key("", clip.start_s, clip.end_s))
        return frozenset(key_content(key) for key in self._items if key_part(key) == part)

    def noted(self, key: str) -> Place | None:
        """Where a medium of remote files was put before."""
        row = self._notes.medium(self.spec, key)
        return None if row is None else _known_place(row)

    def forget(self, key: str) -> None:
        """Notes that a medium of remote files is gone."""
        self._notes.forget_medium(self.spec, key)

    def put(self, position: int, key: str, size: int, clip: DecodedClip | None, *, remote: bool) -> list[Outcome]:
        """`clip` may be None for a key that is waiting."""
        self._positions.append((position, key))
        self._remote |= {key} if remote else set()
        if clip is not None:
            self._items.setdefault(key, (size, clip))
        held = sum(c.frames.nbytes + c.waveform.nbytes for _, c in self._items.values())
        return self.close() if held >= SHARD_BYTES else []

    def close(self) -> list[Outcome]:
        positions, items, remote = self._positions, self._items, self._remote
        self._positions, self._items, self._remote = [], {}, set()
        if not items:
            return []
        try:
            added = self.store.add(self.spec, [(key, size, clip) for key, (size, clip) in items.items()])
        except StorageError as error:
            return [Outcome(position=p, reason=_STORAGE, message=str(error)) for p, _ in positions]
        places = dict(zip(items, added, strict=True))
        for key in remote:
            self._notes.put_medium(self.spec, key, _known_row(places[key]))
        return [Outcome(position=p, place=places[key], decoded=True) for p, key in positions]


def may_pass(drops: Iterable[Drop], clips: Iterable[Clip]) -> list[Drop]:
    """The drops of a decode stage that another attempt may not meet again."""
    remote = {clip.clip_id for clip in clips if is_remote(clip.uri) or is_remote(clip.audio_uri)}
    return [drop for drop in drops if drop.reason in (REMOTE_MAY_PASS if drop.sample_id in remote else MAY_PASS)]


def raise_storage(outcome: Outcome) -> None:
    """Nothing, unless the store could not be written.

    Raises:
        StorageError: it could not.
    """
    if outcome.reason == _STORAGE:
        raise StorageError(outcome.message)


def _known_place(row: dict[str, Any]) -> Place:
    values = dict(row)
    return Place(shard=values.pop("shard"), row=values.pop("row"), medium=Medium(**values))


def _known_type() -> "pa.DataType":
    import pyarrow as pa

    return pa.struct(
        [
            ("shard", pa.string()),
            ("row", pa.int32()),
            ("key", pa.string()),
            ("size", pa.int64()),
            ("frames", pa.int32()),
            ("samples", pa.int64()),
            ("duration_s", pa.float64()),
        ]
    )
