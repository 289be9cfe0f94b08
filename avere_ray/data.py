"""The one door to ray.data: the stage that decodes every clip once into the store, and the streams of later stages.

A manifest of ids and paths streams through CPU tasks that write sampled frames and waveforms into the AV store and
return where they are, so that neither the object store nor the driver holds media. A clip that cannot be decoded, hangs
or crashes FFmpeg becomes a row with a reason; the ledger accounts for it.
"""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avere_ray.arrow import from_table, to_row, to_table
from avere_ray.av_store import AvStore, Place, check_writable
from avere_ray.clip_files import check_addresses, located, remote_notes, size_and_time
from avere_ray.config import DataConfig, DecodeConfig, RemoteConfig
from avere_ray.decoder_child import decode_isolated, longest_s
from avere_ray.decoding import DecodeFn, DecodePlan, Outcome, decode_rows, raise_storage
from avere_ray.errors import ActorLost, StageError
from avere_ray.ledger import Ledger
from avere_ray.pacing import Paced
from avere_ray.protocols import ProgressFn
from avere_ray.records import Clip, DecodedClip, PreferencePair, ReferenceLogps
from avere_ray.stages import StageFolder, StageManifest, digest, read_drops
from avere_ray.store import write_index, write_places
from avere_ray.store_keeper import StoreKeeper

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from avere_ray.store import DecodedStore

STAGE = "decode"

ArrivedFn = Callable[[Clip, Place | None], None]
"""Told of each clip in corpus order: where its medium is, or None when the clip is dropped."""
_MAX_BLOCK = 16
_BLOCKS_WANTED = 64
_BLOCKS_UNDER_WAY = 6
"""Of decoded clips: read, and not yet consumed."""
_STALL_GRACE_S = 300.0
_LOST = "lost"
"""Column of the reference stage: why a scorer gave no figures; empty where it did."""


def clips_key(clips: Sequence[Clip], root: Path, spec: DecodeConfig) -> str:
    """Digest of everything the decode stage depends on: annotations, sampling spec, size and time of each file.

    Nothing remote is asked: within a run, a remote file counts as unchanged under its address.
    """
    from avere_ray.media import spec_digest

    limits = spec.model_dump(include={"max_duration_s", "max_pixels", "max_bytes", "max_streams"})
    files = [[size_and_time(uri) for uri in (c.uri, c.audio_uri) if uri] for c in (located(c, root) for c in clips)]
    return digest(STAGE, spec_digest(spec), limits, [(to_row(c), *f) for c, f in zip(clips, files, strict=True)])


def decode_stage(
    clips: Sequence[Clip],
    root: Path,
    cfg: DataConfig,
    store: AvStore,
    folder: StageFolder,
    progress: ProgressFn,
    arrived: ArrivedFn | None = None,
) -> StageManifest:
    """Decodes what the store does not have yet, in parallel, into it; `folder` says which medium each clip has.

    Needs a running Ray; its tasks write the shards, so all of its nodes must see the store's folder. What an
    interrupted stage has decoded stays there. Clips keep their order, so equal inputs give an equal `output_digest`.
    The manifest is written before the drop budget is checked: a run with a larger budget decodes nothing again.
    `arrived` is told of every clip as soon as it and all before it are decided, long before the stage ends.

    Raises:
        InputError: a clip's media are at an address that may not be fetched from.
        DropBudgetExceeded: more clips were dropped than `cfg.drop_budget` allows.
        StageError: there are no clips, or none at all could be decoded.
        StorageError: the folder or the store cannot be written, or the store's quota cannot be kept.
    """
    from avere_ray.media import spec_digest

    if not clips:
        raise StageError(f"stage {STAGE} was given no clips. Look with `avere-ray validate` why none can be used.")
    check_addresses(clips, cfg.remote)
    folder.begin()
    check_writable(store.folder)
    plan = DecodePlan(clips, root, store.places(spec_digest(cfg.decode)), cfg.decode, remote_notes(store))
    ledger = Ledger(STAGE)
    keeper = StoreKeeper(store, folder.path, int(cfg.store_gb * 1e9), plan.likely_shards())
    outcomes: dict[int, Outcome] = {}
    told = 0
    progress(0, len(clips))
    for outcome in _outcomes(plan, store, cfg):
        raise_storage(outcome)
        if not keeper.note(outcome.place, decoded=outcome.decoded):
            outcome = _once_more(plan.row(outcome.position), store, cfg)
            keeper.note(outcome.place, decoded=outcome.decoded)
        outcomes.update((position, outcome) for position in plan.alike(outcome.position))
        progress(len(outcomes), len(clips))
        while arrived is not None and told in outcomes:
            arrived(*_decided(clips[told], outcomes[told].place))
            told += 1
    places = _account(clips, outcomes, ledger)
    keeper.close()
    kept = [_decided(c, places[c.clip_id])[0] for c in clips if c.clip_id in places]
    places = {c.clip_id: places[c.clip_id] for c in kept}
    write_index(folder.path, kept, places)
    folder.write("clips", Clip, kept)
    manifest = folder.finish(
        inputs=len(clips),
        used=len(kept),
        drops=ledger.drops,
        summary={"drops": ledger.counts(), "spec": cfg.decode.model_dump(mode="json"), **keeper.counts()},
    )
    write_places(folder.path, store, places)
    check_drops(manifest, folder.path, cfg.drop_budget)
    return manifest


