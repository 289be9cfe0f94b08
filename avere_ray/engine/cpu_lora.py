"""vLLM's LoRA operators on CPU, replaced by plain products where all tokens use one adapter."""

from typing import Any


def plain_matmul_for_one_adapter() -> None:
    """Replaces vLLM's CPU LoRA operators where all tokens use one adapter, which is all this engine does.

    vLLM 0.32 copies the adapter's matrices once per token there, which takes three quarters of an engine's time. With
    one adapter the same sums are two plain products. Batches that mix adapters go to vLLM's own operators. The parity
    gate checks the result after every load.
    """
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    if getattr(lora_ops, "_avere_ray_one_adapter", False):
        return
    shrink, expand, expand_slice = lora_ops.bgmv_shrink, lora_ops.bgmv_expand, lora_ops.bgmv_expand_slice

    def one_shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
        matrix = _shared_matrix(weights, indices)
        if matrix is None:
            return shrink(inputs, weights, output, indices, scaling)
        output[:, : matrix.shape[0]] = scaling * (inputs.to(output.dtype) @ matrix.to(output.dtype).T)
        return None

    def one_expand_slice(
        inputs: Any, weights: Any, output: Any, indices: Any, start: int, size: int, add_inputs: bool = True
    ) -> None:
        matrix = _shared_matrix(weights, indices)
        if matrix is None:
            return expand_slice(inputs, weights, output, indices, start, size, add_inputs)
        change = inputs.to(output.dtype) @ matrix.to(output.dtype).T
        target = output[:, start : start + size]
        target.add_(change) if add_inputs else target.copy_(change)
        return None

    for module in (lora_ops, punica_cpu):
        module.bgmv_shrink, module.bgmv_expand_slice, module.bgmv_expand = one_shrink, one_expand_slice, expand
    lora_ops._avere_ray_one_adapter = True


def _shared_matrix(weights: Any, indices: Any) -> Any:
    """The adapter matrix [out, in] that all tokens use; None when they use different ones."""
    first = indices[0]
    if first < 0 or not bool((indices == first).all()):
        return None
    matrix = weights[first]
    return matrix.squeeze(0) if matrix.dim() == 3 else matrix
