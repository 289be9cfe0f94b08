"""What every reader gives and shares: clips, drops, and the ways to find media and read labels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from avere_ray.config import SourceConfig
from avere_ray.emotions import canonical_emotion
from avere_ray.errors import InputError, RowError
from avere_ray.ledger import Ledger
from avere_ray.records import Clip, Drop

STAGE = "source"
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".m4v", ".mpg", ".mpeg")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg")


@dataclass(slots=True)
class Found:
    """What a reader made of a corpus; every listed clip is in exactly one of the two."""

    clips: list[Clip] = field(default_factory=list)
    """The clips, uris relative to the corpus folder."""
    ledger: Ledger = field(default_factory=lambda: Ledger(STAGE))
    """What was listed and cannot be used, with reasons."""
    listed: int = 0
    """Entries of the corpus's lists or folders."""
    _uris: dict[str, str] = field(default_factory=dict)

    @property
    def drops(self) -> list[Drop]:
        """The drops, in the order they were met."""
        return self.ledger.drops

    def collect(self, entries: Iterable[tuple[str, Callable[[], Clip]]]) -> "Found":
        """Adds one clip or one drop for each entry, (sample id, how to make its clip); each clip id once."""
        for sample_id, make in entries:
            self.listed += 1
            try:
                clip = make()
            except RowError as error:
                self.ledger.drop(sample_id, error.reason, error.message)
                continue
            if clip.clip_id not in self._uris:
                self._uris[clip.clip_id] = clip.uri
                self.clips.append(clip)
            else:
                first = self._uris[clip.clip_id]
                message = f"{clip.uri}: clip {clip.clip_id} is listed twice, first as {first}. Remove one."
                self.ledger.drop(sample_id, "duplicate_id", message)
        return self

    def refuse(self, sample_id: str, reason: str, message: str) -> None:
        """Counts an entry that is no clip of its own as a drop."""
        self.listed += 1
        self.ledger.drop(sample_id, reason, message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One kind of corpus."""

    name: str
    """Value of `data.source.kind`."""
    read: Callable[[Path, SourceConfig], Found]
    """(corpus folder, settings) -> clips and drops; raises InputError when the layout is not there at all."""


class MediaIndex:
    """Media files below a folder by the name that the corpus's tables use."""

    def __init__(self, root: Path, folder: Path | None, suffixes: Sequence[str] = VIDEO_SUFFIXES) -> None:
        """`folder` is below `root`, the corpus folder; None is an index without files."""
        self._uris: dict[str, list[str]] = {}
        for path in sorted(folder.rglob("*")) if folder else ():
            if path.suffix.lower() in suffixes and path.is_file():
                self._uris.setdefault(_name(path.stem), []).append(path.relative_to(root).as_posix())

    def find(self, name: str) -> str:
        """Path of a name, relative to the corpus folder; "" when there is none, or no single one.

        Leading zeros of numbers do not matter.
        """
        found = self._uris.get(_name(name), [])
        return found[0] if len(found) == 1 else ""

    def require(self, name: str, place: str) -> str:
        """`find`.

        Raises:
            RowError: there is no such file ("missing_media"), or several ("ambiguous_media").
        """
        found = self._uris.get(_name(name), [])
        if not found:
            raise RowError("missing_media", f"{place}: no media file is named {name}. Put it there or remove the line.")
        if len(found) > 1:
            raise RowError("ambiguous_media", f"{place}: {name} is both {found[0]} and {found[1]}. Remove one.")
        return found[0]

    def files(self) -> list[tuple[str, str]]:
        """(stem, path relative to the corpus folder) of every file, in order of the paths."""
        return sorted(((PurePosixPath(u).stem, u) for us in self._uris.values() for u in us), key=lambda f: f[1])


def emotion_of(label: str, cfg: SourceConfig, place: str, known: Iterable[str] | None = None) -> str:
    """The emotion word of a label.

    Raises:
        RowError: the label is not among `known`, where these are given, and `data.source.emotions` does not name it.
    """
    text = label.strip()
    if text in cfg.emotions:
        return canonical_emotion(cfg.emotions[text])
    word = canonical_emotion(text)
    if known is not None and word not in known:
        raise RowError(
            "unknown_label",
            f"{place}: label {text!r} is none of {', '.join(sorted(known))}. Correct it, or name it in "
            "data.source.emotions.",
        )
    return word


def find_folder(root: Path, candidates: Iterable[str]) -> Path | None:
    """The first candidate (relative to the corpus folder) that is a folder."""
    return next((root / name for name in candidates if (root / name).is_dir()), None)


def require_folder(root: Path, candidates: Sequence[str], corpus: str, what: str) -> Path:
    """`find_folder`.

    Raises:
        InputError: none is there; names what was looked for.
    """
    found = find_folder(root, candidates)
    if found is None:
        raise InputError(
            f"{root} is not laid out as {corpus}: no {what}; looked for {', '.join(candidates)}. Set data.clips to the "
            "folder that holds it."
        )
    return found


def require_file(root: Path, candidates: Sequence[str], corpus: str, what: str) -> Path:
    """The first candidate (relative to the corpus folder) that is a file.

    Raises:
        InputError: none is there; names what was looked for.
    """
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    raise InputError(
        f"{root} is not laid out as {corpus}: no {what}; looked for {', '.join(candidates)}. Set data.clips to the "
        "folder that holds it."
    )


def _name(stem: str) -> str:
    return stem.lstrip("0") or "0" if stem.isdigit() else stem
