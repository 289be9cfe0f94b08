"""The engines of a pool: started, brought to the newest adapter version, watched, and replaced when they die or hang.

Whatever is asked of an engine has its own deadline from the moment it is asked. An engine that misses one, or dies, is
quarantined: it is ended, another one is started in its place, and that one gets no work before it has acknowledged the
newest adapter version and has given the learner's figures for the prompts of the parity gate, if there was one.

    starting -> (sync -> acknowledged) -> (proof -> agrees) -> ready
        any deadline missed, or dead -> replaced, up to three times in a row

A run ends at once where another engine would fare no better: the first one in a place cannot start by its own account,
or is not there when its deadline has passed.
"""

import itertools
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.calls import Call
from actors.lost import LOST, cannot_start, last_line, why
from actors.rollout import RolloutActor
from avere_ray.errors import StageError
from avere_ray.parity import Scored, check_applied, compare
from avere_ray.placement import engine_bundles, label_selector
from avere_ray.records import Modality, Query

ATTEMPTS = 3
"""How often a batch is issued, and an engine replaced in a row, before the run stops."""
START_S = 600.0
"""Seconds an engine may take to start."""
_SAID_ITSELF = "Ray's logs have all that it said."
"""What is added to the error of an engine that could not start, which says what to do."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Deadlines of what is asked of an engine, seconds."""

    call_s: float
    sync_s: float
    start_s: float = START_S
    call_setting: str = "rollout.deadline_s"
    """Where `call_s` is set."""

    def remedy(self, what: str) -> str:
        """What to do when an engine was lost in vain with a task."""
        if what == "start":
            return "Check that the cluster has the CPUs, GPUs and memory that rollout asks for, and see Ray's logs."
        setting = "rollout.sync_deadline_s" if what == "sync" else self.call_setting
        return f"Raise {setting}, or give the engine more memory and processors; see Ray's logs."


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """Prompts that the parity gate compared, with the learner's figures."""

    probes: Sequence[Query]
    responses: Sequence[Sequence[int]]
    shown: Sequence[Modality]
    """The media of each prompt."""
    learner: Sequence[Scored]
    base: Sequence[Scored] | None
    """The learner's figures without the adapter; None where there is none."""
    max_abs_diff: float


class Task(NamedTuple):
    """Something an engine was asked."""

    what: str
    """"start", "sync", "proof", "call"; "ask" for a question to all engines, "left" for a batch nobody waits for."""
    asked_s: float
    limit_s: float
    adapter: tuple[Path | None, int]
    """The adapter in use when it was asked."""
    call: Call | None = None


@dataclass(eq=False)
class Engine:
    """A place for an engine, with the one that holds it now."""

    number: int
    extra: bool
    """Started because much was waiting; ended when there is nothing left to do."""
    actor: Any = None
    group: Any = None
    """Ray's placement group, where the engine divides its model over GPUs."""
    started: bool = False
    version: int | None = None
    """The adapter version it has acknowledged; 0 is the base, None while it is not known."""
    proven: bool = True
    tasks: dict[Any, Task] = field(default_factory=dict)
    failures: int = 0
    """Deadlines missed and deaths since it last did what it was asked."""
    generation: int = 0
    """How often it was replaced."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A batch that an engine answered, or (None) that was lost with it; without a batch an answer to `ask_all`."""

    engine: Engine
    call: Call | None
    answer: list[Any] | None
    reason: str = ""