def _once_more(row: dict[str, Any], store: AvStore, cfg: DataConfig) -> Outcome:
    """What comes of a clip whose medium the store has given up before this run could hold it.

    Raises:
        StorageError: the store cannot be written.
    """
    (outcome,) = decode_rows([row], store, cfg.decode, _decode_fn(store, cfg.remote))
    raise_storage(outcome)
    return outcome


def _decided(clip: Clip, place: Place | None) -> tuple[Clip, Place | None]:
    """A clip with the digest of its file, and where its medium is; None when it is dropped."""
    return (clip if place is None else dataclasses.replace(clip, sha256=place.medium.key[:64])), place


def _account(clips: Sequence[Clip], outcomes: dict[int, Outcome], ledger: Ledger) -> dict[str, Place]:
    """Places by clip_id of the clips that were decoded; the others go to the ledger, in clip order."""
    places: dict[str, Place] = {}
    for position, clip in enumerate(clips):
        outcome = outcomes.get(position)
        if outcome is None:
            raise StageError(f"clip {clip.clip_id!r} was lost while decoding. Run the stage again.")
        if outcome.place is None:
            ledger.drop(clip.clip_id, outcome.reason, outcome.message, size=outcome.bytes)
        else:
            places[clip.clip_id] = outcome.place
    return places


def check_drops(manifest: StageManifest, folder: Path, budget: float) -> None:
    """Holds a finished decode stage against the drop budget.

    Raises:
        DropBudgetExceeded: more was dropped than the budget allows.
        StageError: nothing is left.
    """
    ledger = Ledger(manifest.stage)
    ledger.extend(read_drops(folder))
    ledger.check_budget(manifest.inputs, budget)
    if manifest.used == 0:
        example = f" For instance {ledger.drops[0].message}" if ledger.drops else ""
        raise StageError(f"none of the {manifest.inputs} clips could be decoded: {ledger.counts()}.{example}")


def _outcomes(plan: DecodePlan, store: AvStore, cfg: DataConfig) -> Iterator[Outcome]:
    """What came of each distinct clip, in order, as it comes out of Ray Data."""
    dataset = _decode_pipeline(plan.rows, store, cfg.decode, cfg.remote)
    # Without looking ahead: that would hold each outcome back until the next one is there.
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from (Outcome.from_row(row) for row in table.to_pylist())


