"""A live engine with the methods of `Engine`: queries and clips in, rollouts and log-probs out."""

from typing import Any

from avere_ray.engine.live import LiveEngine, Refused
from avere_ray.engine.omni import EngineFace
from avere_ray.errors import ModelError


class LiveFace(EngineFace):
    """For a thread of its own that asks in batches, with the base or one adapter; what it asks joins the live batch."""

    def __init__(self, live: LiveEngine, adapter: str | None = None, *, timeout_s: float = 300.0) -> None:
        super().__init__(live.processor, live.family, live.rollout)
        self._live = live
        self._adapter = adapter
        self._timeout_s = timeout_s

    def _ask(self, requests: list[dict[str, Any]], params: list[Any]) -> list[Any]:
        """
        Raises:
            ModelError: the engine refuses a request.
            StageError: it failed, or does not answer within `timeout_s`.
        """
        from vllm.sampling_params import RequestOutputKind

        each = [wanted.clone() for wanted in params]
        for wanted in each:
            wanted.output_kind = RequestOutputKind.FINAL_ONLY
        try:
            return self._live.ask(requests, each, self._adapter, self._timeout_s)
        except Refused as error:
            raise ModelError(str(error)) from error
