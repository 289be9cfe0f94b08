"""MoD-DPO and MoD-DPO++ (arXiv 2603.03192, equations 5 to 12).

The objective behind it rewards the preference, keeps the policy near the reference (beta), near its own answers when
the irrelevant modality is replaced (beta_inv), and away from its own answers when the relevant one is (beta_sens). With
LR_q = log q(chosen) - log q(reject) and pi' a copy of the policy that is not differentiated:

    tau    = beta + beta_inv - beta_sens
    margin = tau * LR_theta - beta * LR_ref - beta_inv * LR_pi'(irrelevant replaced)
             + beta_sens * LR_pi'(relevant replaced)  [ + sign * gamma * LR_text ]     ++ only; the paper has sign = -1
    loss   = sum_k w_k * l(margin_k)

If neither replacement changes anything the margin's value is DPO's, but its gradient is tau / beta times as large.
Pairs without one of the two inputs (audio-visual prompts have no irrelevant modality) drop that KL term, from tau too.
The paper alternates batches of audio and of video prompts and adds their losses; here a batch mixes them and the mean
is taken over pairs. Several rejects count as in `dpo`.
"""

from dataclasses import dataclass

import torch

from avere_ray.losses.metrics import Term, only, text_prior_metrics, total
from avere_ray.losses.terms import Needs, PairBatch, PairLogps, Shared, View, preference_loss, view


@dataclass(frozen=True, kw_only=True, slots=True)
class ModDpo:
    """The objectives `mod_dpo` and, with the text prior, `mod_dpo_pp`."""

    shared: Shared
    beta_inv: float
    """Strength of the invariance to the irrelevant modality; 0 leaves its branches out."""
    beta_sens: float
    """Strength of the sensitivity to the relevant modality; 0 leaves its branches out."""
    text_prior: bool = False
    """Whether the text prior is used; its strength comes with each batch."""
    sign: int = -1
    """Sign of the text prior in the margin."""

    @property
    def needs(self) -> Needs:
        """All responses under both swaps, without gradient and without the reference."""
        inv, sens = self.beta_inv > 0, self.beta_sens > 0
        return Needs(
            relevant=sens,
            relevant_rejects=sens,
            irrelevant=inv,
            irrelevant_rejects=inv,
            text_prior=self.text_prior,
        )

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `terms.Objective`."""
        seen = view(policy, reference, batch, self.shared, self.needs)
        margin_PK, own = self._margin(seen)
        if self.text_prior:
            shift_PK = self.sign * batch.gamma_P[:, None] * seen.ratios(seen.text_PY)
            margin_PK = margin_PK + shift_PK
            own |= text_prior_metrics(seen, seen.weighted(shift_PK))
        return total(seen, {"response": Term(seen.weighted(preference_loss(margin_PK, self.shared)))}, own)

    def _margin(self, seen: View) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Margin [P, K] without the text prior, and how much the replacements change the preference.

        `modality/margin` is beta times the change of LR when the relevant modality is replaced, `modality/other_margin`
        the same for the irrelevant one: the first should grow, the second stay near 0.
        """
        beta = self.shared.beta
        clean_PK = seen.ratios(seen.policy.clean_PY)
        margin_PK = beta * (clean_PK - seen.ratios(seen.reference.clean_PY))
        inputs = {
            "modality/margin": (-self.beta_sens, seen.policy.relevant_PY, seen.relevant_P),
            "modality/other_margin": (self.beta_inv, seen.policy.irrelevant_PY, seen.irrelevant_P),
        }
        own = {}
        for name, (strength, replaced_PY, mask_P) in inputs.items():
            if strength:
                assert replaced_PY is not None
                change_PK = clean_PK - seen.ratios(replaced_PY.detach())
                margin_PK = margin_PK + strength * torch.where(mask_P[:, None], change_PK, 0.0)
                own[name] = only(beta * seen.weighted(change_PK), mask_P)
        return margin_PK, own
