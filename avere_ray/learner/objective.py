"""Pairs to losses: trees, log-probs of policy and reference, and the objective of the config."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avere_ray.config import LossConfig
from avere_ray.records import PreferencePair, ReferenceLogps


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One micro-batch after its forward pass."""

    loss_P: Any
    """Loss of each pair, with gradient."""
    metrics: dict[str, Any]
    """Per pair [P], detached; NaN where a metric does not apply to a pair."""
    start_loss_P: Any
    """Loss of each pair without text prior and SFT term, [P]; what the identities of step 0 are about."""
    expected_start_P: Any
    """What it is when the policy equals its reference."""
    tokens: int
    """Tokens of all branches, each counted as if it were run alone."""


def score_pairs(
    forward: Callable[[list[Any]], Any],
    rows: Sequence[Sequence[Any]],
    pairs: Sequence[PreferencePair],
    figures: Mapping[str, ReferenceLogps],
    cfg: LossConfig,
) -> Scored:
    """Loss of each pair of a micro-batch.

    Args:
        forward: rows of samples to the summed response log-prob of every sample, in order.
        rows: the branches of each pair, as `reference.pair_samples` orders them.
        figures: reference figures by pair id.
    """
    import torch

    from avere_ray.learner.guard import start_loss
    from avere_ray.losses import PairLogps, avem_dpo_loss, reject_weights

    flat = forward([list(row) for row in rows])
    scores = flat.split([len(row) for row in rows])
    found = [figures[p.pair_id] for p in pairs]
    width = max(len(p.rejects) for p in pairs)
    policy = PairLogps(
        chosen_P=torch.stack([s[0] for s in scores]),
        rejected_PK=torch.stack(
            [_padded(s[1 : 1 + len(p.rejects)], width) for s, p in zip(scores, pairs, strict=True)]
        ),
        swapped_P=torch.stack([s[-1] if p.swap else s[0] for s, p in zip(scores, pairs, strict=True)]),
    )
    reference = PairLogps(
        chosen_P=flat.new_tensor([f.responses[0] for f in found]),
        rejected_PK=torch.stack([_padded(flat.new_tensor(f.responses[1:]), width) for f in found]),
        swapped_P=flat.new_tensor([f.swapped if p.swap else 0.0 for f, p in zip(found, pairs, strict=True)]),
    )
    prior = torch.stack([_padded(flat.new_tensor(f.text_prior), width + 1) for f in found])
    weights = reject_weights([[r.kind.value for r in p.rejects] for p in pairs], cfg.spurious_weight).to(flat.device)
    has_swap = torch.tensor([p.swap is not None for p in pairs], device=flat.device)

    def loss(gamma: float, sft_weight: float) -> tuple[Any, dict[str, Any]]:
        return avem_dpo_loss(
            policy,
            reference,
            prior,
            weights,
            has_swap,
            beta=cfg.beta,
            lambda_av=cfg.lambda_av,
            gamma=gamma,
            sign=cfg.text_prior_sign,
            sft_weight=sft_weight,
            chosen_tokens_P=flat.new_tensor([len(row[0].token_ids) - row[0].branch.response_start for row in rows]),
        )

    loss_P, metrics = loss(cfg.text_prior_gamma, cfg.sft_weight)
    with torch.no_grad():
        start_P, _ = loss(0.0, 0.0)
    return Scored(
        loss_P=loss_P,
        metrics=metrics,
        start_loss_P=start_P,
        expected_start_P=start_loss(cfg, has_swap),
        tokens=sum(len(sample.token_ids) for row in rows for sample in row),
    )


def _padded(values: Any, width: int) -> Any:
    import torch

    return torch.cat([values, values.new_zeros(width - len(values))])
