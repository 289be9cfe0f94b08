"""A vLLM engine that many callers share: requests join and leave its batch between two steps, adapters come and go.

One thread owns the engine and steps it while anything is asked; nothing else touches it. Callers put commands into its
queue (add, abort, load) and hear of every step. `stream` is the face for asyncio, `ask` the one for threads; `LiveFace`
is a live engine with the methods of `Engine`. An exception in a step leaves requests half done, so it ends the engine:
every caller hears of it, and `problem` says it.
"""

import asyncio
import itertools
import queue
import re
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avere_ray.backbones import backbone, load_processor
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.engine.heard import CUT, STOPPED, Heard, answer_of, at_the_end
from avere_ray.engine.progress import Progress, Wanted, failed, progress_of, sampling_params
from avere_ray.engine.start import refusals, start_vllm
from avere_ray.engine.surroundings import media_limits
from avere_ray.errors import AvereError, InputError, ModelError, StageError

ADAPTERS = 4
"""Adapters that may be used in one step."""
PACE_S = 0.03
"""How often a stream tells at most what was added, seconds."""
_IDLE_S = 1.0
_START_S = 1800.0
_SWITCH_S = 0.001
"""How long the engine's thread may keep Python from the others; Python's own 5 ms delay every message by as much."""


class Refused(InputError):
    """The engine does not take one request; others are not concerned."""


class NoRoom(Refused):
    """Prompt and answer are longer than the engine takes."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request in work: where its outputs go. `hear` is called in the engine's thread."""

    hear: Callable[[Any], None]