class Engines:
    """The engines of a pool; nothing here waits longer than it is told to."""

    def __init__(
        self, arguments: tuple[Any, ...], options: Mapping[str, Any], *, role: str | None, num_cpus: float,
        num_gpus: float, keywords: Mapping[str, Any], limits: Limits, actor: Any = RolloutActor,
    ) -> None:  # fmt: skip
        """
        Args:
            arguments, keywords: of `RolloutWorker`.
            options: of the Ray actor, besides what it reserves.
            actor: the class of the Ray actors.
            role: of the nodes to run on, see `avere_ray.placement`.
        """
        self._make, self._options, self._role = (actor, arguments, keywords), options, role
        self._reserve = (num_cpus, num_gpus)
        self.limits = limits
        self.adapter: tuple[Path | None, int] = (None, 0)
        self.proof: Proof | None = None
        self.replaced = 0
        """Engines replaced so far."""
        self.quarantined = 0
        """Of these, how many because they did not take an adapter."""
        self.sync_seconds: list[float] = []
        """How long each acknowledgement of an adapter took."""
        self.may_grow = True
        """False when one more engine could not be started."""
        self.all: list[Engine] = []
        self._early: dict[str, tuple[Path, int]] = {}
        self._filling = threading.Lock()

    # What a pool asks for ------------------------------------------------------------------------------------------

    def start(self, *, extra: bool = False) -> None:
        """Adds an engine."""
        engine = Engine(number=next(n for n in itertools.count() if n not in {e.number for e in self.all}), extra=extra)
        self._fill(engine)

    def use(self, folder: Path | None, version: int) -> None:
        """Has every engine load an adapter; they take no batch before they have acknowledged it."""
        self.adapter, self.proof = (folder, version), None
        for engine in self.all:
            if engine.started:
                engine.version, engine.failures = None, 0
                self._advance(engine)

    def end(self, engine: Engine) -> None:
        """Ends an engine for good."""
        with self._filling:
            self.all.remove(engine)
        engine.tasks = {}
        self._kill(engine)

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """Tells every engine, also those that start later, of clips that have come; may be called from any thread."""
        with self._filling:
            self._early.update(places)
            for engine in self.all:
                engine.actor.arrive.remote(dict(places))

    def leave(self) -> list[Ended]:
        """Gives up the batches in work; an engine takes no others before these are done."""
        left: list[Ended] = []
        for engine in self.all:
            for ref, task in engine.tasks.items():
                if task.call is not None:
                    left.append(Ended(engine, task.call, None, "was not waited for"))
                    engine.tasks[ref] = task._replace(what="left", call=None)
        return left

    def ask_all(self, method: str, *arguments: Any) -> list[Any]:
        """The answer of every engine that is no extra one, in the order of their numbers.

        Raises:
            see `look`.
        """
        answers: dict[int, Any] = {}
        while missing := [e for e in self.all if not e.extra and e.number not in answers]:
            for engine in missing:
                if self.is_ready(engine) and not engine.tasks:
                    self.send(engine, "ask", getattr(engine.actor, method).remote(*arguments), self.limits.call_s)
            answers |= {e.engine.number: e.answer for e in self.look(1.0) if e.answer is not None}
        return [answers[number] for number in sorted(answers)]

    def is_ready(self, engine: Engine) -> bool:
        """Whether it may be given work."""
        return engine.started and engine.version == self.adapter[1] and engine.proven

    def send(self, engine: Engine, what: str, ref: Any, limit_s: float, call: Call | None = None) -> None:
        """Notes what an engine was asked."""
        engine.tasks[ref] = Task(what, time.monotonic(), limit_s, self.adapter, call)

    def look(self, timeout_s: float) -> list[Ended]:
        """Waits for the first answer or missed deadline, `timeout_s` at most, and deals with it.

        Returns:
            The batches that came back, or were lost.

        Raises:
            StageError: an engine failed three times in a row. What an engine raised itself is raised as it is.
            ParityError: a new engine gives other figures than the learner.
        """
        for engine in self.all:
            if not engine.tasks and not self.is_ready(engine):
                self._advance(engine)  # what it was asked last has raised an error
        asked = [(ref, engine, task) for engine in self.all for ref, task in engine.tasks.items()]
        if not asked:
            return []
        nearest = min(task.asked_s + task.limit_s for _, _, task in asked) - time.monotonic()
        refs = [ref for ref, _, _ in asked]
        # Answers first: one that has come is never taken for missing, however late it is looked at.
        done, _ = ray.wait(refs, num_returns=1, timeout=max(0.0, min(nearest, timeout_s)))
        if done:
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ended: list[Ended] = []
        for ref, engine, task in asked:
            if ref in engine.tasks and ref in done:
                ended += self._answered(engine, ref, task)
        now = time.monotonic()
        for ref, engine, task in asked:
            if ref in engine.tasks and ref not in done and now > task.asked_s + task.limit_s:
                reason = f"{'did not start' if task.what == 'start' else 'gave no answer'} within {task.limit_s:g} s"
                ended += self._failed(engine, task, reason, vain=task.what == "start")
        return ended

    # An engine's life ----------------------------------------------------------------------------------------------

    def _answered(self, engine: Engine, ref: Any, task: Task) -> list[Ended]:
        if task.what == "left":
            del engine.tasks[ref]
            self._advance(engine)
            return []
        try:
            answer = ray.get(ref, timeout=self.limits.call_s)
        except LOST as error:
            if task.what == "start" and cannot_start(error):
                reason = f"cannot start: {last_line(error).rstrip('.')}"
                return self._failed(engine, task, reason, vain=True, remedy=_SAID_ITSELF)
            return self._failed(engine, task, why(error, task.limit_s), vain=False)
        except BaseException:
            engine.tasks.pop(ref, None)
            raise
        del engine.tasks[ref]
        if task.what in ("call", "ask"):
            engine.failures = 0
            return [Ended(engine, task.call, answer)]
        if task.what == "start":
            engine.started = True
        elif task.what == "sync" and task.adapter == self.adapter:
            self._acknowledged(engine, answer, time.monotonic() - task.asked_s)
        elif task.what == "proof" and task.adapter == self.adapter:
            self._prove(engine, answer)
        self._advance(engine)
        return []

    def _advance(self, engine: Engine) -> None:
        """Asks an engine for the next thing that it needs before it is ready."""
        if engine.tasks:
            return
        folder, version = self.adapter
        if not engine.started:
            self.send(engine, "start", engine.actor.ready.remote(), self.limits.start_s)
        elif engine.version is None:
            self.send(engine, "sync", engine.actor.load_adapter.remote(folder, version), self.limits.sync_s)
        elif not engine.proven and self.proof is not None:
            asked = engine.actor.response_logps.remote(self.proof.probes, self.proof.responses, self.proof.shown)
            self.send(engine, "proof", asked, self.limits.call_s)
        else:
            engine.proven = True

    def _acknowledged(self, engine: Engine, version: int, seconds: float) -> None:
        if version != self.adapter[1]:
            raise StageError(f"engine {engine.number} reports adapter version {version} instead of {self.adapter[1]}")
        engine.version = version
        self.sync_seconds.append(seconds)

    def _prove(self, engine: Engine, answer: Sequence[Scored]) -> None:
        if self.proof is not None:
            proof, version = self.proof, self.adapter[1]
            compare(proof.probes, answer, proof.learner, max_abs_diff=proof.max_abs_diff, adapter_version=version)
            if proof.base is not None:
                check_applied(answer, proof.learner, proof.base, adapter_version=version)
        engine.proven = True

    def _failed(self, engine: Engine, task: Task, reason: str, *, vain: bool, remedy: str = "") -> list[Ended]:
        """Puts another engine in the place of one that died or hangs.

        Args:
            vain: another one in a place that never had an engine would fare no better.
            remedy: what to do; "" for what `Limits.remedy` says of the task.
        """
        lost = [Ended(engine, t.call, None, reason) for t in engine.tasks.values() if t.call is not None]
        doing = {"start": "starting", "sync": f"loading adapter version {self.adapter[1]}", "proof": "proving itself"}
        words = f"{reason} while {doing[task.what]}" if task.what in doing and not vain else reason
        engine.failures += 1
        if engine.extra and task.what != "call":
            _log.warning("one more rollout engine %s; the others go on without it", words)
            self.may_grow = False
            self.end(engine)
            return lost
        again = task.what not in ("call", "left") and engine.failures >= ATTEMPTS
        if again or (vain and engine.generation == 0):
            raise StageError(
                f"rollout engine {engine.number} {words}"
                + (f", {engine.failures} times in a row" if engine.failures > 1 else "")
                + f". {remedy or self.limits.remedy(task.what)}"
            )
        _log.warning("rollout engine %d %s; it is replaced%s", engine.number, words,
                     " and its batches issued again" if lost else "")  # fmt: skip
        self.replaced += 1
        self.quarantined += task.what == "sync"
        self._kill(engine)
        engine.generation += 1
        self._fill(engine)
        return lost

    def _fill(self, engine: Engine) -> None:
        """Starts an engine in a place."""
        make, arguments, keywords = self._make
        engine.tasks, engine.started, engine.version, engine.proven = {}, False, None, False
        engine.group, reserved = placed(*self._reserve, self._role)
        actor = make.options(**self._options, **reserved).remote(*arguments, **keywords)
        with self._filling:
            engine.actor = actor
            if engine not in self.all:
                self.all.append(engine)
            if self._early:
                actor.arrive.remote(dict(self._early))
        self._advance(engine)

    def _kill(self, engine: Engine) -> None:
        ray.kill(engine.actor)
        if engine.group is not None:
            remove_placement_group(engine.group)


def placed(num_cpus: float, num_gpus: float, role: str | None) -> tuple[Any, dict[str, Any]]:
    """What an engine reserves, as a placement group (or None) and options of its actor.

    Over several GPUs vLLM starts one worker per bundle of the group that it finds itself in; its own process, which
    only steers them, has the first bundle's CPUs and no GPU.
    """
    bundles = engine_bundles(num_cpus, num_gpus)
    if len(bundles) == 1:
        return None, {"num_cpus": num_cpus, "num_gpus": num_gpus, "label_selector": label_selector(role)}
    selectors = [label_selector(role)] * len(bundles) if role else None
    group = ray.util.placement_group(bundles, strategy="STRICT_PACK", bundle_label_selector=selectors)
    strategy = PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
    )
    return group, {"num_cpus": num_cpus, "num_gpus": 0, "scheduling_strategy": strategy}
