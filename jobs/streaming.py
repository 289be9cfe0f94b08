"""Decoding and the first rollouts at the same time: questions about a clip are asked as soon as it is in the store.

Decoding runs in a thread of the driver, which only sees where media are; engines and scorer read them from the store.
Clips arrive in corpus order and questions are asked in the batches in which they would be asked later, so the rollouts
are the same. Their stage begins when the decode stage has finished, whose digest is in their key; a run that is
interrupted before goes on as ever: what is decoded is in the store, what is sampled in rollouts/unfinished.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Self

from avere_ray.av_store import AvStore, Place
from avere_ray.config import RunConfig
from avere_ray.ledger import Ledger
from avere_ray.progress import say
from avere_ray.records import Clip, Query
from avere_ray.stages import StageManifest
from jobs import decode, given_queries
from jobs.layout import finished
from jobs.rollouts import check_queries, finish_rollouts, rollouts_folder, sample, sampled_so_far
from jobs.workers import Workers, sample_queries

_LOOK_EVERY_S = 1.0
_END_S = 20.0
Decided = tuple[Clip, Place | None]
"""A clip, and where its medium is; None when it is dropped."""


class _Stopped(Exception):
    """Ends the decode stage from within: the run ends before it."""


class Decoding:
    """The decode stage of a run in a thread, from `with` on; `groups` gives its clips as they arrive."""

    def __init__(self, cfg: RunConfig, plan: decode.Plan) -> None:
        self.cfg, self.plan = cfg, plan
        self._changed = threading.Condition()
        self._waiting: list[Decided] = []
        self._manifest: StageManifest | None = None
        self._error: BaseException | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    def groups(self) -> Iterator[list[Decided]]:
        """What has arrived since the group before, in corpus order; waits for each, and ends with the stage.

        Raises:
            AvereError: the stage failed.
        """
        while True:
            with self._changed:
                while not self._waiting and self._thread.is_alive():
                    self._changed.wait(_LOOK_EVERY_S)
                group, self._waiting = self._waiting, []
            if not group:
                break
            yield group
        self.result()

    def result(self) -> StageManifest:
        """The stage's manifest, when it has ended.

        Raises:
            AvereError: the stage failed.
        """
        while self._thread.is_alive():
            self._thread.join(_LOOK_EVERY_S)
        self.check()
        assert self._manifest is not None
        return self._manifest

    def check(self) -> None:
        """Nothing, unless the stage has failed already.

        Raises:
            AvereError: it has.
        """
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            self._manifest = decode.run(self.cfg, self.plan, self._arrived)
        except BaseException as error:  # noqa: BLE001 - it is raised where it can be acted on
            self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _arrived(self, clip: Clip, place: Place | None) -> None:
        if self._stop:
            raise _Stopped
        with self._changed:
            self._waiting.append((clip, place))
            self._changed.notify_all()


def run(cfg: RunConfig, workers: Workers) -> StageManifest:
    """Decodes the clips, and samples the rollouts of round 0 meanwhile where that is possible.

    It is not where decoding or the rollouts are done already, or the engines take every CPU that decoding needs.

    Raises:
        AvereError: see `jobs.decode.run` and `jobs.rollouts.sample_rollouts`.
    """
    import ray

    plan = decode.plan(cfg)
    if finished(cfg, "rollouts", 0) is not None or plan.finished() is not None:
        return decode.run(cfg, plan)
    if not has_room(cfg, ray.cluster_resources().get("CPU", 0.0)):
        say("decode: the engines take every CPU, so they start when all clips are decoded")
        return decode.run(cfg, plan)
    with Decoding(cfg, plan) as decoding:
        workers.watch = decoding.check
        sample_while_decoding(cfg, workers, decoding)
        return decoding.result()


def has_room(cfg: RunConfig, cpus: float) -> bool:
    """Whether engines and decoding fit side by side into a cluster with so many CPUs."""
    if cfg.placement.decode and cfg.placement.decode != cfg.placement.rollout:
        return True
    taken = cfg.rollout.most_engines * cfg.rollout.num_cpus
    return cpus - taken >= cfg.data.decode.threads


def sample_while_decoding(cfg: RunConfig, workers: Workers, decoding: Decoding) -> None:
    """The rollouts of round 0 from clips as they arrive; nothing is written when the decode stage fails.

    Raises:
        AvereError: see `run`.
    """
    began = time.monotonic()
    arrivals = Arrivals(cfg, workers, decoding)
    first = arrivals.first_clips(workers.gate_clips)
    if not first:  # nothing can be decoded; the stage says so
        decoding.result()
    worst = workers.use_adapter(None, 0, first)
    queries: list[Query] = []
    asked = _noted(arrivals.queries(), queries)
    sampled = sampled_so_far(cfg, 0, decoding.plan.folder.key)
    found = sample(cfg, 0, workers, asked, sampled, expected=arrivals.expected)
    decoding.result()
    check_queries(cfg, queries, arrivals.training)
    folder = rollouts_folder(cfg, 0)
    folder.begin(since=began)
    finish_rollouts(cfg, folder, workers, queries, found, sampled, worst)
    workers.sampled.add(0)


class Arrivals:
    """Clips that arrive, told to engines and scorer, and the questions about them in the order of a finished stage."""

    def __init__(self, cfg: RunConfig, workers: Workers, decoding: Decoding) -> None:
        self.cfg, self.workers = cfg, workers
        self.training = 0
        """Training clips so far."""
        self._dropped, self._may_drop = 0, Ledger.allowed(len(decoding.plan.clips), cfg.data.drop_budget)
        self._store = AvStore(decode.store_folder(cfg))
        self._groups = decoding.groups()
        self._ahead: deque[list[Decided]] = deque()
        self._listed = deque(given_queries.read(cfg.data.queries)) if cfg.data.queries else None
        if self._listed is not None:
            given_queries.check_known(cfg, self._listed, [clip.clip_id for clip in decoding.plan.clips])
        training = sum(clip.split == "train" for clip in decoding.plan.clips)
        self.expected = training * cfg.rollout.queries_per_clip if self._listed is None else len(self._listed)
        """How many queries there are at most; a clip that fewer can be asked about has fewer."""

    def first_clips(self, count: int) -> list[Clip]:
        """The first clips that are not dropped; they are given again by `queries`."""
        kept: list[Clip] = []
        for group in self._groups:
            self._ahead.append(group)
            self._tell(group)
            kept += [clip for clip, place in group if place is not None]
            if len(kept) >= count:
                break
        return kept[:count]

    def queries(self) -> Iterator[Query]:
        """The questions of round 0, each when its clip has arrived; ends early when too many clips are dropped."""
        listed = self._listed
        known, undecided = set[str](), {query.clip_id for query in listed or ()}
        for group in self._all_groups():
            self._dropped += sum(place is None for _, place in group)
            if self._dropped > self._may_drop:
                return
            clips = [clip for clip, place in group if place is not None and clip.split == "train"]
            self.training += len(clips)
            if listed is None:
                yield from sample_queries(clips, self.cfg, 0)
                continue
            known.update(clip.clip_id for clip in clips)
            undecided.difference_update(clip.clip_id for clip, _ in group)
            while listed and listed[0].clip_id not in undecided:
                query = listed.popleft()
                if query.clip_id in known:
                    yield query
        if listed is not None:
            yield from (query for query in listed if query.clip_id in known)

    def _all_groups(self) -> Iterator[list[Decided]]:
        while self._ahead:
            yield self._ahead.popleft()
        for group in self._groups:
            self._tell(group)
            yield group

    def _tell(self, group: list[Decided]) -> None:
        places = {c.clip_id: (self._store.shard_path(p.shard), p.row) for c, p in group if p is not None}
        if places:
            self.workers.arrive(places)


def _noted(queries: Iterator[Query], into: list[Query]) -> Iterator[Query]:
    """The queries, each also put into a list."""
    for query in queries:
        into.append(query)
        yield query
