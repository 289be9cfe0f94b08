"""Naive DPO (Rafailov et al., arXiv 2305.18290), and what it makes of several rejects.

    loss = sum_k w_k * l( beta * [ rho(chosen) - rho(reject_k) ] )

with l as in `terms.preference_loss`. Each reject is a pair of its own, as if the data had been written out pair by
pair, and the weights only keep a prompt with many rejects from counting more. With one reject it is plain DPO.
(AVEm-DPO without its other terms puts the weighted rejects into one margin instead.)
"""

from dataclasses import dataclass

import torch

from avere_ray.losses.metrics import Term, total
from avere_ray.losses.terms import Needs, PairBatch, PairLogps, Shared, View, preference_loss, view


@dataclass(frozen=True, kw_only=True, slots=True)
class Dpo:
    """The objective `dpo`."""

    shared: Shared

    @property
    def needs(self) -> Needs:
        """Nothing but the responses given the clip."""
        return Needs()

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `terms.Objective`."""
        seen = view(policy, reference, batch, self.shared, self.needs)
        return total(seen, {"response": Term(pairwise_loss(seen))}, {})


def pairwise_loss(seen: View) -> torch.Tensor:
    """Weighted mean over a pair's rejects of the DPO loss against each."""
    return seen.weighted(preference_loss(seen.shared.beta * seen.ratios(seen.rho_PY), seen.shared))
