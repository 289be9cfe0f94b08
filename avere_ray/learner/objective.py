"""Pairs to losses: trees, log-probs of policy and reference, and the objective of the config.

Branches whose log-probs the objective does not differentiate (the swapped inputs of MoD-DPO, the policy's own text
prior) run apart, without gradient. Which forward passes a micro-batch takes depends on the settings alone, never on its
pairs: under ZeRO-3 a worker that left one out would be waited for.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from avere_ray.backbones.types import PackedRow, Policy, Sample
from avere_ray.branches import ByBranch, Wanted, pair_samples
from avere_ray.losses import PairBatch, PairLogps, gain_sums, make_objective, make_text_prior
from avere_ray.media_cache import MediaCache
from avere_ray.pair_batch import loss_inputs
from avere_ray.records import PreferencePair
from avere_ray.reference import ReferenceSource

if TYPE_CHECKING:  # the settings are only read, so that a machine without pydantic can take a step
    from avere_ray.config import LossConfig

_MOST_OFF = 0.5
Forward = Callable[..., torch.Tensor]
"""A row of trees and media to log-probs, as `Policy.forward`; with gradient, through the training engine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One micro-batch after its forward pass."""

    loss_P: torch.Tensor
    """Loss of each pair, with gradient."""
    metrics: dict[str, torch.Tensor]
    """Per pair [P], detached; NaN where a metric does not apply to a pair."""
    start_loss_P: torch.Tensor
    """Loss of each pair without text prior, [P]; what the identities of step 0 are about."""
    expected_start_P: torch.Tensor
    """What it is when the policy equals its reference."""
    clip_gain_P: torch.Tensor
    """The chosen response's log-prob under the clip, policy minus reference, detached."""
    text_gain_P: torch.Tensor | None
    """The same after the prompt alone; None when nobody asks for it."""
    tokens: int
    """Tokens of all branches, each counted as if it were run alone."""


