"""Token and sequence log-probabilities, computed only where a response token is predicted.

Legend: R = response tokens of a batch, D = model dimension, V = vocabulary, Y = branches.
"""

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


def token_logps(
    hidden_RD: torch.Tensor, weight_VD: torch.Tensor, target_R: torch.Tensor, *, chunk: int = 1024
) -> torch.Tensor:
    """Log-prob (nats, float32) of each target token, [R].

    The logits exist for `chunk` tokens at a time and are computed again in the backward pass, so no [R, V] tensor is
    kept. The product is in the weights' dtype, as in the engines (bfloat16: a logit near 20 is rounded by up to 0.06);
    everything after it is in float32.
    """
    parts = [
        checkpoint(_chunk_logps, h, weight_VD, t, use_reentrant=False)
        for h, t in zip(hidden_RD.split(chunk), target_R.split(chunk), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_RD.new_zeros(0, dtype=torch.float32)


def _chunk_logps(hidden_RD: torch.Tensor, weight_VD: torch.Tensor, target_R: torch.Tensor) -> torch.Tensor:
    logits_RV = F.linear(hidden_RD, weight_VD).float()
    return logits_RV.gather(-1, target_R[:, None])[:, 0] - logits_RV.logsumexp(-1)


def token_kls(
    hidden_RD: torch.Tensor, reference_RD: torch.Tensor, weight_VD: torch.Tensor, *, chunk: int = 1024
) -> torch.Tensor:
    """KL(pi_ref || pi_theta) over the vocabulary where each response token is predicted (nats, float32), [R].

    Both models share the output layer. Differentiated in `hidden_RD` alone; memory as in `token_logps`.
    """
    parts = [
        checkpoint(_chunk_kls, h, r, weight_VD, use_reentrant=False)
        for h, r in zip(hidden_RD.split(chunk), reference_RD.detach().split(chunk), strict=True)
    ]
    return torch.cat(parts) if parts else hidden_RD.new_zeros(0, dtype=torch.float32)


def _chunk_kls(hidden_RD: torch.Tensor, reference_RD: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
    ours_RV, theirs_RV = (F.linear(h, weight_VD).float().log_softmax(-1) for h in (hidden_RD, reference_RD))
    return (theirs_RV.exp() * (theirs_RV - ours_RV)).sum(-1)


def branch_logps(token_logps_R: torch.Tensor, branch_R: torch.Tensor, num_branches: int) -> torch.Tensor:
    """Summed log-prob of each branch's response, [Y]."""
    return token_logps_R.new_zeros(num_branches).index_add(0, branch_R, token_logps_R)
