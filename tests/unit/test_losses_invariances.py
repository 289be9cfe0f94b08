"""What must not change a loss: constants that cancel, the order of rejects and pairs, padding, and units."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lossmaker import random_batch, replace

from avere_ray.config import LossConfig
from avere_ray.losses import PairLogps, make_objective

LOSSES = ("dpo", "avem_dpo", "vista_dpo", "mdpo", "mod_dpo", "mod_dpo_pp")
NAMES = ("clean_PY", "relevant_PY", "irrelevant_PY", "kl_PY")
kinds = st.sampled_from(LOSSES)
seeds = st.integers(0, 10_000)
few = settings(max_examples=25, deadline=None)


def loss_of(kind, figures, **options):
    return make_objective(LossConfig(kind=kind, **options))(*figures)[0]


def changed(logps, change, names=NAMES):
    return dataclasses.replace(logps, **{name: change(getattr(logps, name)) for name in names})


def same(left, right):
    assert torch.allclose(left, right, rtol=1e-9, atol=1e-9), (left, right)


@few
@given(kinds, seeds, st.floats(-50, 50))
def test_a_constant_in_both_models_cancels(kind, seed, shift):
    policy, reference, batch = random_batch(seed=seed)
    names = ("clean_PY", "relevant_PY", "irrelevant_PY")
    moved = changed(policy, lambda t: t + shift, names), changed(reference, lambda t: t + shift, names), batch
    same(loss_of(kind, (policy, reference, batch)), loss_of(kind, moved))


@few
@given(st.sampled_from(["dpo", "mod_dpo", "mod_dpo_pp"]), seeds, st.floats(-50, 50), st.floats(-50, 50))
def test_losses_of_ratios_ignore_a_constant_in_all_responses(kind, seed, policy_shift, prior_shift):
    policy, reference, batch = random_batch(seed=seed)
    moved = changed(policy, lambda t: t + policy_shift, ("clean_PY",))
    prior = replace(batch, text_prior_PY=batch.text_prior_PY + prior_shift)
    same(loss_of(kind, (policy, reference, batch)), loss_of(kind, (moved, reference, prior)))


@few
@given(kinds, seeds, st.permutations(range(3)), st.booleans())
def test_the_order_of_the_rejects_does_not_matter(kind, seed, order, released):
    policy, reference, batch = random_batch(most=3, seed=seed)
    full = replace(batch, reject_kinds=(batch.reject_kinds[0],) * 4, weights_PK=batch.weights_PK[:1].expand(4, 3))
    columns = [0, *(1 + k for k in order)]
    shuffled = replace(
        full,
        weights_PK=full.weights_PK[:, list(order)],
        tokens_PY=full.tokens_PY[:, columns],
        text_prior_PY=full.text_prior_PY[:, columns],
        reject_kinds=(tuple(full.reject_kinds[0][k] for k in order),) * 4,
    )
    moved = changed(policy, lambda t: t[:, columns]), changed(reference, lambda t: t[:, columns]), shuffled
    options = {"released": released} if kind == "vista_dpo" else {}
    same(loss_of(kind, (policy, reference, full), **options), loss_of(kind, moved, **options))


@few
@given(kinds, seeds, st.permutations(range(4)))
def test_pairs_do_not_see_each_other(kind, seed, order):
    policy, reference, batch = random_batch(seed=seed)
    rows = list(order)
    fields = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        fields[field.name] = value[rows] if isinstance(value, torch.Tensor) else tuple(value[p] for p in rows if value)
    moved = changed(policy, lambda t: t[rows]), changed(reference, lambda t: t[rows]), replace(batch, **fields)
    same(loss_of(kind, (policy, reference, batch))[rows], loss_of(kind, moved))


@few
@given(kinds, seeds, st.floats(allow_nan=True, allow_infinity=True))
def test_padding_is_never_read(kind, seed, garbage):
    policy, reference, batch = random_batch(seed=seed)

    def wider(values, fill=garbage):
        return torch.cat([values, torch.full_like(values[:, :1], fill)], dim=1)

    padded = replace(
        batch,
        weights_PK=wider(batch.weights_PK, 0.0),
        tokens_PY=wider(batch.tokens_PY, 1),
        text_prior_PY=wider(batch.text_prior_PY),
    )
    same(
        loss_of(kind, (policy, reference, batch)),
        loss_of(kind, (changed(policy, wider), changed(reference, wider), padded)),
    )


@few
@given(kinds, seeds)
def test_a_reject_given_twice_at_half_the_weight_counts_once(kind, seed):
    policy, reference, batch = random_batch(most=1, seed=seed)

    def doubled(values):
        return torch.cat([values, values[:, -1:]], dim=1)

    twice = replace(
        batch,
        weights_PK=doubled(batch.weights_PK) / 2,
        tokens_PY=doubled(batch.tokens_PY),
        text_prior_PY=doubled(batch.text_prior_PY),
        reject_kinds=tuple(kinds * 2 for kinds in batch.reject_kinds),
    )
    same(
        loss_of(kind, (policy, reference, batch)),
        loss_of(kind, (changed(policy, doubled), changed(reference, doubled), twice)),
    )


@few
@given(st.sampled_from(["dpo", "avem_dpo", "mdpo", "vista_dpo"]), seeds, st.floats(0.1, 10))
def test_beta_and_the_unit_of_the_log_probs_are_one_scale(kind, seed, scale):
    policy, reference, batch = random_batch(seed=seed, gamma=0.0)
    scaled = changed(policy, lambda t: t / scale), changed(reference, lambda t: t / scale), batch
    same(loss_of(kind, (policy, reference, batch), beta=0.2), loss_of(kind, scaled, beta=0.2 * scale))


@few
@given(kinds, seeds, st.sampled_from(["sigmoid", "hinge", "ipo"]))
def test_responses_of_one_token_have_equal_sums_and_means(kind, seed, form):
    policy, reference, batch = random_batch(seed=seed)
    batch = replace(batch, tokens_PY=torch.ones_like(batch.tokens_PY))
    losses = [loss_of(kind, (policy, reference, batch), form=form, logps=logps) for logps in ("sum", "mean")]
    assert torch.equal(*losses)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_better_chosen_response_lowers_the_loss(kind):
    policy, reference, batch = random_batch(seed=2)
    better = policy.clean_PY.clone()
    better[:, 0] += 1.0
    improved = PairLogps(**{name: getattr(policy, name) for name in NAMES} | {"clean_PY": better})
    assert (loss_of(kind, (improved, reference, batch)) < loss_of(kind, (policy, reference, batch))).all()
