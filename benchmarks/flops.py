"""How many multiplications a learner step takes, counted from shapes: two per weight and token, and the attention's.

A backward pass through frozen weights costs one forward (the gradient of the activations; LoRA's own weights are left
out) and twice the forward in attention. The towers run forward only.
"""

from collections.abc import Sequence

import numpy as np

from avere_ray.backbones.types import Sample
from avere_ray.tree import TreeRow
from benchmarks.shapes import Shape, language_weights, tower_weights


def baseline_flops(shape: Shape, samples: Sequence[Sample]) -> float:
    """Separate sequences: policy forward and backward, reference forward, every branch's media twice."""
    tokens = sum(len(s.token_ids) for s in samples)
    seen = sum(len(s.token_ids) * (len(s.token_ids) + 1) / 2 for s in samples)
    towers = 2 * sum(_tower_flops(shape, int((s.kind == 1).sum()), int((s.kind == 2).sum())) for s in samples)
    return 3 * _linear(shape, tokens) + 4 * _attention(shape, seen) + towers


def tree_flops(shape: Shape, samples: Sequence[Sample], tree: TreeRow, *, reference: bool, encode: bool) -> float:
    """One tree: policy forward and backward, reference forward and towers if they are not known already."""
    depth = np.zeros(tree.size)
    for b in range(tree.num_branches):
        path = tree.path(b)
        depth[path] = np.arange(1, len(path) + 1)
    forward = 1 if reference else 0
    total = (2 + forward) * _linear(shape, tree.size) + (3 + forward) * _attention(shape, float(depth.sum()))
    if encode:
        videos = {s.video_id: int((s.kind == 1).sum()) for s in samples}
        audios = {s.audio_id: int((s.kind == 2).sum()) for s in samples}
        total += _tower_flops(shape, sum(videos.values()), sum(audios.values()))
    return total


def _linear(shape: Shape, tokens: float) -> float:
    return 2.0 * language_weights(shape) * shape.layers * tokens


def _attention(shape: Shape, seen: float) -> float:
    """`seen` counts the pairs of a query and a key it attends to."""
    return 4.0 * shape.hidden * shape.layers * seen


def _tower_flops(shape: Shape, video_tokens: int, audio_tokens: int) -> float:
    vision, audio = tower_weights(shape)
    return 2.0 * (vision * video_tokens + audio * audio_tokens)
