"""Chunked log-probs and divergences against the obvious computation: values, gradients, and the memory they take."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avere_ray.logprobs import branch_logps, token_kls, token_logps


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


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_divergence_is_that_of_the_reference_from_the_policy(chunk):
    """KL(pi_ref || pi_theta): the expectation is the reference's, and the gradient the policy's alone."""
    torch.manual_seed(0)
    hidden, reference = torch.randn(7, 5, requires_grad=True), torch.randn(7, 5, requires_grad=True)
    weight = torch.randn(11, 5)
    policy, frozen = ((h @ weight.T).log_softmax(-1) for h in (hidden, reference.detach()))
    full = F.kl_div(policy, frozen, log_target=True, reduction="none").sum(-1)
    reverse = F.kl_div(frozen, policy, log_target=True, reduction="none").sum(-1)
    ours = token_kls(hidden, reference, weight, chunk=chunk)
    torch.testing.assert_close(ours, full)
    assert (ours > 0).all() and ((ours - reverse).abs() > 1e-2).any()
    torch.testing.assert_close(*(torch.autograd.grad(x.square().sum(), hidden)[0] for x in (ours, full)))
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(token_kls(hidden, reference, weight, chunk=chunk).sum(), reference)


def test_a_policy_that_is_its_reference_does_not_diverge():
    hidden = torch.randn(4, 5)
    torch.testing.assert_close(token_kls(hidden, hidden, torch.randn(11, 5)), torch.zeros(4))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


R, D, V, CHUNK = 300, 4, 1000, 16
"""Response tokens, width, vocabulary, and tokens whose logits exist at a time."""


@pytest.mark.parametrize("name", ["log-probs", "divergences"])
def test_logits_exist_for_one_chunk_at_a_time_and_none_are_kept(name):
    hidden, weight = torch.randn(R, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    other = torch.randint(0, V, (R,)) if name == "log-probs" else torch.randn(R, D)
    kept = []
    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            if name == "log-probs":
                out = token_logps(hidden, weight, other, chunk=CHUNK)
            else:
                out = token_kls(hidden, other, weight, chunk=CHUNK)
        forward, largest.numel = largest.numel, 0
        out.sum().backward()
    assert CHUNK * V == forward == largest.numel
    assert max(kept) == V * D, "the weights, which are there anyway"


def test_log_probs_are_summed_by_branch():
    logps = torch.tensor([-1.0, -2.0, -4.0])
    assert branch_logps(logps, torch.tensor([0, 2, 0]), 3).tolist() == [-5.0, 0.0, -2.0]
