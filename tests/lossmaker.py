"""Random preference batches, and every loss once more: slowly, one pair at a time, in plain floats.

The second version shares no code with the package. Where a loss stops a gradient, it reads the figure from `frozen`
instead of `live`, so that finite differences over `live` alone give the gradient that the tensors must have.
"""

import dataclasses
import math
import random
from types import SimpleNamespace
from typing import Any

import torch

from avere_ray.losses import PairBatch, PairLogps, reject_weights

KINDS = ("spurious", "hallucinated")
INPUTS = ("clean", "relevant", "irrelevant", "kl")


def random_batch(pairs: int = 4, most: int = 2, *, seed: int = 0, spurious: float = 0.5, gamma: float = 0.2) -> Any:
    """Policy, reference (float64) and batch: pairs with 1 to `most` rejects, some without swaps or without a tag."""
    rng = random.Random(seed)
    kinds = tuple(tuple(rng.choice(KINDS) for _ in range(rng.randint(1, most))) for _ in range(pairs - 1))
    kinds = (tuple(KINDS[k % 2] for k in range(most)), *kinds)
    tags = tuple(("audio", "video", "audiovisual", "")[(p + seed) % 4] for p in range(pairs))
    shape = (pairs, 1 + most)

    def figures(low: float, high: float) -> torch.Tensor:
        return torch.tensor([[rng.uniform(low, high) for _ in range(shape[1])] for _ in range(pairs)]).double()

    def model() -> PairLogps:
        logps = {f"{name}_PY": figures(-30.0, -5.0) for name in INPUTS[:3]}
        return PairLogps(**logps, kl_PY=figures(0.1, 4.0))

    lengths = torch.tensor([[rng.randint(1, 9) for _ in range(shape[1])] for _ in range(pairs)])
    batch = PairBatch(
        weights_PK=reject_weights(kinds, spurious).double(),
        tokens_PY=lengths,
        text_prior_PY=figures(-40.0, -10.0),
        modality=tags,
        has_relevant_P=torch.tensor([rng.random() < 0.8 for _ in range(pairs)]),
        has_irrelevant_P=torch.tensor([tag in ("audio", "video") and rng.random() < 0.8 for tag in tags]),
        reject_kinds=kinds,
        gamma_P=torch.full((pairs,), gamma).double(),
    )
    return model(), model(), batch


def with_gradient(logps: PairLogps) -> PairLogps:
    """A copy whose figures ask for gradients."""
    return PairLogps(**{n: getattr(logps, n).clone().requires_grad_() for n in (f"{i}_PY" for i in INPUTS)})


def rows(logps: PairLogps, p: int) -> dict[str, list[float]]:
    """Pair `p` of a model's figures as plain floats."""
    return {name: getattr(logps, f"{name}_PY")[p].tolist() for name in INPUTS}


def pair_of(batch: PairBatch, p: int) -> SimpleNamespace:
    """Pair `p` of a batch as plain values."""
    count = len(batch.reject_kinds[p])
    known = batch.modality[p] != ""
    return SimpleNamespace(
        rejects=range(1, 1 + count),
        weights=[0.0, *batch.weights_PK[p].tolist()],
        kinds=("", *batch.reject_kinds[p]),
        tokens=batch.tokens_PY[p].tolist(),
        text=batch.text_prior_PY[p].tolist(),
        relevant=known and bool(batch.has_relevant_P[p]),
        irrelevant=known and bool(batch.has_irrelevant_P[p]),
        gamma=float(batch.gamma_P[p]),
    )


def replace(batch: PairBatch, **fields: Any) -> PairBatch:
    """The batch with other fields."""
    return dataclasses.replace(batch, **fields)


def softplus(x: float) -> float:
    """log(1 + e^x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def slow_loss(cfg: Any, live: dict, frozen: dict, reference: dict, pair: SimpleNamespace) -> float:
    """The loss of one pair; `live` and `frozen` are the policy's figures with and without gradient."""
    if cfg.logps == "mean":
        live, frozen, reference = (
            {name: [x / n for x, n in zip(row, pair.tokens, strict=True)] for name, row in model.items()}
            for model in (live, frozen, reference)
        )
        pair = SimpleNamespace(**{**vars(pair), "text": [x / n for x, n in zip(pair.text, pair.tokens, strict=True)]})
    value = {
        "dpo": _dpo,
        "avem_dpo": _avem,
        "mdpo": _mdpo,
        "vista_dpo": _vista_released if cfg.released else _vista,
        "mod_dpo": _mod,
        "mod_dpo_pp": _mod,
        "sft": lambda *_: 0.0,
    }[cfg.kind](cfg, live, frozen, reference, pair)
    value += cfg.anchor_weight * softplus(-cfg.beta * (live["clean"][0] - reference["clean"][0]))
    chosen = live["clean"][0] * (1.0 if cfg.logps == "mean" else 1.0 / pair.tokens[0])
    return value - cfg.sft_weight * chosen


