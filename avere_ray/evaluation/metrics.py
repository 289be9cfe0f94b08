"""Scores of multiple-choice answers, in percent. Missing and unparsable answers count as wrong.

For Yes/No tasks the released EmoReAlM scorer calls the recall of Yes "precision", the recall of No "recall" and their
harmonic mean "f1_score" (`evaluate_emorealm.py`). Those names are kept with that meaning, so that figures can be set
beside the paper's; `standard_precision`, `standard_recall` and `standard_f1` are the usual ones, for the class Yes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avere_ray.evaluation.answers import parse_answer
from avere_ray.records import Query
from avere_ray.responses import is_yes_no, split_choice


@dataclass(frozen=True, slots=True)
class Graded:
    """One question with its parsed answer."""

    query: Query
    """The question, with its right letter."""
    letter: str | None
    """The letter answered; None when missing or unparsable."""
    missing: bool
    """Whether there was no response at all."""

    @property
    def right(self) -> bool:
        """Whether the answer is the right one."""
        return self.letter is not None and self.letter == self.query.answer


def grade(queries: Sequence[Query], answers: Mapping[str, str | None]) -> list[Graded]:
    """Every question with its answer, in order; `answers` holds responses by query id."""
    graded = []
    for query in queries:
        text = answers.get(query.query_id)
        letter = parse_answer(text, query.choices) if text is not None else None
        graded.append(Graded(query, letter, text is None))
    return graded


def percent(part: int, whole: int) -> float:
    """`part` of `whole` in percent; 0 of nothing."""
    return 100.0 * part / whole if whole else 0.0


def accuracy(graded: Sequence[Graded]) -> float:
    """Right answers in percent."""
    return percent(sum(g.right for g in graded), len(graded))


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 when both are."""
    return 2 * a * b / (a + b) if a + b else 0.0


def choice_metrics(graded: Sequence[Graded]) -> dict[str, float]:
    """Metrics of one task: accuracy and counts, and for Yes/No questions the figures of each class.

    A recall of a class that no question has is left out, and so is what needs it.
    """
    metrics = {
        "overall_accuracy": accuracy(graded),
        "n": float(len(graded)),
        "missing": float(sum(g.missing for g in graded)),
        "unparsable": float(sum(g.letter is None and not g.missing for g in graded)),
    }
    if graded and all(is_yes_no(split_choice(c)[1] for c in g.query.choices) for g in graded):
        metrics |= _yes_no_metrics(graded)
    return metrics


def _yes_no_metrics(graded: Sequence[Graded]) -> dict[str, float]:
    gold = [_says_yes(g.query, g.query.answer) for g in graded]
    said = [_says_yes(g.query, g.letter) for g in graded]
    yes_total = sum(x is True for x in gold)
    no_total = sum(x is False for x in gold)
    yes_right = sum(x is True and y is True for x, y in zip(gold, said, strict=True))
    no_right = sum(x is False and y is False for x, y in zip(gold, said, strict=True))
    said_yes = sum(x is True for x in said)
    metrics = {"yes_percentage": percent(said_yes, len(graded))}
    if yes_total:
        precision, recall = percent(yes_right, said_yes), percent(yes_right, yes_total)
        metrics |= {"precision": recall, "standard_precision": precision, "standard_recall": recall,
                    "standard_f1": harmonic_mean(precision, recall)}  # fmt: skip
    if no_total:
        metrics["recall"] = percent(no_right, no_total)
    if yes_total and no_total:
        metrics["f1_score"] = harmonic_mean(metrics["precision"], metrics["recall"])
    return metrics


def _says_yes(query: Query, letter: str | None) -> bool | None:
    options = dict(split_choice(c) for c in query.choices)
    return options[letter].strip(" .").lower() == "yes" if letter in options else None
