"""Preference losses, one file each: log-probs in, one loss per pair and metrics out. No Ray, no model.

`make_objective` chooses by `loss.kind`; `make_text_prior` gives the strength of the text prior, fixed or adaptive.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from avere_ray.losses.avem_dpo import AvemDpo
from avere_ray.losses.dpo import Dpo
from avere_ray.losses.mdpo import MDpo
from avere_ray.losses.mod_dpo import ModDpo
from avere_ray.losses.rejects import reject_weights
from avere_ray.losses.sft import Sft
from avere_ray.losses.terms import MODALITIES, Needs, Objective, PairBatch, PairLogps, Shared
from avere_ray.losses.text_prior import AdaptiveTextPrior, FixedTextPrior, TextPrior, gain_sums, make_text_prior
from avere_ray.losses.vista_dpo import VistaDpo

if TYPE_CHECKING:  # the settings are only read, so that the losses work where pydantic is not installed
    from avere_ray.config import LossConfig

__all__ = [
    "MODALITIES",
    "AdaptiveTextPrior",
    "AvemDpo",
    "Dpo",
    "FixedTextPrior",
    "MDpo",
    "ModDpo",
    "Needs",
    "Objective",
    "PairBatch",
    "PairLogps",
    "Sft",
    "Shared",
    "TextPrior",
    "VistaDpo",
    "gain_sums",
    "make_objective",
    "make_text_prior",
    "reject_weights",
]


def make_objective(cfg: "LossConfig") -> Objective:
    """The objective that the settings name."""
    shared = Shared(
        beta=cfg.beta,
        form=cfg.form,
        label_smoothing=cfg.label_smoothing,
        logps=cfg.logps,
        anchor_weight=cfg.anchor_weight or 0.0,
        sft_weight=cfg.sft_weight,
    )
    return _OBJECTIVES[cfg.kind](cfg, shared)


def _avem_dpo(cfg: Any, shared: Shared) -> Objective:
    return AvemDpo(shared=shared, lambda_av=cfg.lambda_av, sign=cfg.text_prior_sign, text_prior=_used(cfg))


def _vista_dpo(cfg: Any, shared: Shared) -> Objective:
    return VistaDpo(
        shared=shared,
        lambda_av=cfg.lambda_av,
        lambda_other=cfg.lambda_other,
        token_weight=cfg.token_weight,
        token_alpha=cfg.token_alpha,
        released=cfg.released,
    )


def _mod_dpo(cfg: Any, shared: Shared) -> Objective:
    return ModDpo(shared=shared, beta_inv=cfg.beta_inv, beta_sens=cfg.beta_sens)


def _mod_dpo_pp(cfg: Any, shared: Shared) -> Objective:
    return ModDpo(
        shared=shared,
        beta_inv=cfg.beta_inv,
        beta_sens=cfg.beta_sens,
        text_prior=_used(cfg),
        sign=cfg.text_prior_sign,
    )


def _used(cfg: Any) -> bool:
    """Whether the text prior can have a strength above 0."""
    return cfg.text_prior == "adaptive" or cfg.text_prior_gamma > 0


_OBJECTIVES: dict[str, Callable[[Any, Shared], Objective]] = {
    "dpo": lambda cfg, shared: Dpo(shared=shared),
    "avem_dpo": _avem_dpo,
    "vista_dpo": _vista_dpo,
    "mdpo": lambda cfg, shared: MDpo(shared=shared, lambda_av=cfg.lambda_av),
    "mod_dpo": _mod_dpo,
    "mod_dpo_pp": _mod_dpo_pp,
    "sft": lambda cfg, shared: Sft(shared=shared),
}
