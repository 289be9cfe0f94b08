"""How far a judge agrees with a person, or with another judge: accuracy, precision, recall, confusion, kappa.

Cohen's kappa is the share of agreement beyond what two judges with these label frequencies would reach by chance
(Cohen 1960): (p_o - p_e) / (1 - p_e). It is 1 for two judges that agree always, also where they use one label alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from avere_ray.records import VerdictLabel


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScore:
    """How well one label is given."""

    n: int
    """Responses that have it, by the person."""
    precision: float
    """Of those the judge gave it, the share that have it; 0 when it gave it to none."""
    recall: float
    """Of those that have it, the share the judge gave it; 0 when none has it."""

    @property
    def f1(self) -> float:
        """Harmonic mean of the two; 0 when both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def accuracy(right: Sequence[VerdictLabel], said: Sequence[VerdictLabel]) -> float:
    """Share of equal labels, 0 to 1; 0 for none."""
    return sum(a is b for a, b in zip(right, said, strict=True)) / len(right) if right else 0.0


def label_scores(right: Sequence[VerdictLabel], said: Sequence[VerdictLabel]) -> dict[VerdictLabel, LabelScore]:
    """Scores of every label that the person or the judge gave, in the order of VerdictLabel."""
    has, gave = Counter(right), Counter(said)
    both = Counter(a for a, b in zip(right, said, strict=True) if a is b)
    return {
        label: LabelScore(
            n=has[label],
            precision=both[label] / gave[label] if gave[label] else 0.0,
            recall=both[label] / has[label] if has[label] else 0.0,
        )
        for label in VerdictLabel
        if has[label] or gave[label]
    }


def macro_f1(right: Sequence[VerdictLabel], said: Sequence[VerdictLabel]) -> float:
    """Mean F1 over the labels that the person or the judge gave; 0 for no responses."""
    scores = label_scores(right, said).values()
    return sum(s.f1 for s in scores) / len(scores) if scores else 0.0


def confusion(right: Sequence[VerdictLabel], said: Sequence[VerdictLabel]) -> dict[str, dict[str, int]]:
    """Counts by the person's label, then by the judge's; every label has a row and a column."""
    counts = Counter(zip(right, said, strict=True))
    return {a.value: {b.value: counts[a, b] for b in VerdictLabel} for a in VerdictLabel}


def cohens_kappa(one: Sequence[VerdictLabel], other: Sequence[VerdictLabel]) -> float:
    """Agreement of two judges beyond chance, at most 1; 0 for no responses."""
    n = len(one)
    if not n:
        return 0.0
    first, second = Counter(one), Counter(other)
    by_chance = sum(first[label] * second[label] for label in first) / n**2
    observed = accuracy(one, other)
    return 1.0 if by_chance == 1.0 else (observed - by_chance) / (1 - by_chance)