def _term(cfg: Any, margin: float) -> float:
    if cfg.form == "hinge":
        return max(0.0, 1.0 - margin)
    if cfg.form == "ipo":
        return (margin / cfg.beta - 0.5 / cfg.beta) ** 2
    return (1 - cfg.label_smoothing) * softplus(-margin) + cfg.label_smoothing * softplus(margin)


def _gain(policy: dict, reference: dict, y: int = 0, given: str = "clean") -> float:
    return policy[given][y] - reference[given][y]


def _input(cfg: Any, policy: dict, reference: dict, given: str) -> float:
    return _term(cfg, cfg.beta * (_gain(policy, reference) - _gain(policy, reference, given=given)))


def _dpo(cfg: Any, live: dict, _: dict, reference: dict, pair: SimpleNamespace) -> float:
    return sum(
        pair.weights[k] * _term(cfg, cfg.beta * (_gain(live, reference) - _gain(live, reference, k)))
        for k in pair.rejects
    )


def _response(live: dict, reference: dict, pair: SimpleNamespace) -> float:
    return _gain(live, reference) - sum(pair.weights[k] * _gain(live, reference, k) for k in pair.rejects)


def _avem(cfg: Any, live: dict, _: dict, reference: dict, pair: SimpleNamespace) -> float:
    text = pair.text[0] - sum(pair.weights[k] * pair.text[k] for k in pair.rejects)
    value = _term(cfg, cfg.beta * _response(live, reference, pair) + cfg.text_prior_sign * pair.gamma * text)
    return value + (cfg.lambda_av * _input(cfg, live, reference, "relevant") if pair.relevant else 0.0)


def _mdpo(cfg: Any, live: dict, frozen: dict, reference: dict, pair: SimpleNamespace) -> float:
    value = _dpo(cfg, live, frozen, reference, pair)
    return value + (cfg.lambda_av * _input(cfg, live, reference, "relevant") if pair.relevant else 0.0)


def _inputs(cfg: Any, policy: dict, reference: dict, pair: SimpleNamespace) -> float:
    value = cfg.lambda_av * _input(cfg, policy, reference, "relevant") if pair.relevant else 0.0
    return value + (cfg.lambda_other * _input(cfg, policy, reference, "irrelevant") if pair.irrelevant else 0.0)


def _vista(cfg: Any, live: dict, frozen: dict, reference: dict, pair: SimpleNamespace) -> float:
    margin = _response(live, reference, pair)
    kl = sum(pair.weights[k] * live["kl"][k] for k in pair.rejects) - frozen["kl"][0]
    token = softplus(-cfg.beta * (margin - cfg.token_alpha * kl))
    return _term(cfg, cfg.beta * margin) + _inputs(cfg, live, reference, pair) + cfg.token_weight * token


def _vista_released(cfg: Any, live: dict, frozen: dict, reference: dict, pair: SimpleNamespace) -> float:
    policy = live["clean"][0]
    for k in pair.rejects:
        policy -= pair.weights[k] * (frozen if pair.kinds[k] == "hallucinated" else live)["clean"][k]
    margin = policy - reference["clean"][0] + sum(reference["clean"][k] for k in pair.rejects)
    seen = [k for k in pair.rejects if pair.kinds[k] != "hallucinated" and pair.weights[k]] or list(pair.rejects)
    share = {k: pair.weights[k] / sum(pair.weights[j] for j in seen) for k in seen}
    kl = sum(share[k] * live["kl"][k] for k in seen) - frozen["kl"][0]
    gained = _gain(live, reference) - sum(share[k] * _gain(live, reference, k) for k in seen)
    token = softplus(-0.1 * (gained - cfg.token_alpha * kl))
    return _term(cfg, cfg.beta * margin) + _inputs(cfg, frozen, reference, pair) + cfg.token_weight * token


def _mod(cfg: Any, live: dict, frozen: dict, reference: dict, pair: SimpleNamespace) -> float:
    inv, sens = cfg.beta_inv * pair.irrelevant, cfg.beta_sens * pair.relevant
    value = 0.0
    for k in pair.rejects:
        margin = (cfg.beta + inv - sens) * (live["clean"][0] - live["clean"][k])
        margin -= cfg.beta * (reference["clean"][0] - reference["clean"][k])
        margin -= inv * (frozen["irrelevant"][0] - frozen["irrelevant"][k])
        margin += sens * (frozen["relevant"][0] - frozen["relevant"][k])
        if cfg.kind == "mod_dpo_pp":
            margin += cfg.text_prior_sign * pair.gamma * (pair.text[0] - pair.text[k])
        value += pair.weights[k] * _term(cfg, margin)
    return value
