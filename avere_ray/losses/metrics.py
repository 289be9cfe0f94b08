"""The metrics of every loss, under the names that users of TRL graph, and the sum of its terms.

Each metric is [P], NaN where it does not apply to a pair. Names with a modality at the end are the same figure for the
pairs of that modality alone. Rewards are beta * rho; `logps/*` are always sums over tokens, so that runs compare.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from avere_ray.losses.rejects import of_kind
from avere_ray.losses.terms import MODALITIES, View
from avere_ray.records import RejectKind

BY_MODALITY = (
    "loss",
    "rewards/chosen",
    "rewards/margins",
    "rewards/accuracies",
    "modality/margin",
    "modality/other_margin",
    "text_prior/gap",
    "text_prior/gamma",
)
"""Metrics that are also given for each modality: `rewards/margins_audio`, `modality/margin_video`, ..."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a loss."""

    loss_P: torch.Tensor
    weight: float = 1.0
    mask_P: torch.Tensor | None = None
    """bool: the pairs that have this term; None means all."""


def total(
    seen: View, terms: dict[str, Term], own: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The weighted sum of the terms, anchor and SFT included, and all metrics.

    Args:
        seen: the batch.
        terms: the loss's own terms by name.
        own: the loss's own metrics [P].
    """
    terms = terms | _held(seen)
    loss_P = torch.zeros_like(seen.rho_PY[:, 0])
    parts: dict[str, torch.Tensor] = {}
    for name, term in terms.items():
        parts[f"loss/{name}"] = term.loss_P if term.mask_P is None else only(term.loss_P, term.mask_P)
        counted_P = term.loss_P if term.mask_P is None else torch.where(term.mask_P, term.loss_P, 0.0)
        loss_P = loss_P + term.weight * counted_P
    metrics = {"loss": loss_P, **parts, **_rewards(seen), **own}
    return loss_P, {name: value.detach() for name, value in (metrics | _by_modality(seen, metrics)).items()}


def only(values_P: torch.Tensor, mask_P: torch.Tensor) -> torch.Tensor:
    """The values of the pairs in the mask, NaN for the others."""
    return torch.where(mask_P, values_P, math.nan)


def text_prior_metrics(seen: View, shift_P: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far the text prior is from the preference, and what that changes.

    Args:
        seen: the batch.
        shift_P: what the penalty adds to the response margin.
    """
    gap_P = seen.gap(seen.text_PY)
    return {
        "text_prior/gap": gap_P,
        "text_prior/favours_chosen": (gap_P > 0).to(gap_P.dtype),
        "text_prior/shift": shift_P,
        "text_prior/gamma": seen.batch.gamma_P.to(gap_P.dtype),
    }


def _held(seen: View) -> dict[str, Term]:
    """The terms that hold the chosen response up, where they are asked for."""
    shared, terms = seen.shared, {}
    if shared.anchor_weight:
        terms["anchor"] = Term(-F.logsigmoid(shared.beta * seen.rho_PY[:, 0]), shared.anchor_weight)
    if shared.sft_weight:
        terms["sft"] = Term(-seen.summed.clean_PY[:, 0] / seen.batch.tokens_PY[:, 0], shared.sft_weight)
    return terms


def _rewards(seen: View) -> dict[str, torch.Tensor]:
    beta, rho_PY = seen.shared.beta, seen.rho_PY
    response_P = seen.gap(rho_PY)
    rejected_PK = torch.where(seen.present_PK, seen.summed.clean_PY[:, 1:], 0.0)
    found = {
        "rewards/chosen": beta * rho_PY[:, 0],
        "rewards/rejected": beta * seen.weighted(rho_PY[:, 1:]),
        "rewards/margins": beta * response_P,
        "rewards/accuracies": (response_P > 0).to(response_P.dtype),
        "logps/chosen": seen.summed.clean_PY[:, 0],
        "logps/rejected": seen.weighted(rejected_PK),
    }
    for kind in RejectKind:
        mask_PK = of_kind(seen.batch.reject_kinds, kind.value, rho_PY[:, 1:])
        count_P = mask_PK.sum(-1)
        mean_P = torch.where(mask_PK, rho_PY[:, 1:], 0.0).sum(-1) / count_P.clamp(min=1)
        found[f"rewards/{kind.value}"] = only(beta * mean_P, count_P > 0)
    return found


def _by_modality(seen: View, metrics: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for modality in MODALITIES:
        mask_P = torch.tensor([tag == modality for tag in seen.tags], device=seen.rho_PY.device)
        found |= {f"{name}_{modality}": only(metrics[name], mask_P) for name in BY_MODALITY if name in metrics}
    return found
