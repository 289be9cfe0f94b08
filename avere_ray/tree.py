"""Prefix-tree packing: the branches that a forward pass has of a pair in one tree, each prefix they share once.

Pairs about the same medium are one tree; trees of others stand side by side in one row and share nothing, and neither
do two passes over the same pairs.

A branch is one full sequence: prompt with media, then a response. Branches of a pair differ late (another response)
or in the middle (a swapped medium), so written as a tree they need far fewer tokens than as separate rows:

    system, video, audio, question -+- chosen
                                    +- spurious reject
                                    +- hallucinated reject
    system, video ------------------- other audio, question, chosen          (audio swapped)

Two tokens are the same node when they stand on the same parent, mean the same (`keys`) and have the same position
ids. Attention lets each node see exactly its ancestors and itself, so every branch is computed as if it were alone.
Positions are those the branch would have alone (Qwen's three-axis M-RoPE), so nothing is re-indexed. Nodes stand in
depth-first order: the nodes below a node are the range that follows it, which makes "is an ancestor of" two
comparisons (see `attention.py`).

Legend: L = tokens of a branch, N = nodes of a row, S = segments of a row, R = response tokens of a batch.
Related work: DPO prefix sharing, arXiv 2410.20305 (one prefix, two responses, text only).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
class Segment:
    """A run of nodes without a fork."""

    start: int
    """First node."""
    end: int
    """One past the last node of the segment."""
    exit: int
    """One past the last node of the subtree below the segment; start < end <= exit."""
    parent: int
    """Index of the segment it continues; -1 at a root."""
    branch: int
    """A branch that goes through it."""
    offset: int
    """Where in that branch the segment's first token stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeRow:
    """Branches packed into one row: one tree, or several side by side."""

    segments: tuple[Segment, ...]
    """In depth-first order, [S]; parents stand before their children."""
    ends: tuple[int, ...]
    """For each branch the segment it ends with."""
    positions: np.ndarray
    """int64 [3, N]."""

    @property
    def size(self) -> int:
        """Number of nodes N."""
        return self.positions.shape[1]

    @property
    def num_branches(self) -> int:
        """Number of branches."""
        return len(self.ends)

    def exits(self) -> np.ndarray:
        """int64 [N]: one past the last node of the subtree below each node."""
        out = np.empty(self.size, np.int64)
        for s in self.segments:
            out[s.start : s.end] = s.exit
        return out

    def ancestry(self, segment: int) -> list[int]:
        """Indices of a segment and the segments above it, root first."""
        chain = []
        while segment >= 0:
            chain.append(segment)
            segment = self.segments[segment].parent
        return chain[::-1]

    def path(self, branch: int) -> np.ndarray:
        """int64 [L]: the nodes that a branch's tokens stand at."""
        parts = (self.segments[s] for s in self.ancestry(self.ends[branch]))
        return np.concatenate([np.arange(s.start, s.end) for s in parts])


