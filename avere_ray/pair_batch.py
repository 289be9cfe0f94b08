"""What a loss takes of a batch of pairs: log-probs of policy and reference as tables, and what is known of each pair.

Shape suffixes: P = pairs, K = rejects, Y = 1 + K responses, chosen first.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from avere_ray.backbones.types import Sample
from avere_ray.branches import ByBranch
from avere_ray.losses import PairBatch, PairLogps, reject_weights
from avere_ray.records import PreferencePair

if TYPE_CHECKING:
    from avere_ray.config import LossConfig


def loss_inputs(
    pairs: Sequence[PreferencePair],
    rows: Sequence[ByBranch[Sample]],
    policy: Sequence[ByBranch[torch.Tensor]],
    reference: Sequence[ByBranch[float]],
    gamma_P: torch.Tensor,
    loss: "LossConfig",
) -> tuple[PairLogps, PairLogps, PairBatch]:
    """Tables of a batch, padded to the pair with most rejects.

    Args:
        pairs: the batch, [P].
        rows: the branches that were scored.
        policy: their log-probs with gradient.
        reference: log-probs of the frozen reference, and the text prior.
        gamma_P: strength of the text prior for each pair.
        loss: weights of the kinds of rejects.
    """
    device = policy[0].clean[0].device
    kinds = tuple(tuple(r.kind.value for r in p.rejects) for p in pairs)
    weights_PK = reject_weights(kinds, loss.spurious_weight or 0.0).to(device)
    width = 1 + weights_PK.shape[1]

    def table(values: Sequence[Sequence[Any]], fill: float = 0.0) -> torch.Tensor:
        return _table(values, width, fill, device)

    lengths = [[len(s.token_ids) - s.branch.response_start for s in row.clean] for row in rows]
    batch = PairBatch(
        weights_PK=weights_PK,
        tokens_PY=table(lengths, fill=1.0),
        text_prior_PY=table([r.text for r in reference]),
        modality=tuple(p.modality for p in pairs),
        has_relevant_P=torch.tensor([bool(p.relevant) for p in policy], device=device),
        has_irrelevant_P=torch.tensor([bool(p.irrelevant) for p in policy], device=device),
        reject_kinds=kinds,
        gamma_P=gamma_P.to(device),
        pair_ids=tuple(p.pair_id for p in pairs),
    )
    return _logps(policy, table), _logps(reference, table), batch


def _logps(values: Sequence[ByBranch[Any]], table: Any) -> PairLogps:
    return PairLogps(
        clean_PY=table([v.clean for v in values]),
        relevant_PY=table([v.relevant for v in values]),
        irrelevant_PY=table([v.irrelevant for v in values]),
    )


def _table(values: Sequence[Sequence[Any]], width: int, fill: float, device: torch.device) -> torch.Tensor:
    """[P, Y] of values, with `fill` where there is none; keeps gradients."""
    filler = torch.tensor(fill, device=device)
    cells = [
        torch.as_tensor(row[y], dtype=torch.float32, device=device) if y < len(row) else filler
        for row in values
        for y in range(width)
    ]
    return torch.stack(cells).view(len(values), width)
