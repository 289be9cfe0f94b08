"""Rollout actors behind one seam: bounded work in flight, a deadline per call, dead or hung engines replaced.

A call that an engine did not finish is issued again to another one; seeds belong to the queries, so it gives the same
responses, and each appears once in the result.
"""

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from actors.rollout import RolloutActor
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.engine import engine_environment
from avere_ray.errors import StageError
from avere_ray.evaluation.showing import Showing
from avere_ray.placement import label_selector
from avere_ray.protocols import ProgressFn
from avere_ray.records import Query, Rollout

_ATTEMPTS = 3
_START_DEADLINE_S = 600.0
_LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass
class _Call:
    """One batch of queries; `attempts` counts how often it was issued."""

    index: int
    queries: Sequence[Query]
    at: slice
    """Where they stand among all queries."""
    attempts: int = 0


class RolloutPool:
    """Engines that answer as one; implements GenerateFn."""

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutConfig,
        *,
        lora_rank: int,
        decode: DecodeConfig,
        decoded: Path,
        threads: int,
        role: str | None = None,
        clips_per_request: int = 1,
    ) -> None:
        """
        Args:
            role: run the engines on nodes with this role only, see `avere_ray.placement`.
            clips_per_request: most clips that one request shows, examples included.
        """
        self._clips_per_request = clips_per_request
        self._settings = (model, rollout)
        self._options = {
            "num_cpus": rollout.num_cpus,
            "num_gpus": rollout.num_gpus,
            "label_selector": label_selector(role),
            "runtime_env": {"env_vars": engine_environment(rollout, threads)},
        }
        self._lora_rank, self._decode, self._decoded = lora_rank, decode, decoded
        self._adapter: tuple[Path | None, int] = (None, 0)
        self._early: dict[str, tuple[Path, int]] = {}
        self.replaced = 0
        """Engines replaced so far."""
        self.actors = [self._start() for _ in range(rollout.engines)]

    def wait_ready(self, watch: Callable[[], None] = lambda: None) -> None:
        """Waits until every engine is up, and calls `watch` meanwhile, which may raise.

        Raises:
            StageError: an engine did not start within ten minutes. What an engine raised itself is raised as it is.
        """
        limit = time.monotonic() + _START_DEADLINE_S
        waiting = [a.ready.remote() for a in self.actors]
        try:
            while waiting:
                ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_LOOK_EVERY_S)
                ray.get(ready, timeout=_START_DEADLINE_S)
                watch()
                if waiting and time.monotonic() > limit:
                    raise StageError(
                        f"the rollout engines did not start within {_START_DEADLINE_S:.0f} s; check that the "
                        "cluster has the CPUs, GPUs and memory that rollout asks for"
                    )
        except RayActorError as error:
            words = [line for line in str(error).splitlines() if line.strip()]
            raise StageError(f"a rollout engine could not start: {words[-1].strip()}") from error

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """Tells every engine of clips that are there before the decode stage has finished; calls made later see them.

        Args:
            places: shard file and row, by clip id.
        """
        self._early.update(places)
        for actor in self.actors:
            actor.arrive.remote(places)

    def __call__(
        self,
        queries: Iterable[Query],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        progress: ProgressFn | None = None,
        showings: Sequence[Showing] | None = None,
        keep: Callable[[slice, list[list[Rollout]]], None] | None = None,
    ) -> list[list[Rollout]]:
        """Samples `n` responses to each query, results in the order asked.

        Queries are taken when an engine is free, so they may come from a source that is still being filled.

        Args:
            showings: what each query shows, else its clip.
            keep: told of each finished batch: where it stands among the queries, and its results.

        Raises:
            StageError: a batch failed three times; names its first query.
        """
        options = {"n": n, "temperature": temperature, "max_tokens": max_tokens, "seed": seed}

        def start(actor: Any, call: _Call) -> Any:
            shown = {"showings": list(showings[call.at])} if showings is not None else {}
            return actor.generate.remote(call.queries, **options, **shown)

        return self._in_batches(queries, start, progress, keep)

    def option_logps(
        self,
        queries: Sequence[Query],
        *,
        options: Sequence[Sequence[str]],
        showings: Sequence[Showing],
        progress: ProgressFn | None = None,
        keep: Callable[[slice, list[list[float]]], None] | None = None,
    ) -> list[list[float]]:
        """Log-prob (nats) of each option's words as the beginning of a response, in the order asked.

        Raises:
            StageError: a batch failed three times; names its first query.
        """

        def start(actor: Any, call: _Call) -> Any:
            at = call.at
            return actor.option_logps.remote(call.queries, options=list(options[at]), showings=list(showings[at]))

        return self._in_batches(queries, start, progress, keep)

    def _in_batches(
        self,
        queries: Iterable[Query],
        start: Callable[[Any, _Call], Any],
        progress: ProgressFn | None,
        keep: Callable[[slice, list[Any]], None] | None,
    ) -> list[Any]:
        """One result per query: `start` sends a batch to an engine, `keep` is told of each finished one."""
        size = self._settings[1].batch_queries
        coming = (_Call(i, part, slice(i * size, i * size + len(part))) for i, part in enumerate(_parts(queries, size)))
        total = len(queries) if isinstance(queries, Sized) else None
        waiting: deque[_Call] = deque()
        results: dict[int, list[Any]] = {}
        running: dict[Any, tuple[int, _Call]] = {}
        idle = list(range(len(self.actors)))
        done = 0
        while True:
            while idle and (call := waiting.popleft() if waiting else next(coming, None)) is not None:
                engine = idle.pop(0)
                call.attempts += 1
                running[start(self.actors[engine], call)] = (engine, call)
            if not running:
                break
            ready, _ = ray.wait(list(running), num_returns=1, timeout=self._settings[1].deadline_s)
            for ref in ready or list(running):
                engine, call = running.pop(ref)
                answer = self._collect(ref, engine, call, hung=not ready)
                idle.append(engine)
                if answer is None:
                    waiting.appendleft(call)
                    continue
                results[call.index] = answer
                done += len(answer)
                if keep is not None:
                    keep(call.at, answer)
                if progress is not None:
                    progress(done, total)
        return [found for index in sorted(results) for found in results[index]]

    def load_adapter(self, folder: Path | None, version: int) -> None:
        """Switches every engine to an adapter version, and remembers it for replacements.

        Raises:
            StageError: an engine does not acknowledge within the deadline.
        """
        self._adapter = (folder, version)
        try:
            got = ray.get(
                [a.load_adapter.remote(folder, version) for a in self.actors], timeout=self._settings[1].deadline_s
            )
        except GetTimeoutError as error:
            raise StageError(
                f"an engine did not load adapter version {version} within {self._settings[1].deadline_s:.0f} s"
            ) from error
        if any(v != version for v in got):
            raise StageError(f"engines report adapter versions {got} instead of {version}")

    def response_logps(
        self, queries: Sequence[Query], responses: Sequence[Sequence[int]]
    ) -> list[list[tuple[list[int], list[float]]]]:
        """What each engine gives for the same responses; see `RolloutWorker.response_logps`."""
        return ray.get(
            [a.response_logps.remote(queries, responses) for a in self.actors], timeout=self._settings[1].deadline_s
        )

    def close(self) -> None:
        """Ends the engines."""
        for actor in self.actors:
            ray.kill(actor)

    def _start(self) -> Any:
        model, rollout = self._settings
        return RolloutActor.options(**self._options).remote(
            model,
            rollout,
            lora_rank=self._lora_rank,
            decode=self._decode,
            decoded=self._decoded,
            clips_per_request=self._clips_per_request,
        )

    def _collect(self, ref: Any, engine: int, call: _Call, *, hung: bool) -> list[Any] | None:
        """The answer of a call, or None when its engine died or hangs; the engine is then replaced."""
        if not hung:
            try:
                return ray.get(ref, timeout=self._settings[1].deadline_s)
            except RayActorError as error:
                reason = f"died: {str(error).splitlines()[0]}"
        else:
            reason = f"gave no answer within {self._settings[1].deadline_s:.0f} s"
        if call.attempts >= _ATTEMPTS:
            raise StageError(
                f"rollout engine {reason}; the batch that starts with query {call.queries[0].query_id} "
                f"failed {_ATTEMPTS} times. Lower rollout.batch_queries or give the engine more memory."
            )
        _log.warning("rollout engine %d %s; it is replaced and its batch issued again", engine, reason)
        self._replace(engine)
        return None

    def _replace(self, engine: int) -> None:
        ray.kill(self.actors[engine])
        self.actors[engine] = self._start()
        self.replaced += 1
        if self._early:
            self.actors[engine].arrive.remote(self._early)
        folder, version = self._adapter
        if version:
            ray.get(self.actors[engine].load_adapter.remote(folder, version), timeout=_START_DEADLINE_S)


def _parts(queries: Iterable[Query], size: int) -> Iterator[list[Query]]:
    """The queries in lists of `size`; the last may be shorter."""
    rest = iter(queries)
    while part := list(itertools.islice(rest, size)):
        yield part
