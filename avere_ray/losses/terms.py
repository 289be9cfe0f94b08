"""What every preference loss is built from: figures in, one loss per pair and metrics out.

Notation of the whole package (nats; summed over response tokens, or per token with `logps="mean"`):

    rho(y)          = log pi_theta(y | a, v, x) - log pi_ref(y | a, v, x)
    rho(y | swap)   = the same with a medium of the clip replaced
    lt(y)           = log pi_text(y | x), without any medium, never differentiated
    response margin = rho(chosen) - sum_k w_k rho(reject_k),  with sum_k w_k = 1

"Relevant" is the modality the prompt asks about (both for audio-visual prompts), "irrelevant" the other one.

Shape suffixes: P = preference pairs, K = rejects, Y = 1 + K responses, the chosen one first.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F

from avere_ray.errors import InputError

MODALITIES = ("audio", "video", "audiovisual")
"""What a prompt can ask about, as the metrics name it."""
_TAGS = {"audio": "audio", "video": "video", "audiovisual": "audiovisual", "audio_video": "audiovisual", "": ""}
"""Accepted tags; "audio_video" is the word of the records."""

Form = Literal["sigmoid", "ipo", "hinge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLogps:
    """Response log-probs (nats, summed over tokens) of a batch of pairs under one model.

    Entries of responses or inputs that a pair does not have may hold anything; the masks of `PairBatch` leave them out.
    """

    clean_PY: torch.Tensor
    """Given the pair's own clip."""
    relevant_PY: torch.Tensor | None = None
    """With the modality replaced that the prompt asks about."""
    irrelevant_PY: torch.Tensor | None = None
    """With only the other modality replaced; audio-visual prompts have no other."""
    kl_PY: torch.Tensor | None = None
    """Sum over the response's tokens of KL(pi_ref || pi_theta), given the pair's own clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairBatch:
    """What is known of a batch of pairs besides the two models' log-probs."""

    weights_PK: torch.Tensor
    """Weight of each reject, 0 where the pair has no k-th; each row sums to 1."""
    tokens_PY: torch.Tensor
    """Response lengths in tokens, 1 or more; 1 where missing."""
    text_prior_PY: torch.Tensor
    """log pi_text(y | x), summed; not differentiated."""
    modality: tuple[str, ...]
    """Per pair "audio", "video", "audiovisual", or "" when unknown, which leaves out the modality terms."""
    has_relevant_P: torch.Tensor
    """bool: the pair has an input with the relevant modality replaced."""
    has_irrelevant_P: torch.Tensor
    """bool: the pair has an input with the irrelevant modality replaced."""
    reject_kinds: tuple[tuple[str, ...], ...]
    """Why each reject is worse, in the pair's order; its length says how many rejects the pair has."""
    gamma_P: torch.Tensor
    """Strength of the text prior, constant or from its controller."""
    pair_ids: tuple[str, ...] = ()
    """Names of the pairs for error messages; rows are counted when it is empty."""

    def tags(self) -> tuple[str, ...]:
        """Modality of each pair in the words of `MODALITIES`, or "".

        Raises:
            InputError: a pair has another tag.
        """
        return tuple(modality_of(tag, of=f"pair {self.name(p)}") for p, tag in enumerate(self.modality))

    def name(self, p: int) -> str:
        """What to call a pair in a message."""
        return repr(self.pair_ids[p]) if self.pair_ids else f"in row {p}"


def modality_of(tag: str, *, of: str = "a pair") -> str:
    """The tag in the words of `MODALITIES`, or "" for none.

    Raises:
        InputError: it is another word; `of` says whose it is.
    """
    if tag not in _TAGS:
        raise InputError(
            f"{of} has modality {tag!r}; allowed are audio, video, audiovisual (or audio_video), or an empty tag for "
            "pairs without a modality preference. Correct the pair's modality."
        )
    return _TAGS[tag]


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """Which figures an objective reads besides `clean_PY`; the others need not be computed."""

    relevant: bool = False
    """The chosen response with the relevant modality replaced, under the policy."""
    relevant_rejects: bool = False
    """The rejects with the relevant modality replaced, under the policy."""
    irrelevant: bool = False
    """The chosen response with the irrelevant modality replaced, under the policy."""
    irrelevant_rejects: bool = False
    """The rejects with the irrelevant modality replaced, under the policy."""
    token_kl: bool = False
    """`kl_PY` of the policy."""
    reference_relevant: bool = False
    """The reference's `relevant_PY`, chosen response only."""
    reference_irrelevant: bool = False
    """The reference's `irrelevant_PY`, chosen response only."""
    text_prior: bool = False
    """`text_prior_PY`."""
    swap_gradient: bool = False
    """The replaced inputs are differentiated; if not, their branches may run without gradient."""


