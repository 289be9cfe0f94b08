"""Training queries of one's own (data.queries): read and checked, and what becomes of those that cannot be asked."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from avere_ray.config import RunConfig
from avere_ray.errors import InputError, StageError
from avere_ray.ledger import Ledger
from avere_ray.records import Clip, Drop, Query
from avere_ray.stages import read_drops, read_records
from jobs.layout import stage_path

STAGE = "rollouts"


def read(path: Path) -> list[Query]:
    """The table's queries, in its order.

    Raises:
        InputError: it is missing or no such table, it is empty, or an id stands there twice.
    """
    columns = ", ".join(Query.__dataclass_fields__)
    if not path.is_file():
        raise InputError(f"data.queries: {path} does not exist. It is a Parquet table with the columns {columns}.")
    try:
        queries = read_records(path, Query)
    except StageError as error:
        raise InputError(
            f"data.queries: {path} is no table of queries ({error.__cause__}). It is a Parquet file with the columns "
            f"{columns}; `avere-ray synth --out DIR` writes one."
        ) from error
    if not queries:
        raise InputError(f"data.queries: {path} has no row. Give it queries, or leave data.queries out.")
    twice = sorted(name for name, count in Counter(q.query_id for q in queries).items() if count > 1)
    if twice:
        raise InputError(
            f"data.queries: {len(twice)} query ids of {path} stand there more than once, for instance {twice[0]!r}. "
            "Ids must be unique, since responses and verdicts are kept by them."
        )
    return queries


def check_known(cfg: RunConfig, queries: Sequence[Query], clips: Iterable[str]) -> None:
    """Holds queries about clips that are not in the corpus (`clips`: all of its ids) against data.drop_budget.

    Raises:
        DropBudgetExceeded: there are more.
    """
    known, ledger = set(clips), Ledger(STAGE)
    for query in queries:
        if query.clip_id not in known:
            ledger.extend([_unknown(query)])
    ledger.check_budget(len(queries), cfg.data.drop_budget)


def left_out(cfg: RunConfig, asked: Sequence[Query], clips: Sequence[Clip]) -> list[Drop]:
    """Drops of the table's queries that were not asked; `clips` are those that were decoded.

    Raises:
        InputError: see `read`.
    """
    assert cfg.data.queries is not None
    done, splits = {query.query_id for query in asked}, {clip.clip_id: clip.split for clip in clips}
    lost = {drop.sample_id for drop in read_drops(stage_path(cfg, "decoded"))}
    return [_drop(q, splits.get(q.clip_id), lost) for q in read(cfg.data.queries) if q.query_id not in done]


def _drop(query: Query, split: str | None, lost: set[str]) -> Drop:
    if split is not None:
        words = f"its clip {query.clip_id} belongs to the split {split!r}, not to 'train'"
        return Drop(sample_id=query.query_id, stage=STAGE, reason="not_training", message=words, bytes=0)
    if query.clip_id in lost:
        words = f"its clip {query.clip_id} was dropped; see the stage decode"
        return Drop(sample_id=query.query_id, stage=STAGE, reason="clip_dropped", message=words, bytes=0)
    return _unknown(query)


def _unknown(query: Query) -> Drop:
    words = f"no clip of the corpus is called {query.clip_id!r}"
    return Drop(sample_id=query.query_id, stage=STAGE, reason="unknown_clip", message=words, bytes=0)
