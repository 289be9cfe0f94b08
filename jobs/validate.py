"""Reads a whole data set without training and prints the ledger: what can be used, and what cannot, with reasons.

`avere-ray validate DATA`. DATA is a folder of clips, a corpus or a manifest of --data.source.kind, or preference data
in any format that `avere-ray convert` reads. Every media file is decoded once, in processes that may be killed, and
nothing is kept. Exit code 3 when more is dropped than data.drop_budget allows.

  --no-decode             looks whether the media files are there, without decoding them
  --workers N             processes that decode; else one per CPU, at most 8
  --from, --media, --modality, --unclear, --reject-kinds, --ignore-system    as in `avere-ray convert`
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from avere_ray.config import DataConfig, RunConfig
from avere_ray.errors import ClipDecodeError, ConfigError
from avere_ray.ledger import Ledger
from avere_ray.progress import say, stage_progress
from avere_ray.records import Clip, Drop
from jobs.operands import Arguments, run_with_arguments

if TYPE_CHECKING:
    from avere_ray.formats import PreferenceData

OWN = Arguments(
    positions=("DATA",),
    options=("workers", "from", "media", "modality", "unclear", "reject-kinds"),
    flags=("no-decode", "ignore-system"),
)
_AT_ONCE = 256
_Job = tuple[Clip, Path]
"""A clip, and the folder that its uri is relative to."""
_Check = Callable[[_Job], Drop | None]


def run(cfg: RunConfig, given: list[str], values: dict[str, str]) -> int:
    """Reads everything and prints the ledger; returns 0 when it is within the budget.

    Raises:
        ConfigError: an option is wrong.
        InputError: the data set cannot be read at all.
        DropBudgetExceeded: more was dropped than data.drop_budget allows.
    """
    path = Path(given[0])
    workers = _workers(values.get("workers", ""))
    if cfg.data.source.kind == "clips" and _is_preference_data(path):
        stages = _preference_stages(cfg, path, values, workers)
    else:
        stages = _clip_stages(cfg, path, values, workers)
    _print(str(path), stages)
    for inputs, ledger in stages:
        ledger.check_budget(inputs, cfg.data.drop_budget)
    inputs, ledger = stages[-1]
    what = "pairs" if ledger.stage == "pairs" else "clips"
    say(f"{path}: {inputs - len(ledger.drops)} of {inputs} {what} can be used")
    return 0


def _clip_stages(cfg: RunConfig, path: Path, values: dict[str, str], workers: int) -> list[tuple[int, Ledger]]:
    """Listing and decoding of clips, each with its number of inputs."""
    from avere_ray.sources import media_root
    from jobs.corpus import find_clips

    found = find_clips(cfg, path)
    found.ledger.check_sum(found.listed, len(found.clips))
    emotions = Counter(clip.emotion or "unlabelled" for clip in found.clips).most_common()
    say(f"{len(found.clips)} clips of {cfg.data.source.kind}: {', '.join(f'{n} {e}' for e, n in emotions)}")
    jobs = [(clip, media_root(path)) for clip in found.clips]
    return [
        (found.listed, found.ledger),
        (len(jobs), _media_ledger(jobs, cfg.data, values, workers)),
    ]


def _preference_stages(cfg: RunConfig, path: Path, values: dict[str, str], workers: int) -> list[tuple[int, Ledger]]:
    """Reading of rows, decoding of their media, and the pairs that stay whole."""
    from jobs.preference_data import STAGE, open_data

    rows = Ledger(STAGE)
    data, form = open_data(path, values, rows)
    rows.check_sum(data.inputs, len(data.pairs))
    asked = Counter(pair.modality for pair in data.pairs)
    say(f"{len(data.pairs)} pairs of {form} about {len(data.clips)} clips; {dict(asked)}")
    jobs = [(clip, data.root) for clip in data.clips.values()]
    media = _media_ledger(jobs, cfg.data, values, workers)
    pairs = _pair_ledger(data, {drop.sample_id: drop for drop in media.drops})
    return [(data.inputs, rows), (len(jobs), media), (len(data.pairs), pairs)]


def _pair_ledger(data: "PreferenceData", lost: dict[str, Drop]) -> Ledger:
    """Pairs whose clip, or a clip of whose mismatched input, cannot be used."""
    from jobs.preference_data import shown_clips

    ledger = Ledger("pairs")
    for pair in data.pairs:
        gone = next((clip for clip in shown_clips(pair) if clip in lost), None)
        if gone is not None:
            message = f"{data.places[pair.pair_id]}: clip {gone} cannot be used: {lost[gone].message}"
            ledger.drop(pair.pair_id, f"clip_{lost[gone].reason}", message)
    return ledger


def _media_ledger(jobs: Sequence[_Job], cfg: DataConfig, values: dict[str, str], workers: int) -> Ledger:
    from avere_ray.clip_files import check_addresses

    check_addresses((clip for clip, _ in jobs), cfg.remote)
    check: _Check = _exists if "no-decode" in values else partial(check_media, cfg=cfg)
    ledger = Ledger("media" if "no-decode" in values else "decode")
    with stage_progress("validate", "clips") as progress:
        for done, drop in enumerate(_checked(jobs, check, 1 if "no-decode" in values else workers), start=1):
            ledger.extend([drop] if drop else [])
            progress(done, len(jobs))
    return ledger


def _checked(jobs: Sequence[_Job], check: _Check, workers: int) -> Iterator[Drop | None]:
    """The check of each clip, in order; at most a few hundred are handed out at a time."""
    if workers == 1 or len(jobs) <= 1:
        yield from map(check, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for start in range(0, len(jobs), _AT_ONCE):
            yield from pool.map(check, jobs[start : start + _AT_ONCE])


def check_media(job: _Job, cfg: DataConfig) -> Drop | None:
    """Decodes one clip, given with the folder its uri is relative to, and forgets it; the drop when that fails."""
    from avere_ray.clip_files import located, size_and_time
    from avere_ray.decoder_child import decode_one

    clip, root = job
    missing = _exists(job)
    if missing is not None:
        return replace(missing, stage="decode")
    try:
        decode_one(clip, root, cfg.decode, cfg.remote)
    except ClipDecodeError as error:
        size, _ = size_and_time(located(clip, root).uri)
        return Drop(sample_id=clip.clip_id, stage="decode", reason=error.reason, message=error.message, bytes=size)
    return None


def _exists(job: _Job) -> Drop | None:
    """The drop when a clip's media file, or its separate audio file, is local and not there or out of reach."""
    from avere_ray.clip_files import located, size_and_time

    clip, root = job
    for uri in (clip.uri, clip.audio_uri):
        if not uri or "://" in uri:
            continue
        reason, what = "file_missing", "the file does not exist. Put it there, or correct the path."
        try:
            if (root / uri).is_file():
                continue
        except OSError as error:  # a name that is too long, a folder that may not be read
            reason, what = "unreadable", f"the file cannot be examined ({error.strerror}). Check its name and rights."
        size, _ = size_and_time(located(clip, root).uri)
        return Drop(sample_id=clip.clip_id, stage="media", reason=reason, message=f"{root / uri}: {what}", bytes=size)
    return None


def _is_preference_data(path: Path) -> bool:
    from avere_ray.formats.native import is_native

    return is_native(path) or not path.is_dir()


def _print(title: str, stages: Iterable[tuple[int, Ledger]]) -> None:
    from jobs.ledger import LedgerEntry, print_ledger

    print_ledger(f"Ledger of {title}", [LedgerEntry.of(inputs, ledger) for inputs, ledger in stages])


def _workers(text: str) -> int:
    if not text:
        return min(8, os.cpu_count() or 1)
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise ConfigError(f"--workers {text} is no number of processes; allowed are 1 to 256.")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Entry point of `avere-ray validate`."""
    return run_with_arguments(
        "avere-ray validate", __doc__, OWN, run, argv, settings=lambda given, values: [f"--data.clips={given[0]}"]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
