"""What a request's caller hears: outputs on their way from the engine's thread to a coroutine, or to another thread.

A coroutine's loop is woken for the first output, for the last one, and for those that are waited for. Each time costs
both threads a wait for Python's lock, as much as a step of a small model.
"""

import asyncio
import collections
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from typing import Any

from avere_ray.engine.progress import failed
from avere_ray.errors import StageError

CUT = "the engine ended the request with an error; its log says why"
STOPPED = "nobody waits for the answer any more"


class Heard:
    """Outputs of one request; what they are is its caller's, but for `finished`, which marks the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outputs: collections.deque[Any] = collections.deque()
        self._waited_for = True
        self._news, self._ended = asyncio.Event(), asyncio.Event()

    def put(self, output: Any) -> None:
        """Takes an output, or the exception that ends them; for the engine's thread."""
        ended = isinstance(output, Exception) or output.finished
        self._outputs.append(output)  # before the look at what is waited for, as `take` does it the other way round
        if ended or self._waited_for:
            with suppress(RuntimeError):  # the caller's loop has ended
                self._loop.call_soon_threadsafe(self._wake, ended)

    async def take(self, pause_s: float) -> list[Any]:
        """What has come, one output at least; waits `pause_s` before, unless the last one is there."""
        if pause_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ended.wait()
        self._waited_for = True
        while not self._outputs:
            await self._news.wait()
            self._news.clear()
        self._waited_for = False
        return [self._outputs.popleft() for _ in range(len(self._outputs))]

    def _wake(self, ended: bool) -> None:
        self._news.set()
        if ended:
            self._ended.set()


def at_the_end(answer: "Future[Any]") -> Callable[[Any], None]:
    """Hears steps, and gives the last one to `answer`."""

    def hear(output: Any) -> None:
        if isinstance(output, Exception) or output.finished:
            answer.set_result(output)

    return hear


def answer_of(answer: "Future[Any]", deadline: float, stopped: "Future[None] | None") -> Any:
    """What `at_the_end` gives, for a thread that waits until `deadline` (time.monotonic), or until `stopped` is done.

    Raises:
        StageError: it does not come in time, nobody wants it any more, or the engine failed on it.
        AvereError: it is one.
    """
    wait([f for f in (answer, stopped) if f is not None], max(0.0, deadline - time.monotonic()), FIRST_COMPLETED)
    if stopped is not None and stopped.done():
        raise StageError(STOPPED)
    if not answer.done():
        raise StageError("the engine did not answer in time; it is busy or lost")
    output = answer.result()
    if isinstance(output, Exception):
        raise output
    if failed(output):
        raise StageError(CUT)
    return output
