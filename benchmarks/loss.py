"""The losses that the learner's benchmarks take a step on; plain settings, so that a bare machine can run them."""

import torch

from avere_ray.losses import AvemDpo, Dpo, Objective, PairBatch, PairLogps, Shared

BETA, LAMBDA_AV, GAMMA = 0.1, 1.0, 0.2
"""AVEm-DPO's published settings."""


def avem_dpo() -> Objective:
    """The loss of `benchmarks.learner_step`."""
    return AvemDpo(shared=Shared(beta=BETA), lambda_av=LAMBDA_AV, sign=-1, text_prior=True)


def plain_dpo() -> Objective:
    """The loss of `benchmarks.trl_step`, which TRL has too."""
    return Dpo(shared=Shared(beta=BETA))


def step_loss(policy_4: torch.Tensor, reference_4: torch.Tensor) -> torch.Tensor:
    """AVEm-DPO of one pair: chosen, two rejects, chosen under the swapped input."""

    def logps(values: torch.Tensor) -> PairLogps:
        return PairLogps(clean_PY=values[None, :3], relevant_PY=values[None, [3, 3, 3]])

    device = policy_4.device
    batch = PairBatch(
        weights_PK=torch.full((1, 2), 0.5, device=device),
        tokens_PY=torch.full((1, 3), 100.0, device=device),
        text_prior_PY=torch.tensor([[-20.0, -22.0, -19.0]], device=device),
        modality=("audio",),
        has_relevant_P=torch.ones(1, dtype=torch.bool, device=device),
        has_irrelevant_P=torch.zeros(1, dtype=torch.bool, device=device),
        reject_kinds=(("spurious", "hallucinated"),),
        gamma_P=torch.full((1,), GAMMA, device=device),
    )
    loss_P, _ = avem_dpo()(logps(policy_4), logps(reference_4), batch)
    return loss_P.mean()
