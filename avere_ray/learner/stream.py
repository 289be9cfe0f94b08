"""Every worker's shares as a Ray Data stream: pairs and decoded clips arrive in the order they are owed.

The order is fixed before anything runs (`learner.order`). One row is one worker's share of one step, dealt step by step
and rank by rank, one row a block. Ray Data keeps the order and deals blocks in turn, so row i goes to worker i modulo
the number of workers; each worker checks that a row is the one it is owed. As rows divide evenly, none is left over.

A row brings the decoded clips of what its worker has not been shown before; encoded media are kept there. After a
restart the rows begin at the checkpoint's step. The actor that reads them reserves no CPU, so it also runs on a machine
whose CPUs all belong to workers.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.arrow import arrow_schema, from_row, to_row
from avere_ray.config import RunConfig
from avere_ray.errors import TrainingError
from avere_ray.learner import checkpoints
from avere_ray.learner.job import TrainJob
from avere_ray.learner.order import StepShare, plan_steps, step_shares
from avere_ray.records import DecodedClip, PreferencePair

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True, slots=True)
class Dealt:
    """A share with what it needs."""

    share: StepShare
    pairs: dict[int, PreferencePair]
    """By index."""
    clips: dict[str, DecodedClip]
    """Clips that come with it; others were sent before."""


def build_stream(cfg_values: dict[str, Any], job_values: dict[str, Any]) -> Any:
    """The dataset of a round, from the latest checkpoint on; called each time workers start."""
    from avere_ray.data import ordered_stream

    cfg, job = RunConfig.model_validate(cfg_values), TrainJob.from_plain(job_values)
    world = cfg.train.workers
    done = checkpoints.latest(job.checkpoints)
    rows = list(deal(cfg, job, first=done.step if done else 0)) or [{"share": "", "clips": [""]}] * world
    settings = {"pairs": job.pairs, "decoded": job.decoded}
    return ordered_stream(rows, RowFiller, settings, stall_s=cfg.train.deadline_s)


def deal(cfg: RunConfig, job: TrainJob, *, first: int) -> Iterator[dict[str, Any]]:
    """One row per step and rank from step `first` on: the share, and the clips of what is new to its worker."""
    pairs = read_pairs(job.pairs)
    sent: list[set[tuple[str, ...]]] = [set() for _ in range(cfg.train.workers)]
    for shares in plan_steps(len(pairs), cfg, world=cfg.train.workers, sizes=job.sizes()):
        if shares[0].step < first:
            continue
        for share in shares:
            shown = dict.fromkeys(media for m in share.micro for i in m for media in media_of(pairs[i]))
            fresh = dict.fromkeys(clip for media in shown if media not in sent[share.rank] for clip in media)
            sent[share.rank].update(shown)
            yield {"share": share.to_json(), "clips": list(fresh) or [""]}


class RowFiller:
    """The actor: a share in, the same with its pairs and clips out."""

    def __init__(self, pairs: Path, decoded: Path) -> None:
        from avere_ray.store import DecodedStore

        self._pairs, self._store = read_pairs(pairs), DecodedStore(decoded)

    def __call__(self, table: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        row = table.to_pylist()[0]
        if not row["share"]:
            return pa.Table.from_pylist([], schema=_row_schema())
        share = StepShare.from_json(row["share"])
        indices = sorted({i for m in share.micro for i in m})
        filled = {
            "share": row["share"],
            "indices": indices,
            "pairs": [to_row(self._pairs[i]) for i in indices],
            "clips": [to_row(self._store[clip]) for clip in row["clips"] if clip],
        }
        return pa.Table.from_pylist([filled], schema=_row_schema())


class ShardReader:
    """A worker's shard, asked for its first row at once, so that it is there when the model is."""

    def __init__(self, shard: Any, *, rank: int) -> None:
        self._rank = rank
        self._rest = iter(shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
        self._first = ThreadPoolExecutor(1, "first-share").submit(next, self._rest, None)

    def rows(self, owed: Sequence[StepShare]) -> Iterator[Dealt]:
        """The rows, each held against the share it is owed.

        Raises:
            TrainingError: a row is missing, left over, or another worker's.
        """
        first = self._first.result()  # Ray Data limits the wait: see `build_stream`
        if owed:  # else every step was done before the restart, and what is sent has no rows
            tables = itertools.chain([] if first is None else [first], self._rest)
            yield from dealt_rows(tables, rank=self._rank, owed=owed)


def dealt_rows(tables: Iterator["pa.Table"], *, rank: int, owed: Iterable[StepShare]) -> Iterator[Dealt]:
    """One-row tables as what they hold, each held against the share it is owed.

    Raises:
        TrainingError: a row is missing, left over, or another worker's.
    """
    for expected in owed:
        row = next(tables, None)
        got = None if row is None else row["share"][0].as_py()
        if row is None or got != expected.to_json():
            raise TrainingError(
                f"worker {rank} is owed its share of step {expected.step} but was sent {got or 'nothing'}; "
                "the data stream is out of order. Run again; it goes on from the latest checkpoint."
            )
        yield _dealt(row.to_pylist()[0])
    if next(tables, None) is not None:
        raise TrainingError(f"worker {rank} was sent more shares than it is owed; the data stream is out of order")


def local_rows(cfg: RunConfig, job: TrainJob, *, rank: int, world: int, first: int) -> Iterator[Dealt]:
    """The same shares read from disk, without Ray; for a single process and for tests."""
    pairs = read_pairs(job.pairs)
    for share in step_shares(len(pairs), cfg, rank=rank, world=world, sizes=job.sizes()):
        if share.step >= first:
            yield Dealt(share=share, pairs={i: pairs[i] for m in share.micro for i in m}, clips={})


def media_of(pair: PreferencePair) -> tuple[tuple[str, ...], ...]:
    """What a pair shows, each as the clips it is made of: its own clip, and its mismatched input if it has one; nothing
    for a pair of words alone."""
    if not pair.clip_id:
        return ()
    swap, own = pair.swap, (pair.clip_id,)
    return (own,) if swap is None else (own, (pair.clip_id, swap.audio_clip_id, swap.video_clip_id))


@functools.lru_cache(maxsize=2)
def read_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """The pairs of a round, read once per process."""
    from avere_ray.stages import read_records

    return tuple(read_records(path, PreferencePair))


@functools.cache
def _row_schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(
        [
            ("share", pa.string()),
            ("indices", pa.list_(pa.int64())),
            ("pairs", pa.list_(pa.struct(list(arrow_schema(PreferencePair))))),
            ("clips", pa.list_(pa.struct(list(arrow_schema(DecodedClip))))),
        ]
    )


def _dealt(row: dict[str, Any]) -> Dealt:
    pairs = (from_row(PreferencePair, value) for value in row["pairs"])
    clips = (from_row(DecodedClip, value) for value in row["clips"])
    return Dealt(
        share=StepShare.from_json(row["share"]),
        pairs=dict(zip(row["indices"], pairs, strict=True)),
        clips={clip.clip_id: clip for clip in clips},
    )
