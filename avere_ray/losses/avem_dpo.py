"""AVEm-DPO (AVERE, ICLR 2026, arXiv 2602.07054, equations 2 to 9).

    margin_y = beta * [ rho(chosen) - sum_k w_k rho(reject_k) ] + sign * gamma * [ lt(chosen) - sum_k w_k lt(reject_k) ]
    margin_m = beta * [ rho(chosen) - rho(chosen | relevant modality replaced) ]
    loss     = l(margin_y) + lambda_av * l(margin_m)

with l = -log sigmoid unless another form is asked for. The paper has sign = -1: the chosen response has to win by more
than the text prior already gives it. Pairs without a mismatched input or without a modality tag have no modality term.
"""

from dataclasses import dataclass

import torch

from avere_ray.losses.metrics import Term, only, text_prior_metrics, total
from avere_ray.losses.terms import (
    Needs,
    PairBatch,
    PairLogps,
    Shared,
    input_margin,
    preference_loss,
    view,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AvemDpo:
    """The objective `avem_dpo`."""

    shared: Shared
    lambda_av: float
    """Weight of the modality preference; 0 leaves its branch out."""
    sign: int
    """-1 as in the paper, +1 for the opposite reading of its derivation."""
    text_prior: bool
    """Whether the text prior is used; its strength comes with each batch."""

    @property
    def needs(self) -> Needs:
        """The chosen response under the relevant swap, and the text prior."""
        swap = self.lambda_av > 0
        return Needs(relevant=swap, reference_relevant=swap, swap_gradient=swap, text_prior=self.text_prior)

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `terms.Objective`."""
        seen = view(policy, reference, batch, self.shared, self.needs)
        margin_P, own = self.shared.beta * seen.gap(seen.rho_PY), {}
        if self.text_prior:
            shift_P = self.sign * batch.gamma_P * seen.gap(seen.text_PY)
            margin_P, own = margin_P + shift_P, text_prior_metrics(seen, shift_P)
        terms = {"response": Term(preference_loss(margin_P, self.shared))}
        if self.lambda_av:
            margin_m_P = input_margin(seen, seen.policy.relevant_PY, seen.reference.relevant_PY, seen.relevant_P)
            terms["modality"] = Term(preference_loss(margin_m_P, self.shared), self.lambda_av, seen.relevant_P)
            own["modality/margin"] = only(margin_m_P, seen.relevant_P)
        return total(seen, terms, own)
