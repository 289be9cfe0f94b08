"""LoRA on CPU: every token gets its own adapter's product, and a token without an adapter gets nothing."""

import pytest
import torch

from avere_ray.engine.cpu_lora import expand, expand_slice, shrink

TOKENS, IN, RANK, OUT, SLOTS = 7, 5, 3, 6, 4
MIXED = torch.tensor([0, -1, 3, 0, 2, -1, 3])


def product(inputs: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Token by token, as it is defined."""
    nothing = torch.zeros(weights.shape[-2])
    pairs = zip(inputs, indices.tolist(), strict=True)
    return torch.stack([weights[i].reshape(weights.shape[-2:]) @ x if i >= 0 else nothing for x, i in pairs])


@pytest.mark.parametrize("indices", [MIXED, torch.full((TOKENS,), 3), torch.full((TOKENS,), -1)])
@pytest.mark.parametrize("stacked", [True, False])
def test_each_token_gets_its_own_adapter(indices: torch.Tensor, stacked: bool) -> None:
    torch.manual_seed(0)
    shape = (SLOTS, 1) if stacked else (SLOTS,)
    a, b = torch.randn(*shape, RANK, IN), torch.randn(*shape, OUT, RANK)
    inputs, before = torch.randn(TOKENS, IN), torch.randn(TOKENS, OUT + 2)
    small = torch.randn(TOKENS, RANK)
    shrink(inputs, a, small, indices, 0.5)
    torch.testing.assert_close(small, 0.5 * product(inputs, a, indices))
    change = product(small, b, indices)

    added = before.clone()
    expand_slice(small, b, added, indices, 1, OUT)
    torch.testing.assert_close(added[:, 1 : 1 + OUT], before[:, 1 : 1 + OUT] + change)
    torch.testing.assert_close(added[:, [0, -1]], before[:, [0, -1]])

    written = before.clone()
    expand_slice(small, b, written, indices, 0, OUT, add_inputs=False)
    torch.testing.assert_close(written[:, :OUT], change)

    whole, narrow = before.clone(), before[:, :4].clone()
    expand(small, b, whole, indices)
    expand(small, b, narrow, indices)
    torch.testing.assert_close(whole[:, :OUT], before[:, :OUT] + change)
    torch.testing.assert_close(narrow, before[:, :4] + change[:, :4])
