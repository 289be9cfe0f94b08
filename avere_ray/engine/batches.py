"""Batches of requests that share one vLLM engine: each step works on all of them, so that one fills up what another
leaves free towards its end."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Asking(Generic[_T]):
    """Requests with vLLM's parameters for each, and how their outputs are read."""

    requests: list[dict[str, Any]]
    params: list[Any]
    read: Callable[[Sequence[Any]], _T]


@dataclass(eq=False, slots=True)
class Batch:
    """Requests in work."""

    outputs: list[Any]
    """vLLM's output of each, in the order asked; None until it is finished."""
    left: int = field(init=False)
    """How many are not finished."""

    def __post_init__(self) -> None:
        self.left = len(self.outputs)


class Batches:
    """The requests in work of an engine whose steps are taken here."""

    def __init__(self, engine: Any) -> None:
        """`engine`: vLLM's `LLMEngine`."""
        self._engine = engine
        self._numbers = itertools.count()
        self._open: dict[str, tuple[Batch, int]] = {}

    def begin(self, requests: Sequence[dict[str, Any]], params: Sequence[Any], lora: Any) -> Batch:
        """Takes requests in; all or none.

        Raises:
            whatever vLLM raises for a request that it refuses.
        """
        from vllm.sampling_params import RequestOutputKind

        batch, names = Batch([None] * len(requests)), list[str]()
        try:
            for place, (request, wanted) in enumerate(zip(requests, params, strict=True)):
                [rendered] = self._engine.renderer.render_cmpl([dict(request)])
                final = wanted.clone()
                final.output_kind = RequestOutputKind.FINAL_ONLY
                name = str(next(self._numbers))
                names.append(name)
                self._open[name] = (batch, place)
                self._engine.add_request(name, rendered, final, lora_request=lora)
        except BaseException:
            for name in names:
                del self._open[name]
            self._engine.abort_request(names)
            raise
        return batch

    def step(self) -> None:
        """One step of the engine, for all batches."""
        for output in self._engine.step():
            if output.finished and (found := self._open.pop(output.request_id, None)) is not None:
                batch, place = found
                batch.outputs[place] = output
                batch.left -= 1
