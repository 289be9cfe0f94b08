"""The Thinker as a policy: encodes media, and scores the responses of prefix trees.

The towers are frozen, so their outputs are computed apart from the tree and may come from a cache. `pack` lays out what
does not depend on weights; `forward` runs the language model over it.

Legend: N = nodes of the row, D = model dimension, R = response tokens.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avere_ray.attention import Kernel, Layout, make_layout, padded_size, tree_attention
from avere_ray.backbones.qwen2_5_omni.processor import Processor
from avere_ray.backbones.types import (
    AUDIO,
    VIDEO,
    AudioFeatures,
    MediaEmbeds,
    MediaFeatures,
    MediaPlace,
    PackedRow,
    Sample,
    VideoFeatures,
)
from avere_ray.errors import ModelError
from avere_ray.logprobs import branch_logps, token_kls, token_logps
from avere_ray.tree import TreeRow, pack_groups, response_predictions

ATTENTION = "avere_tree"
"""Name under which transformers knows the tree attention."""


class Policy(nn.Module):
    """The Thinker with its processor.

    `attention` picks the kernel (see `attention.py`); None takes flex on GPU and blocks elsewhere.
    """

    def __init__(self, thinker: nn.Module, processor: Processor, attention: Kernel | None = None) -> None:
        super().__init__()
        self.thinker = thinker
        self.processor = processor
        self.attention = attention

    @property
    def core(self) -> Any:
        """The plain Thinker, below any adapter."""
        unwrap = getattr(self.thinker, "get_base_model", None)
        return unwrap() if unwrap is not None else self.thinker

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.core.lm_head.weight.device

    def towers(self) -> tuple[nn.Module, nn.Module]:
        """Vision and audio tower."""
        return self.core.visual, self.core.audio_tower

    def without_adapter(self) -> AbstractContextManager[Any]:
        """Within it the adapter is off and the policy is the base; nothing changes where there is no adapter."""
        off = getattr(self.thinker, "disable_adapter", None)
        return off() if off is not None else nullcontext()

    def checkpoint_activations(self, on: bool) -> None:
        """Whether the language model computes activations again in the backward pass instead of keeping them."""
        model = self.core.model
        if on:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()

    def encode(self, features: Sequence[MediaFeatures]) -> list[MediaEmbeds]:
        """Runs the towers once over both media of many clips."""
        videos = self.encode_video([VideoFeatures(pixel_values=f.pixel_values, grid_thw=f.grid_thw) for f in features])
        audios = self.encode_audio([AudioFeatures(mel=f.mel) for f in features])
        return [MediaEmbeds(video=v, audio=a) for v, a in zip(videos, audios, strict=True)]

    def encode_video(self, features: Sequence[VideoFeatures]) -> list[torch.Tensor]:
        """Runs the vision tower once over many videos; [tokens, D] each."""
        tower = self.core.visual
        grids = torch.stack([f.grid_thw for f in features]).to(self.device)
        pixels = torch.cat([f.pixel_values for f in features]).to(self.device, tower.dtype)
        out = tower(pixels, grid_thw=grids).pooler_output
        return list(out.split([self.processor.video_tokens(f.grid_thw) for f in features]))

    def encode_audio(self, features: Sequence[AudioFeatures]) -> list[torch.Tensor]:
        """Runs the audio tower once over many sounds; [tokens, D] each."""
        tower = self.core.audio_tower
        lengths = torch.tensor([f.mel.shape[1] for f in features], device=self.device)
        after_cnn, _ = tower._get_feat_extract_output_lengths(lengths)
        mel = torch.cat([f.mel for f in features], dim=1).to(self.device, tower.dtype)
        out = tower(mel, feature_lens=lengths, aftercnn_lens=after_cnn).last_hidden_state
        return list(out.split([self.processor.audio_tokens(f.mel.shape[1]) for f in features]))

    def pack(self, rows: Sequence[Sequence[Sample]]) -> PackedRow:
        """Packs the samples of each row into a tree, with those of other rows about the same medium, and puts the
        trees side by side."""
        samples = [s for row in rows for s in row]
        tree = pack_groups([s.branch for s in samples], _about_one_medium(rows))
        token_ids, places = _contents(tree, samples)
        kernel = self.attention or ("flex" if self.device.type == "cuda" else "blocks")
        padding = padded_size(tree.size, kernel) - tree.size
        return PackedRow(
            tree=tree,
            token_ids=torch.from_numpy(np.pad(token_ids, (0, padding)))[None].to(self.device),
            positions=torch.from_numpy(np.pad(tree.positions, ((0, 0), (0, padding))))[:, None].to(self.device),
            places=tuple(replace(p, nodes=p.nodes.to(self.device), offsets=p.offsets.to(self.device)) for p in places),
            layout=make_layout(tree, kernel, self.device),
            predictions=response_predictions(tree, [s.branch for s in samples]).to(self.device),
        )

    def forward(
        self,
        rows: Sequence[Sequence[Sample]] | PackedRow,
        media: Mapping[str, MediaEmbeds],
        *,
        per_token: bool = False,
        against: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Summed response log-prob (nats, float32) of every sample of every row, in order; [number of samples].

        Args:
            rows: samples that are packed into one tree each, or what `pack` made of them.
            media: tower outputs by medium key.
            per_token: give each response token's log-prob instead, in order; [R].
            against: `predictors` of the reference for the same row. Gives [2, number of samples]: the log-probs, and
                for each sample the sum over its response tokens of KL(pi_ref || pi_theta).
        """
        packed = rows if isinstance(rows, PackedRow) else self.pack(rows)
        where, head_VD = packed.predictions, self.core.lm_head.weight
        hidden_RD = self.predictors(packed, media)
        logps = token_logps(hidden_RD, head_VD, where.target)
        if per_token:
            return logps
        summed = branch_logps(logps, where.branch, where.num_branches)
        if against is None:
            return summed
        kls = branch_logps(token_kls(hidden_RD, against, head_VD), where.branch, where.num_branches)
        return torch.stack([summed, kls])

    def predictors(self, packed: PackedRow, media: Mapping[str, MediaEmbeds]) -> torch.Tensor:
        """Last hidden states at the nodes that predict response tokens, [R, D]."""
        return self._hidden(packed, media)[packed.predictions.node]

    def _hidden(self, packed: PackedRow, media: Mapping[str, MediaEmbeds]) -> torch.Tensor:
        """Last hidden states [N, D]."""
        out = self.core.model(
            inputs_embeds=self._embed(packed, media),
            attention_mask={"full_attention": packed.layout},
            position_ids=packed.positions,
            use_cache=False,
        )
        return out.last_hidden_state[0]

    def _embed(self, packed: PackedRow, media: Mapping[str, MediaEmbeds]) -> torch.Tensor:
        """Input embeddings [1, N, D]: of words from the table, of media from the towers."""
        embeds = self.core.model.embed_tokens(packed.token_ids)
        if not packed.places:
            return embeds
        vectors = [getattr(media[p.key], p.kind).to(embeds)[p.offsets] for p in packed.places]
        nodes = torch.cat([p.nodes for p in packed.places])
        return embeds.index_put((torch.zeros_like(nodes), nodes), torch.cat(vectors))


