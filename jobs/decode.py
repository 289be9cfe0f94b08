"""Clips to decoded clips: frames and waveform of every clip, once in a project's life, into the store.

Reads the folder data.clips, or RUN/clips as written by the synth stage. The media go to data.store, which all runs of a
project share; RUN/decoded says which medium each clip has. A clip that cannot be decoded is recorded with its reason;
more of them than data.drop_budget stop the run. A clip that was dropped for a reason that may pass (a server did not
answer, time or memory was up) is tried again when the command is run again, until a later stage has used the clips.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.config import RunConfig
from avere_ray.errors import InputError
from avere_ray.placement import label_selector
from avere_ray.progress import reused, say, stage_progress
from avere_ray.records import Clip, Drop
from avere_ray.stages import MANIFEST, StageFolder, StageManifest, read_drops
from jobs.command import run_command
from jobs.corpus import read_corpus
from jobs.layout import stage_path
from jobs.room import check_room
from jobs.session import ray_session

if TYPE_CHECKING:
    from avere_ray.data import ArrivedFn


@dataclass(frozen=True)
class Plan:
    """What the stage has to do."""

    clips: Sequence[Clip]
    root: Path
    """Folder that the clips' uris are relative to."""
    folder: StageFolder
    settled: bool = False
    """Whether a later stage has used the clips: then none is added, which would undo it."""

    def finished(self) -> StageManifest | None:
        """The manifest, when nothing has to be decoded."""
        from avere_ray.store import is_complete

        manifest = self.folder.finished()
        if manifest is None or not is_complete(self.folder.path):
            return None
        return manifest if self.settled or not self.may_pass() else None

    def may_pass(self) -> list[Drop]:
        """The stage's drops that another attempt may not meet again."""
        from avere_ray.decoding import may_pass

        return may_pass(read_drops(self.folder.path), self.clips) if self.folder.finished() is not None else []


def plan(cfg: RunConfig) -> Plan:
    """The clips of the run and the folder of the stage.

    Raises:
        InputError: there are no clips; see `jobs.corpus.read_corpus`.
    """
    from avere_ray.data import STAGE, clips_key

    source = clips_folder(cfg)
    if cfg.data.clips is None and cfg.data.pairs.path is None and not source.is_dir():
        raise InputError(
            f"{source} does not exist: no clips were drawn for this run. Run `avere-ray synth` with the same config "
            "first, or set data.clips to your own folder."
        )
    clips, root = read_corpus(cfg, source)
    key = clips_key(clips, root, cfg.data.decode)
    folder = StageFolder(decoded_folder(cfg), stage=STAGE, config=cfg.to_yaml(), key=key)
    return Plan(clips, root, folder, _is_used(cfg))


def _is_used(cfg: RunConfig) -> bool:
    """Whether a later stage has been finished since the clips were decoded."""
    decoded, *later = (
        path.stat().st_mtime_ns if path.is_file() else 0
        for path in (
            decoded_folder(cfg) / MANIFEST,
            *(stage_path(cfg, stage, 0) / MANIFEST for stage in ("rollouts", "pairs")),
        )
    )
    return max(later) > decoded


def run(cfg: RunConfig, planned: Plan | None = None, arrived: "ArrivedFn | None" = None) -> StageManifest:
    """Decodes every clip of the run, or returns the manifest of the time it was done.

    Args:
        planned: the stage's plan, where it has been made before.
        arrived: told of each clip as it gets into the store, when a later stage reads along.

    Raises:
        InputError: see `plan`.
        DropBudgetExceeded, StageError, StorageError: see `avere_ray.data.decode_stage`.
        ClusterError: see `jobs.session.ray_session`.
    """
    from avere_ray.av_store import AvStore
    from avere_ray.data import STAGE, check_drops, decode_stage, placed
    from avere_ray.store import hold

    todo = planned or plan(cfg)
    if (manifest := todo.finished()) is not None and hold(todo.folder.path):
        reused(STAGE, manifest.used)
        _say_left_out(todo)
        check_drops(manifest, todo.folder.path, cfg.data.drop_budget)
        return manifest
    if again := todo.may_pass():
        say(f"decode: tries {len(again)} clips again that were dropped for reasons that may pass")
    nodes, store = label_selector(cfg.placement.decode), AvStore(store_folder(cfg))
    shown = stage_progress(STAGE, "clips", live=arrived is None)
    with ray_session(cfg.ray):
        check_room(cfg, "decode")
        with placed(nodes), shown as progress:
            manifest = decode_stage(todo.clips, todo.root, cfg.data, store, todo.folder, progress, arrived)
    _say_left_out(todo)
    return manifest


def _say_left_out(todo: Plan) -> None:
    """Tells of clips that the run goes on without though they may be well."""
    left_out = todo.may_pass()
    if left_out:
        remedy = f"delete {todo.folder.path} and run again" if todo.settled else "stop and run again"
        say(f"decode: goes on without {len(left_out)} clips whose reasons may pass, for instance "
            f"{left_out[0].message} To try them once more, {remedy}.")  # fmt: skip


def clips_folder(cfg: RunConfig) -> Path:
    """Where the clip table and the media files are."""
    return (cfg.data.clips or cfg.run_dir / "clips").absolute()


def decoded_folder(cfg: RunConfig) -> Path:
    """Where the decoded clips of a run are; open it with `avere_ray.store.DecodedStore`."""
    return (cfg.run_dir / "decoded").absolute()


def store_folder(cfg: RunConfig) -> Path:
    """Where decoded media are kept for all runs of the project."""
    return (cfg.data.store or cfg.run_dir.absolute().parent / "store").absolute()


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command("avere-ray decode", __doc__, run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
