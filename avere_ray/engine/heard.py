"""What a request's caller hears: outputs on their way from the engine's thread to a coroutine.

The coroutine's loop is woken for the first output, for the last one, and for those that are waited for. Each time costs
both threads a wait for Python's lock, as much as a step of a small model.
"""

import asyncio
import collections
from contextlib import suppress
from typing import Any


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