class LiveEngine:
    """A vLLM engine in a thread of its own."""

    def __init__(self, processor: Any, family: Any, rollout: RolloutConfig, start: Callable[[], Any]) -> None:
        """`start` makes vLLM's `LLMEngine`; it is called in the engine's thread.

        Raises:
            ModelError: vLLM cannot start.
        """
        self.processor = processor
        self.family = family
        self.rollout = rollout
        self.max_model_len = rollout.max_model_len
        self._engine: Any = None
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._asked: dict[str, _Asked] = {}
        self._loras: dict[str, Any] = {}
        self._numbers, self._lora_numbers = itertools.count(1), itertools.count(1)
        self._busy_since: float | None = None
        self._failure: str | None = None
        self._closing = False
        sys.setswitchinterval(min(_SWITCH_S, sys.getswitchinterval()))
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(start, started), name="engine", daemon=True)
        self._thread.start()
        started.result(timeout=_START_S)

    @classmethod
    def on(
        cls,
        model: ModelConfig,
        rollout: RolloutConfig,
        *,
        lora_rank: int,
        decode: DecodeConfig,
        adapters: int = ADAPTERS,
    ) -> "LiveEngine":
        """An engine on a model folder, for clips sampled as `decode` says.

        Raises:
            ModelError: vLLM cannot start on the folder.
        """

        def start() -> Any:
            return start_vllm(model, rollout, lora_rank, media_limits(decode), adapters=adapters).llm_engine

        return cls(load_processor(model), backbone(model.backbone), rollout, start)

    # For callers ---------------------------------------------------------------------------------------------------

    @property
    def in_work(self) -> int:
        """Requests that the engine works on."""
        return len(self._asked)

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters that may be asked for."""
        return list(self._loras)

    def problem(self, stuck_s: float) -> str | None:
        """Why this engine must be replaced, or None; `stuck_s`: seconds one step may take."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > stuck_s:
            return f"the engine has been busy with one step or request for more than {stuck_s:g} s"
        return self._failure

    async def stream(
        self, prompt: Mapping[str, Any], wanted: Wanted, *, adapter: str | None = None, pace_s: float = PACE_S
    ) -> AsyncGenerator[Progress, None]:
        """What each step adds to the answers of a request; leaving the iterator early takes it out of the batch.

        Args:
            prompt: `prompt_token_ids` and media, as `EngineFace` and the family's `engine_inputs` make them.
            adapter: name of a loaded adapter; None: the base.
            pace_s: steps that follow each other faster are told together, since every message costs more than a step
                of a small model.

        Raises:
            Refused: the engine does not take the request.
            StageError: the engine failed, and must be replaced.
        """
        heard, name = Heard(asyncio.get_running_loop()), f"request-{next(self._numbers)}"
        self._put(partial(self._add, name, prompt, wanted, adapter, heard.put))
        finished, pause_s = False, 0.0  # the first token goes out at once
        try:
            while not finished:
                outputs = await heard.take(pause_s)
                pause_s = pace_s
                if isinstance(outputs[-1], Exception):
                    finished = True
                    raise outputs[-1]
                finished = outputs[-1].finished
                if any(map(failed, outputs)):
                    raise _unanswered(wanted)
                yield progress_of(outputs)
        finally:
            if not finished:
                self._put(partial(self._abort, name))

    def ask(
        self,
        prompts: Sequence[Mapping[str, Any]],
        params: Sequence[Any],
        adapter: str | None,
        timeout_s: float,
        *,
        stopped: "Future[None] | None" = None,
    ) -> list[Any]:
        """For threads: vLLM's own outputs to a batch of prompts, in order; `params` are vLLM's own too.

        `stopped`: once it is done, nobody waits any more, and what is in the batch is taken out.

        Raises:
            Refused: the engine does not take one of them.
            StageError: it failed, does not answer in time, or was stopped.
        """
        if stopped is not None and stopped.done():
            raise StageError(STOPPED)
        heard: list[tuple[str, Future[Any]]] = []
        for prompt, wanted in zip(prompts, params, strict=True):
            name, answer = f"batch-{next(self._numbers)}", Future[Any]()
            self._put(partial(self._add, name, prompt, wanted, adapter, at_the_end(answer)))
            heard.append((name, answer))
        deadline = time.monotonic() + timeout_s
        try:
            return [answer_of(answer, deadline, stopped) for _, answer in heard]
        finally:
            for name, _ in heard:
                self._put(partial(self._abort, name))

    def load_adapter(self, name: str, folder: Path, timeout_s: float = 120.0) -> None:
        """Makes an adapter available under a name, and checks on a few tokens that it changes what the engine says.

        A name stands for the same weights for ever, since vLLM caches by name. A name that is known is left as it is.

        Raises:
            ModelError: the folder is no adapter that the engine accepts, or it has no effect there.
            StageError: the engine failed or does not answer in time.
        """
        if name in self._loras:
            return
        self._call(lambda: self._load(name, folder), timeout_s)
        probe = [{"prompt_token_ids": list(self.processor.prompt_ids("Who is that, and why?", False, False))}]
        try:
            base, tuned = (_prompt_logps(self.ask(probe, [_probe()], lora, timeout_s)[0]) for lora in (None, name))
        except AvereError:
            self.drop_adapter(name)
            raise
        if base == tuned:
            self.drop_adapter(name)
            raise ModelError(
                f"adapter {folder} changes nothing in the engine: the same log-probs with and without it. Its weights "
                "may be named for another model class, or be zero. Train it again, or serve another one."
            )

    def drop_adapter(self, name: str) -> None:
        """Takes an adapter back; requests in work that use it go on."""
        self._loras.pop(name, None)

    def close(self) -> None:
        """Ends the engine's thread after the step in work; requests in work are told."""
        self._closing = True
        self._put(lambda: None)
        self._thread.join(timeout=60)

    # The engine's thread -------------------------------------------------------------------------------------------

    def _run(self, start: Callable[[], Any], started: "Future[None]") -> None:
        try:
            self._engine = start()
        except AvereError as error:
            started.set_exception(error)
            return
        finally:
            if self._engine is None and not started.done():
                started.set_exception(ModelError("vLLM cannot start; the log says why"))
        started.set_result(None)
        reason = "the engine failed; its log says why"
        try:
            while not self._closing:
                self._step(self._engine)
            reason = "the engine was closed"
        finally:
            self._fail_all(reason)

    def _step(self, engine: Any) -> None:
        if not engine.has_unfinished_requests():
            self._busy_since = None
            with suppress(queue.Empty):
                command = self._commands.get(timeout=_IDLE_S)
                self._busy_since = time.monotonic()  # a command may hang as a step may
                command()
        self._drain()
        if not engine.has_unfinished_requests():
            return
        self._busy_since = time.monotonic()
        for output in engine.step():
            asked = self._asked.get(output.request_id)
            if asked is None:
                continue
            if output.finished:
                del self._asked[output.request_id]
            asked.hear(output)

    def _fail_all(self, reason: str) -> None:
        self._failure, self._busy_since = reason, None
        for name in list(self._asked):
            self._asked.pop(name).hear(StageError(reason))
        self._drain()  # late commands hear of the failure themselves

    def _add(
        self, name: str, prompt: Mapping[str, Any], wanted: Any, adapter: str | None, hear: Callable[[Any], None]
    ) -> None:
        """Takes a request into the batch; `wanted` is a Wanted, or vLLM's own parameters."""
        if self._failure:
            hear(StageError(self._failure))
            return
        try:
            lora = None if adapter is None else self._loras[adapter]
            [rendered] = self._engine.renderer.render_cmpl([dict(prompt)])
            if isinstance(wanted, Wanted):
                wanted = self._params(wanted, self._answer_tokens(wanted, len(rendered["prompt_token_ids"])))
            self._asked[name] = _Asked(hear)
            self._engine.add_request(name, rendered, wanted, lora_request=lora)
        except Refused as error:
            hear(error)
        except refusals() as error:
            self._abort(name)
            hear(Refused(f"the engine does not take the request: {_first_line(error)}"))

    def _abort(self, name: str) -> None:
        if self._asked.pop(name, None) is not None and not self._failure:
            self._engine.abort_request([name])

    def _load(self, name: str, folder: Path) -> None:
        from vllm.lora.request import LoRARequest

        request = LoRARequest(name, next(self._lora_numbers), str(folder.resolve()))
        try:
            self._engine.add_lora(request)
        except (
            Exception
        ) as error:  # whatever a file of strangers sets off; else it would end the engine, again and again
            raise ModelError(f"the engine does not accept adapter {folder}: {_first_line(error)}") from error
        self._loras[name] = request

    def _answer_tokens(self, wanted: Wanted, prompt_tokens: int) -> int:
        """How long the answer may get after a prompt of so many tokens.

        Raises:
            NoRoom: there is no room for it.
        """
        room = self.max_model_len - prompt_tokens
        tokens = wanted.max_tokens or max(1, min(wanted.default_tokens, room))
        if tokens > room:
            raise NoRoom(
                f"media and words take {prompt_tokens} tokens and the answer may take {tokens}; together allowed are "
                f"{self.max_model_len}"
            )
        return tokens

    def _params(self, wanted: Wanted, tokens: int) -> Any:
        return sampling_params(wanted, tokens, self.processor)

    # Between the threads -------------------------------------------------------------------------------------------

    def _put(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        if self._failure:  # set before the thread looks into its queue for the last time
            self._drain()

    def _drain(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._commands.get_nowait()()

    def _call(self, function: Callable[[], None], timeout_s: float) -> None:
        """Has a function called in the engine's thread, and waits for it."""
        done: Future[None] = Future()

        def command() -> None:
            try:
                if self._failure:
                    raise StageError(self._failure)
                function()
            except (ModelError, StageError) as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._put(command)
        try:
            done.result(timeout=timeout_s)
        except TimeoutError as error:
            raise StageError(f"the engine did not answer within {timeout_s:g} s; it is busy or lost") from error


def _unanswered(wanted: Wanted) -> AvereError:
    """What a caller is told when the engine ends its request with an error; a schema is what it fails on as a rule."""
    if wanted.schema is not None or wanted.json_object:
        return Refused("the engine cannot bind the answer to the JSON schema; simplify it")
    return StageError(CUT)


def _probe() -> Any:
    from vllm import SamplingParams

    return SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)


def _prompt_logps(output: Any) -> list[float]:
    """Log-probs of a prompt's tokens but the first."""
    rows = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return [float(row[token].logprob) for token, row in rows]


def _first_line(error: BaseException) -> str:
    """What an exception says, without the place in a library's source that it names."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return re.sub(r"\[[\d:]+\] \S+:\d+: ", "", line)
