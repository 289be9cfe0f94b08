"""The strength of the text prior: it moves towards the target, stays in bounds, and goes on exactly after a stop."""

import itertools
import json
import math

import pytest
import torch

from avere_ray.config import LossConfig
from avere_ray.errors import ConfigError, InputError
from avere_ray.losses import AdaptiveTextPrior, FixedTextPrior, gain_sums, make_text_prior

ONE = torch.ones(1)


def adaptive(**settings):
    plain = {"start": 0.2, "target": 0.5, "rate": 0.02, "lowest": 0.0, "highest": 0.5}
    return AdaptiveTextPrior(**(plain | settings))


def step(strength, clip, text, modality="audio"):
    strength.update(gain_sums([modality], torch.tensor([clip]), torch.tensor([text]), ONE))
    return strength.gamma[modality]


def test_the_strength_rises_while_the_words_explain_too_much_and_falls_while_they_explain_little():
    strength = adaptive()
    assert step(strength, clip=2.0, text=1.8) == pytest.approx(0.2 + 0.02 * (0.9 - 0.5))
    assert strength.reliance("audio") == pytest.approx(0.9)
    down = adaptive()
    assert step(down, clip=2.0, text=0.2) == pytest.approx(0.2 - 0.02 * 0.4)
    still = adaptive()
    assert step(still, clip=2.0, text=1.0) == 0.2


def test_the_reliance_is_the_ratio_of_fading_sums():
    strength = adaptive()
    step(strength, 2.0, 1.0)
    step(strength, 6.0, 0.0)
    assert strength.reliance("audio") == pytest.approx((0.9 * 1.0) / (0.9 * 2.0 + 6.0))


@pytest.mark.parametrize(("text", "bound"), [(1000.0, 0.5), (-1000.0, 0.0)])
def test_the_strength_stays_in_its_bounds_and_moves_at_most_by_the_rate(text, bound):
    strength, seen = adaptive(), [0.2]
    for _ in range(40):
        seen.append(step(strength, 1.0, text))
    assert seen[-1] == bound
    assert max(abs(b - a) for a, b in itertools.pairwise(seen)) <= 0.02 + 1e-12


def test_it_leaves_a_bound_as_soon_as_the_reliance_is_past_the_target():
    strength = adaptive()
    for _ in range(100):
        step(strength, 1.0, 5.0)
    steps = 0
    while strength.gamma["audio"] == 0.5 and steps < 100:
        step(strength, 1.0, 0.0)
        steps += 1
    assert 0 < steps < 40  # 0.9^n of the old sums fade below the target; nothing was stored up at the bound


def test_each_modality_has_its_own_strength():
    strength = adaptive()
    step(strength, 1.0, 1.0, "video")
    gammas = strength.gammas(["audio", "video", "audio_video", "audiovisual", ""])
    assert gammas.tolist() == pytest.approx([0.2, 0.21, 0.2, 0.2, 0.2])
    assert strength.metrics() == {"text_prior/reliance_video": 1.0}


def test_pairs_without_gain_fill_ins_and_broken_figures_are_ignored():
    clip = torch.tensor([0.0, -3.0, 2.0, 2.0, math.nan, 1.0, 1e-6])
    text = torch.tensor([5.0, 5.0, 1.0, 5.0, 5.0, math.inf, 1e-6])
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    sums = gain_sums(["audio"] * 7, clip, text, weights)
    assert sums.tolist() == [[2.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_step_without_gain_changes_nothing():
    strength = adaptive()
    step(strength, 2.0, 1.7)
    before = strength.state_dict()
    step(strength, 0.0, 0.0)
    step(strength, -1.0, 3.0)
    assert strength.state_dict() == before


def test_sums_of_workers_and_micro_batches_add_up():
    modality, weights = ["audio", "video", "audio", ""], torch.ones(4)
    clip, text = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.25, 1.0, 2.0])
    whole = gain_sums(modality, clip, text, weights)
    parts = [gain_sums(modality[i : i + 2], clip[i : i + 2], text[i : i + 2], weights[:2]) for i in (0, 2)]
    assert torch.equal(whole, parts[0] + parts[1])
    assert whole.tolist() == [[4.0, 1.5], [2.0, 0.25], [0.0, 0.0], [4.0, 2.0]]


def test_gains_carry_no_gradient_into_the_sums():
    clip = torch.tensor([2.0], requires_grad=True)
    assert not gain_sums(["audio"], clip, clip, ONE).requires_grad


def test_it_goes_on_exactly_after_a_stop():
    gains = [(1.0 + i % 3, 0.3 * (i % 5), ("audio", "video")[i % 2]) for i in range(30)]
    whole, first = adaptive(), adaptive()
    for gain in gains:
        step(whole, *gain)
    for gain in gains[:13]:
        step(first, *gain)
    second = adaptive(start=0.4)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for gain in gains[13:]:
        step(second, *gain)
    assert second.state_dict() == whole.state_dict()
    assert second.metrics() == whole.metrics()


def test_narrower_bounds_hold_after_a_restart():
    strength = adaptive(highest=0.1, start=0.1)
    strength.load_state_dict(adaptive(start=0.4).state_dict())
    assert set(strength.gamma.values()) == {0.1}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"rule": "fixed"}, "text prior is 'fixed', the run's loss.text_prior is 'adaptive'"),
        ({}, "text prior is None"),
        ({"rule": "adaptive", "gamma": {"audio": 1.0}}, "needs one number for each of audio, video, audiovisual"),
    ],
)
def test_a_state_of_another_kind_is_refused(state, words):
    with pytest.raises(InputError, match=words):
        adaptive().load_state_dict(state)


def test_the_settings_choose_the_strength():
    fixed = make_text_prior(LossConfig())
    assert isinstance(fixed, FixedTextPrior)
    assert fixed.gammas(["audio", ""]).tolist() == pytest.approx([0.2, 0.2])
    assert not fixed.measures
    fixed.load_state_dict(json.loads(json.dumps(fixed.state_dict())))
    assert make_text_prior(LossConfig(kind="dpo")).gammas(["audio"]).tolist() == [0.0]
    moving = make_text_prior(LossConfig(kind="mod_dpo_pp", text_prior="adaptive", text_prior_target=0.1))
    assert isinstance(moving, AdaptiveTextPrior)
    assert (moving.target, moving.rate, moving.lowest, moving.highest) == (0.1, 0.02, 0.0, 0.5)
    assert moving.gammas(["audio"]).tolist() == pytest.approx([0.05])
    assert moving.measures


def test_bad_tags_and_bounds_are_refused():
    with pytest.raises(InputError, match="modality 'smell'"):
        adaptive().gammas(["smell"])
    with pytest.raises(ConfigError, match=r"starts at 0\.7, outside its bounds 0\.0 to 0\.5"):
        adaptive(start=0.7)


def test_a_model_that_relies_less_on_the_words_the_stronger_the_penalty_ends_at_the_target():
    strength = adaptive(target=0.4, highest=1.0)
    for _ in range(400):
        step(strength, clip=3.0, text=3.0 * (0.9 - strength.gamma["audio"]))
    assert strength.gamma["audio"] == pytest.approx(0.5, abs=1e-3)
    assert strength.reliance("audio") == pytest.approx(0.4, abs=1e-3)


def test_a_model_that_does_not_react_is_held_by_the_bound():
    strength = adaptive(target=0.4)
    for _ in range(100):
        step(strength, clip=3.0, text=2.7)
    assert strength.gamma["audio"] == 0.5