def _decode_pipeline(
    rows: Sequence[dict[str, Any]], store: AvStore, spec: DecodeConfig, remote: RemoteConfig
) -> "ray.data.Dataset":
    import ray.data

    block = max(1, min(_MAX_BLOCK, len(rows) // _BLOCKS_WANTED))
    longest = max((longest_s(row["uri"], row["audio_uri"], spec, remote) for row in rows), default=0.0)
    context = _quiet_context()
    context.execution_no_progress_timeout_s = block * longest + _STALL_GRACE_S
    with ray.data.DataContext.current(context):
        manifest = ray.data.from_items(list(rows), override_num_blocks=-(-len(rows) // block))
        return manifest.map_batches(
            decode_batch,
            batch_size=block,
            batch_format="pyarrow",
            num_cpus=spec.threads,
            fn_kwargs={"store": store, "spec": spec, "remote": remote},
        )


def _quiet_context() -> "ray.data.DataContext":
    """Settings of a dataset: rows keep their order, and nothing is drawn on the terminal."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    return context


def decode_batch(batch: "pa.Table", store: AvStore, spec: DecodeConfig, remote: RemoteConfig) -> "pa.Table":
    """The task: rows of a `DecodePlan` in; decoded media into the store, as one shard; outcomes out, in order."""
    import pyarrow as pa

    outcomes = decode_rows(batch.to_pylist(), store, spec, _decode_fn(store, remote))
    return pa.Table.from_pylist([outcome.to_row() for outcome in outcomes], schema=Outcome.schema())


def _decode_fn(store: AvStore, remote: RemoteConfig) -> DecodeFn:
    return functools.partial(decode_isolated, remote=remote, notes=remote_notes(store))


def decoded_dataset(folder: Path, block: int = 16) -> "ray.data.Dataset":
    """The decoded clips of a finished decode stage as a Ray Data stream of DecodedClip rows, in corpus order.

    At most `block` clips are in one block, and few blocks are under way, however long the corpus: reading is held back
    while its consumer is slower.
    """
    import ray.data

    from avere_ray.store import DecodedStore

    store = DecodedStore(folder)
    ids, context = store.ids(), _quiet_context()
    context.execution_options.resource_limits = ray.data.ExecutionResources(
        object_store_memory=_BLOCKS_UNDER_WAY * block * store.largest_bytes()
    )
    with ray.data.DataContext.current(context):
        manifest = ray.data.from_items([{"clip_id": i} for i in ids], override_num_blocks=-(-len(ids) // block))
        return manifest.map_batches(_read_batch, batch_size=block, batch_format="pyarrow", fn_kwargs={"store": store})


def scored_stream(
    pairs: Sequence[PreferencePair],
    score: "Callable[[list[PreferencePair]], list[ReferenceLogps]]",
    *,
    batch: int,
    stall_s: float,
) -> Iterator[list[ReferenceLogps]]:
    """The reference stage: pairs stream through tasks that ask a scorer, and come back in order, a batch at a time.

    The tasks reserve no CPU: they wait for the scorer, which holds the model. Ray Data holds them back while the reader
    is slower, so at most a few batches are under way.

    Args:
        score: picklable; gives the figures of some pairs.
        stall_s: seconds without any progress after which the stage fails.

    Raises:
        ActorLost: `score` raised it.
    """
    import ray.data

    blocks = [pairs[start : start + batch] for start in range(0, len(pairs), batch)]
    context = _quiet_context()
    context.execution_no_progress_timeout_s = stall_s
    with ray.data.DataContext.current(context):
        scored = ray.data.from_arrow([to_table(PreferencePair, block) for block in blocks]).map_batches(
            functools.partial(_score_batch, score=score),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=2),
        )
        for table in scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            if lost := table[_LOST][0].as_py():
                raise ActorLost(lost)
            yield from_table(ReferenceLogps, table.drop_columns([_LOST]))


def _score_batch(table: "pa.Table", score: "Callable[[list[PreferencePair]], list[ReferenceLogps]]") -> "pa.Table":
    """The task: figures, and why there are none where the scorer was lost: an error of a task would be Ray Data's own,
    with pages of its traceback."""
    import pyarrow as pa

    lost = ""
    try:
        scored = to_table(ReferenceLogps, score(from_table(PreferencePair, table)))
    except ActorLost as error:
        lost = str(error)
        scored = pa.Table.from_pylist([{}], schema=to_table(ReferenceLogps, []).schema)
    return scored.append_column(_LOST, pa.array([lost] * scored.num_rows, pa.string()))


@contextlib.contextmanager
def placed(labels: dict[str, str]) -> Iterator[None]:
    """Within the block, Ray Data works on nodes with these labels; without labels nothing changes."""
    import ray.data

    options = ray.data.DataContext.get_current().execution_options
    before = options.label_selector
    options.label_selector = labels or before
    try:
        yield
    finally:
        options.label_selector = before


def ordered_stream(
    rows: Sequence[dict[str, Any]], maker: type, settings: dict[str, Any], *, stall_s: float
) -> "ray.data.Dataset":
    """One block per row, in the order of `rows`, each made by one actor (one-row table in, one-row table out).

    Split equally, with order kept, row i goes to consumer i modulo their number. The actor reserves no CPU, so it runs
    beside consumers that have taken all of them. It is one actor and not tasks, since Ray ends idle workers above the
    number of CPUs, and would start a process for almost every row.

    Args:
        maker: class of the actor, called with a table; made with `settings`.
        stall_s: seconds without any progress after which the stream fails.
    """
    import ray.data

    context = _quiet_context()
    context.execution_no_progress_timeout_s = stall_s
    context.custom_execution_callback_classes = [Paced]
    with ray.data.DataContext.current(context):
        blocks = ray.data.from_items(list(rows), override_num_blocks=len(rows))
        return blocks.map_batches(
            maker,
            fn_constructor_kwargs=settings,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=ray.data.ActorPoolStrategy(size=1),
        )


def in_order() -> "ray.data.ExecutionOptions":
    """Options under which a split stream keeps its order."""
    import ray.data

    options = ray.data.ExecutionOptions()
    options.preserve_order = True
    return options


def _read_batch(batch: "pa.Table", store: "DecodedStore") -> "pa.Table":
    return to_table(DecodedClip, [store[clip_id] for clip_id in batch["clip_id"].to_pylist()])
