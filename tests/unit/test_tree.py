"""The prefix tree: shared prefixes once, each branch's path whole, attention to ancestors only."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avere_ray.tree import Branch, ancestor_mask, collate_rows, pack_branches


def _branch(keys, start=1, shift=0):
    positions = np.broadcast_to(np.arange(len(keys)) + shift, (3, len(keys))).copy()
    return Branch(keys=np.asarray(keys, np.int64), positions=positions, response_start=start)


def test_a_shared_prefix_stands_once():
    row = pack_branches([_branch([1, 2, 3, 4]), _branch([1, 2, 5]), _branch([1, 6])])
    assert row.size == 6
    assert [len(p) for p in row.paths] == [4, 3, 2]
    assert row.paths[0][:2].tolist() == row.paths[1][:2].tolist()


def test_equal_tokens_at_other_positions_are_not_shared():
    assert pack_branches([_branch([1, 2]), _branch([1, 2], shift=5)]).size == 4


def test_equal_branches_collapse():
    assert pack_branches([_branch([1, 2, 3]), _branch([1, 2, 3])]).size == 3


def test_attention_sees_exactly_the_ancestors():
    row = pack_branches([_branch([1, 2, 3]), _branch([1, 2, 4, 5])])
    mask = ancestor_mask([row], row.size)[0, 0]
    for path in row.paths:
        for i, node in enumerate(path):
            assert sorted(torch.nonzero(mask[node]).flatten().tolist()) == sorted(path[: i + 1].tolist())


def test_padding_sees_itself_only():
    row = pack_branches([_branch([1, 2])])
    mask = ancestor_mask([row], 4)[0, 0]
    assert mask[2].tolist() == [False, False, True, False]
    assert not mask[:2, 2:].any()


def test_each_response_token_is_predicted_by_the_token_before_it():
    branches = [_branch([1, 2, 3, 4], start=2), _branch([1, 2, 9], start=2)]
    row = pack_branches(branches)
    batch = collate_rows([row], [branches])
    assert batch.target.tolist() == [3, 4, 9]
    assert batch.branch.tolist() == [0, 0, 1]
    two = row.paths[0][1]
    assert batch.predict_node.tolist() == [two, row.paths[0][2], two]


@pytest.mark.parametrize("start", [0, 3])
def test_a_branch_without_prompt_or_response_is_refused(start):
    with pytest.raises(ValueError, match="response starts at"):
        pack_branches([_branch([1, 2, 3], start=start)])


def test_no_branches_are_refused():
    with pytest.raises(ValueError, match="at least one branch"):
        pack_branches([])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=9), min_size=1, max_size=6))
def test_any_branches_are_recovered_from_their_paths(sequences):
    branches = [_branch(s) for s in sequences]
    row = pack_branches(branches)
    token = {n: int(branches[b].keys[o]) for n, (b, o) in enumerate(row.origin)}
    for path, branch in zip(row.paths, branches, strict=True):
        assert [token[n] for n in path] == branch.keys.tolist()
        assert (row.positions[:, path] == branch.positions).all()
        assert (row.depth[path] == np.arange(len(path))).all()
    distinct = {tuple(s[: i + 1]) for s in sequences for i in range(len(s))}
    assert row.size == len(distinct)
