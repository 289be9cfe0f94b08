"""AVEm-DPO against three-line references and the identities that must hold whatever the model."""

import math

import pytest
import torch
import torch.nn.functional as F

from avere_ray.losses import PairLogps, avem_dpo_loss, reject_weights

HALF = torch.tensor([[0.5, 0.5]])


def _logps(chosen: float, spurious: float, hallucinated: float, swapped: float) -> PairLogps:
    return PairLogps(
        chosen_P=torch.tensor([chosen], requires_grad=True),
        rejected_PK=torch.tensor([[spurious, hallucinated]], requires_grad=True),
        swapped_P=torch.tensor([swapped], requires_grad=True),
    )


POLICY, REFERENCE = (-10.0, -8.0, -12.0, -11.0), (-11.0, -9.5, -11.0, -10.0)
PRIOR = torch.tensor([[-20.0, -14.0, -18.0]])
YES = torch.tensor([True])


def _loss(policy=POLICY, reference=REFERENCE, prior=PRIOR, weights=HALF, swap=YES, **how):
    settings = {"beta": 0.1, "lambda_av": 1.0, "gamma": 0.2} | how
    return avem_dpo_loss(_logps(*policy), _logps(*reference), prior, weights, swap, **settings)


def test_loss_is_the_papers_formula():
    loss, _ = _loss()
    rho = [p - r for p, r in zip(POLICY, REFERENCE, strict=True)]
    response = 0.1 * (rho[0] - 0.5 * rho[1] - 0.5 * rho[2]) - 0.2 * (-20.0 + 0.5 * 14.0 + 0.5 * 18.0)
    modality = 0.1 * (rho[0] - rho[3])
    expected = math.log1p(math.exp(-response)) + math.log1p(math.exp(-modality))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_equal_policy_and_reference_without_prior_give_log_two_per_term():
    loss, metrics = _loss(reference=POLICY, gamma=0.0, lambda_av=0.7)
    assert loss.item() == pytest.approx(1.7 * math.log(2), rel=1e-6)
    assert metrics["rewards/margins"].item() == 0.0


def test_one_reject_without_extras_is_dpo():
    loss, _ = _loss(weights=torch.tensor([[1.0, 0.0]]), lambda_av=0.0, gamma=0.0)
    dpo = -F.logsigmoid(0.1 * ((torch.tensor(-10.0) + 11.0) - (torch.tensor(-8.0) + 9.5)))
    assert loss.item() == pytest.approx(dpo.item(), rel=1e-6)


def test_text_prior_shifts_the_margin_by_minus_gamma_times_the_gap():
    with_prior, _ = _loss(lambda_av=0.0)
    opposite, _ = _loss(lambda_av=0.0, sign=1)
    without, _ = _loss(lambda_av=0.0, gamma=0.0)
    gap = -20.0 + 0.5 * 14.0 + 0.5 * 18.0

    def margin(loss):
        return -math.log(math.expm1(loss.item()))

    assert margin(with_prior) - margin(without) == pytest.approx(-0.2 * gap, rel=1e-4)
    assert margin(opposite) - margin(without) == pytest.approx(0.2 * gap, rel=1e-4)


def test_text_prior_is_not_differentiated():
    prior = PRIOR.clone().requires_grad_()
    loss, _ = _loss(prior=prior)
    loss.sum().backward()
    assert prior.grad is None


def test_gradient_reaches_both_rejects_and_the_swapped_branch():
    policy = _logps(*POLICY)
    loss, _ = avem_dpo_loss(policy, _logps(*REFERENCE), PRIOR, HALF, YES, beta=0.1, lambda_av=1.0, gamma=0.2)
    loss.sum().backward()
    assert (policy.rejected_PK.grad > 0).all()
    assert policy.swapped_P.grad.item() > 0
    assert policy.chosen_P.grad.item() < 0


def test_swap_equal_to_the_clip_gives_log_two():
    _, metrics = _loss(policy=(-10.0, -8.0, -12.0, -10.0), reference=(-11.0, -9.5, -11.0, -11.0))
    assert metrics["loss/modality"].item() == pytest.approx(math.log(2), rel=1e-6)


def test_a_missing_swap_or_reject_leaves_no_trace():
    nan = float("nan")
    policy, reference = (-10.0, -8.0, nan, nan), (-11.0, -9.5, nan, nan)
    prior = torch.tensor([[-20.0, -14.0, nan]])
    loss, metrics = _loss(policy, reference, prior, torch.tensor([[1.0, 0.0]]), torch.tensor([False]))
    assert loss.isfinite().all()
    assert metrics["loss/modality"].item() == 0.0
    assert metrics["modality/margin"].item() == 0.0


def test_weights_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="must sum to 1"):
        _loss(weights=torch.tensor([[0.7, 0.7]]))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["spurious", "hallucinated"], [0.3, 0.7]),
        (["hallucinated", "spurious"], [0.7, 0.3]),
        (["spurious"], [1.0, 0.0]),
        (["hallucinated"], [1.0, 0.0]),
        (["spurious", "spurious"], [0.5, 0.5]),
    ],
)
def test_reject_weights(kinds, expected):
    weights = reject_weights([kinds, ["spurious", "hallucinated"]], 0.3)
    assert weights[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["spurious", "hallucinated"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_lone_reject_has_all_the_weight_whatever_the_shares(kind, share):
    assert reject_weights([[kind]], share).tolist() == [[1.0]]


def test_the_sft_term_is_the_chosen_responses_mean_negative_log_prob():
    with_term, _ = _loss(sft_weight=0.5, chosen_tokens_P=torch.tensor([4]))
    without, _ = _loss()
    assert (with_term - without).item() == pytest.approx(0.5 * 10.0 / 4)


def test_the_sft_term_needs_lengths():
    with pytest.raises(ValueError, match="chosen_tokens_P"):
        _loss(sft_weight=1.0)
