"""Settings of the losses: open ones take the kind's value, those of another kind are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from avere_ray.config import LossConfig, load_config
from avere_ray.errors import ConfigError

PAPER = {
    "dpo": {"beta": 0.1},
    "avem_dpo": {
        "beta": 0.1,
        "spurious_weight": 0.5,
        "lambda_av": 1.0,
        "text_prior_gamma": 0.2,
        "text_prior_sign": -1,
        "text_prior": "fixed",
        "text_prior_source": "reference",
    },
    "vista_dpo": {
        "beta": 0.1,
        "spurious_weight": 0.7,
        "token_weight": 0.1,
        "token_alpha": 0.5,
        "lambda_av": 1.0,
        "released": False,
    },
    "mdpo": {"beta": 0.1, "anchor_weight": 1.0, "lambda_av": 1.0},
    "mod_dpo": {"beta": 0.1, "beta_inv": 0.02, "beta_sens": 0.05},
    "mod_dpo_pp": {"beta": 0.1, "beta_inv": 0.02, "beta_sens": 0.05, "text_prior_gamma": 0.05, "text_prior_sign": -1},
}


@pytest.mark.parametrize("kind", PAPER)
def test_open_settings_take_the_papers_values(kind):
    cfg = LossConfig(kind=kind)
    assert {name: getattr(cfg, name) for name in PAPER[kind]} == PAPER[kind]
    assert (cfg.form, cfg.label_smoothing, cfg.logps, cfg.sft_weight) == ("sigmoid", 0.0, "sum", 0.0)


@pytest.mark.parametrize("kind", PAPER)
def test_a_resolved_config_is_accepted_again(kind, tmp_path: Path):
    config = load_config(None, [f"--loss.kind={kind}"])
    file = tmp_path / "run.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["kind=nope"], ["loss.kind = 'nope'", "'mod_dpo_pp'"]),
        (["kind=dpo", "lambda_av=1"], ["loss.lambda_av = 1.0 belongs to loss.kind = avem_dpo or vista_dpo or mdpo"]),
        (["kind=mod_dpo", "text_prior_gamma=0"], ["belongs to loss.kind = avem_dpo or mod_dpo_pp", "Leave it out"]),
        (["kind=mdpo", "released=true"], ["loss.released = True belongs to loss.kind = vista_dpo"]),
        (
            ["kind=vista_dpo", "released=true", "token_weight=0.3"],
            ["loss.token_weight is 0.1, not 0.3"],
        ),
        (["kind=mdpo", "released=false"], ["loss.released = False belongs to loss.kind = vista_dpo"]),
        (["beta_inv=0.1"], ["belongs to loss.kind = mod_dpo or mod_dpo_pp, but loss.kind = avem_dpo"]),
        (["text_prior_rate=0.1"], ["belongs to loss.text_prior = adaptive, but loss.text_prior = fixed"]),
        (["kind=dpo", "text_prior=adaptive"], ["loss.text_prior = 'adaptive' belongs to loss.kind = avem_dpo"]),
        (["form=ipo", "label_smoothing=0.1"], ["belongs to loss.form = sigmoid; with ipo leave it at 0"]),
        (["label_smoothing=0.5"], ["less than 0.5"]),
        (["kind=mod_dpo", "beta_sens=0.1"], ["loss.beta_sens (0.1) must be below loss.beta (0.1)"]),
        (["text_prior=adaptive", "text_prior_max=0.1"], ["loss.text_prior_gamma (0.2)", "loss.text_prior_max (0.1)"]),
        (["text_prior=adaptive", "text_prior_min=0.3"], ["loss.text_prior_min (0.3)"]),
        (["text_prior=sometimes"], ["'fixed' or 'adaptive'"]),
        (["beta=0"], ["greater than 0"]),
        (["kind=sft", "sft_weight=0"], ["loss.sft_weight is 0", "give it a weight above 0"]),
        (["kind=sft", "lambda_av=1"], ["loss.lambda_av = 1.0 belongs to loss.kind = avem_dpo"]),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_a_sentence(overrides, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"--loss.{text}" for text in overrides])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_sft_has_a_weight_of_its_own_and_the_others_keep_theirs():
    assert (LossConfig(kind="sft").sft_weight, LossConfig(kind="sft", sft_weight=0.3).sft_weight) == (1.0, 0.3)
    assert LossConfig(kind="dpo", sft_weight=0.7).sft_weight == 0.7


def test_a_setting_of_the_file_can_be_taken_back_on_the_command_line(tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text("loss: {text_prior_gamma: 0.1, beta: 0.2}\n", encoding="utf-8")
    assert load_config(file, ["--loss.text_prior_gamma=None"]).loss.text_prior_gamma == 0.2
    config = load_config(file, ["--loss.kind=dpo", "--loss.text_prior_gamma=None"])
    assert (config.loss.kind, config.loss.text_prior_gamma, config.loss.beta) == ("dpo", None, 0.2)


def test_a_strange_kind_is_refused_like_any_other_value():
    with pytest.raises(ValidationError, match="kind"):
        LossConfig.model_validate({"kind": ["dpo"]})