class _Trie:
    """Segments under construction: a node of the trie is a run of one branch's tokens."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.runs: list[tuple[int, int, int]] = [(-1, 0, 0)]
        self.children: list[list[int]] = [[]]
        self.ends: list[int] = []

    def insert(self, tokens: np.ndarray) -> None:
        """Adds one branch; tokens int64 [L, 4] holds key and position ids."""
        branch, at, done = len(self.tokens), 0, 0
        self.tokens.append(tokens)
        while done < len(tokens):
            place, shared = self._follow(at, tokens[done:])
            if shared == 0:
                at = self._add(at, (branch, done, len(tokens)))
                break
            at = self._cut(at, place, shared)
            done += shared
        self.ends.append(at)

    def _follow(self, at: int, rest: np.ndarray) -> tuple[int, int]:
        """Which child starts as `rest` does, and how many tokens they share; 0 for none."""
        for place, child in enumerate(self.children[at]):
            b, start, end = self.runs[child]
            run = self.tokens[b][start:end]
            n = min(len(run), len(rest))
            if (run[0] == rest[0]).all():
                differs = np.flatnonzero((run[:n] != rest[:n]).any(axis=1))
                return place, int(differs[0]) if len(differs) else n
        return 0, 0

    def _add(self, parent: int, run: tuple[int, int, int]) -> int:
        self.runs.append(run)
        self.children.append([])
        self.children[parent].append(len(self.runs) - 1)
        return len(self.runs) - 1

    def _cut(self, parent: int, place: int, shared: int) -> int:
        """Makes the first `shared` tokens of a child a segment of their own and returns it."""
        child = self.children[parent][place]
        b, start, end = self.runs[child]
        if start + shared == end:
            return child
        self.runs[child] = (b, start + shared, end)
        self.runs.append((b, start, start + shared))
        self.children.append([child])
        self.children[parent][place] = len(self.runs) - 1
        return len(self.runs) - 1

    def row(self) -> TreeRow:
        """The finished row, nodes in depth-first order."""
        index: dict[int, int] = {}
        segments: list[Segment] = []
        for node, parent in self._depth_first():
            b, start, end = self.runs[node]
            at = segments[-1].end if segments else 0
            index[node] = len(segments)
            segments.append(
                Segment(start=at, end=at + end - start, exit=0, parent=index.get(parent, -1), branch=b, offset=start)
            )
        positions = [self.tokens[s.branch][s.offset : s.offset + s.end - s.start, 1:].T for s in segments]
        return TreeRow(
            segments=_with_exits(segments),
            ends=tuple(index[e] for e in self.ends),
            positions=np.ascontiguousarray(np.concatenate(positions, axis=1)),
        )

    def _depth_first(self) -> Iterator[tuple[int, int]]:
        stack = [(child, 0) for child in reversed(self.children[0])]
        while stack:
            node, parent = stack.pop()
            yield node, parent
            stack.extend((child, node) for child in reversed(self.children[node]))


def _with_exits(segments: list[Segment]) -> tuple[Segment, ...]:
    exits = [s.end for s in segments]
    for i in reversed(range(len(segments))):
        if (parent := segments[i].parent) >= 0:
            exits[parent] = max(exits[parent], exits[i])
    return tuple(replace(s, exit=e) for s, e in zip(segments, exits, strict=True))


def pack_branches(branches: Sequence[Branch]) -> TreeRow:
    """Merges branches into one prefix tree, nodes in depth-first order of first appearance.

    Raises:
        ValueError: there is no branch, or a response starts outside its branch.
    """
    if not branches:
        raise ValueError("pack_branches needs at least one branch")
    trie = _Trie()
    for b, branch in enumerate(branches):
        if not 1 <= branch.response_start < len(branch.keys):
            raise ValueError(
                f"branch {b}: response starts at {branch.response_start}, but the branch has "
                f"{len(branch.keys)} tokens; a prompt and a response of one token or more are needed"
            )
        trie.insert(np.column_stack([branch.keys, branch.positions.T]))
    return trie.row()


def join_rows(rows: Sequence[TreeRow]) -> TreeRow:
    """Puts trees side by side in one row; no node of one sees a node of another."""
    if len(rows) == 1:
        return rows[0]
    segments: list[Segment] = []
    ends: list[int] = []
    nodes = branches = 0
    for row in rows:
        first = len(segments)
        segments += [
            Segment(
                start=s.start + nodes,
                end=s.end + nodes,
                exit=s.exit + nodes,
                parent=s.parent + first if s.parent >= 0 else -1,
                branch=s.branch + branches,
                offset=s.offset,
            )
            for s in row.segments
        ]
        ends += [e + first for e in row.ends]
        nodes, branches = nodes + row.size, branches + row.num_branches
    positions = np.concatenate([row.positions for row in rows], axis=1)
    return TreeRow(segments=tuple(segments), ends=tuple(ends), positions=positions)


def pack_groups(branches: Sequence[Branch], groups: Sequence[Sequence[int]]) -> TreeRow:
    """One tree for each group of branches, side by side in one row; every branch keeps its number.

    Args:
        groups: indices of branches; each branch is in one group.

    Raises:
        ValueError: see `pack_branches`.
    """
    joined = join_rows([pack_branches([branches[i] for i in group]) for group in groups])
    number = [i for group in groups for i in group]
    ends = dict(zip(number, joined.ends, strict=True))
    return replace(
        joined,
        segments=tuple(replace(s, branch=number[s.branch]) for s in joined.segments),
        ends=tuple(ends[i] for i in range(len(branches))),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Where each response token of a row is predicted."""

    node: torch.Tensor
    """int64 [R]: the node that predicts each response token, which is the one before it on its branch."""
    target: torch.Tensor
    """int64 [R]: key of the response token, which is its token id."""
    branch: torch.Tensor
    """int64 [R]: the branch it belongs to."""
    num_branches: int
    """Branches of the row."""

    def to(self, device: torch.device) -> "Predictions":
        """The same on another device."""
        return replace(self, node=self.node.to(device), target=self.target.to(device), branch=self.branch.to(device))


def response_predictions(row: TreeRow, branches: Sequence[Branch]) -> Predictions:
    """Lists every response token of every branch with the node that predicts it, branch by branch."""
    nodes, targets, owner = [], [], []
    for b, branch in enumerate(branches):
        start = branch.response_start
        nodes.append(row.path(b)[start - 1 : -1])
        targets.append(branch.keys[start:])
        owner.append(np.full(len(branch.keys) - start, b))
    node, target, branch_of = (torch.from_numpy(np.concatenate(x)) for x in (nodes, targets, owner))
    return Predictions(node=node, target=target, branch=branch_of, num_branches=len(branches))
