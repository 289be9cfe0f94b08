"""What each stage of a run used and dropped, by reason and with examples.

`avere-ray ledger RUN` (or --run_dir=RUN, or the config of the run) reads the manifests and drops below that folder; it
runs nothing and changes nothing.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.ledger import Ledger
from avere_ray.records import Drop
from avere_ray.stages import MANIFEST, StageManifest, read_drops, read_manifest
from jobs.command import run_on_folder

EXAMPLES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerEntry:
    """One finished stage of a run."""

    folder: str
    """Its folder, relative to run_dir."""
    manifest: StageManifest
    """What it counted."""
    drops: tuple[Drop, ...]
    """Every input it left out."""

    @classmethod
    def of(cls, inputs: int, ledger: Ledger) -> Self:
        """The entry of something that was read without a run."""
        dropped = len(ledger.drops)
        manifest = StageManifest(
            stage=ledger.stage,
            key="",
            inputs=inputs,
            used=inputs - dropped,
            dropped=dropped,
            seconds=0.0,
            output_digest="",
        )
        return cls(folder=ledger.stage, manifest=manifest, drops=tuple(ledger.drops))

    def reasons(self) -> dict[str, int]:
        """Drops by reason, most frequent first."""
        return dict(Counter(drop.reason for drop in self.drops).most_common())

    def examples(self, reason: str) -> list[Drop]:
        """The first few drops with this reason."""
        return [drop for drop in self.drops if drop.reason == reason][:EXAMPLES]


def read_ledger(run_dir: Path) -> list[LedgerEntry]:
    """Every finished stage under a run folder, oldest manifest first.

    Raises:
        InputError: the folder does not exist or holds no finished stage.
        StageError: a manifest or a table of drops cannot be read.
    """
    if not run_dir.is_dir():
        raise InputError(f"run folder {run_dir} does not exist. Pass the config of the run, or --run_dir=FOLDER.")
    manifests = sorted(run_dir.rglob(MANIFEST), key=lambda path: path.stat().st_mtime_ns)
    entries = [entry for path in manifests if (entry := _entry(run_dir, path.parent)) is not None]
    if not entries:
        raise InputError(f"run folder {run_dir} holds no finished stage yet. Run `avere-ray pipeline` first.")
    return entries


def run(cfg: RunConfig) -> None:
    """Prints the ledger of the run in `cfg.run_dir`."""
    print_ledger(f"Ledger of {cfg.run_dir}", read_ledger(cfg.run_dir))


def print_ledger(title: str, entries: Iterable[LedgerEntry]) -> None:
    """Prints counts by stage and reason, with examples."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column, justify in (("stage", "left"), ("inputs", "right"), ("used", "right"), ("dropped", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("why", overflow="fold")
    for entry in entries:
        counts = (entry.manifest.inputs, entry.manifest.used, entry.manifest.dropped)
        table.add_row(entry.folder, *(str(count) for count in counts), _why(entry))
    Console(markup=False).print(table)


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray ledger`; a first argument without dashes is the run folder."""
    return run_on_folder("avere-ray ledger", __doc__, run, argv)


def _entry(run_dir: Path, folder: Path) -> LedgerEntry | None:
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    drops = tuple(read_drops(folder))
    return LedgerEntry(folder=folder.relative_to(run_dir).as_posix(), manifest=manifest, drops=drops)


def _why(entry: LedgerEntry) -> str:
    lines = []
    for reason, count in entry.reasons().items():
        lines.append(f"{count} x {reason}")
        lines += [f"  {drop.sample_id}: {drop.message}" for drop in entry.examples(reason)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
