"""How pairs are dealt to workers and steps: nothing lost, the same amount of work for all."""

from collections import Counter

import pytest

from avere_ray.config import RunConfig, TrainConfig
from avere_ray.learner import StepShare, count_steps, rate_factor, step_shares


def _cfg(**train):
    return RunConfig(train=TrainConfig(**({"pairs_per_step": 8, "micro_pairs": 2, "workers": 2} | train)))


@pytest.mark.parametrize("num_pairs", [1, 7, 8, 9, 40])
@pytest.mark.parametrize("epochs", [1, 3])
def test_every_pair_has_its_whole_weight_in_every_epoch(num_pairs, epochs):
    cfg = _cfg(epochs=epochs)
    shares = [list(step_shares(num_pairs, cfg, rank=r, world=2)) for r in range(2)]
    seen: Counter[int] = Counter()
    for per_step in zip(*shares, strict=True):
        weights = [w for share in per_step for group in share.weights for w in group]
        assert sum(weights) == pytest.approx(1.0)
        for share in per_step:
            for indices, group in zip(share.micro, share.weights, strict=True):
                seen.update(i for i, w in zip(indices, group, strict=True) if w)
    assert seen == dict.fromkeys(range(num_pairs), epochs)
    assert len(shares[0]) == count_steps(num_pairs, epochs, 8)


def test_workers_do_the_same_number_of_forward_passes():
    cfg = _cfg()
    a, b = (list(step_shares(11, cfg, rank=r, world=2)) for r in range(2))
    assert [[len(m) for m in s.micro] for s in a] == [[len(m) for m in s.micro] for s in b] == [[2, 2], [2, 2]]


def test_the_order_follows_the_seed():
    def order(seed):
        return [s.micro for s in step_shares(30, RunConfig(seed=seed), rank=0, world=2)]

    assert order(0) == order(0) != order(1)


def test_the_rate_rises_then_falls_to_nearly_zero():
    factors = [rate_factor(s, 20, 0.1) for s in range(20)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[1:] == sorted(factors[1:], reverse=True)
    assert 0.0 < factors[-1] < 0.1


def test_a_token_budget_cuts_micro_batches_and_keeps_workers_in_step():
    sizes = [10, 10, 90, 10, 300, 10, 10, 10, 10]
    cfg = _cfg(micro_pairs=4, tokens_per_micro=100)
    shares = [list(step_shares(9, cfg, rank=r, world=2, sizes=sizes)) for r in range(2)]
    for per_step in zip(*shares, strict=True):
        assert len({len(share.micro) for share in per_step}) == 1
        assert sum(w for share in per_step for group in share.weights for w in group) == pytest.approx(1.0)
        for share in per_step:
            for indices in share.micro:
                assert len(indices) == 1 or sum(sizes[i] for i in indices) <= 100
    trained = [i for share in shares[0] + shares[1] for m, w in zip(share.micro, share.weights, strict=True)
               for i, x in zip(m, w, strict=True) if x]  # fmt: skip
    assert sorted(trained) == list(range(9))


def test_with_a_token_budget_pairs_of_like_length_share_a_row():
    sizes = [10, 90, 20, 80, 30, 70, 40, 60]
    cfg = _cfg(workers=1, micro_pairs=8, tokens_per_micro=110)
    (share,) = step_shares(8, cfg, rank=0, world=1, sizes=sizes)
    assert [[sizes[i] for i in m] for m in share.micro] == [[90], [80], [70], [60, 40], [30, 20, 10]]


def test_a_fill_in_of_the_last_step_keeps_its_weight_where_length_moves_it():
    sizes = [10, 20, 30, 40, 50]
    cfg = _cfg(workers=1, pairs_per_step=4, micro_pairs=4, tokens_per_micro=60)
    _, last = step_shares(5, cfg, rank=0, world=1, sizes=sizes)
    weights = dict.fromkeys(range(5), 0.0)
    for indices, group in zip(last.micro, last.weights, strict=True):
        for i, w in zip(indices, group, strict=True):
            weights[i] += w
    assert sorted(weights.values()) == [0.0] * 4 + [1.0]
    first, _ = step_shares(5, cfg, rank=0, world=1, sizes=sizes)
    trained = {i for m in first.micro for i in m}
    assert next(i for i, w in weights.items() if w) not in trained


def test_a_share_survives_its_text_exactly():
    share = next(iter(step_shares(7, _cfg(), rank=1, world=2)))
    assert StepShare.from_json(share.to_json()) == share
