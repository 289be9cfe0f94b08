"""The objective, with each loss's own values for what is left open."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from avere_ray.config.section import FromText, Section, Share

LossKind = Literal["dpo", "avem_dpo", "vista_dpo", "mdpo", "mod_dpo", "mod_dpo_pp", "sft"]

_TEXT_PRIOR = {"text_prior": "fixed", "text_prior_source": "reference", "text_prior_sign": -1}
_ADAPTIVE = {"text_prior_target": 0.5, "text_prior_rate": 0.02, "text_prior_min": 0.0, "text_prior_max": 0.5}
_LOSS_DEFAULTS: dict[str, dict[str, Any]] = {
    "dpo": {"spurious_weight": 0.5, "anchor_weight": 0.0},
    "avem_dpo": {
        "spurious_weight": 0.5,
        "anchor_weight": 0.0,
        "lambda_av": 1.0,
        "text_prior_gamma": 0.2,
        **_TEXT_PRIOR,
    },
    "vista_dpo": {
        "spurious_weight": 0.7,
        "anchor_weight": 0.0,
        "lambda_av": 1.0,
        "lambda_other": 1.0,
        "token_weight": 0.1,
        "token_alpha": 0.5,
        "released": False,
    },
    "mdpo": {"spurious_weight": 0.5, "anchor_weight": 1.0, "lambda_av": 1.0},
    "mod_dpo": {"spurious_weight": 0.5, "anchor_weight": 0.0, "beta_inv": 0.02, "beta_sens": 0.05},
    "mod_dpo_pp": {
        "spurious_weight": 0.5,
        "anchor_weight": 0.0,
        "beta_inv": 0.02,
        "beta_sens": 0.05,
        "text_prior_gamma": 0.05,
        **_TEXT_PRIOR,
    },
    "sft": {"spurious_weight": 0.5, "anchor_weight": 0.0, "sft_weight": 1.0},
}
"""What each kind of loss takes for the settings that are left open; what is not listed it does not use."""

_RELEASED = ("spurious_weight", "token_weight", "token_alpha")
"""What Vista-DPO's published code has as constants."""


