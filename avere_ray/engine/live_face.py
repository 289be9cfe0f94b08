"""A live engine with the methods of `Engine`: queries and clips in, rollouts and log-probs out."""

import time
from concurrent.futures import Future
from typing import Any

from avere_ray.engine.live import LiveEngine, Refused
from avere_ray.engine.omni import EngineFace
from avere_ray.errors import ModelError


class LiveFace(EngineFace):
    """For a thread of its own that asks in batches, with the base or one adapter; what it asks joins the live batch.

    It is for one piece of work: past `timeout_s` seconds, or once it is stopped, nothing is answered any more.
    """

    def __init__(self, live: LiveEngine, adapter: str | None = None, *, timeout_s: float = 300.0) -> None:
        super().__init__(live.processor, live.family, live.rollout)
        self._live = live
        self._adapter = adapter
        self._deadline = time.monotonic() + timeout_s
        self._stopped: Future[None] = Future()

    def stop(self) -> None:
        """Ends the work from another thread: what is in the engine is taken out, what is asked later is refused."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _ask(self, requests: list[dict[str, Any]], params: list[Any]) -> list[Any]:
        """
        Raises:
            ModelError: the engine refuses a request.
            StageError: it failed, does not answer in time, or the work was stopped.
        """
        from vllm.sampling_params import RequestOutputKind

        each = [wanted.clone() for wanted in params]
        for wanted in each:
            wanted.output_kind = RequestOutputKind.FINAL_ONLY
        try:
            left_s = self._deadline - time.monotonic()
            return self._live.ask(requests, each, self._adapter, left_s, stopped=self._stopped)
        except Refused as error:
            raise ModelError(str(error)) from error
