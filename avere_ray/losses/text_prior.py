"""Strength of the text prior: the paper's constant, or a controller that holds the measured reliance at a target.

Reliance of a modality's pairs is the share of what training has taught about the chosen responses that the words alone
already give:

    reliance = sum of [ log pi_theta(chosen | x)       - log pi_ref(chosen | x) ]
             / sum of [ log pi_theta(chosen | a, v, x) - log pi_ref(chosen | a, v, x) ]

Both sums run over the pairs seen so far, older steps fading (each step keeps `MEMORY` of the sums before it), and only
over pairs whose gain given the clip is above `MIN_GAIN`: before training has moved a pair there is nothing to share. It
is 0 when all was learned from what is heard and seen, 1 when the clip adds nothing, and it may be below 0 or above 1.

Rule, once per optimizer step and for each modality apart:

    gamma <- clip( gamma + rate * clip(reliance - target, -1, 1), min, max )

so gamma rises while the words explain more than the target and falls while they explain less. It starts at
`loss.text_prior_gamma`. A step without pairs that gained leaves the modality as it is. The bounds keep gamma itself in
range, so nothing winds up while it stands at one of them. No published value for the target exists; the paper's authors
name an adaptive strength as open work.

The rule supposes that a greater gamma lowers the reliance, which holds for the paper's sign where the prior favours the
chosen responses; it is not proved. Look at `text_prior/reliance_*` beside `text_prior/gamma_*`: if reliance rises with
gamma, the rule stays at its upper bound, which is what `loss.text_prior_max` is for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from avere_ray.errors import ConfigError, InputError
from avere_ray.losses.terms import MODALITIES, modality_of

if TYPE_CHECKING:
    from avere_ray.config import LossConfig

MEMORY = 0.9
"""Share of the running sums that the next step with figures keeps; the last ten such steps are two thirds of them."""
MIN_GAIN = 1e-3
"""Smallest gain given the clip (nats) of a pair that counts; below it float32 rounding decides."""
GROUPS = (*MODALITIES, "untagged")
"""Pairs that share a strength: those of each modality, and those without a tag."""


class TextPrior(Protocol):
    """Gives each pair its strength and may learn from the steps."""

    measures: bool
    """Whether `update` wants gains; they need the text-only log-probs of the chosen response, policy and reference."""

    def gammas(self, modality: Sequence[str]) -> torch.Tensor:
        """Strength of each pair, float32 [P] on the CPU."""
        ...

    def update(self, sums: torch.Tensor) -> None:
        """Takes in one optimizer step's `gain_sums`, added up over its micro-batches and workers."""
        ...

    def metrics(self) -> dict[str, float]:
        """What to log after a step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken.

        Raises:
            InputError: the state is not one of this kind of strength.
        """
        ...


def make_text_prior(cfg: "LossConfig") -> TextPrior:
    """The strength that the settings name; 0 for losses without a text prior."""
    if cfg.text_prior != "adaptive":
        return FixedTextPrior(cfg.text_prior_gamma or 0.0)
    settings = (cfg.text_prior_gamma, cfg.text_prior_target, cfg.text_prior_rate, cfg.text_prior_min)
    start, target, rate, lowest = (_number(value) for value in settings)
    return AdaptiveTextPrior(start=start, target=target, rate=rate, lowest=lowest, highest=_number(cfg.text_prior_max))


def gain_sums(
    modality: Sequence[str], clip_gain_P: torch.Tensor, text_gain_P: torch.Tensor, weights_P: torch.Tensor
) -> torch.Tensor:
    """What the controller needs of a batch, ready to be added up over micro-batches and workers.

    Args:
        modality: tag of each pair.
        clip_gain_P: the chosen response's log-prob given the clip, policy minus reference (nats).
        text_gain_P: the same given the prompt alone.
        weights_P: 0 for fill-ins, which are left out; the others count alike.

    Returns:
        float64 [len(GROUPS), 2]: sums of the clip gains and of the text gains of the pairs that gained.
    """
    clip, text = clip_gain_P.detach().double(), text_gain_P.detach().double()
    counted = (clip > MIN_GAIN) & clip.isfinite() & text.isfinite() & (weights_P > 0)
    sums = clip.new_zeros(len(GROUPS), 2)
    rows = torch.tensor([_group(tag) for tag in modality], device=clip.device)
    gains = torch.where(counted[:, None], torch.stack([clip, text], dim=-1), 0.0)
    return sums.index_add(0, rows, gains)


