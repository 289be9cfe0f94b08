"""Rollout actors behind one seam: bounded work in flight, a deadline per call, dead or hung engines replaced.

A call that an engine did not finish is issued again to another one; seeds belong to the queries, so it gives the same
responses, and each appears once in the result. `calls` cuts and lines up the batches, `engines` keeps the engines.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from actors.calls import Call, Line, Meter, wanted_engines
from actors.engines import ATTEMPTS, Ended, Engine, Engines, Limits, Proof
from actors.rollout import RolloutActor
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.engine import engine_environment
from avere_ray.errors import StageError
from avere_ray.evaluation.showing import Showing
from avere_ray.parity import Scored
from avere_ray.protocols import ProgressFn
from avere_ray.records import Modality, Query, Rollout
from avere_ray.staleness import check_fresh

CALLS_AT_ONCE = 2
"""Batches that an engine works on at the same time: the next fills up what one leaves free towards its end."""
_LOOK_EVERY_S = 1.0
_LOOK_FOR_QUERIES_S = 0.02

StartFn = Callable[[Any, Call], Any]
"""Sends a batch to an actor; gives Ray's reference of the answer."""
KeepFn = Callable[[tuple[int, ...], list[Any]], None]
"""Told of each finished batch: where each of its queries stands among all, and their results."""


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
        deadline_setting: str = "rollout.deadline_s",
        actor: Any = RolloutActor,
    ) -> None:
        """
        Args:
            deadline_setting: where the user sets `rollout.deadline_s`, for messages.
            role: run the engines on nodes with this role only, see `avere_ray.placement`.
            clips_per_request: most clips that one request shows, examples included.
            actor: the class of the engines' actors, with the methods of `RolloutWorker`.
        """
        self._rollout = rollout
        self.engines = Engines(
            (model, rollout),
            {"runtime_env": {"env_vars": engine_environment(rollout, threads)}},
            role=role,
            num_cpus=rollout.num_cpus,
            num_gpus=rollout.num_gpus,
            keywords={
                "lora_rank": lora_rank, "decode": decode, "decoded": decoded, "clips_per_request": clips_per_request
            },
            limits=Limits(
                call_s=rollout.deadline_s, sync_s=rollout.sync_deadline_s, call_setting=deadline_setting
            ),
            actor=actor,
        )  # fmt: skip
        self.meter, self._taken_replaced, self._taken_quarantined = Meter(), 0, 0
        for _ in range(rollout.engines):
            self.engines.start()

    @property
    def replaced(self) -> int:
        """Engines replaced so far."""
        return self.engines.replaced

    def take_replaced(self) -> int:
        """Engines replaced since this was last asked."""
        before, self._taken_replaced = self._taken_replaced, self.replaced
        return self.replaced - before

    @property
    def actors(self) -> list[Any]:
        """The engines' actors, in the order of their numbers."""
        return [engine.actor for engine in self.engines.all]

    def count_anew(self) -> None:
        """Begins to count throughput from nothing."""
        self.meter = Meter()

    def figures(self) -> dict[str, float]:
        """By name: engines replaced and quarantined since this was last asked, the slowest acknowledgement of an
        adapter so far, and the meter's."""
        engines = self.engines
        slowest = {"sync_seconds_max": round(max(engines.sync_seconds), 4)} if engines.sync_seconds else {}
        quarantined, self._taken_quarantined = engines.quarantined - self._taken_quarantined, engines.quarantined
        counts = {"engines_replaced": self.take_replaced(), "engines_quarantined": quarantined}
        return counts | slowest | self.meter.figures()

    def wait_ready(self, watch: Callable[[], None] = lambda: None) -> None:
        """Waits until every engine is up, and calls `watch` meanwhile, which may raise.

        Raises:
            StageError: an engine did not start within ten minutes. What an engine raised itself is raised as it is.
        """
        while not all(self.engines.is_ready(engine) for engine in self.engines.all if not engine.extra):
            self.engines.look(_LOOK_EVERY_S)
            watch()

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """Tells every engine of clips that are there before the decode stage has finished; calls made later see them.

        Args:
            places: shard file and row, by clip id.
        """
        self.engines.arrive(places)

    def load_adapter(self, folder: Path | None, version: int) -> None:
        """Switches every engine to an adapter version, and remembers it for replacements.

        An engine that does not acknowledge within `rollout.sync_deadline_s`, or dies, is replaced by one that does.

        Raises:
            StageError: an engine failed three times in a row. What an engine raised itself is raised as it is.
        """
        self.engines.use(folder, version)
        self.wait_ready()

    def remember(
        self, probes: Sequence[Query], responses: Sequence[Sequence[int]], shown: Sequence[Modality],
        learner: Sequence[Scored], base: Sequence[Scored] | None, max_abs_diff: float,
    ) -> None:  # fmt: skip
        """What the parity gate has compared for the adapter in use; engines that start later are held against it."""
        self.engines.proof = Proof(
            probes=probes, responses=responses, shown=shown, learner=learner, base=base, max_abs_diff=max_abs_diff
        )

    def response_logps(
        self, queries: Sequence[Query], responses: Sequence[Sequence[int]], shown: Sequence[Modality] | None = None
    ) -> list[list[Scored]]:
        """What each engine gives for the same responses; see `RolloutWorker.response_logps`."""
        return self.engines.ask_all("response_logps", queries, responses, shown)

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
        keep: KeepFn | None = None,
    ) -> list[list[Rollout]]:
        """Samples `n` responses to each query, results in the order asked.

        Queries are taken when an engine is free, so they may come from a source that is still being filled; it is read
        in a thread of its own.

        Args:
            showings: what each query shows, else its clip.

        Raises:
            StageError: a batch failed three times (names its first query), or an engine answered with a version of the
                adapter older than `rollout.max_staleness` allows.
        """
        options = {"n": n, "temperature": temperature, "max_tokens": max_tokens, "seed": seed}

        def start(actor: Any, call: Call) -> Any:
            shown = {"showings": [showings[i] for i in call.at]} if showings is not None else {}
            return actor.generate.remote(call.queries, **options, **shown)

        def check(answer: list[list[Rollout]]) -> None:
            for group in answer:
                check_fresh(group, version=self.engines.adapter[1], max_staleness=self._rollout.max_staleness)

        return self._in_batches(queries, start, progress, keep, check)

    def option_logps(
        self,
        queries: Sequence[Query],
        *,
        options: Sequence[Sequence[str]],
        showings: Sequence[Showing],
        progress: ProgressFn | None = None,
        keep: KeepFn | None = None,
    ) -> list[list[float]]:
        """Log-prob (nats) of each option's words as the beginning of a response, in the order asked.

        Raises:
            StageError: a batch failed three times; names its first query.
        """

        def start(actor: Any, call: Call) -> Any:
            shown = [showings[i] for i in call.at]
            return actor.option_logps.remote(call.queries, options=[options[i] for i in call.at], showings=shown)

        return self._in_batches(queries, start, progress, keep)

    def close(self) -> None:
        """Ends the engines."""
        for engine in list(self.engines.all):
            self.engines.end(engine)

    # -----------------------------------------------------------------------------------------------------------------

    def _in_batches(
        self,
        queries: Iterable[Query],
        start: StartFn,
        progress: ProgressFn | None,
        keep: KeepFn | None,
        check: Callable[[list[Any]], None] = lambda answer: None,
    ) -> list[Any]:
        """One result per query: `start` sends a batch to an engine, `check` may refuse an answer."""
        total = len(queries) if isinstance(queries, Sized) else None
        results: dict[int, Any] = {}
        engines, most = self._rollout.engines, self._rollout.most_engines
        try:
            with Line(queries, size=self._rollout.batch_queries, engines=engines, ahead=2 * most) as line:
                while self._hand_out(line, start):
                    for ended in self._look(line):
                        if not self._taken(ended, line):
                            continue
                        assert ended.call is not None and ended.answer is not None
                        check(ended.answer)
                        results |= zip(ended.call.at, ended.answer, strict=True)
                        if keep is not None:
                            keep(ended.call.at, ended.answer)
                        if progress is not None:
                            progress(len(results), total)
                line.check()
        finally:
            for left in self.engines.leave():
                assert left.call is not None
                self.meter.ended(left.engine.number, len(left.call.queries), None, time.monotonic())
            self._shrink()
        return [results[place] for place in sorted(results)]

    def _hand_out(self, line: Line, start: StartFn) -> bool:
        """Gives waiting batches to engines with room; whether there is anything to wait for."""
        for _ in range(CALLS_AT_ONCE):
            for engine in self.engines.all:
                if self._has_room(engine) and (call := line.take(engine.number)) is not None:
                    call.attempts += 1
                    limit = self.engines.limits.call_s
                    self.engines.send(engine, "call", start(engine.actor, call), limit, call)
                    self.meter.sent(engine.number, len(call.queries), len(line), time.monotonic())
        self._grow(line)
        return bool(line.open or len(line) or self._in_work())

    def _look(self, line: Line) -> list[Ended]:
        """Answers and losses, as they come; with room left, looks for new queries often."""
        if not line.open or not any(self._has_room(engine) for engine in self.engines.all):
            return self.engines.look(_LOOK_EVERY_S)
        line.wait(_LOOK_FOR_QUERIES_S)
        return self.engines.look(0.0)

    def _taken(self, ended: Ended, line: Line) -> bool:
        """Whether a batch was answered; else it goes back into the line.

        Raises:
            StageError: it was lost too often.
        """
        call = ended.call
        assert call is not None
        self.meter.ended(ended.engine.number, len(call.queries), ended.answer, time.monotonic())
        if ended.answer is not None:
            return True
        if call.attempts >= ATTEMPTS:
            raise StageError(
                f"rollout engine {ended.reason}; the batch that starts with query {call.queries[0].query_id} "
                f"failed {ATTEMPTS} times. Raise {self.engines.limits.call_setting} if it takes that long, lower "
                "rollout.batch_queries, or give the engine more memory."
            )
        line.give_back(call)
        return False

    def _has_room(self, engine: Engine) -> bool:
        return self.engines.is_ready(engine) and len(engine.tasks) < CALLS_AT_ONCE

    def _in_work(self) -> bool:
        return any(task.call is not None for engine in self.engines.all for task in engine.tasks.values())

    def _grow(self, line: Line) -> None:
        """Starts one more engine where work waits for all there are, and ends an extra one that has nothing left."""
        running = len(self.engines.all)
        starting = not all(engine.started for engine in self.engines.all)
        most = self._rollout.most_engines if self.engines.may_grow and not starting else running
        if wanted_engines(running, len(line), most) > running:
            self.engines.start(extra=True)
        elif not line.open and not len(line):
            self._shrink()

    def _shrink(self) -> None:
        """Ends the extra engines that do nothing."""
        for engine in [e for e in self.engines.all if e.extra]:
            if not any(task.what in ("call", "left") for task in engine.tasks.values()):
                self.engines.end(engine)
