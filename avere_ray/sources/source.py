"""What every reader gives and shares: clips, drops, and the ways to find media and read labels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

    @property
    def drops(self) -> list[Drop]:
        """The drops, in the order they were met."""
        return self.ledger.drops

    def collect(self, entries: Iterable[tuple[str, Callable[[], Clip]]]) -> "Found":
        """Adds one clip or one drop for each entry, (sample id, how to make its clip)."""
        for sample_id, make in entries:
            try:
                self.clips.append(make())
            except RowError as error:
                self.ledger.drop(sample_id, error.reason, error.message)
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One kind of corpus."""

    name: str
    """Value of `data.source.kind`."""
    read: Callable[[Path, SourceConfig], Found]
    """(corpus folder, settings) -> clips and drops; raises InputError when the layout is not there at all."""


class MediaIndex:
    """Media files of a corpus by the name that its tables use."""

    def __init__(self, root: Path, folders: Iterable[Path], suffixes: Sequence[str] = VIDEO_SUFFIXES) -> None:
        self.root = root
        self._paths: dict[str, Path] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in suffixes and path.is_file():
                    self._paths.setdefault(_name(path.stem), path)

    def find(self, name: str) -> str:
        """Path of a name, relative to the corpus folder; "" when there is none. Leading zeros do not matter."""
        path = self._paths.get(_name(name))
        return path.relative_to(self.root).as_posix() if path else ""

    def require(self, name: str, place: str) -> str:
        """`find`.

        Raises:
            RowError: there is no such file ("missing_media").
        """
        found = self.find(name)
        if not found:
            raise RowError("missing_media", f"{place}: no media file is named {name}. Put it there or remove the line.")
        return found

    def names(self) -> Iterator[tuple[str, str]]:
        """(stem, path relative to the corpus folder) of every file."""
        for path in self._paths.values():
            yield path.stem, path.relative_to(self.root).as_posix()

    def __len__(self) -> int:
        return len(self._paths)


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


def existing(root: Path, candidates: Iterable[str]) -> list[Path]:
    """The candidates (patterns relative to the corpus folder) that are folders there."""
    return [path for pattern in candidates for path in sorted(root.glob(pattern)) if path.is_dir()]


def require_folders(root: Path, candidates: Sequence[str], corpus: str, what: str) -> list[Path]:
    """`existing`, at least one.

    Raises:
        InputError: none is there; names what was looked for.
    """
    found = existing(root, candidates)
    if not found:
        raise InputError(
            f"{root} is not laid out as {corpus}: no {what}; looked for {', '.join(candidates)}. Set data.clips to the "
            "folder that holds them."
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
