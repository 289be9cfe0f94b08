"""vLLM's LoRA operators on CPU, replaced by plain products, one for each adapter that a batch uses.

vLLM 0.32 copies the adapter's matrices once per token there, which takes three quarters of an engine's time. The same
sums are two plain products per adapter. It also takes tokens without an adapter (index -1) for the last slot's, so
that in a batch of base and adapters the base answers with an adapter once every slot is used; here they get nothing.
The parity gate checks the result after every load.
"""

from collections.abc import Iterator
from typing import Any


def plain_matmul_for_adapters() -> None:
    """Replaces vLLM's operators in this process, once."""
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    for module in (lora_ops, punica_cpu):
        module.bgmv_shrink, module.bgmv_expand, module.bgmv_expand_slice = shrink, expand, expand_slice


def shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
    """output [T, :R] = scaling * inputs [T, I] @ weights[index] [R, I]^T; 0 for tokens without an adapter.

    `weights`: [slots, R, I] or [slots, 1, R, I]; `indices`: int [T], the slot of each token's adapter, -1 for none.
    """
    rank = weights.shape[-2]
    if (shared := _shared(indices)) is not None:
        output[:, :rank] = scaling * _product(inputs, weights, shared, output.dtype)
        return
    output[:, :rank] = 0
    for slot, tokens in _groups(indices):
        output[tokens, :rank] = scaling * _product(inputs[tokens], weights, slot, output.dtype)


def expand(inputs: Any, weights: Any, output: Any, indices: Any, add_inputs: bool = True) -> None:
    """As `expand_slice` over all columns that product and output [T, O] have both."""
    expand_slice(inputs, weights, output, indices, 0, min(weights.shape[-2], output.shape[1]), add_inputs)


def expand_slice(
    inputs: Any, weights: Any, output: Any, indices: Any, start: int, size: int, add_inputs: bool = True
) -> None:
    """output [T, start : start + size] (+)= inputs [T, R] @ weights[index] [O, R]^T; none: 0."""
    target = output[:, start : start + size]
    if (shared := _shared(indices)) is not None:
        change = _product(inputs, weights, shared, output.dtype)[:, :size]
        target.add_(change) if add_inputs else target.copy_(change)
        return
    if not add_inputs:
        target.zero_()
    for slot, tokens in _groups(indices):
        target[tokens] += _product(inputs[tokens], weights, slot, output.dtype)[:, :size]


def _product(inputs: Any, weights: Any, slot: Any, dtype: Any) -> Any:
    matrix = weights[slot]
    matrix = matrix.squeeze(0) if matrix.dim() == 3 else matrix
    return inputs.to(dtype) @ matrix.to(dtype).T


def _shared(indices: Any) -> int | None:
    """The slot that all tokens use; None when they use different ones, or some none."""
    first = int(indices[0])
    return first if first >= 0 and bool((indices == first).all()) else None


def _groups(indices: Any) -> Iterator[tuple[int, Any]]:
    """Each slot in use with its tokens, int64 [n]."""
    for slot in indices.unique().tolist():
        if slot >= 0:
            yield int(slot), (indices == slot).nonzero(as_tuple=True)[0]
