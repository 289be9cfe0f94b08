"""The methods of the study. Losses and their sources are in `avere_ray.losses`; what is left open takes its defaults.

Methods that their papers define for one reject get one of a pair's rejects, drawn by the pair's id: naive DPO, mDPO,
MoD-DPO++, and AVEm-DPO without its emotion-based response preference (ERP). The ablations are those of the paper's
Table 5: without PMP (modality preference), without ERP, without TPD (text prior). "TPD sign +" has the text prior with
the sign that follows from maximising the penalised reward; the paper prints the other one.

`loss.sft_weight` of the study is a term of every method, which the papers do not have. Two variants are without it, and
SFT has it alone: what they reach tells how much of a method's gain is that term's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASE = "base"
"""The model before training, among the methods of a result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to learn from the pairs."""

    label: str
    """Name in tables and pictures."""
    loss: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `loss`."""
    one_reject: bool = False
    """Sees one reject of each pair, whichever kind it is."""
    variant_of: str = ""
    """The method that it differs from in one term, whose learning rate and beta it takes unless it is searched too."""
    has_beta: bool = True
    """Whether beta changes what it learns."""


def _variant(label: str, one_reject: bool = False, **loss: Any) -> Method:
    return Method(label=label, loss={"kind": "avem_dpo", **loss}, one_reject=one_reject, variant_of="avem_dpo")


METHODS: dict[str, Method] = {
    "dpo": Method(label="naive DPO", loss={"kind": "dpo"}, one_reject=True),
    "vista_dpo": Method(label="Vista-DPO", loss={"kind": "vista_dpo"}),
    "mdpo": Method(label="mDPO", loss={"kind": "mdpo"}, one_reject=True),
    "mod_dpo_pp": Method(label="MoD-DPO++", loss={"kind": "mod_dpo_pp"}, one_reject=True),
    "avem_dpo": Method(label="AVEm-DPO", loss={"kind": "avem_dpo"}),
    "avem_dpo_without_modality": _variant("AVEm-DPO without PMP", lambda_av=0.0),
    "avem_dpo_without_rejects": _variant("AVEm-DPO without ERP", one_reject=True),
    "avem_dpo_without_text_prior": _variant("AVEm-DPO without TPD", text_prior_gamma=0.0),
    "avem_dpo_adaptive": _variant("AVEm-DPO, adaptive TPD", text_prior="adaptive"),
    "avem_dpo_plus": _variant("AVEm-DPO, TPD sign +", text_prior_sign=1),
    "avem_dpo_policy_text": _variant("AVEm-DPO, text prior of the policy", text_prior_source="policy"),
    "dpo_without_sft": Method(
        label="naive DPO without SFT", loss={"kind": "dpo", "sft_weight": 0.0}, one_reject=True, variant_of="dpo"
    ),
    "avem_dpo_without_sft": _variant("AVEm-DPO without SFT", sft_weight=0.0),
    "sft": Method(label="SFT alone", loss={"kind": "sft", "sft_weight": 1.0}, has_beta=False),
}
"""By the names of `study.methods`."""


def label_of(name: str) -> str:
    """Name of a method, or of the base, in tables and pictures."""
    return "base" if name == BASE else METHODS[name].label
