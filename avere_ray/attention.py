"""Attention over a row of prefix trees: each node sees its ancestors and itself, and nothing else.

With nodes in depth-first order, key k is the query q itself or an ancestor of it exactly when k <= q < exit[k]. Three
ways to compute that, equal up to rounding:

- `blocks` (CPU): the row is cut into runs of queries; each attends to its ancestors' keys alone, so no product is
  formed that the mask would throw away, apart from those inside a block.
- `flex` (GPU): FlexAttention with that comparison as its mask; compiled for the first length, then once for all others.
  Rows are padded to a multiple of its block, so that lengths come in few sizes; padding sees itself alone.
- `dense`: one boolean mask over all pairs of nodes; the plain truth that the others are held against.

Legend: N = nodes, Q = queries of a block, K = keys of a block, H = heads, G = key and value heads, E = head dimension.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from avere_ray.tree import Segment, TreeRow

Kernel = Literal["blocks", "flex", "dense"]
FLEX_BLOCK = 128
"""Rows of FlexAttention have a multiple of this many nodes, twice as many at least: torch compiles sizes of 1 apart."""
BLOCK = 256
"""Subtrees of at most this many nodes become one block; longer segments below a fork are cut to this length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A run of queries and the keys they may see."""

    queries: int
    """Number of queries; blocks follow one another and cover the row."""
    pieces: tuple[int, ...]
    """Which blocks' nodes are the keys, in order; the last is the block itself."""
    mask: torch.Tensor | None
    """bool [Q, K], False where a query may not see a key; None when the block is a plain causal run on its own."""


@dataclass(kw_only=True, slots=True)
class Layout:
    """How one row attends; made once per forward pass and shared by all layers."""

    kernel: Kernel
    exits: torch.Tensor
    """int64 [N], padding included."""
    blocks: tuple[Block, ...] = ()
    lengths: list[int] = field(default_factory=list)
    """Queries of each block."""
    mask: Any = None
    """bool [1, 1, N, N] for `dense`, a BlockMask for `flex`."""


def make_layout(row: TreeRow, kernel: Kernel, device: torch.device) -> Layout:
    """The layout of a row for one kernel."""
    size = padded_size(row.size, kernel)
    exits = torch.from_numpy(np.concatenate([row.exits(), np.arange(row.size, size) + 1])).to(device)
    if kernel == "dense":
        return Layout(kernel=kernel, exits=exits, mask=dense_mask(exits))
    if kernel == "flex":
        return Layout(kernel=kernel, exits=exits, mask=_flex_mask(exits))
    blocks = plan_blocks(row, device)
    return Layout(kernel=kernel, exits=exits, blocks=blocks, lengths=[b.queries for b in blocks])