class FixedTextPrior:
    """The same strength for every pair, as in the paper."""

    measures = False

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def gammas(self, modality: Sequence[str]) -> torch.Tensor:
        """See `TextPrior`."""
        return torch.full((len(modality),), self.gamma)

    def update(self, sums: torch.Tensor) -> None:
        """Nothing to learn."""

    def metrics(self) -> dict[str, float]:
        """Nothing: the loss itself logs `text_prior/gamma`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The constant is a setting, not a state."""
        return {"rule": "fixed"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `TextPrior`."""
        _check_rule(state, "fixed")


class AdaptiveTextPrior:
    """Moves the strength of each modality so that its reliance stays at the target; the rule is in the module text."""

    measures = True

    def __init__(self, *, start: float, target: float, rate: float, lowest: float, highest: float) -> None:
        """
        Args:
            start: strength of every modality before the first step.
            target: reliance to hold.
            rate: change of the strength per step and unit of excess reliance.
            lowest, highest: bounds of the strength.

        Raises:
            ConfigError: the start is not between the bounds.
        """
        if not lowest <= start <= highest:
            raise ConfigError(f"the text prior starts at {start}, outside its bounds {lowest} to {highest}")
        self.target, self.rate, self.lowest, self.highest = target, rate, lowest, highest
        self.gamma = dict.fromkeys(GROUPS, start)
        self.clip_gain = dict.fromkeys(GROUPS, 0.0)
        self.text_gain = dict.fromkeys(GROUPS, 0.0)

    def gammas(self, modality: Sequence[str]) -> torch.Tensor:
        """See `TextPrior`."""
        return torch.tensor([self.gamma[GROUPS[_group(tag)]] for tag in modality])

    def reliance(self, group: str) -> float | None:
        """Measured reliance of a group of pairs; None before any of them gained."""
        return self.text_gain[group] / self.clip_gain[group] if self.clip_gain[group] > 0 else None

    def update(self, sums: torch.Tensor) -> None:
        """See `TextPrior`; `sums` is [len(GROUPS), 2] as from `gain_sums`."""
        for group, (clip, text) in zip(GROUPS, sums.tolist(), strict=True):
            if clip <= 0:
                continue
            self.clip_gain[group] = MEMORY * self.clip_gain[group] + clip
            self.text_gain[group] = MEMORY * self.text_gain[group] + text
            excess = self.text_gain[group] / self.clip_gain[group] - self.target
            moved = self.gamma[group] + self.rate * min(1.0, max(-1.0, excess))
            self.gamma[group] = min(self.highest, max(self.lowest, moved))

    def metrics(self) -> dict[str, float]:
        """`text_prior/reliance_<modality>` of the modalities measured so far; the loss logs `text_prior/gamma_*`."""
        measured = {group: self.reliance(group) for group in GROUPS}
        return {f"text_prior/reliance_{group}": value for group, value in measured.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """See `TextPrior`."""
        return {
            "rule": "adaptive",
            "gamma": dict(self.gamma),
            "clip_gain": dict(self.clip_gain),
            "text_gain": dict(self.text_gain),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `TextPrior`. Strengths outside changed bounds are brought to the nearer one."""
        _check_rule(state, "adaptive")
        for name in ("gamma", "clip_gain", "text_gain"):
            values = state.get(name)
            if not isinstance(values, dict) or set(values) != set(GROUPS):
                raise InputError(
                    f"the text prior's state has {name} = {values!r}; it needs one number for each of "
                    f"{', '.join(GROUPS)}. Go on from another checkpoint."
                )
        self.gamma = {g: min(self.highest, max(self.lowest, float(state["gamma"][g]))) for g in GROUPS}
        self.clip_gain = {g: float(state["clip_gain"][g]) for g in GROUPS}
        self.text_gain = {g: float(state["text_gain"][g]) for g in GROUPS}


def _group(tag: str) -> int:
    return GROUPS.index(modality_of(tag) or "untagged")


def _check_rule(state: dict[str, Any], rule: str) -> None:
    if state.get("rule") != rule:
        raise InputError(
            f"the checkpoint's text prior is {state.get('rule')!r}, the run's loss.text_prior is {rule!r}; "
            "set loss.text_prior as it was, or start without the checkpoint"
        )


def _number(value: float | None) -> float:
    if value is None:
        raise ConfigError("loss.text_prior is 'adaptive' but its target, rate or bounds are not set")
    return value
