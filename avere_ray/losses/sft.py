"""Supervised fine-tuning on the chosen responses alone: what a comparison shows that rejects teach nothing of.

    loss = sft_weight * -(1 / tokens) log pi_theta(chosen | a, v, x)

The term that every other loss can have beside its own (`sft_weight`), without anything else. The rejects are scored for
the metrics; nothing is learned from them.
"""

from dataclasses import dataclass

import torch

from avere_ray.losses.metrics import total
from avere_ray.losses.terms import Needs, PairBatch, PairLogps, Shared, view


@dataclass(frozen=True, kw_only=True, slots=True)
class Sft:
    """The objective `sft`; its weight is among the shared settings."""

    shared: Shared

    @property
    def needs(self) -> Needs:
        """Nothing but the responses given the clip."""
        return Needs()

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `terms.Objective`."""
        return total(view(policy, reference, batch, self.shared, self.needs), {}, {})