def _about_one_medium(rows: Sequence[Sequence[Sample]]) -> list[list[int]]:
    """Indices of the samples of all rows, those of rows that begin with the same medium together.

    Rows that share a few words of the template alone stay apart: a fork before their media would gain nothing and cost
    attention its plain causal blocks.
    """
    groups: dict[str | int, list[int]] = {}
    done = 0
    for number, row in enumerate(rows):
        first = row[0].video_id or row[0].audio_id
        groups.setdefault(first or number, []).extend(range(done, done + len(row)))
        done += len(row)
    return list(groups.values())


def _contents(tree: TreeRow, samples: Sequence[Sample]) -> tuple[np.ndarray, list[MediaPlace]]:
    """Token ids [N] of a row, and which nodes stand for which media."""
    token_ids = np.zeros(tree.size, np.int64)
    found: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for segment in tree.segments:
        sample = samples[segment.branch]
        here = slice(segment.offset, segment.offset + segment.end - segment.start)
        token_ids[segment.start : segment.end] = sample.token_ids[here]
        for kind, key, name in ((VIDEO, sample.video_id, "video"), (AUDIO, sample.audio_id, "audio")):
            hits = np.flatnonzero(sample.kind[here] == kind)
            if len(hits):
                found.setdefault((key, name), []).append((hits + segment.start, sample.offset[here][hits]))
    return token_ids, [
        MediaPlace(
            key=key,
            kind=kind,
            nodes=torch.from_numpy(np.concatenate([n for n, _ in parts])),
            offsets=torch.from_numpy(np.concatenate([o for _, o in parts])),
        )
        for (key, kind), parts in found.items()
    ]


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in each layer; the layout comes in place of a mask.

    A call without a layout is transformers' own, for instance when it generates.
    """
    if isinstance(attention_mask, Layout):
        return tree_attention(query, key, value, attention_mask, scaling).transpose(1, 2), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    return out, None


def load_policy(
    path: Path, dtype: str, *, audio_in_video: bool = False, attention: Kernel | None = None, device: str = "cpu"
) -> Policy:
    """The Thinker of a Qwen2.5-Omni folder (speech generation is left out), on one device.

    Raises:
        ModelError: the weights cannot be read, or the device is not there or too small.
    """
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    processor = Processor(path, audio_in_video=audio_in_video)
    try:
        thinker = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            str(path), dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot load the weights of {path}: {error}") from error
    try:
        return as_policy(thinker.to(device), processor, attention=attention)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"cannot move the model of {path} to {device}: {error}") from error


def as_policy(thinker: Any, processor: Processor, *, attention: Kernel | None = None) -> Policy:
    """A loaded Thinker as a policy, in evaluation mode, with the tree attention in its language model."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    thinker.model.config._attn_implementation = ATTENTION
    return Policy(thinker.eval(), processor, attention)
