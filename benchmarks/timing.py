"""How long a step takes."""

import time
from collections.abc import Callable
from typing import Any

import torch


def seconds_of(step: Callable[[], Any], device: torch.device) -> float:
    """Wall seconds of one call; on a GPU until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
