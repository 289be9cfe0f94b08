"""What stops a run before the optimizer steps, on all workers at once, in words that name the samples.

Each worker watches its own losses and gradients. Before every optimizer step the workers tell each other what they saw
(`agree`), so either all step or all raise the same error, and nobody waits for one that has left.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from avere_ray.errors import TrainingError
from avere_ray.records import PreferencePair

ROUNDING = {"float32": 1e-2, "bfloat16": 2.0}
"""How far the summed log-probs (nats) of two forward passes over one response may be apart, by dtype: the reference's
rows are packed in another way. Those of another model are tens of nats apart."""

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|bad alloc", re.IGNORECASE)
_NAMED = 5


class Watch:
    """Sees the gradients of the trained parameters as they are computed, before workers or micro-batches mix them."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        import torch

        self._finite: Any = torch.ones((), dtype=torch.bool)
        self.bad: dict[str, str] = {}
        for parameter in parameters:
            parameter.register_hook(self._see)

    def _see(self, gradient: Any) -> None:
        import torch

        ok = torch.isfinite(gradient.detach().sum(dtype=torch.float32))
        self._finite = ok & self._finite.to(ok.device)

    @contextmanager
    def micro_batch(self, pairs: Sequence[PreferencePair]) -> Iterator[None]:
        """Notes the pairs when a gradient of this block is not finite.

        Raises:
            TrainingError: there was not enough memory; names the pairs and the setting to lower.
        """
        import torch

        self._finite = torch.ones((), dtype=torch.bool)
        with _memory(micro_batch_message(pairs)):
            yield
        if not bool(self._finite):
            for pair in pairs:
                self.bad.setdefault(pair.pair_id, "gradient")

    def losses(self, loss_P: Any, pairs: Sequence[PreferencePair]) -> None:
        """Notes the pairs whose loss is not finite."""
        for pair, ok in zip(pairs, loss_P.detach().isfinite().tolist(), strict=True):
            if not ok:
                self.bad[pair.pair_id] = "loss"

    def identity(self, loss_P: Any, expected_P: Any, pairs: Sequence[PreferencePair], allowed: float) -> None:
        """Notes the pairs whose loss at step 0 is further than `allowed` from what a policy equal to its reference has;
        see `ROUNDING`."""
        for pair, value, exact in zip(pairs, loss_P.tolist(), expected_P.tolist(), strict=True):
            if not abs(value - exact) <= allowed:
                self.bad.setdefault(pair.pair_id, f"identity: {value:.6f} instead of {exact:.6f}")


def optimizer_step(pairs: Sequence[PreferencePair]) -> AbstractContextManager[None]:
    """Within it the optimizer steps; its first step makes its state.

    Raises:
        TrainingError: there was not enough memory; names the pairs and the setting to lower.
    """
    return _memory(step_message(pairs))


@contextmanager
def _memory(message: str) -> Iterator[None]:
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, torch.OutOfMemoryError | MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        raise TrainingError(message) from error


def agree(mine: dict[str, Any]) -> list[dict[str, Any]]:
    """What every worker has to say, by rank; one collective."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def refuse(bad: dict[str, str], step: int) -> None:
    """Stops when any worker saw something wrong.

    Raises:
        TrainingError: names the pairs, what was wrong and what to do.
    """
    if not bad:
        return
    what = next(iter(sorted(bad.values(), reverse=True)))  # a loss explains its gradients
    named = [pair_id for pair_id, why in sorted(bad.items()) if why.split(":")[0] == what.split(":")[0]]
    ids = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
    if what.startswith("identity"):
        raise TrainingError(
            f"at step {step} the policy is its own reference, but the loss of {len(named)} pair(s) says otherwise: "
            f"{ids} ({what.removeprefix('identity: ')}). The reference figures are of another base, dtype or sampling "
            "spec; delete the reference folder of this round and run again."
        )
    remedy = (
        "Lower train.learning_rate, or look at these pairs."
        if step
        else ("Nothing was learned yet: look at these pairs, their reference figures and model.dtype.")
    )
    raise TrainingError(
        f"the {what} is not finite at step {step} for pair(s) {ids}; the optimizer step was not taken. {remedy}"
    )


def micro_batch_message(pairs: Sequence[PreferencePair]) -> str:
    """What to say when a micro-batch does not fit."""
    if len(pairs) > 1:
        lower = f"Lower train.micro_pairs (this micro-batch had {len(pairs)} pairs) or set train.tokens_per_micro lower"
    else:
        lower = "Lower train.max_prompt_tokens or train.max_response_tokens, or data.decode.frames"
    named = f"out of memory in the micro-batch of pair(s) {_names(pairs)}"
    return f"{named}. {lower}; train.zero_stage 3 divides the weights too."


def step_message(pairs: Sequence[PreferencePair]) -> str:
    """What to say when the optimizer's state does not fit beside the weights."""
    return (
        f"out of memory in the optimizer step of pair(s) {_names(pairs)}. Its state is as large as what is trained: "
        "lower train.lora_rank, or set train.tuning to lora; train.offload_optimizer keeps it in host memory, and "
        "train.zero_stage 1 to 3 divides it among the workers."
    )


def _names(pairs: Sequence[PreferencePair]) -> str:
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return ", ".join(p.pair_id for p in pairs[:_NAMED]) + more
