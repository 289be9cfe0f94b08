"""mDPO (arXiv 2406.11839): DPO, a conditional preference over the input, and an anchor on the chosen response.

    loss = l(beta * [rho(chosen) - rho(reject)]) + lambda_av * l(beta * [rho(chosen) - rho(chosen | input replaced)])
         + anchor_weight * -log sigmoid(beta * rho(chosen))

In the original the replaced input is a tiny crop of the image and all weights are 1. Here it is the pair's mismatched
input, the modality that the prompt asks about. Several rejects count as in `dpo`.
"""

from dataclasses import dataclass

import torch

from avere_ray.losses.dpo import pairwise_loss
from avere_ray.losses.metrics import Term, only, total
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
class MDpo:
    """The objective `mdpo`; the anchor's weight is among the shared settings."""

    shared: Shared
    lambda_av: float
    """Weight of the conditional preference; 0 leaves its branch out."""

    @property
    def needs(self) -> Needs:
        """The chosen response under the relevant swap."""
        swap = self.lambda_av > 0
        return Needs(relevant=swap, reference_relevant=swap, swap_gradient=swap)

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `terms.Objective`."""
        seen = view(policy, reference, batch, self.shared, self.needs)
        terms, own = {"response": Term(pairwise_loss(seen))}, {}
        if self.lambda_av:
            margin_P = input_margin(seen, seen.policy.relevant_PY, seen.reference.relevant_PY, seen.relevant_P)
            terms["modality"] = Term(preference_loss(margin_P, self.shared), self.lambda_av, seen.relevant_P)
            own["modality/margin"] = only(margin_P, seen.relevant_P)
        return total(seen, terms, own)