class LossConfig(Section):
    """The preference loss; see avere_ray/losses/ for the formulas. Settings left open (None) take the kind's value."""

    kind: LossKind = "avem_dpo"
    """Which loss: "dpo" (naive DPO), "avem_dpo", "vista_dpo" (without its clip and object terms), "mdpo", "mod_dpo",
    "mod_dpo_pp", or "sft": the chosen responses alone, without preference."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the implicit KL constraint (0.1 in all the papers)."""
    form: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """How the margin of a preference becomes a loss; the papers use the sigmoid. Anchor and token terms keep it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of pairs whose preference is the wrong way round; with the sigmoid form only."""
    logps: Literal["sum", "mean"] = "sum"
    """Whether log-probs are summed over the response's tokens (papers) or averaged."""
    spurious_weight: Share | None = None
    """Weight of the spurious rejects, beta_vr; the others share the rest (0.5; vista_dpo: 0.7)."""
    lambda_av: Annotated[float, Field(ge=0)] | None = None
    """Weight of the preference over the input whose relevant modality is replaced (avem_dpo, vista_dpo, mdpo: 1.0)."""
    lambda_other: Annotated[float, Field(ge=0)] | None = None
    """Weight of the same with the irrelevant modality replaced (vista_dpo: 1.0)."""
    sft_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the chosen response's mean negative log-prob (papers: 0; sft: 1.0). Above 0 it keeps the chosen
    response likely while the margin grows."""
    anchor_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the anchor, which holds the chosen response above the reference (mdpo: 1.0; other: 0)."""
    text_prior: Literal["fixed", "adaptive"] | None = None
    """Strength of the text prior: "fixed" at text_prior_gamma, or "adaptive" from there on (papers: "fixed")."""
    text_prior_gamma: Annotated[float, Field(ge=0)] | None = None
    """Strength of the text-prior penalty, gamma (avem_dpo: gamma_TPD = 0.2; mod_dpo_pp: gamma_LPD = 0.05); where an
    adaptive one starts."""
    text_prior_sign: Annotated[Literal[-1, 1] | None, FromText] = None
    """Sign of the penalty in the margin (paper: -1)."""
    text_prior_source: Literal["reference", "policy"] | None = None
    """Whose text-only log-probs: the frozen "reference" (papers), or the current "policy", not differentiated."""
    text_prior_target: float | None = None
    """Adaptive: share of the chosen response's log-prob gain that the text alone may explain (0.5; unpublished)."""
    text_prior_rate: Annotated[float, Field(gt=0)] | None = None
    """Adaptive: change of the strength per optimizer step and unit of excess share (0.02)."""
    text_prior_min: Annotated[float, Field(ge=0)] | None = None
    """Adaptive: smallest strength (0)."""
    text_prior_max: Annotated[float, Field(ge=0)] | None = None
    """Adaptive: greatest strength (0.5)."""
    beta_inv: Annotated[float, Field(ge=0)] | None = None
    """Strength of the invariance to the irrelevant modality (mod_dpo, mod_dpo_pp: 0.02)."""
    beta_sens: Annotated[float, Field(ge=0)] | None = None
    """Strength of the sensitivity to the relevant modality (mod_dpo, mod_dpo_pp: 0.05)."""
    token_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the token term (vista_dpo: 0.1)."""
    token_alpha: Annotated[float, Field(ge=0)] | None = None
    """Weight of the sequence KL within the token term (vista_dpo: 0.5)."""
    released: bool | None = None
    """Compute what Vista-DPO's published code does instead of what its paper says (vista_dpo: false)."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_kinds_values(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kind = values.get("kind", cls.model_fields["kind"].default)
        defaults = _LOSS_DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}
        if "text_prior" in defaults and values.get("text_prior") == "adaptive":
            defaults = defaults | _ADAPTIVE
        return defaults | {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _rules_of_the_kind(self) -> Self:
        used = {"sft_weight", *_LOSS_DEFAULTS[self.kind]} | (set(_ADAPTIVE) if self.text_prior == "adaptive" else set())
        for name in [*{n: None for values in (*_LOSS_DEFAULTS.values(), _ADAPTIVE) for n in values}]:
            value = getattr(self, name)
            if name not in used and value is not None:
                raise ValueError(self._unused(name, value))
        if self.kind == "sft" and not self.sft_weight:
            raise ValueError("loss.sft_weight is 0, but it is all that loss.kind = sft has; give it a weight above 0")
        if self.label_smoothing and self.form != "sigmoid":
            raise ValueError(
                f"loss.label_smoothing ({self.label_smoothing}) belongs to loss.form = sigmoid; with "
                f"{self.form} leave it at 0"
            )
        if self.beta_sens is not None and self.beta_sens >= self.beta:
            raise ValueError(
                f"loss.beta_sens ({self.beta_sens}) must be below loss.beta ({self.beta}); otherwise pairs without an "
                "irrelevant modality would be trained away from their chosen response"
            )
        self._check_bounds()
        self._check_constants()
        return self

    def _check_constants(self) -> None:
        """Refuses values that Vista-DPO's published code does not have."""
        for name in _RELEASED if self.released else ():
            value, published = getattr(self, name), _LOSS_DEFAULTS["vista_dpo"][name]
            if value != published:
                raise ValueError(
                    f"loss.released computes what Vista-DPO's published code does, where loss.{name} is {published}, "
                    f"not {value}; leave it out, or set loss.released to false"
                )

    def _unused(self, name: str, value: Any) -> str:
        kinds = [kind for kind, values in _LOSS_DEFAULTS.items() if name in values]
        owner, here = f"loss.kind = {' or '.join(kinds)}", f"loss.kind = {self.kind}"
        if not kinds:
            owner, here = "loss.text_prior = adaptive", f"loss.text_prior = {self.text_prior}"
        return (
            f"loss.{name} = {value!r} belongs to {owner}, but {here}. Leave it out, or give --loss.{name}=None on the "
            "command line"
        )

    def _check_bounds(self) -> None:
        lowest, highest, start = self.text_prior_min, self.text_prior_max, self.text_prior_gamma
        if lowest is None or highest is None or start is None:
            return
        if not lowest <= start <= highest:
            raise ValueError(
                f"loss.text_prior_gamma ({start}), where the adaptive strength starts, must lie between "
                f"loss.text_prior_min ({lowest}) and loss.text_prior_max ({highest})"
            )
