"""AVEm-DPO and its parts: tensors in, loss and metrics out.

Source: AVERE (ICLR 2026, arXiv 2602.07054), equations 2 to 9. Notation here:

    rho(y)   = log pi_theta(y | a, v, x) - log pi_ref(y | a, v, x)          summed over response tokens
    margin_y = beta * [ rho(chosen) - sum_i w_i rho(reject_i) ] + sign * gamma * [ lt(chosen) - sum_i w_i lt(reject_i) ]
    margin_m = beta * [ rho(chosen) - rho(chosen | mismatched input) ]
    loss     = -log sigmoid(margin_y) - lambda_av * log sigmoid(margin_m)

with sum_i w_i = 1 and lt(y) = log pi_text(y | x), the log-prob without any media, never differentiated. The paper has
sign = -1: the chosen response has to win by more than the text prior already gives it.

Shape suffixes: P = preference pairs, K = rejects.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLogps:
    """Summed response log-probs (nats) of a batch of pairs, under one model."""

    chosen_P: torch.Tensor
    """log p(chosen | clip, prompt)."""
    rejected_PK: torch.Tensor
    """log p(reject_k | clip, prompt); anything where the pair has no k-th reject."""
    swapped_P: torch.Tensor
    """log p(chosen | mismatched input, prompt); anything where the pair has no mismatched input."""


def avem_dpo_loss(
    policy: PairLogps,
    reference: PairLogps,
    text_prior_P_1K: torch.Tensor,
    weights_PK: torch.Tensor,
    has_swap_P: torch.Tensor,
    *,
    beta: float,
    lambda_av: float,
    gamma: float,
    sign: int = -1,
    sft_weight: float = 0.0,
    chosen_tokens_P: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """AVEm-DPO over a batch of pairs.

    Args:
        policy: log-probs with gradient.
        reference: log-probs of the frozen reference.
        text_prior_P_1K: [P, 1 + K] log-probs without media, chosen first; not differentiated.
        weights_PK: [P, K] weight of each reject, 0 where missing; each row sums to 1.
        has_swap_P: bool [P]; pairs without a mismatched input have no modality term.
        beta: strength of the implicit KL constraint.
        lambda_av: weight of the modality preference.
        gamma: strength of the text-prior penalty.
        sign: -1 as in the paper, +1 for the opposite reading of its derivation.
        sft_weight: weight of the chosen response's mean negative log-prob per token; 0 in the paper. DPO alone may
            raise the margin by lowering both responses; this term holds the chosen one up (RPO, arXiv 2404.19733).
        chosen_tokens_P: length of each chosen response in tokens; needed when sft_weight is above 0.

    Returns:
        The loss of each pair [P], and per-pair metrics [P] under the names of TRL plus `modality/margin` and
        `text_prior/gap`.

    Raises:
        ValueError: a row of weights does not sum to 1, or sft_weight is above 0 without lengths.
    """
    if not torch.allclose(weights_PK.sum(-1), torch.ones_like(weights_PK[:, 0]), atol=1e-5):
        raise ValueError(f"the reject weights of each pair must sum to 1, got {weights_PK.sum(-1).tolist()}")
    present_PK = weights_PK > 0
    rho_chosen_P = policy.chosen_P - reference.chosen_P
    rho_rejected_PK = torch.where(present_PK, policy.rejected_PK - reference.rejected_PK, 0.0)
    response_P = rho_chosen_P - (weights_PK * rho_rejected_PK).sum(-1)
    text_P_1K = text_prior_P_1K.detach()
    text_rejected_P = (weights_PK * torch.where(present_PK, text_P_1K[:, 1:], 0.0)).sum(-1)
    text_gap_P = text_P_1K[:, 0] - text_rejected_P
    margin_y_P = beta * response_P + sign * gamma * text_gap_P
    rho_swapped_P = torch.where(has_swap_P, policy.swapped_P - reference.swapped_P, 0.0)
    margin_m_P = torch.where(has_swap_P, beta * (rho_chosen_P - rho_swapped_P), 0.0)
    loss_y_P = -F.logsigmoid(margin_y_P)
    loss_m_P = torch.where(has_swap_P, -F.logsigmoid(margin_m_P), 0.0)
    loss_P = loss_y_P + lambda_av * loss_m_P
    if sft_weight:
        if chosen_tokens_P is None:
            raise ValueError("sft_weight needs chosen_tokens_P, the lengths of the chosen responses")
        loss_P = loss_P - sft_weight * policy.chosen_P / chosen_tokens_P
    rejected_P = beta * (weights_PK * rho_rejected_PK).sum(-1)
    metrics = {
        "loss": loss_P,
        "loss/response": loss_y_P,
        "loss/modality": loss_m_P,
        "rewards/chosen": beta * rho_chosen_P,
        "rewards/rejected": rejected_P,
        "rewards/margins": beta * response_P,
        "rewards/accuracies": (response_P > 0).float(),
        "logps/chosen": policy.chosen_P,
        "logps/rejected": (weights_PK * torch.where(present_PK, policy.rejected_PK, 0.0)).sum(-1),
        "modality/margin": margin_m_P,
        "text_prior/gap": text_gap_P,
    }
    return loss_P, {name: value.detach() for name, value in metrics.items()}


def reject_weights(kinds: list[list[str]], spurious_weight: float) -> torch.Tensor:
    """Weights [P, K] of the rejects of each pair from their kinds.

    A pair with both kinds gives `spurious_weight` to the spurious and the rest to the hallucinated ones, each shared
    evenly; a pair with one kind gives it all. K is the longest list; missing rejects weigh 0.
    """
    width = max(len(row) for row in kinds)
    weights = torch.zeros(len(kinds), width)
    for p, row in enumerate(kinds):
        counts = {kind: row.count(kind) for kind in row}
        share = {"spurious": spurious_weight, "hallucinated": 1.0 - spurious_weight}
        total = sum(share[kind] for kind in counts)
        for k, kind in enumerate(row):
            weights[p, k] = (share[kind] / total if total else 1.0 / len(counts)) / counts[kind]
    return weights
