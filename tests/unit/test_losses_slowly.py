"""Every loss and every option against the same loss computed pair by pair in plain floats, gradients included."""

import copy
import dataclasses

import pytest
import torch
from lossmaker import INPUTS, pair_of, random_batch, rows, slow_loss, with_gradient

from avere_ray.config import LossConfig
from avere_ray.losses import PairLogps, make_objective

KINDS = ("dpo", "avem_dpo", "vista_dpo", "mdpo", "mod_dpo", "mod_dpo_pp", "sft")
OPTIONS = (
    {},
    {"form": "ipo"},
    {"form": "hinge"},
    {"label_smoothing": 0.1},
    {"logps": "mean"},
    {"anchor_weight": 0.3, "sft_weight": 0.7},
    {"logps": "mean", "form": "ipo", "anchor_weight": 0.3, "sft_weight": 0.7, "beta": 0.25},
)
OWN = {
    "avem_dpo": ({"text_prior_sign": 1}, {"lambda_av": 0.4}, {"spurious_weight": 0.2}, {"text_prior": "adaptive"}),
    "vista_dpo": (
        {"released": True},
        {"released": True, "beta": 0.3, "logps": "mean"},
        {"lambda_av": 0.3, "lambda_other": 0.6},
        {"token_weight": 2.0, "token_alpha": 0.9},
        {"token_weight": 2.0},
    ),
    "mdpo": ({"lambda_av": 0.2},),
    "mod_dpo": ({"beta_inv": 0.3, "beta_sens": 0.09},),
    "mod_dpo_pp": ({"text_prior_sign": 1, "beta_inv": 0.3},),
}
CASES = [(kind, options) for kind in KINDS for options in (*OPTIONS, *OWN.get(kind, ()))]


def ids(case):
    return "-".join([case[0], *(f"{name}={value}" for name, value in case[1].items())])


def slow_gradient(cfg, policy, reference, pair, step=1e-5):
    """Central differences over the live figures of one pair: input to list of Y numbers."""
    live, found = copy.deepcopy(policy), {}
    for name in INPUTS:
        found[name] = []
        for y, value in enumerate(policy[name]):
            ends = []
            for sign in (1, -1):
                live[name][y] = value + sign * step
                ends.append(slow_loss(cfg, live, policy, reference, pair))
            live[name][y] = value
            found[name].append((ends[0] - ends[1]) / (2 * step))
    return found


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_values_and_gradients_are_those_of_the_formula(case):
    cfg = LossConfig(kind=case[0], **case[1])
    for most in (1, 2, 3):
        policy, reference, batch = random_batch(most=most, seed=most, spurious=cfg.spurious_weight)
        policy = with_gradient(policy)
        loss_P, metrics = make_objective(cfg)(policy, reference, batch)
        loss_P.sum().backward()
        for p in range(len(loss_P)):
            figures = rows(policy, p), rows(reference, p), pair_of(batch, p)
            expected = slow_loss(cfg, figures[0], figures[0], figures[1], figures[2])
            assert loss_P[p].item() == pytest.approx(expected, rel=1e-10)
            assert metrics["loss"][p].item() == loss_P[p].item()
            for name, values in slow_gradient(cfg, *figures).items():
                grad = getattr(policy, f"{name}_PY").grad
                got = [0.0] * len(values) if grad is None else grad[p].tolist()
                assert got == pytest.approx(values, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_torchs_own_check(kind):
    cfg = LossConfig(kind=kind, beta=0.2)
    policy, reference, batch = random_batch(most=2, seed=3)
    objective = make_objective(cfg)

    def of_the_clean_figures(clean_PY):
        return objective(dataclasses.replace(policy, clean_PY=clean_PY), reference, batch)[0]

    def of_all_figures(*values):
        return objective(PairLogps(**dict(zip([f"{n}_PY" for n in INPUTS], values, strict=True))), reference, batch)[0]

    if kind in ("dpo", "avem_dpo", "mdpo"):
        assert torch.autograd.gradcheck(of_all_figures, [getattr(with_gradient(policy), f"{n}_PY") for n in INPUTS])
    else:  # these stop the gradient of some figures, but not of those given the clip
        assert torch.autograd.gradcheck(of_the_clean_figures, [with_gradient(policy).clean_PY])


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_what_a_loss_does_not_need_changes_nothing(case):
    """`needs` is complete: figures outside it may be missing or NaN, and swaps without gradient have none."""
    cfg = LossConfig(kind=case[0], **case[1])
    objective = make_objective(cfg)
    needs = objective.needs
    policy, reference, batch = random_batch(most=2, seed=5, spurious=cfg.spurious_weight)
    full, _ = objective(policy, reference, batch)
    bare = dataclasses.replace(
        policy,
        relevant_PY=_kept(policy.relevant_PY, needs.relevant, needs.relevant_rejects),
        irrelevant_PY=_kept(policy.irrelevant_PY, needs.irrelevant, needs.irrelevant_rejects),
        kl_PY=policy.kl_PY if needs.token_kl else None,
    )
    base = dataclasses.replace(
        reference,
        relevant_PY=_kept(reference.relevant_PY, needs.reference_relevant, False),
        irrelevant_PY=_kept(reference.irrelevant_PY, needs.reference_irrelevant, False),
        kl_PY=None,
    )
    if not needs.text_prior:
        batch = dataclasses.replace(batch, text_prior_PY=torch.full_like(batch.text_prior_PY, float("nan")))
    assert torch.equal(objective(bare, base, batch)[0], full)
    live = with_gradient(policy)
    objective(live, reference, batch)[0].sum().backward()
    swapped = [t.grad for t in (live.relevant_PY, live.irrelevant_PY) if t.grad is not None and t.grad.any()]
    assert bool(swapped) == needs.swap_gradient


def _kept(values, chosen, rejects):
    if not chosen:
        return None
    return values if rejects else torch.cat([values[:, :1], torch.full_like(values[:, 1:], float("nan"))], dim=1)