class Objective(Protocol):
    """A preference loss over a batch of pairs."""

    @property
    def needs(self) -> Needs:
        """What it reads."""
        ...

    def __call__(
        self, policy: PairLogps, reference: PairLogps, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of each pair [P] and detached metrics.

        Every metric is [P], NaN where it does not apply to a pair: average over the others. One objective gives the
        same names for every batch, so that workers can reduce them together.

        Raises:
            ValueError: figures are missing or do not fit together.
            InputError: a pair has an unknown modality tag or an empty response.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """Settings that all losses have."""

    beta: float
    """Strength of the implicit KL constraint."""
    form: Form = "sigmoid"
    """How a margin becomes a loss; see `preference_loss`."""
    label_smoothing: float = 0.0
    """Assumed share of pairs whose preference is the wrong way round; only with the sigmoid form."""
    logps: Literal["sum", "mean"] = "sum"
    """Whether log-probs are summed over response tokens or averaged."""
    anchor_weight: float = 0.0
    """Weight of -log sigmoid(beta * rho(chosen)), which holds the chosen response above the reference."""
    sft_weight: float = 0.0
    """Weight of the chosen response's mean negative log-prob per token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A checked batch as the losses read it: missing entries are 0, lengths divided out if the log-probs are means."""

    shared: Shared
    batch: PairBatch
    summed: PairLogps
    """The policy's log-probs as given."""
    policy: PairLogps
    reference: PairLogps
    text_PY: torch.Tensor
    rho_PY: torch.Tensor
    present_PK: torch.Tensor
    """bool: the pair has a k-th reject."""
    relevant_P: torch.Tensor
    """bool: the pair has a term with the relevant modality replaced."""
    irrelevant_P: torch.Tensor
    """bool: the pair has a term with the irrelevant modality replaced."""
    tags: tuple[str, ...]

    def weighted(self, values_PK: torch.Tensor) -> torch.Tensor:
        """Mean over each pair's rejects, by weight."""
        return (self.batch.weights_PK * values_PK).sum(-1)

    def gap(self, values_PY: torch.Tensor) -> torch.Tensor:
        """The chosen response's value minus the weighted mean of the rejects'."""
        return values_PY[:, 0] - self.weighted(values_PY[:, 1:])

    def ratios(self, values_PY: torch.Tensor) -> torch.Tensor:
        """[P, K]: the chosen response's value minus that of each reject, 0 for missing ones."""
        return torch.where(self.present_PK, values_PY[:, :1] - values_PY[:, 1:], 0.0)


def view(policy: PairLogps, reference: PairLogps, batch: PairBatch, shared: Shared, needs: Needs) -> View:
    """Checks a batch and brings it into the form that the losses read.

    Raises:
        ValueError: a figure that the objective needs is missing, shapes differ, or weights do not sum to 1.
        InputError: a pair has an unknown modality tag or an empty response.
    """
    tags = _check(policy, reference, batch, needs)
    known_P = torch.tensor([bool(tag) for tag in tags], device=batch.has_relevant_P.device)
    relevant_P, irrelevant_P = batch.has_relevant_P & known_P, batch.has_irrelevant_P & known_P
    counts_P1 = torch.tensor([[len(kinds)] for kinds in batch.reject_kinds], device=batch.weights_PK.device)
    present_PY = torch.arange(1 + batch.weights_PK.shape[1], device=counts_P1.device) <= counts_P1
    lengths_PY = batch.tokens_PY if shared.logps == "mean" else torch.ones_like(batch.tokens_PY)

    def tidy(values: torch.Tensor | None, mask_PY: torch.Tensor) -> torch.Tensor | None:
        return None if values is None else torch.where(mask_PY, values, 0.0) / lengths_PY

    def tidied(logps: PairLogps) -> PairLogps:
        clean = tidy(logps.clean_PY, present_PY)
        assert clean is not None
        return PairLogps(
            clean_PY=clean,
            relevant_PY=tidy(logps.relevant_PY, present_PY & relevant_P[:, None]),
            irrelevant_PY=tidy(logps.irrelevant_PY, present_PY & irrelevant_P[:, None]),
            kl_PY=tidy(logps.kl_PY, present_PY),
        )

    own, frozen = tidied(policy), tidied(reference)
    return View(
        shared=shared,
        batch=batch,
        summed=policy,
        policy=own,
        reference=frozen,
        text_PY=torch.where(present_PY, batch.text_prior_PY.detach(), 0.0) / lengths_PY,
        rho_PY=own.clean_PY - frozen.clean_PY,
        present_PK=present_PY[:, 1:],
        relevant_P=relevant_P,
        irrelevant_P=irrelevant_P,
        tags=tags,
    )


def preference_loss(margin: torch.Tensor, shared: Shared) -> torch.Tensor:
    """Loss of a margin of any shape.

    sigmoid: -(1 - e) log sigmoid(m) - e log sigmoid(-m), e the label smoothing (DPO, arXiv 2305.18290; its conservative
    form). hinge: max(0, 1 - m) (SLiC, arXiv 2305.10425). ipo: (m / beta - 1 / (2 beta))^2 (arXiv 2310.12036).
    """
    if shared.form == "hinge":
        return torch.relu(1.0 - margin)
    if shared.form == "ipo":
        return (margin / shared.beta - 1.0 / (2.0 * shared.beta)) ** 2
    if shared.label_smoothing == 0.0:
        return -F.logsigmoid(margin)
    wrong = shared.label_smoothing
    return -(1.0 - wrong) * F.logsigmoid(margin) - wrong * F.logsigmoid(-margin)


def input_margin(
    seen: View, policy_PY: torch.Tensor | None, reference_PY: torch.Tensor | None, mask_P: torch.Tensor
) -> torch.Tensor:
    """beta * [rho(chosen) - rho(chosen | swap)] of each pair, 0 where the pair has no such input."""
    assert policy_PY is not None and reference_PY is not None
    swapped_P = policy_PY[:, 0] - reference_PY[:, 0]
    return torch.where(mask_P, seen.shared.beta * (seen.rho_PY[:, 0] - swapped_P), 0.0)


def _check(policy: PairLogps, reference: PairLogps, batch: PairBatch, needs: Needs) -> tuple[str, ...]:
    pairs, rejects = batch.weights_PK.shape
    _check_figures(policy, reference, needs)
    _check_shapes(policy, reference, batch, (pairs, 1 + rejects))
    sums_P = batch.weights_PK.sum(-1)
    if not torch.allclose(sums_P, torch.ones_like(sums_P), atol=1e-5) or bool((batch.weights_PK < 0).any()):
        raise ValueError(
            f"the reject weights of each pair must sum to 1 and none may be negative, got {batch.weights_PK.tolist()}"
        )
    if bool((batch.tokens_PY < 1).any()):
        p, y = (int(i) for i in torch.nonzero(batch.tokens_PY < 1)[0])
        what = "chosen response" if y == 0 else f"reject {y}"
        raise InputError(
            f"the {what} of pair {batch.name(p)} has {int(batch.tokens_PY[p, y])} tokens; a response needs at least "
            "one. Drop the pair."
        )
    return batch.tags()


def _check_figures(policy: PairLogps, reference: PairLogps, needs: Needs) -> None:
    wanted: dict[str, tuple[bool, Any]] = {
        "policy.relevant_PY": (needs.relevant or needs.relevant_rejects, policy.relevant_PY),
        "policy.irrelevant_PY": (needs.irrelevant or needs.irrelevant_rejects, policy.irrelevant_PY),
        "policy.kl_PY": (needs.token_kl, policy.kl_PY),
        "reference.relevant_PY": (needs.reference_relevant, reference.relevant_PY),
        "reference.irrelevant_PY": (needs.reference_irrelevant, reference.irrelevant_PY),
    }
    missing = [name for name, (needed, given) in wanted.items() if needed and given is None]
    if missing:
        raise ValueError(f"this loss needs {', '.join(missing)}; see its `needs`")


def _check_shapes(policy: PairLogps, reference: PairLogps, batch: PairBatch, shape: tuple[int, int]) -> None:
    given = {f"{who}.{n}": getattr(m, n) for who, m in (("policy", policy), ("reference", reference)) for n in _FIGURES}
    given |= {"tokens_PY": batch.tokens_PY, "text_prior_PY": batch.text_prior_PY}
    wrong = {n: tuple(t.shape) for n, t in given.items() if t is not None and tuple(t.shape) != shape}
    per_pair = {"has_relevant_P": batch.has_relevant_P, "has_irrelevant_P": batch.has_irrelevant_P}
    per_pair["gamma_P"] = batch.gamma_P
    wrong |= {n: tuple(t.shape) for n, t in per_pair.items() if tuple(t.shape) != shape[:1]}
    counts = {"modality": batch.modality, "reject_kinds": batch.reject_kinds}
    wrong |= {n: (len(v),) for n, v in counts.items() if len(v) != shape[0]}
    if wrong:
        said = ", ".join(f"{name} {list(size)}" for name, size in wrong.items())
        raise ValueError(f"the weights are [{shape[0]}, {shape[1] - 1}], so [P, Y] is {list(shape)}; got {said}")
    for p, kinds in enumerate(batch.reject_kinds):
        if not 1 <= len(kinds) < shape[1] or bool((batch.weights_PK[p, len(kinds) :] != 0).any()):
            raise ValueError(
                f"pair {batch.name(p)} names {len(kinds)} rejects ({', '.join(kinds) or 'none'}) but its weights are "
                f"{batch.weights_PK[p].tolist()}"
            )


_FIGURES = ("clean_PY", "relevant_PY", "irrelevant_PY", "kl_PY")
