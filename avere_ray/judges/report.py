"""One judge on one labelled set: every figure of `avere-ray judge-report`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.errors import InputError
from avere_ray.judges.agreement import LabelScore, accuracy, cohens_kappa, confusion, label_scores, macro_f1
from avere_ray.judges.labelled import Labelled, judge_all
from avere_ray.judges.order import OrderBias, order_biases
from avere_ray.protocols import JudgeFn
from avere_ray.records import Verdict, VerdictLabel
from avere_ray.rows import read_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Agreement with a second judge."""

    other: str
    """The second judge."""
    share: float
    """Share of equal labels."""
    kappa: float
    """Cohen's kappa."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeReport:
    """What `measure` found."""

    labelled: str
    """The set."""
    judge: str
    """Name and version of the judge."""
    examples: Sequence[Labelled]
    """The responses, with the person's labels."""
    verdicts: Sequence[Verdict]
    """The judge's, in the same order."""
    orders: Mapping[str, OrderBias]
    """Share of labels that change with the order of choices, sentences or responses."""
    agreement: Agreement | None
    """With the second judge, if there was one."""

    @property
    def right(self) -> list[VerdictLabel]:
        """The person's labels."""
        return [e.label for e in self.examples]

    @property
    def said(self) -> list[VerdictLabel]:
        """The judge's labels."""
        return [v.label for v in self.verdicts]

    @property
    def labels(self) -> dict[VerdictLabel, LabelScore]:
        """Precision and recall by label."""
        return label_scores(self.right, self.said)

    def by(self, what: str) -> dict[str, tuple[int, int]]:
        """(right, n) by "kind", "origin", or "place" of the right choice."""
        found: dict[str, tuple[int, int]] = {}
        for example, verdict in zip(self.examples, self.verdicts, strict=True):
            name = example.query.answer if what == "place" else str(getattr(example, what))
            if name:
                right, n = found.get(name, (0, 0))
                found[name] = (right + (example.label is verdict.label), n + 1)
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        """Every figure, and each response that got another label."""
        shares = {f"by_{what}": {k: {"n": n, "accuracy": r / n} for k, (r, n) in self.by(what).items()}
                  for what in ("kind", "origin", "place")}  # fmt: skip
        return {
            "labelled": self.labelled, "judge": self.judge, "n": len(self.examples),
            "accuracy": accuracy(self.right, self.said), "macro_f1": macro_f1(self.right, self.said),
            "kappa": cohens_kappa(self.right, self.said),
            "labels": {label.value: {"n": s.n, "precision": s.precision, "recall": s.recall, "f1": s.f1}
                       for label, s in self.labels.items()},
            "confusion": confusion(self.right, self.said),
            **shares,
            "order": {name: {"n": o.n, "changed": o.changed, "share": o.share} for name, o in self.orders.items()},
            "agreement": None if self.agreement is None else
            {"other": self.agreement.other, "share": self.agreement.share, "kappa": self.agreement.kappa},
            "wrong": [{"id": e.id, "kind": e.kind, "text": e.text, "label": e.label.value, "said": v.label.value,
                       "evidence": v.evidence} for e, v in zip(self.examples, self.verdicts, strict=True)
                      if e.label is not v.label],
        }  # fmt: skip


def measure(
    examples: Sequence[Labelled],
    judge: JudgeFn,
    *,
    against: tuple[str, JudgeFn | Mapping[str, VerdictLabel]] | None = None,
    name: str = "",
) -> JudgeReport:
    """Judges the examples, turns their order round, and compares with a second judge or its labels by id.

    Raises:
        InputError: the second judge's labels do not cover the set.
    """
    verdicts = judge_all(examples, judge)
    agreement = None
    if against is not None:
        labels = _second(examples, *against)
        said = [v.label for v in verdicts]
        agreement = Agreement(other=against[0], share=accuracy(said, labels), kappa=cohens_kappa(said, labels))
    return JudgeReport(labelled=name, judge=verdicts[0].judge, examples=examples, verdicts=verdicts,
                       orders=order_biases(examples, verdicts, judge), agreement=agreement)  # fmt: skip


def read_labels(path: Path) -> dict[str, VerdictLabel]:
    """Labels by response id, from a file with "id" and "label" (`avere-ray judge-report --out`).

    Raises:
        InputError: the file is missing, or a row has no id or an unknown label.
    """
    known, found = {label.value for label in VerdictLabel}, {}
    for place, row in read_rows(path):
        if not row.get("id") or row.get("label") not in known:
            raise InputError(f'{place}: needs "id" and "label"; labels are {", ".join(sorted(known))}')
        found[str(row["id"])] = VerdictLabel(row["label"])
    return found


def _second(examples: Sequence[Labelled], name: str, other: JudgeFn | Mapping[str, VerdictLabel]) -> list[VerdictLabel]:
    if not isinstance(other, Mapping):
        return [v.label for v in judge_all(examples, other)]
    missing = [e.id for e in examples if e.id not in other]
    if missing:
        raise InputError(f"{name} has no label for {len(missing)} of {len(examples)} responses, e.g. {missing[0]}")
    return [other[e.id] for e in examples]
