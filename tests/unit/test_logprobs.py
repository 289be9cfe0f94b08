"""Chunked log-probs against the obvious computation, values and gradients."""

import pytest
import torch

from avere_ray.logprobs import branch_logps, token_logps


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunked_log_probs_equal_a_full_log_softmax(chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    target = torch.randint(0, 11, (7,))
    full = (hidden @ weight.T).log_softmax(-1)[torch.arange(7), target]
    grads = torch.autograd.grad(full.square().sum(), (hidden, weight))
    ours = token_logps(hidden, weight, target, chunk=chunk)
    torch.testing.assert_close(ours, full)
    for mine, theirs in zip(torch.autograd.grad(ours.square().sum(), (hidden, weight)), grads, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_log_probs_are_summed_by_branch():
    logps = torch.tensor([-1.0, -2.0, -4.0])
    assert branch_logps(logps, torch.tensor([0, 2, 0]), 3).tolist() == [-5.0, 0.0, -2.0]
