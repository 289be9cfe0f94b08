"""The prefix tree: shared prefixes once, each branch's path whole, many trees side by side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avere_ray.tree import Branch, join_rows, pack_branches, pack_groups, response_predictions


def _branch(keys, start=1, shift=0):
    positions = np.broadcast_to(np.arange(len(keys)) + shift, (3, len(keys))).copy()
    return Branch(keys=np.asarray(keys, np.int64), positions=positions, response_start=start)


def _tokens(row, branches):
    """Which key stands at each node."""
    keys = np.empty(row.size, np.int64)
    for s in row.segments:
        keys[s.start : s.end] = branches[s.branch].keys[s.offset : s.offset + s.end - s.start]
    return keys


def test_a_shared_prefix_stands_once():
    row = pack_branches([_branch([1, 2, 3, 4]), _branch([1, 2, 5]), _branch([1, 6])])
    assert row.size == 6
    assert [len(row.path(b)) for b in range(3)] == [4, 3, 2]
    assert row.path(0)[:2].tolist() == row.path(1)[:2].tolist()


def test_equal_tokens_at_other_positions_are_not_shared():
    assert pack_branches([_branch([1, 2]), _branch([1, 2], shift=5)]).size == 4


def test_equal_branches_collapse():
    assert pack_branches([_branch([1, 2, 3]), _branch([1, 2, 3])]).size == 3


def test_a_branch_may_end_where_another_goes_on():
    row = pack_branches([_branch([1, 2, 3, 4]), _branch([1, 2])])
    assert row.size == 4
    assert row.path(1).tolist() == row.path(0)[:2].tolist()


def test_each_response_token_is_predicted_by_the_token_before_it():
    branches = [_branch([1, 2, 3, 4], start=2), _branch([1, 2, 9], start=2)]
    row = pack_branches(branches)
    found = response_predictions(row, branches)
    assert found.target.tolist() == [3, 4, 9]
    assert found.branch.tolist() == [0, 0, 1]
    two = row.path(0)[1]
    assert found.node.tolist() == [two, row.path(0)[2], two]


@pytest.mark.parametrize("start", [0, 3])
def test_a_branch_without_prompt_or_response_is_refused(start):
    with pytest.raises(ValueError, match="response starts at"):
        pack_branches([_branch([1, 2, 3], start=start)])


def test_no_branches_are_refused():
    with pytest.raises(ValueError, match="at least one branch"):
        pack_branches([])


sequences = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=9), min_size=1, max_size=6)


@settings(max_examples=80, deadline=None)
@given(sequences)
def test_any_branches_are_recovered_from_their_paths(sequences):
    branches = [_branch(s) for s in sequences]
    row = pack_branches(branches)
    keys = _tokens(row, branches)
    for b, branch in enumerate(branches):
        path = row.path(b)
        assert keys[path].tolist() == branch.keys.tolist()
        assert (row.positions[:, path] == branch.positions).all()
    assert row.size == len({tuple(s[: i + 1]) for s in sequences for i in range(len(s))})


@settings(max_examples=80, deadline=None)
@given(sequences)
def test_the_nodes_below_a_node_are_the_range_up_to_its_exit(sequences):
    branches = [_branch(s) for s in sequences]
    row = pack_branches(branches)
    exits = row.exits()
    below = {n: {n} for n in range(row.size)}
    for b in range(len(branches)):
        path = row.path(b)
        for i, node in enumerate(path):
            below[int(node)].update(int(n) for n in path[i:])
    for node, nodes in below.items():
        assert sorted(nodes) == list(range(node, exits[node]))


@settings(max_examples=60, deadline=None)
@given(st.lists(sequences, min_size=1, max_size=4))
def test_trees_side_by_side_keep_their_shape(groups):
    rows = [pack_branches([_branch(s) for s in group]) for group in groups]
    joined = join_rows(rows)
    assert joined.size == sum(r.size for r in rows)
    assert joined.num_branches == sum(r.num_branches for r in rows)
    nodes = branches = 0
    for row in rows:
        for b in range(row.num_branches):
            assert (joined.path(branches + b) == row.path(b) + nodes).all()
        assert (joined.exits()[nodes : nodes + row.size] == row.exits() + nodes).all()
        nodes, branches = nodes + row.size, branches + row.num_branches


@settings(max_examples=60, deadline=None)
@given(sequences, st.randoms(use_true_random=False))
def test_branches_keep_their_numbers_whatever_tree_they_are_in(sequences, random):
    branches = [_branch(s) for s in sequences]
    order = random.sample(range(len(branches)), len(branches))
    cut = random.randrange(len(order) + 1)
    groups = [group for group in (order[:cut], order[cut:]) if group]
    row = pack_groups(branches, groups)
    assert row.size == sum(pack_branches([branches[i] for i in group]).size for group in groups)
    for number, branch in enumerate(branches):
        path = row.path(number)
        assert len(path) == len(branch.keys) and (row.positions[:, path] == branch.positions).all()
        for segment in (row.segments[i] for i in row.ancestry(row.ends[number])):
            run = branches[segment.branch].keys[segment.offset : segment.offset + segment.end - segment.start]
            assert (run == branch.keys[segment.offset : segment.offset + len(run)]).all()
