"""Tree attention: every kernel equals what each branch would compute alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from avere_ray.attention import FLEX_BLOCK, dense_mask, make_layout, plan_blocks, tree_attention
from avere_ray.tree import Branch, join_rows, pack_branches

CPU = torch.device("cpu")


def _row(groups):
    return join_rows([pack_branches([_branch(s) for s in group]) for group in groups])


def _branch(keys):
    positions = np.broadcast_to(np.arange(len(keys)), (3, len(keys))).copy()
    return Branch(keys=np.asarray(keys, np.int64), positions=positions, response_start=1)


def _heads(size, seed, heads=2, groups=1):
    random = torch.Generator().manual_seed(seed)
    make = lambda h: torch.randn(1, h, size, 4, generator=random, dtype=torch.float64)  # noqa: E731
    return make(heads), make(groups), make(groups)


def _alone(row, q, k, v):
    """Each branch by itself with plain causal attention, put back at its nodes."""
    out = torch.zeros_like(q)
    for b in range(row.num_branches):
        path = torch.from_numpy(row.path(b))
        keys, values = (x[:, :, path].expand(-1, q.shape[1], -1, -1) for x in (k, v))
        out[:, :, path] = F.scaled_dot_product_attention(q[:, :, path], keys, values, is_causal=True)
    return out


GROUPS = {
    "one branch": [[[1, 2, 3]]],
    "fork": [[[1, 2, 3, 4], [1, 2, 5], [1, 6, 6, 6]]],
    "two trees": [[[1, 2, 3], [1, 2, 4]], [[5, 6], [5, 7, 8]]],
    "long trunk": [[[0] * 40 + [1, 2], [0] * 40 + [3], [0] * 20 + [4] * 25]],
    "deep": [[[0] * 10 + [1] * 10 + [2] * 10, [0] * 10 + [1] * 10 + [3], [0] * 10 + [4] * 12, [5] * 9]],
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("kernel", ["blocks", "dense", "flex"])
def test_each_kernel_gives_what_each_branch_gives_alone(name, kernel):
    row = _row(GROUPS[name])
    layout = make_layout(row, kernel, CPU)
    padded = _heads(len(layout.exits), 0)
    q, k, v = (x[:, :, : row.size] for x in padded)
    got = tree_attention(*padded, layout, q.shape[-1] ** -0.5)[:, :, : row.size]
    torch.testing.assert_close(got, _alone(row, q, k, v))


@pytest.mark.parametrize("nodes", [1, 127, 128, 129, 1000])
def test_flex_rows_come_in_few_lengths_and_their_padding_sees_itself_alone(nodes):
    row = _row([[[1] * nodes + [2], [1] * nodes + [3]]])
    exits = make_layout(row, "flex", CPU).exits
    assert len(exits) % FLEX_BLOCK == 0
    assert 0 <= len(exits) - row.size < (FLEX_BLOCK if row.size > FLEX_BLOCK else 2 * FLEX_BLOCK)
    seen = dense_mask(exits)[0, 0]
    assert torch.equal(seen[row.size :], torch.eye(len(exits), dtype=torch.bool)[row.size :])
    assert not seen[: row.size, row.size :].any()
    assert make_layout(row, "blocks", CPU).exits.tolist() == row.exits().tolist()


def test_one_compiled_kernel_serves_all_lengths_but_the_first():
    """torch compiles for the first length, and at the second with lengths left open; then never again."""
    from torch.nn.attention.flex_attention import flex_attention

    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    kernel = torch.compile(flex_attention, dynamic=True, backend=count)
    for nodes in (100, 300, 700, 150):
        layout = make_layout(_row([[[1] * nodes + [2], [1] * nodes + [3, 4]]]), "flex", CPU)
        kernel(*(x.float() for x in _heads(len(layout.exits), 0)), block_mask=layout.mask, scale=0.5, enable_gqa=True)
    torch.compiler.reset()
    assert len(graphs) == 2


@pytest.mark.parametrize("limit", [1, 3, 8, 1000])
@pytest.mark.parametrize("name", GROUPS)
def test_any_block_size_gives_the_same(name, limit):
    row = _row(GROUPS[name])
    q, k, v = _heads(row.size, 1)
    layout = make_layout(row, "blocks", CPU)
    layout.blocks = plan_blocks(row, CPU, limit=limit)
    layout.lengths = [b.queries for b in layout.blocks]
    assert sum(layout.lengths) == row.size
    torch.testing.assert_close(tree_attention(q, k, v, layout, q.shape[-1] ** -0.5), _alone(row, q, k, v))


def test_gradients_agree_with_the_dense_mask():
    row = _row(GROUPS["deep"] + GROUPS["fork"])
    grads = []
    for kind in ("dense", "blocks"):
        heads = [x.requires_grad_() for x in _heads(row.size, 2)]
        tree_attention(*heads, make_layout(row, kind, CPU), 0.5).square().sum().backward()
        grads.append([x.grad for x in heads])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_blocks_leave_out_keys_that_no_query_of_theirs_may_see():
    row = _row([[[0] * 600 + [1] * 50, [0] * 600 + [2] * 50], [[3] * 300 + [4] * 30]])
    lengths = [b.queries for b in plan_blocks(row, CPU)]
    products = sum(b.queries * sum(lengths[p] for p in b.pieces) for b in plan_blocks(row, CPU))
    assert products < 0.75 * row.size**2


sequences = st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=12), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(sequences, min_size=1, max_size=3), st.integers(1, 9))
def test_the_blocks_mask_is_the_dense_mask(groups, limit):
    row = _row(groups)
    full = dense_mask(torch.from_numpy(row.exits()))[0, 0]
    blocks = plan_blocks(row, CPU, limit=limit)
    begins = np.cumsum([0] + [b.queries for b in blocks])
    seen = torch.zeros_like(full)
    for b, block in enumerate(blocks):
        keys = np.concatenate([np.arange(begins[p], begins[p + 1]) for p in block.pieces])
        mask = block.mask if block.mask is not None else torch.ones(block.queries, block.queries).tril().bool()
        seen[begins[b] : begins[b + 1], keys] = mask
    assert (seen == full).all()
