"""DeepSpeed: its settings, gradient accumulation over any number of micro-batches, and its state on disk."""

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avere_ray.config import RunConfig
from avere_ray.errors import TrainingError
from avere_ray.learner.checkpoints import STATE


def deepspeed_config(cfg: RunConfig, passes: int) -> dict[str, Any]:
    """DeepSpeed's settings for this run; torch's AdamW, so that nothing has to be compiled for it.

    Args:
        passes: largest number of micro-batches in a step; where a step ends is told to DeepSpeed each time.
    """
    train = cfg.train
    zero: dict[str, Any] = {"stage": train.zero_stage, "overlap_comm": False}
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": train.use_gpu}
    low = cfg.model.dtype == "bfloat16"
    # In bfloat16 the sum of many micro-batches' gradients would lose what is smaller than 1/256 of it. Without ZeRO and
    # in stage 3 DeepSpeed 0.19.8 does not take this (it refuses, and waits for ever).
    sums = {"data_types": {"grad_accum_dtype": "fp32"}} if low and train.zero_stage in (1, 2) else {}
    return {
        **sums,
        "train_micro_batch_size_per_gpu": train.micro_pairs,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": train.max_grad_norm,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train.learning_rate,
                "betas": [0.9, 0.999],
                "eps": 1e-8,
                "weight_decay": train.weight_decay,
                "torch_adam": True,
            },
        },
        "bf16": {"enabled": low},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000,
        "wall_clock_breakdown": False,
    }


def start_engine(module: Any, cfg: RunConfig, passes: int) -> tuple[Any, Any]:
    """DeepSpeed's engine around a module, and its optimizer."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if cfg.train.use_gpu else "cpu")
    import deepspeed

    # Else a CPU worker compiles a shared-memory operator, a minute and a half under a lock that a killed process leaves
    # behind for ever. It sums what inference divides among processes; training reduces through torch.distributed.
    deepspeed.ops.__compatible_ops__ = {}
    engine, optimizer, _, _ = deepspeed.initialize(
        model=module,
        model_parameters=[p for p in module.parameters() if p.requires_grad],
        config=deepspeed_config(cfg, passes),
    )
    return engine, optimizer


def accumulate(engine: Any, loss: Any, *, last: bool) -> None:
    """The backward pass of one micro-batch; `last` ends the accumulation, so that gradients are ready for `step`.

    DeepSpeed averages the gradient over workers only; every other weight belongs into `loss`.
    """
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss, scale_wrt_gas=False)
    if not last:
        engine.step()  # counts the micro-batch, changes nothing


def grad_norm(engine: Any) -> Any:
    """The gradient's norm before the step clips it, where DeepSpeed itself does not tell it afterwards: without ZeRO in
    float32; else None. The workers have exchanged their gradients by then."""
    import torch

    if engine.zero_optimization_stage() or engine.bfloat16_enabled():
        return None
    grads = [p.grad.float() for p in engine.module.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))


@contextmanager
def gathered(parameters: Iterable[Any], *, zero_stage: int) -> Iterator[None]:
    """The whole of parameters that ZeRO-3 has divided; all workers must enter."""
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters), enabled=zero_stage == 3):
        yield


def save_state(engine: Any, folder: Path, rank: int) -> None:
    """Writes trained weights, optimizer and random number generators; all workers take part, each its shard."""
    import torch

    engine.save_checkpoint(str(folder), tag=STATE, save_latest=False, exclude_frozen_parameters=True)
    torch.save(_generators(), folder / f"rng-{rank}.pt")
    if rank == 0:
        for script in folder.glob("zero_to_*.py"):  # DeepSpeed's converters; the adapter is there already
            script.unlink()


def load_state(engine: Any, folder: Path, rank: int) -> None:
    """Sets what `save_state` wrote; frozen weights keep their values.

    Raises:
        TrainingError: DeepSpeed does not take it.
    """
    import torch

    path, _ = engine.load_checkpoint(str(folder), tag=STATE, load_module_strict=False)
    if path is None:
        raise TrainingError(f"DeepSpeed cannot read its state in {folder / STATE}. Delete {folder} to go on before it.")
    _set_generators(torch.load(folder / f"rng-{rank}.pt", weights_only=False))


def _generators() -> dict[str, Any]:
    import numpy as np
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def _set_generators(states: dict[str, Any]) -> None:
    import numpy as np
    import torch

    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
