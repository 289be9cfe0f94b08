"""What a step is measured by: seconds of its stages, sums of its pairs' metrics, memory."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STAGES = ("data_wait", "encode", "forward", "backward", "optimizer")
"""What a step's time is divided into; metrics `timing_s/<stage>`, seconds of the first worker."""


class Clock:
    """Seconds spent in each stage since last asked; on GPU it waits for the device."""

    def __init__(self, *, cuda: bool) -> None:
        self._cuda = cuda
        self._spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        if self._cuda:
            import torch

            torch.cuda.synchronize()
        self._spent[stage] = self._spent.get(stage, 0.0) + time.monotonic() - began

    def take(self) -> dict[str, float]:
        """What was spent, and starts again."""
        spent, self._spent = self._spent, {}
        return spent


class Sums:
    """Weighted sums of per-pair metrics, and plain counts; a metric that does not apply to a pair is NaN there."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}
        self.counts: dict[str, int] = {}
        self.gains: Any = None
        """What the text prior's controller wants of this step; None when it wants nothing."""

    def add(self, metrics: dict[str, Any], weights_P: Any) -> None:
        """Adds a micro-batch."""
        for name, values_P in metrics.items():
            applies_P = values_P.isfinite() & (weights_P > 0)
            weighted = (values_P.double().where(applies_P, 0.0) * weights_P.double()).sum().item()
            self._add(name, weighted, weights_P.double().where(applies_P, 0.0).sum().item())

    def gain(self, gains: Any) -> None:
        """Adds what the text prior's controller wants of a micro-batch."""
        if gains is not None:
            self.gains = gains if self.gains is None else self.gains + gains

    def count(self, name: str, value: int) -> None:
        """Adds to a count."""
        self.counts[name] = self.counts.get(name, 0) + value

    def merge(self, other: "Sums") -> None:
        """Adds another worker's."""
        for name, (total, weight) in other.sums.items():
            self._add(name, total, weight)
        for name, value in other.counts.items():
            self.count(name, value)

    def means(self) -> dict[str, float]:
        """Mean of each metric over the pairs it applies to."""
        return {name: total / weight for name, (total, weight) in sorted(self.sums.items()) if weight > 0}

    def _add(self, name: str, total: float, weight: float) -> None:
        before = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (before[0] + total, before[1] + weight)


def peak_bytes() -> int:
    """Most memory this process has had: of the GPU's allocator, else of the process."""
    import torch

    if torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
