"""Vista-DPO (VistaDPO, arXiv 2504.13122), carried over to audio and video.

    L_r  = l( beta * [ rho(chosen) - sum_k w_k rho(reject_k) ] )                    sentence; w = .7 and .3
    L_v  = l( beta * [ rho(chosen) - rho(chosen | input replaced) ] )               input
    L_t  = -log sigmoid( beta * [ m - alpha * k ] )                                 token: TDPO2, arXiv 2404.11999
           m = the response margin of L_r,  k = sum_k w_k KL(reject_k) - stop(KL(chosen))
    loss = L_r + lambda_av * L_v(relevant) + lambda_other * L_v(irrelevant) + token_weight * L_t

KL(y) is summed over the tokens of y. The original has video alone and replaces it whatever is asked; here both
modalities can be replaced, the one that the prompt asks about and the other, each with its weight. Its clip and object
levels need a second cut of each clip and boxes, which the pairs here do not have; the published code also leaves both
out, and the weight of L_v at 1, for samples without them.

`released` computes what the published code (HaroldChen19/VistaDPO at 61796f6) does instead. Values and gradients differ
from the above in this: the irrelevant (here: hallucinated) rejects are not differentiated; the reference's rejects are
not weighted, which shifts the margin by a constant; the input terms are not differentiated at all; the token term sees
only the relevant (here: spurious) rejects and has beta = .1 whatever `beta` is.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from avere_ray.losses.metrics import Term, only, total
from avere_ray.losses.rejects import of_kind
from avere_ray.losses.terms import (
    Needs,
    PairBatch,
    PairLogps,
    Shared,
    View,
    input_margin,
    preference_loss,
    view,
)
from avere_ray.records import RejectKind

RELEASED_TOKEN_BETA = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class VistaDpo:
    """The objective `vista_dpo`."""

    shared: Shared
    lambda_av: float
    """Weight of the preference over the input whose relevant modality is replaced."""
    lambda_other: float
    """Weight of the same with the irrelevant modality replaced."""
    token_weight: float
    """Weight of the token term."""
    token_alpha: float
    """Weight of the sequence KL within the token term."""
    released: bool
    """Compute what the published code does."""

    @property
    def needs(self) -> Needs:
        """The chosen response under both swaps, and the sequence KL; each only if its weight is above 0."""
        relevant, other = self.lambda_av > 0, self.lambda_other > 0
        return Needs(
            relevant=relevant,
            reference_relevant=relevant,
            irrelevant=other,
            reference_irrelevant=other,
            token_kl=self.token_weight > 0,
            swap_gradient=(relevant or other) and not self.released,
        )

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `terms.Objective`."""
        seen = view(policy, reference, batch, self.shared, self.needs)
        terms = {"response": Term(preference_loss(self._sentence(seen), self.shared))}
        own: dict[str, torch.Tensor] = {}
        inputs = {
            "modality": (self.lambda_av, seen.policy.relevant_PY, seen.reference.relevant_PY, seen.relevant_P),
            "other": (self.lambda_other, seen.policy.irrelevant_PY, seen.reference.irrelevant_PY, seen.irrelevant_P),
        }
        for name, (weight, own_PY, frozen_PY, mask_P) in inputs.items():
            if weight:
                margin_P = input_margin(seen, own_PY, frozen_PY, mask_P)
                margin_P = margin_P.detach() if self.released else margin_P
                terms[name] = Term(preference_loss(margin_P, self.shared), weight, mask_P)
                own["modality/margin" if name == "modality" else "modality/other_margin"] = only(margin_P, mask_P)
        if self.token_weight:
            terms["token"] = Term(self._token(seen), self.token_weight)
        return total(seen, terms, own)

    def _sentence(self, seen: View) -> torch.Tensor:
        """Margin of L_r."""
        if not self.released:
            return self.shared.beta * seen.gap(seen.rho_PY)
        logps_PY, frozen_PY = seen.policy.clean_PY, seen.reference.clean_PY
        rejected_PK = torch.where(self._hallucinated(seen), logps_PY[:, 1:].detach(), logps_PY[:, 1:])
        margin_P = logps_PY[:, 0] - seen.weighted(rejected_PK)
        return self.shared.beta * (margin_P - (frozen_PY[:, 0] - frozen_PY[:, 1:].sum(-1)))

    def _token(self, seen: View) -> torch.Tensor:
        """L_t, with the sigmoid form whatever the form of the others."""
        assert seen.policy.kl_PY is not None
        weights_PK, beta = seen.batch.weights_PK, self.shared.beta
        if self.released:
            beta, weights_PK = RELEASED_TOKEN_BETA, self._relevant_only(seen)
        margin_P = seen.rho_PY[:, 0] - (weights_PK * seen.rho_PY[:, 1:]).sum(-1)
        kl_PY = seen.policy.kl_PY
        kl_P = (weights_PK * kl_PY[:, 1:]).sum(-1) - kl_PY[:, 0].detach()
        return -F.logsigmoid(beta * (margin_P - self.token_alpha * kl_P))

    def _relevant_only(self, seen: View) -> torch.Tensor:
        """The weights without the hallucinated rejects; unchanged for pairs that have no others."""
        kept_PK = torch.where(self._hallucinated(seen), 0.0, seen.batch.weights_PK)
        sums_P1 = kept_PK.sum(-1, keepdim=True)
        return torch.where(sums_P1 > 0, kept_PK / sums_P1.clamp(min=1e-12), seen.batch.weights_PK)

    def _hallucinated(self, seen: View) -> torch.Tensor:
        return of_kind(seen.batch.reject_kinds, RejectKind.HALLUCINATED.value, seen.batch.weights_PK)
