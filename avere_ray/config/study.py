"""A study: every method from the same base on the same pairs, over several drawn worlds."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from avere_ray.config.section import Positive, Section, Share

_Compared = Literal[
    "dpo",
    "vista_dpo",
    "mdpo",
    "mod_dpo_pp",
    "avem_dpo",
    "avem_dpo_without_modality",
    "avem_dpo_without_rejects",
    "avem_dpo_without_text_prior",
    "avem_dpo_adaptive",
    "avem_dpo_plus",
]
_OnRequest = Literal["dpo_without_sft", "avem_dpo_without_sft", "sft", "avem_dpo_policy_text"]
MethodName = Literal[_Compared, _OnRequest]


class StudyConfig(Section):
    """What `avere-ray reproduce` compares; see avere_ray/study/methods.py for the methods."""

    out: Path = Path("docs/miniature")
    """Where the result goes: OUT.md, OUT.json and the pictures in the folder OUT."""
    methods: tuple[MethodName, ...] = _Compared.__args__  # type: ignore[attr-defined]
    """Methods compared with the base, and with naive DPO where it is among them. Three more tell what loss.sft_weight
    does: dpo_without_sft and avem_dpo_without_sft, where it is 0, and sft, which has nothing else; avem_dpo_policy_text
    takes the text prior from the policy. They are not among the default ones, since they would be two fifths more
    work."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    """Seeds of the worlds that the methods are tested on."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = (5.0e-4, 1.0e-3, 2.0e-3)
    """Peak learning rates searched for each method, with the first of `betas` and of `sft_weights`."""
    betas: tuple[Annotated[float, Field(gt=0)], ...] = (0.1, 0.06, 0.3)
    """Values of loss.beta searched for each method, with the best of `learning_rates`."""
    betas_of: dict[MethodName, tuple[Annotated[float, Field(gt=0)], ...]] = Field(default_factory=dict)
    """Other values for single methods; as many, so that every search has the same budget."""
    sft_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Values of loss.sft_weight searched for each method, with the best of both; none: loss.sft_weight as it is."""
    search_variants: bool = False
    """Search also for variants of a method: AVEm-DPO without a term or with another text prior, a method without SFT
    term. Otherwise these take the settings chosen for the method they vary (where it is compared too), so that they
    differ from it in that term alone."""
    search_seed: Annotated[int, Field(ge=0)] = 1000
    """Seed of the world that is searched on; its held-out clips are of the validation split."""
    search_clips: Positive = 60
    """Held-out clips of that world."""
    retention: Annotated[float, Field(ge=0)] = 3.0
    """Points of perception that settings may lose on its clips when they are chosen; one more counts as much as a point
    of accuracy."""
    probe_clips: Positive = 50
    """Held-out clips, at most, that perception and descriptions are asked about."""
    doses: tuple[Share, ...] = (0.5, 0.75, 1.0)
    """Strengths of the planted bias of the dose-response study; none leaves it out."""
    dose_methods: tuple[MethodName, ...] = ()
    """Methods that repair each of its bases; none named: those compared that are no variant of another."""
    dose_steps: Positive = 150
    """Steps in which the base is taught anew with each strength."""
    dose_clips: Positive = 400
    """Clips it is taught with: half of them decorrelated, half annotated carelessly."""
    learners: Positive = 2
    """Trainings side by side, each in a process of its own."""

    @model_validator(mode="after")
    def _what_is_compared(self) -> Self:
        for name in ("seeds", "methods", "learning_rates", "betas"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"study.{name} is {list(values)}; it must hold one value at least, and none twice")
        for method, own in self.betas_of.items():
            if method in (*self.methods, *self.dose_methods) and len(set(own)) != len(self.betas):
                raise ValueError(
                    f"study.betas_of.{method} is {list(own)}; it must hold as many different values as study.betas, "
                    f"{len(self.betas)}, so that every method is searched alike. On the command line: "
                    f"--study.betas_of='{{\"{method}\": [0.1, ...]}}'"
                )
        if len(set(self.sft_weights)) != len(self.sft_weights):
            raise ValueError(f"study.sft_weights is {list(self.sft_weights)}; it must hold none twice")
        if self.search_seed in self.seeds:
            raise ValueError(
                f"study.search_seed ({self.search_seed}) is also one of study.seeds; settings must not be chosen on "
                "the worlds they are tested on"
            )
        return self
