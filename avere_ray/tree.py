"""Prefix-tree packing: all branches of a pair in one row, every shared prefix once.

A branch is one full sequence: prompt with media, then a response. Branches of a pair differ late (another response)
or in the middle (a swapped medium), so written as a tree they need far fewer tokens than as separate rows:

    system, video, audio, question -+- chosen
                                    +- spurious reject
                                    +- hallucinated reject
    system, video ------------------- other audio, question, chosen          (audio swapped)

Two tokens are the same node when they stand on the same parent, mean the same (`keys`) and have the same position
ids. Attention lets each node see exactly its ancestors and itself, so every branch is computed as if it were alone.
Positions are those the branch would have alone (Qwen's three-axis M-RoPE), so nothing is re-indexed.

Legend: L = tokens of a branch, N = nodes of a row, B = rows of a batch, R = response tokens of a batch.
Related work: DPO prefix sharing, arXiv 2410.20305 (one prefix, two responses, text only).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """One sequence as it would be run alone."""

    keys: np.ndarray
    """int64 [L]: what each token is; equal keys mean equal input embeddings (token id, or a digest of medium and
    offset)."""
    positions: np.ndarray
    """int64 [3, L]: temporal, height and width position ids."""
    response_start: int
    """Index of the first response token; 1 <= response_start < L."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeRow:
    """Branches packed into one row."""

    origin: np.ndarray
    """int64 [N, 2]: a (branch, offset) whose token stands at each node."""
    positions: np.ndarray
    """int64 [3, N]."""
    depth: np.ndarray
    """int64 [N]: number of ancestors of each node."""
    exit: np.ndarray
    """int64 [N]: one past the last node of the subtree below each node; nodes are in depth-first order."""
    paths: tuple[np.ndarray, ...]
    """For each branch int64 [L]: the nodes its tokens stand at."""

    @property
    def size(self) -> int:
        """Number of nodes N."""
        return len(self.depth)


def pack_branches(branches: Sequence[Branch]) -> TreeRow:
    """Merges branches into one prefix tree, nodes in depth-first order of first appearance.

    Raises:
        ValueError: there is no branch, or a response starts outside its branch.
    """
    if not branches:
        raise ValueError("pack_branches needs at least one branch")
    children: list[dict[tuple[int, int, int, int], int]] = [{}]
    origin: list[tuple[int, int]] = [(-1, -1)]
    visits: list[list[int]] = []
    for b, branch in enumerate(branches):
        if not 1 <= branch.response_start < len(branch.keys):
            raise ValueError(
                f"branch {b}: response starts at {branch.response_start}, but the branch has "
                f"{len(branch.keys)} tokens; a prompt and a response of one token or more are needed"
            )
        node, path = 0, []
        t, h, w = branch.positions.tolist()
        for offset, key in enumerate(zip(branch.keys.tolist(), t, h, w, strict=True)):
            found = children[node].get(key)
            if found is None:
                found = len(children)
                children[node][key] = found
                children.append({})
                origin.append((b, offset))
            node = found
            path.append(node)
        visits.append(path)
    order, depth, exit_ = _depth_first(children)
    rank = np.empty(len(children), np.int64)
    rank[order] = np.arange(len(order))
    chosen = np.asarray([origin[n] for n in order[1:]], np.int64)
    positions = np.stack([branches[b].positions[:, o] for b, o in chosen], axis=1)
    return TreeRow(
        origin=chosen,
        positions=positions,
        depth=depth[1:] - 1,
        exit=exit_[1:] - 1,
        paths=tuple(rank[np.asarray(path)] - 1 for path in visits),
    )


def _depth_first(children: list[dict[tuple[int, int, int, int], int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth-first order of the nodes, with depth and subtree end of each position in that order."""
    order: list[int] = []
    depth: list[int] = []
    exit_ = np.zeros(len(children), np.int64)
    stack: list[tuple[int, int, int]] = [(0, 0, -1)]
    while stack:
        node, level, done = stack.pop()
        if done >= 0:
            exit_[done] = len(order)
            continue
        at = len(order)
        order.append(node)
        depth.append(level)
        stack.append((node, level, at))
        stack.extend((child, level + 1, -1) for child in reversed(list(children[node].values())))
    return np.asarray(order), np.asarray(depth), exit_


def ancestor_mask(rows: Sequence[TreeRow], size: int) -> torch.Tensor:
    """bool [B, 1, size, size]: True where the query node may see the key node, which is itself or an ancestor.

    Padding nodes see themselves only, so that no softmax is empty.
    """
    mask = torch.zeros(len(rows), 1, size, size, dtype=torch.bool)
    index = torch.arange(size)
    for b, row in enumerate(rows):
        end = torch.full((size,), 0, dtype=torch.long)
        end[: row.size] = torch.from_numpy(row.exit)
        # node q is in the subtree of node k when k <= q < exit[k]
        mask[b, 0] = (index[None, :] <= index[:, None]) & (index[:, None] < end[None, :])
    mask |= torch.eye(size, dtype=torch.bool)
    return mask


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeBatch:
    """Rows padded to one size, and where each response token is predicted."""

    positions: torch.Tensor
    """int64 [3, B, N]."""
    mask: torch.Tensor
    """bool [B, 1, N, N]."""
    predict_row: torch.Tensor
    """int64 [R]: row of the node that predicts each response token."""
    predict_node: torch.Tensor
    """int64 [R]: that node."""
    target: torch.Tensor
    """int64 [R]: key of the response token, which is its token id."""
    branch: torch.Tensor
    """int64 [R]: running number of the branch over the batch."""
    num_branches: int
    """Branches in the batch."""


def collate_rows(rows: Sequence[TreeRow], branches: Sequence[Sequence[Branch]]) -> TreeBatch:
    """Pads rows to the longest and lists every response token with the node that predicts it."""
    size = max(row.size for row in rows)
    positions = torch.zeros(3, len(rows), size, dtype=torch.long)
    where: list[np.ndarray] = []
    count = 0
    for b, (row, row_branches) in enumerate(zip(rows, branches, strict=True)):
        positions[:, b, : row.size] = torch.from_numpy(row.positions)
        for path, branch in zip(row.paths, row_branches, strict=True):
            start = branch.response_start
            nodes, targets = path[start - 1 : -1], branch.keys[start:]
            where.append(np.stack([np.full_like(nodes, b), nodes, targets, np.full_like(nodes, count)]))
            count += 1
    table = torch.from_numpy(np.concatenate(where, axis=1))
    return TreeBatch(
        positions=positions,
        mask=ancestor_mask(rows, size),
        predict_row=table[0],
        predict_node=table[1],
        target=table[2],
        branch=table[3],
        num_branches=count,
    )
