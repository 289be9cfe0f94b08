"""Figures worked out by hand and the identities that must hold whatever the model."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from lossmaker import KINDS, random_batch, replace, with_gradient

from avere_ray.config import LossConfig
from avere_ray.errors import InputError
from avere_ray.losses import PairBatch, PairLogps, make_objective, reject_weights

LOSSES = ("dpo", "avem_dpo", "vista_dpo", "mdpo", "mod_dpo", "mod_dpo_pp", "sft")
HALF = torch.tensor([[0.5, 0.5]])
POLICY, REFERENCE = (-10.0, -8.0, -12.0, -11.0), (-11.0, -9.5, -11.0, -10.0)
"""Chosen, spurious and hallucinated given the clip, then the chosen one with the relevant modality replaced."""
PRIOR = (-20.0, -14.0, -18.0)
LOG2 = math.log(2)


def _logps(chosen, spurious, hallucinated, swapped):
    return PairLogps(
        clean_PY=torch.tensor([[chosen, spurious, hallucinated]], requires_grad=True),
        relevant_PY=torch.tensor([[swapped, 0.0, 0.0]], requires_grad=True),
    )


def _batch(prior=PRIOR, weights=HALF, swap=True, gamma=0.2, **fields):
    plain = {
        "weights_PK": weights,
        "tokens_PY": torch.tensor([[4, 2, 3]]),
        "text_prior_PY": torch.tensor([prior]),
        "modality": ("video",),
        "has_relevant_P": torch.tensor([swap]),
        "has_irrelevant_P": torch.tensor([False]),
        "reject_kinds": (KINDS,),
        "gamma_P": torch.tensor([gamma]),
    }
    return PairBatch(**(plain | fields))


def _loss(policy=POLICY, reference=REFERENCE, *, batch=None, **settings):
    return make_objective(LossConfig(**settings))(_logps(*policy), _logps(*reference), batch or _batch())


def _margin(loss):
    return -math.log(math.expm1(loss.item()))


def test_loss_is_the_papers_formula():
    loss, _ = _loss()
    rho = [p - r for p, r in zip(POLICY, REFERENCE, strict=True)]
    response = 0.1 * (rho[0] - 0.5 * rho[1] - 0.5 * rho[2]) - 0.2 * (-20.0 + 0.5 * 14.0 + 0.5 * 18.0)
    modality = 0.1 * (rho[0] - rho[3])
    expected = math.log1p(math.exp(-response)) + math.log1p(math.exp(-modality))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"kind": "dpo"}, 1.0),
        ({"kind": "dpo", "label_smoothing": 0.2}, 1.0),
        ({"kind": "avem_dpo", "text_prior_gamma": 0.0}, 2.0),
        ({"kind": "avem_dpo", "text_prior_gamma": 0.0, "lambda_av": 0.7}, 1.7),
        ({"kind": "mdpo"}, 3.0),
        ({"kind": "mod_dpo", "beta_inv": 0.0, "beta_sens": 0.0}, 1.0),
        ({"kind": "vista_dpo", "token_weight": 0.0}, 3.0),
        ({"kind": "vista_dpo"}, 3.1),
    ],
    ids=lambda value: str(value),
)
def test_equal_policy_and_reference_give_log_two_per_term(settings, terms):
    policy, _, batch = random_batch(most=2)
    everything = torch.ones(4, dtype=torch.bool)
    tags = ("video", "audio", "video", "audio")
    batch = replace(batch, has_relevant_P=everything, has_irrelevant_P=everything, modality=tags)
    policy = dataclasses.replace(policy, kl_PY=torch.zeros_like(policy.kl_PY))
    loss_P, metrics = make_objective(LossConfig(**settings))(policy, policy, batch)
    assert loss_P.tolist() == pytest.approx([terms * LOG2] * 4)
    assert not metrics["rewards/margins"].any()


def test_one_reject_without_extras_is_dpo():
    loss, _ = _loss(batch=_batch(weights=torch.tensor([[1.0, 0.0]])), lambda_av=0.0, text_prior_gamma=0.0)
    dpo = -F.logsigmoid(0.1 * ((torch.tensor(-10.0) + 11.0) - (torch.tensor(-8.0) + 9.5)))
    assert loss.item() == pytest.approx(dpo.item(), rel=1e-6)
    alone, _ = _loss(batch=_batch(weights=torch.tensor([[1.0, 0.0]])), kind="dpo")
    assert alone.item() == pytest.approx(dpo.item(), rel=1e-6)


def test_text_prior_shifts_the_margin_by_minus_gamma_times_the_gap():
    with_prior, _ = _loss(lambda_av=0.0)
    opposite, _ = _loss(lambda_av=0.0, text_prior_sign=1)
    without, _ = _loss(lambda_av=0.0, text_prior_gamma=0.0)
    gap = -20.0 + 0.5 * 14.0 + 0.5 * 18.0
    assert _margin(with_prior) - _margin(without) == pytest.approx(-0.2 * gap, rel=1e-4)
    assert _margin(opposite) - _margin(without) == pytest.approx(0.2 * gap, rel=1e-4)


def test_text_prior_changes_the_gradient_by_the_slope_of_the_sigmoid_alone():
    grads, slopes = [], []
    for gamma in (0.0, 0.2):
        policy, reference, batch = random_batch(gamma=gamma)
        policy = with_gradient(policy)
        loss_P, _ = make_objective(LossConfig(lambda_av=0.0))(policy, reference, batch)
        loss_P.sum().backward()
        grads.append(policy.clean_PY.grad)
        slopes.append(torch.sigmoid(-torch.tensor([_margin(loss) for loss in loss_P])).double())
    ratio_P1 = (slopes[1] / slopes[0])[:, None]
    assert torch.allclose(grads[1], grads[0] * ratio_P1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["avem_dpo", "mod_dpo_pp"])
def test_text_prior_is_not_differentiated(kind):
    policy, reference, batch = random_batch()
    prior = batch.text_prior_PY.requires_grad_()
    make_objective(LossConfig(kind=kind))(with_gradient(policy), reference, batch)[0].sum().backward()
    assert prior.grad is None


def test_gradient_reaches_both_rejects_and_the_swapped_branch():
    policy = _logps(*POLICY)
    loss, _ = make_objective(LossConfig())(policy, _logps(*REFERENCE), _batch())
    loss.sum().backward()
    assert (policy.clean_PY.grad[0, 1:] > 0).all()
    assert policy.relevant_PY.grad[0, 0].item() > 0
    assert policy.clean_PY.grad[0, 0].item() < 0


@pytest.mark.parametrize("kind", ["avem_dpo", "mdpo"])
def test_swap_equal_to_the_clip_gives_log_two_and_no_gradient(kind):
    settings = {"kind": kind, "anchor_weight": 0.0}
    same = _logps(-10.0, -8.0, -12.0, -10.0)
    reference = _logps(-11.0, -9.5, -11.0, -11.0)
    whole, metrics = make_objective(LossConfig(**settings))(same, reference, _batch())
    assert metrics["loss/modality"].item() == pytest.approx(LOG2, rel=1e-6)
    whole.sum().backward()
    through_both = same.clean_PY.grad[0, 0] + same.relevant_PY.grad[0, 0]
    alone = _logps(-10.0, -8.0, -12.0, -10.0)
    make_objective(LossConfig(**settings, lambda_av=0.0))(alone, reference, _batch())[0].sum().backward()
    assert through_both.item() == pytest.approx(alone.clean_PY.grad[0, 0].item(), abs=1e-7)


def test_mdpo_without_its_anchor_is_avem_dpo_with_one_reject_and_no_text_prior():
    policy, reference, batch = random_batch(most=1)
    mdpo, metrics = make_objective(LossConfig(kind="mdpo"))(policy, reference, batch)
    avem, _ = make_objective(LossConfig(text_prior_gamma=0.0))(policy, reference, batch)
    assert torch.allclose(mdpo - metrics["loss/anchor"], avem)


def test_several_rejects_are_pairs_of_their_own_for_dpo_and_one_margin_for_avem_dpo():
    dpo, _ = _loss(kind="dpo")
    avem, _ = _loss(lambda_av=0.0, text_prior_gamma=0.0)
    first, second = 0.1 * (1.0 - 1.5), 0.1 * (1.0 + 1.0)
    assert dpo.item() == pytest.approx(0.5 * math.log1p(math.exp(-first)) + 0.5 * math.log1p(math.exp(-second)))
    assert avem.item() == pytest.approx(math.log1p(math.exp(-0.5 * (first + second))))


def test_mod_dpo_has_dpos_value_and_tau_times_its_gradient_when_nothing_changes_under_the_swaps():
    policy, reference, batch = random_batch(most=1)
    tags, yes = ("audio", "video", "audio", "video"), torch.ones(4, dtype=torch.bool)
    batch = replace(batch, modality=tags, has_relevant_P=yes, has_irrelevant_P=yes)
    mod, dpo = with_gradient(policy), with_gradient(policy)
    mod = dataclasses.replace(mod, relevant_PY=mod.clean_PY.detach(), irrelevant_PY=mod.clean_PY.detach())
    losses = [
        make_objective(LossConfig(kind=kind))(figures, reference, batch)[0]
        for kind, figures in (("mod_dpo", mod), ("dpo", dpo))
    ]
    assert torch.allclose(losses[0], losses[1])
    for loss_P in losses:
        loss_P.sum().backward()
    assert torch.allclose(mod.clean_PY.grad, dpo.clean_PY.grad * (0.1 + 0.02 - 0.05) / 0.1)


def test_mod_dpo_without_an_irrelevant_modality_drops_it_from_tau():
    policy, reference, batch = random_batch(most=1)
    batch = replace(batch, has_relevant_P=~torch.ones(4, dtype=torch.bool), has_irrelevant_P=torch.zeros(4).bool())
    mod, _ = make_objective(LossConfig(kind="mod_dpo"))(policy, reference, batch)
    assert torch.allclose(mod, make_objective(LossConfig(kind="dpo"))(policy, reference, batch)[0])


def test_mod_dpo_pp_is_mod_dpo_where_the_text_prior_has_no_strength():
    policy, reference, batch = random_batch(gamma=0.0)
    losses = [make_objective(LossConfig(kind=k))(policy, reference, batch)[0] for k in ("mod_dpo", "mod_dpo_pp")]
    assert torch.equal(*losses)


def _vista(policy, reference, batch, **settings):
    """Policy figures with their gradients, and the metrics."""
    figures = with_gradient(policy)
    loss_P, metrics = make_objective(LossConfig(kind="vista_dpo", **settings))(figures, reference, batch)
    loss_P.sum().backward()
    return figures, metrics


def test_vista_as_released_does_not_weight_the_references_rejects():
    policy, reference, batch = random_batch(most=2, spurious=0.7)
    margins = [_vista(policy, reference, batch, released=r)[1]["loss/response"] for r in (False, True)]
    missing_P = ((1.0 - batch.weights_PK) * reference.clean_PY[:, 1:]).sum(-1)
    for p, kinds in enumerate(batch.reject_kinds):
        if len(kinds) == 2:
            assert _margin(margins[1][p]) - _margin(margins[0][p]) == pytest.approx(0.1 * missing_P[p].item())


def test_vista_as_released_has_no_gradient_where_the_paper_has_one():
    policy, reference, batch = random_batch(most=2, spurious=0.7)
    both = replace(batch, reject_kinds=(KINDS,) * 4, weights_PK=reject_weights([KINDS] * 4, 0.7).double())
    paper, figures = _vista(policy, reference, both)
    released, detached = _vista(policy, reference, both, released=True)
    assert paper.clean_PY.grad.all()
    assert released.clean_PY.grad[:, :2].all()
    assert not released.clean_PY.grad[:, 2].any()
    assert released.relevant_PY.grad is None
    assert released.irrelevant_PY.grad is None
    assert paper.relevant_PY.grad.any()
    for name in ("loss/modality", "loss/other", "modality/margin"):
        assert torch.equal(figures[name].nan_to_num(), detached[name].nan_to_num())


def test_a_missing_swap_or_reject_leaves_no_trace():
    nan = float("nan")
    batch = _batch((-20.0, -14.0, nan), torch.tensor([[1.0, 0.0]]), swap=False, reject_kinds=(("spurious",),))
    policy = _logps(-10.0, -8.0, nan, nan)
    loss, metrics = make_objective(LossConfig())(policy, _logps(-11.0, -9.5, nan, nan), batch)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert policy.clean_PY.grad.isfinite().all()
    for name in ("loss/modality", "modality/margin", "modality/margin_video", "rewards/hallucinated"):
        assert metrics[name].isnan().all()
    assert metrics["rewards/spurious"].item() == pytest.approx(0.15)


def test_an_unknown_modality_leaves_out_the_modality_terms():
    policy, reference, batch = random_batch()
    yes = torch.ones(4, dtype=torch.bool)
    batch = replace(batch, modality=("", "video", "", "audio"), has_relevant_P=yes, has_irrelevant_P=yes)
    for kind in ("avem_dpo", "mdpo", "vista_dpo", "mod_dpo"):
        _, metrics = make_objective(LossConfig(kind=kind))(policy, reference, batch)
        assert metrics["modality/margin"].isnan().tolist() == [True, False, True, False]


def test_a_reject_without_weight_still_shows_its_reward():
    _, metrics = _loss(batch=_batch(weights=torch.tensor([[1.0, 0.0]])))
    assert metrics["rewards/hallucinated"].item() == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"weights": torch.tensor([[0.7, 0.7]])}, ValueError, "must sum to 1"),
        ({"weights": torch.tensor([[1.5, -0.5]])}, ValueError, "none may be negative"),
        ({"modality": ("smell",)}, InputError, "pair in row 0 has modality 'smell'; allowed are audio, video"),
        ({"modality": ("smell",), "pair_ids": ("q7/0",)}, InputError, "pair 'q7/0' has modality 'smell'"),
        ({"tokens_PY": torch.tensor([[4, 0, 3]])}, InputError, "the reject 1 of pair in row 0 has 0 tokens"),
        ({"tokens_PY": torch.tensor([[0, 2, 3]])}, InputError, "the chosen response of pair in row 0 has 0 tokens"),
        ({"tokens_PY": torch.tensor([[4, 2]])}, ValueError, r"\[P, Y\] is \[1, 3\]; got tokens_PY \[1, 2\]"),
        ({"reject_kinds": ((),)}, ValueError, "names 0 rejects"),
        ({"reject_kinds": (("spurious",),)}, ValueError, r"names 1 rejects \(spurious\) but its weights"),
        ({"modality": ("video", "audio")}, ValueError, r"modality \[2\]"),
    ],
)
def test_a_batch_that_does_not_hold_together_is_refused(fields, error, words):
    with pytest.raises(error, match=words):
        _loss(batch=_batch(**fields))


def test_figures_that_a_loss_needs_are_named_when_they_are_missing():
    policy, reference = PairLogps(clean_PY=torch.zeros(1, 3)), PairLogps(clean_PY=torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"needs policy\.relevant_PY, policy\.irrelevant_PY, policy\.kl_PY, reference"):
        make_objective(LossConfig(kind="vista_dpo"))(policy, reference, _batch())
    loss_P, _ = make_objective(LossConfig(kind="dpo"))(policy, reference, _batch())
    assert loss_P.item() == pytest.approx(LOG2)


def test_the_records_word_for_both_modalities_is_understood():
    _, metrics = _loss(batch=_batch(modality=("audio_video",)))
    assert metrics["modality/margin_audiovisual"].isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_metrics_have_the_same_names_for_every_batch_and_carry_no_gradient(kind):
    names = []
    for seed, most in ((0, 1), (1, 3)):
        policy, reference, batch = random_batch(pairs=1 + seed, most=most, seed=seed)
        _, metrics = make_objective(LossConfig(kind=kind))(with_gradient(policy), reference, batch)
        assert all(value.shape == (1 + seed,) and not value.requires_grad for value in metrics.values())
        names.append(set(metrics))
    assert names[0] == names[1]
    trl = {"loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}
    assert names[0] >= trl | {"logps/chosen", "logps/rejected", "rewards/spurious", "rewards/hallucinated"}
    assert ("modality/margin_audio" in names[0]) == (kind not in ("dpo", "sft"))
    assert ("text_prior/gap" in names[0]) == (kind in ("avem_dpo", "mod_dpo_pp"))


def test_metrics_by_hand():
    _, metrics = _loss()
    got = {name: value.item() for name, value in metrics.items() if not value.isnan().any()}
    expected = {
        "rewards/chosen": 0.1,
        "rewards/rejected": 0.1 * (0.5 * 1.5 - 0.5),
        "rewards/margins": 0.1 * (1.0 - 0.25),
        "rewards/margins_video": 0.075,
        "rewards/accuracies": 1.0,
        "rewards/spurious": 0.15,
        "rewards/hallucinated": -0.1,
        "logps/chosen": -10.0,
        "logps/rejected": -10.0,
        "modality/margin": 0.2,
        "modality/margin_video": 0.2,
        "text_prior/gap": -4.0,
        "text_prior/favours_chosen": 0.0,
        "text_prior/shift": 0.8,
        "text_prior/gamma": 0.2,
        "text_prior/gamma_video": 0.2,
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert metrics["rewards/margins_audio"].isnan().all()


def test_rewards_by_kind_are_means_over_the_pairs_rejects_of_the_kind():
    kinds = (("spurious", "spurious"),)
    _, metrics = _loss(batch=_batch(weights=torch.tensor([[0.9, 0.1]]), reject_kinds=kinds))
    assert metrics["rewards/spurious"].item() == pytest.approx(0.1 * (1.5 - 1.0) / 2)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["spurious", "hallucinated"], [0.3, 0.7, 0.0]),
        (["hallucinated", "spurious"], [0.7, 0.3, 0.0]),
        (["spurious"], [1.0, 0.0, 0.0]),
        (["hallucinated"], [1.0, 0.0, 0.0]),
        (["spurious", "spurious"], [0.5, 0.5, 0.0]),
        (["hallucinated", "spurious", "hallucinated"], [0.35, 0.3, 0.35]),
        (["spurious", "other", "hallucinated"], [0.3, 0.35, 0.35]),
    ],
)
def test_reject_weights(kinds, expected):
    weights = reject_weights([kinds, ["spurious", "hallucinated", "spurious"]], 0.3)
    assert weights[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["spurious", "hallucinated"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_lone_reject_has_all_the_weight_whatever_the_shares(kind, share):
    assert reject_weights([[kind]], share).tolist() == [[1.0]]


@pytest.mark.parametrize("logps", ["sum", "mean"])
def test_the_sft_term_is_the_chosen_responses_mean_negative_log_prob(logps):
    with_term, metrics = _loss(sft_weight=0.5, logps=logps)
    without, _ = _loss(logps=logps)
    assert (with_term - without).item() == pytest.approx(0.5 * 10.0 / 4)
    assert metrics["loss/sft"].item() == pytest.approx(2.5)


def test_mean_log_probs_are_the_sums_over_the_lengths():
    means, metrics = _loss(logps="mean", lambda_av=0.0)
    rho, prior = (1.0 / 4, 1.5 / 2, -1.0 / 3), (-20.0 / 4, -14.0 / 2, -18.0 / 3)
    margin = 0.1 * (rho[0] - (rho[1] + rho[2]) / 2) - 0.2 * (prior[0] - (prior[1] + prior[2]) / 2)
    assert means.item() == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-6)
    assert metrics["logps/chosen"].item() == -10.0
