"""The loss that the learner's benchmarks take a step on."""

import torch

from avere_ray.losses import PairLogps, avem_dpo_loss


def step_loss(policy_4: torch.Tensor, reference_4: torch.Tensor) -> torch.Tensor:
    """AVEm-DPO of one pair: chosen, two rejects, chosen under the swapped input."""

    def logps(values: torch.Tensor) -> PairLogps:
        return PairLogps(chosen_P=values[:1], rejected_PK=values[None, 1:3], swapped_P=values[3:])

    text = torch.tensor([[-20.0, -22.0, -19.0]], device=policy_4.device)
    weights = torch.full((1, 2), 0.5, device=policy_4.device)
    swapped = torch.ones(1, dtype=torch.bool, device=policy_4.device)
    loss_P, _ = avem_dpo_loss(
        logps(policy_4), logps(reference_4), text, weights, swapped, beta=0.1, lambda_av=1.0, gamma=0.2
    )
    return loss_P.mean()
