"""How long a step takes, and how fast the device can multiply."""

import time
from collections.abc import Callable
from typing import Any

import torch


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int = 8192, repeats: int = 10) -> float:
    """Multiplications and additions per second of a large square product; the best of `repeats`."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2.0 * size**3 / min(seconds_of(lambda: a @ b, device) for _ in range(repeats))


def seconds_of(step: Callable[[], Any], device: torch.device) -> float:
    """Wall seconds of one call; on a GPU until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