def padded_size(nodes: int, kernel: Kernel) -> int:
    """Length of a row of so many nodes as a kernel takes it."""
    return max(2, -(-nodes // FLEX_BLOCK)) * FLEX_BLOCK if kernel == "flex" else nodes


def dense_mask(exits: torch.Tensor) -> torch.Tensor:
    """bool [1, 1, N, N]: True where the query (row) may see the key (column)."""
    at = torch.arange(len(exits), device=exits.device)
    return ((at[None, :] <= at[:, None]) & (at[:, None] < exits[None, :]))[None, None]


def plan_blocks(row: TreeRow, device: torch.device, *, limit: int = BLOCK) -> tuple[Block, ...]:
    """Cuts a row into blocks, in node order.

    A root's own segment is one plain causal block whatever its length; below it, small neighbouring subtrees share a
    block and long segments are cut.
    """
    ranges = _cut_ranges(row, limit)
    starts = np.asarray([r[0] for r in ranges])
    exits = row.exits()
    return tuple(_block(row, ranges, starts, exits, i, device) for i in range(len(ranges)))


def _cut_ranges(row: TreeRow, limit: int) -> list[tuple[int, int, int]]:
    """(first node, one past the last, first segment) of each block."""
    ranges: list[tuple[int, int, int]] = []
    open_under = -2
    for s, segment in enumerate(row.segments):
        if ranges and segment.exit <= ranges[-1][1]:
            continue
        if segment.exit - segment.start <= limit:
            begin, _, first = ranges[-1] if ranges else (0, 0, 0)
            if open_under == segment.parent and segment.exit - begin <= limit:
                ranges[-1] = (begin, segment.exit, first)
            else:
                ranges.append((segment.start, segment.exit, s))
            open_under = segment.parent
            continue
        step = limit if segment.parent >= 0 else segment.end - segment.start
        ranges += [(a, min(a + step, segment.end), s) for a in range(segment.start, segment.end, step)]
        open_under = -2
    return ranges


def _block(
    row: TreeRow,
    ranges: Sequence[tuple[int, int, int]],
    starts: np.ndarray,
    exits: np.ndarray,
    index: int,
    device: torch.device,
) -> Block:
    begin, end, first = ranges[index]
    above = [row.segments[a] for a in row.ancestry(first)]
    pieces = _pieces_of(above, starts, begin) | {index}
    ordered = tuple(sorted(pieces))
    plain = ordered == (index,) and row.segments[first].end >= end
    if plain:
        return Block(queries=end - begin, pieces=ordered, mask=None)
    keys = np.concatenate([np.arange(ranges[p][0], ranges[p][1]) for p in ordered])
    at = np.arange(begin, end)
    mask = (keys[None, :] <= at[:, None]) & (at[:, None] < exits[keys][None, :])
    return Block(queries=end - begin, pieces=ordered, mask=torch.from_numpy(mask).to(device))


def _pieces_of(segments: Sequence[Segment], starts: np.ndarray, before: int) -> set[int]:
    """Blocks that hold the nodes of these segments up to a node."""
    pieces: set[int] = set()
    for segment in segments:
        last = min(segment.end, before)
        if segment.start < last:
            low = int(np.searchsorted(starts, segment.start, side="right")) - 1
            high = int(np.searchsorted(starts, last - 1, side="right")) - 1
            pieces.update(range(low, high + 1))
    return pieces


def tree_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float
) -> torch.Tensor:
    """Attention of one row.

    Args:
        query: [1, H, N, E], where N counts the padding that the layout has.
        key, value: [1, G, N, E]; G divides H.
        layout: see `make_layout`.
        scale: factor of the products.

    Returns:
        [1, H, N, E].
    """
    if layout.kernel == "flex":
        return _compiled_flex(query.is_cuda)(query, key, value, block_mask=layout.mask, scale=scale, enable_gqa=True)
    if layout.kernel == "dense":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask, scale=scale, enable_gqa=True)
    return _block_attention(query, key, value, layout, scale)


def _block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float
) -> torch.Tensor:
    queries, keys, values = (x.split(layout.lengths, dim=2) for x in (query, key, value))
    out = [
        F.scaled_dot_product_attention(
            q,
            _gathered(keys, block.pieces),
            _gathered(values, block.pieces),
            attn_mask=block.mask,
            is_causal=block.mask is None,
            scale=scale,
            enable_gqa=True,
        )
        for q, block in zip(queries, layout.blocks, strict=True)
    ]
    return torch.cat(out, dim=2)


def _gathered(parts: Sequence[torch.Tensor], which: tuple[int, ...]) -> torch.Tensor:
    return parts[which[0]] if len(which) == 1 else torch.cat([parts[i] for i in which], dim=2)


def _flex_mask(exits: torch.Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < exits[k])

    size = len(exits)
    return create_block_mask(sees, None, None, size, size, device=str(exits.device))


@cache
def _compiled_flex(compiled: bool) -> Callable[..., Any]:
    """FlexAttention; compiled with open lengths on GPU, as it is elsewhere."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention
