"""Rollouts and training at the same time (rollout.overlap): a round's rollouts while the round before still trains.

They come from the adapter that the round before started with, so they are one step off-policy; each says its adapter's
version. Questions and seeds are those of any round. Their folder has another key than on-policy rollouts, so turning
the option on or off samples anew. What has not been sampled when training fails is sampled by the next run.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence

from avere_ray.config import RunConfig
from avere_ray.progress import say
from avere_ray.records import Query
from jobs.layout import require
from jobs.rollouts import (
    finish_rollouts,
    policy_round,
    rollouts_folder,
    round_queries,
    sample,
    sampled_so_far,
    use_policy,
)
from jobs.workers import Workers

_LOOK_EVERY_S = 1.0
_END_S = 3.0


class _Stopped(Exception):
    """Ends the sampling from within: training has failed."""


@contextlib.contextmanager
def sampling_ahead(cfg: RunConfig, round_: int, workers: Workers) -> Iterator[None]:
    """Samples a round's rollouts while the block runs; waits for them at its end. Nothing happens without the option,
    after the last round, or when they are there already.

    Raises:
        AvereError: see `jobs.rollouts.sample_rollouts`.
    """
    if not cfg.rollout.overlap or round_ >= cfg.rounds or rollouts_folder(cfg, round_).finished():
        yield
        return
    worst, version = use_policy(cfg, round_, workers), policy_round(cfg, round_) + 1
    with Sampling(cfg, round_, workers, worst) as sampling:
        say(f"rollouts (round {round_}): sampled from adapter version {version} while round {round_ - 1} trains")
        yield
        sampling.result()


class Sampling:
    """The rollouts of a round in a thread, from `with` on; the engines have their policy (`worst`: its parity)."""

    def __init__(self, cfg: RunConfig, round_: int, workers: Workers, worst: float) -> None:
        self.cfg, self.round, self.workers, self.worst = cfg, round_, workers, worst
        self._error: BaseException | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)

    def result(self) -> None:
        """Nothing, when all are there.

        Raises:
            AvereError: the sampling failed.
        """
        while self._thread.is_alive():
            self._thread.join(_LOOK_EVERY_S)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "Sampling":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            self._sample()
        except BaseException as error:  # noqa: BLE001 - it is raised where it can be acted on
            self._error = error

    def _sample(self) -> None:
        cfg, workers = self.cfg, self.workers
        folder = rollouts_folder(cfg, self.round)
        folder.begin()
        queries = round_queries(cfg, self.round, workers)
        sampled = sampled_so_far(cfg, self.round, require(cfg, "decoded").key)
        asked = self._until_stopped(queries)
        found = sample(cfg, self.round, workers, asked, sampled, live=False, expected=len(queries))
        finish_rollouts(cfg, folder, workers, queries, found, sampled, self.worst)
        workers.sampled.add(self.round)

    def _until_stopped(self, queries: Sequence[Query]) -> Iterator[Query]:
        for query in queries:
            if self._stop:
                raise _Stopped
            yield query