class PairObjective:
    """The loss of a run over pairs, with what it needs besides the policy's forward pass."""

    def __init__(self, cfg: "LossConfig", policy: Policy, media: MediaCache, reference: ReferenceSource) -> None:
        self.cfg, self.policy, self.media, self.reference = cfg, policy, media, reference
        self.loss, self.text_prior = make_objective(cfg), make_text_prior(cfg)
        self.graded, self.quiet = graded_and_quiet(cfg)

    def rows(self, pairs: Sequence[PreferencePair]) -> list[ByBranch[Sample]]:
        """The branches that are differentiated; the media of all branches that the loss reads are encoded."""
        needs = self.loss.needs
        self.media.ensure(
            self.policy,
            pairs,
            relevant=needs.relevant or needs.relevant_rejects,
            irrelevant=needs.irrelevant or needs.irrelevant_rejects,
        )
        return [pair_samples(self.media, pair, self.graded) for pair in pairs]

    def score(self, forward: Forward, pairs: Sequence[PreferencePair], rows: Sequence[ByBranch[Sample]]) -> Scored:
        """Loss of each pair of a micro-batch.

        Args:
            forward: the training engine's forward pass.
            pairs: the micro-batch, [P].
            rows: what `rows` made of it.
        """
        packed = self.policy.pack([row.flat() for row in rows])
        scores, kls = self._graded(forward, packed, rows)
        quiet = self._quiet(forward, pairs)
        if self._apart:
            scores = [dataclasses.replace(q, clean=s.clean) for s, q in zip(scores, quiet, strict=True)]
        reference = self.reference.figures(pairs)
        batch = loss_inputs(
            pairs,
            rows,
            scores,
            [self._text(r, q) for r, q in zip(reference, quiet, strict=True)],
            self.text_prior.gammas(tuple(p.modality for p in pairs)),
            self.cfg,
        )
        return self._loss(batch, kls, reference, quiet, sum(len(s.token_ids) for row in rows for s in row.flat()))

    @property
    def _apart(self) -> bool:
        """Whether swapped inputs run apart, without gradient."""
        return self.quiet.relevant or self.quiet.irrelevant

    def _graded(
        self, forward: Forward, packed: PackedRow, rows: Sequence[ByBranch[Sample]]
    ) -> tuple[list[ByBranch[torch.Tensor]], list[ByBranch[torch.Tensor]] | None]:
        """Log-probs of the policy with gradient, and the sequence KLs where the objective wants them."""
        if not self.loss.needs.token_kl:
            values = iter(forward(packed, self.media.embeds))
            return [row.like(values) for row in rows], None
        with torch.no_grad(), self.policy.without_adapter():
            frozen = self.policy.predictors(packed, self.media.embeds)
        logps, kls = (iter(x) for x in forward(packed, self.media.embeds, against=frozen))
        return [row.like(logps) for row in rows], [row.like(kls) for row in rows]

    @torch.no_grad()
    def _quiet(self, forward: Forward, pairs: Sequence[PreferencePair]) -> list[ByBranch[torch.Tensor]]:
        """Log-probs of the branches that are not differentiated; empty places where there are none.

        Where no pair has such a branch, a few words run in their place, since the other workers run theirs.
        """
        if not (self._apart or self.quiet.text_prior):
            return [ByBranch(clean=()) for _ in pairs]
        samples = [dataclasses.replace(pair_samples(self.media, p, self.quiet), clean=()) for p in pairs]
        trees = [flat for s in samples if (flat := s.flat())] or [[self._words(pairs[0])]]
        values = iter(forward(self.policy.pack(trees), self.media.embeds))
        return [s.like(values) for s in samples]

    def _words(self, pair: PreferencePair) -> Sample:
        """A pair's prompt without media and an end at once."""
        return self.policy.processor.sample(pair.prompt, [self.policy.processor.end_id])

    def _text(self, reference: ByBranch[float], quiet: ByBranch[torch.Tensor]) -> ByBranch[float]:
        """The reference's figures with the text prior from where the config says."""
        if self.cfg.text_prior_source != "policy" or not quiet.text:
            return reference
        return dataclasses.replace(reference, text=tuple(float(t) for t in quiet.text))

    def _loss(
        self,
        batch: tuple[PairLogps, PairLogps, PairBatch],
        kls: Sequence[ByBranch[torch.Tensor]] | None,
        reference: Sequence[ByBranch[float]],
        quiet: Sequence[ByBranch[torch.Tensor]],
        tokens: int,
    ) -> Scored:
        own, frozen, known = batch
        if kls is not None:
            width = own.clean_PY.shape[1]
            own = dataclasses.replace(own, kl_PY=torch.stack([_padded(torch.stack(k.clean), width) for k in kls]))
        loss_P, metrics = self.loss(own, frozen, known)
        with torch.no_grad():
            plain = dataclasses.replace(known, gamma_P=torch.zeros_like(known.gamma_P))
            still = dataclasses.replace(frozen, kl_PY=None if kls is None else torch.zeros_like(own.clean_PY))
            start_P, _ = self.loss(own, frozen, plain)
            expected_P, _ = self.loss(self._filled(still, own), frozen, plain)
        text_P = None
        if self.text_prior.measures:
            gains = [float(q.text[0]) - r.text[0] for q, r in zip(quiet, reference, strict=True)]
            text_P = torch.tensor(gains, dtype=torch.float64)
        return Scored(
            loss_P=loss_P,
            metrics=metrics,
            start_loss_P=start_P,
            expected_start_P=expected_P,
            clip_gain_P=(own.clean_PY[:, 0] - frozen.clean_PY[:, 0]).detach(),
            text_gain_P=text_P,
            tokens=tokens,
        )

    def _filled(self, reference: PairLogps, policy: PairLogps) -> PairLogps:
        """The reference as a policy: where it has no figures of an input, the policy's stand in."""
        needs = self.loss.needs
        return dataclasses.replace(
            reference,
            relevant_PY=_known(reference.relevant_PY if needs.reference_relevant else None, policy.relevant_PY),
            irrelevant_PY=_known(reference.irrelevant_PY if needs.reference_irrelevant else None, policy.irrelevant_PY),
        )

    def gains(self, pairs: Sequence[PreferencePair], scored: Scored, weights_P: torch.Tensor) -> torch.Tensor | None:
        """What the text prior's controller wants of a micro-batch, to be added up over micro-batches and workers."""
        if scored.text_gain_P is None:
            return None
        tags = tuple(p.modality for p in pairs)
        return gain_sums(tags, scored.clip_gain_P.cpu(), scored.text_gain_P, weights_P.cpu())

    def adapt(self, gains: Sequence[torch.Tensor | None]) -> None:
        """Moves the text prior's strength by what all workers saw in a step."""
        known = [g for g in gains if g is not None]
        if known:
            self.text_prior.update(torch.stack(known).sum(0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """What one forward pass over a micro-batch has of each pair."""

    wanted: Wanted
    clean: bool = True
    """The responses under the pair's own clip, beside what is wanted."""


def forward_passes(cfg: "LossConfig", *, adapter_off: bool) -> tuple[Pass, ...]:
    """The passes over the pairs of a micro-batch; `adapter_off`: one of them scores their reference."""
    graded, quiet = graded_and_quiet(cfg)
    reference = (Pass(wanted=reference_branches(cfg)),) if adapter_off else ()
    return (Pass(wanted=graded), Pass(wanted=quiet, clean=False), *reference)


def graded_and_quiet(cfg: "LossConfig") -> tuple[Wanted, Wanted]:
    """The policy's branches that are differentiated, beside the responses under the pair's own clip, and the others."""
    needs = make_objective(cfg).needs
    swaps = {n: getattr(needs, n) for n in ("relevant", "relevant_rejects", "irrelevant", "irrelevant_rejects")}
    nothing = dict.fromkeys(swaps, False)
    own_text = make_text_prior(cfg).measures or (needs.text_prior and cfg.text_prior_source == "policy")
    return (
        Wanted(**(swaps if needs.swap_gradient else nothing)),
        Wanted(**(nothing if needs.swap_gradient else swaps), text_prior=own_text),
    )


def start_tolerance(cfg: "LossConfig", nats: float) -> float:
    """How far the loss of a policy that equals its reference may be from its exact value, with log-probs `nats` off.

    A logistic or hinge term of a policy far from its reference may differ by no more than its value, hence the limit.
    """
    weights = (cfg.lambda_av, cfg.lambda_other, cfg.anchor_weight, cfg.token_weight)
    of_margin = (1.0 / cfg.beta if cfg.form == "ipo" else cfg.beta) * (1.0 + sum(w or 0.0 for w in weights))
    slope = of_margin + (cfg.beta_inv or 0.0) + (cfg.beta_sens or 0.0) + cfg.sft_weight
    return slope * nats if cfg.form == "ipo" else min(slope * nats, _MOST_OFF)


def reference_branches(cfg: "LossConfig") -> Wanted:
    """Which branches a loss reads of the reference, so that the others need not be scored."""
    needs = make_objective(cfg).needs
    of_reference = needs.text_prior and cfg.text_prior_source == "reference"
    return Wanted(
        relevant=needs.reference_relevant,
        irrelevant=needs.reference_irrelevant,
        text_prior=of_reference or make_text_prior(cfg).measures,
    )


def _known(reference_PY: torch.Tensor | None, policy_PY: torch.Tensor | None) -> torch.Tensor | None:
    """The reference's figures; beyond the chosen response it has none, so the policy's are taken."""
    if reference_PY is None or policy_PY is None:
        return policy_PY
    return torch.cat([reference_PY[:, :1], policy_PY[:, 1:].detach()], dim=1)


def _padded(values: torch.Tensor, width: int) -> torch.Tensor:
    return torch.cat([values, values.new_zeros(width - len(values))])
