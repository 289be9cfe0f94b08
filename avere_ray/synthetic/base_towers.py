"""Teaches the towers to say, in the language model's own word vectors, which cues a clip has.

Each cue has a target vector: the mean embedding of its words, less the mean over its kind (what tells a yellow shirt
from a blue one). A cue counts as told when some token of its medium points to its target, so the loss takes a soft
maximum over the tokens (multiple-instance learning) and asks Yes or No of each cue. Only directions count, since the
language model's first layer normalises each token.

Legend: N = clips, T = tokens of a medium, C = cues of a modality, D = language model dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from avere_ray.backbones.qwen2_5_omni import Policy
from avere_ray.backbones.types import MediaEmbeds
from avere_ray.prompts import bare
from avere_ray.records import Clip, CueModality
from avere_ray.synthetic.world import GROUPS

_GAIN = 20.0
"""Score of a token that points exactly to the target."""
_BAR = 8.0
"""Score from which on a cue counts as told; tokens that name three cues at once still reach it."""
_LENGTH_WEIGHT = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """What the tokens of one medium are held against."""

    modality: CueModality
    names: tuple[str, ...]
    """The C cues perceived there."""
    target_CD: torch.Tensor
    """Target directions, unit vectors."""
    length: float
    """Root mean square length of the cues' word embeddings; tokens should be about as long."""


@torch.no_grad()
def alignments(policy: Policy) -> list[Alignment]:
    """The targets of both media, from the language model's present word embeddings."""
    return [_alignment(policy, "video"), _alignment(policy, "audio")]


def _alignment(policy: Policy, modality: CueModality) -> Alignment:
    groups = [kinds for kinds in GROUPS.values() if kinds[0].modality == modality]
    words = [torch.stack([_words(policy, kind.text) for kind in kinds]) for kinds in groups]
    return Alignment(
        modality=modality,
        names=tuple(kind.name for kinds in groups for kind in kinds),
        target_CD=torch.cat([F.normalize(w - w.mean(dim=0), dim=1) for w in words]),
        length=float(torch.cat(words).square().sum(dim=1).mean().sqrt()),
    )


def _words(policy: Policy, text: str) -> torch.Tensor:
    """Mean embedding [D] of the words of a cue, as they stand inside a sentence."""
    ids = policy.processor.text_ids(" " + bare(text))
    return policy.core.model.embed_tokens.weight[torch.tensor(ids)].mean(dim=0)


def tower_loss(embeds: Sequence[MediaEmbeds], clips: Sequence[Clip], targets: Sequence[Alignment]) -> torch.Tensor:
    """Mean cross-entropy of each cue's presence over clips and both media, and a penalty on the tokens' length."""
    total = torch.zeros(())
    for alignment in targets:
        tokens = [getattr(e, alignment.modality) for e in embeds]
        scores_NC = torch.stack([cue_scores(t, alignment) for t in tokens])
        total = total + F.binary_cross_entropy_with_logits(scores_NC, _present(clips, alignment.names))
        total = total + _LENGTH_WEIGHT * (torch.cat(tokens).norm(dim=1) / alignment.length - 1).square().mean()
    return total


def cue_scores(tokens_TD: torch.Tensor, alignment: Alignment) -> torch.Tensor:
    """How clearly the tokens of a medium tell each cue, [C]; above 0 it counts as told."""
    return (_GAIN * F.normalize(tokens_TD, dim=1) @ alignment.target_CD.T).logsumexp(dim=0) - _BAR


def _present(clips: Sequence[Clip], names: Sequence[str]) -> torch.Tensor:
    """float32 [N, C]: 1 where the clip has the cue."""
    present = [{c.name for c in clip.cues if c.present} for clip in clips]
    return torch.tensor([[float(name in there) for name in names] for there in present])
