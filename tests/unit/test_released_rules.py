"""The released scorer's rules to the letter, faults included; shares against scikit-learn, which it uses."""

import math
import warnings

import pytest
from sklearn import metrics as sk

from avere_ray.errors import InputError
from avere_ray.evaluation.choices import score_choices_released
from avere_ray.evaluation.released import (
    CLASS_ORDER,
    RELEASED_WORDS,
    class_metrics,
    described_emotion,
    letter_matches,
)
from avere_ray.evaluation.scorer import Item

YES_NO = ("(A) Yes", "(B) No")


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("(B) No", "B", True), ("b", "B", True), ("B.", "B", True), ("[b]", "B", True), ("the answer is b", "B", True),
        ("yes", "A", False), ("no", "B", False),  # words alone never count
        ("b, a man smiles", "A", True), ("a or b", "A", True), ("a or b", "B", True),  # the article, and both
        ("abc", "B", False), ("(C)", "B", False), ("", "A", False), ("a1", "A", False), ("b_c", "B", False),
    ],
)  # fmt: skip
def test_the_right_letter_anywhere_counts(text: str, gold: str, right: bool) -> None:
    assert letter_matches(text, gold) is right


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("Happiness", "happiness"), ("anger", "anger"), ("  Fear.  ", "fear"), ("shock", "fear"),
        ("serious", "anger"),  # also neutral; anger comes first
        ("angry", "happiness"), ("sad", "happiness"), ("scared", "happiness"), ("afraid", "happiness"),  # in no list
        ("blue", "happiness"),  # no hit: the first class
        ("He is not sad. He shows anger.", "anger"), ("Sadness is noticeable. Fear is there.", "fear"),  # no-tice
        ("I know it is anger.", "anger"),  # all dropped: the original is used
        ("The man talks. He shows tension, fury and crying. He is mad.", "anger"),
        ("The person sits. Crying, weeping.", "sadness"),
        ("the man is calm! fear fear fear.", "neutral"),
        ("the man sits? fear and dread, anger.", "fear"),
        ("curiosity", "surprise"), ("discomfort", "sadness"), ("displeasure", "anger"), ("quivering", "sadness"),
        ("", None), ("   ", None), ("fear\nand anger.", None),
        ("... fear and dread", "fear"), ("!", "happiness"), ("? fear! anger. anger", "anger"),  # no word comes first
    ],
)  # fmt: skip
def test_descriptions_become_classes_by_the_released_rule(text: str, emotion: str | None) -> None:
    assert described_emotion(text) == emotion


def test_five_classes_know_five_lists_only() -> None:
    assert described_emotion("fear", CLASS_ORDER[:5]) == "happiness"
    assert described_emotion("disgust and serious", CLASS_ORDER[:5]) == "anger"


def test_the_word_lists_are_the_released_ones() -> None:
    sizes = {name: len(words) for name, words in RELEASED_WORDS.items()}
    assert sizes == {"happiness": 31, "neutral": 36, "surprise": 22, "fear": 27, "disgust": 16, "anger": 29,
                     "sadness": 17}  # fmt: skip
    assert not {"angry", "sad", "fearful", "afraid", "scared"} & set().union(*RELEASED_WORDS.values())


@pytest.mark.parametrize("kind", ["macro", "weighted"])
def test_shares_are_scikit_learns_with_a_class_that_is_only_said(kind: str) -> None:
    gold = ["anger", "anger", "fear", "fear", "fear", "sadness"]
    said = ["anger", "happiness", "fear", "anger", "fear", "anger"]
    found = class_metrics(gold, said, f1=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["unweighted_avg_recall"] == pytest.approx(sk.recall_score(gold, said, average="macro"))
        assert found["weighted_avg_recall"] == pytest.approx(sk.recall_score(gold, said, average="weighted"))
        key = "overall_f1_weighted" if kind == "weighted" else "overall_f1"
        assert found[key] == pytest.approx(sk.f1_score(gold, said, average=kind))
        p, r, f, _ = sk.precision_recall_fscore_support(gold, said, average=None)
    for i, name in enumerate(sorted({*gold, *said})):
        own = [found[f"metrics_per_class.{name}.{key}"] for key in ("precision", "recall", "f1_score")]
        assert own == pytest.approx([p[i], r[i], f[i]])
    assert found["overall_accuracy"] == pytest.approx(sk.accuracy_score(gold, said))
    assert math.isnan(found["metrics_per_class.happiness.accuracy"])


def item(sample_id: str, gold: str, task: str = "modality_agreement") -> Item:
    return Item(sample_id=sample_id, gold=gold, task=task, choices=YES_NO)


def test_yes_no_tasks_by_the_released_rule() -> None:
    items = [item(str(i), gold) for i, gold in enumerate("AAAABBBBB")]
    responses = {"0": "(A)", "1": "A", "2": "yes", "3": "(B)", "4": "(B) No", "5": "no", "6": "(A)", "7": "a or b"}
    found = score_choices_released("x", ("modality_agreement",), items, responses)
    values = {name.removeprefix("modality_agreement_"): figure.value for name, figure in found.figures.items()}
    assert values == pytest.approx({
        "overall_accuracy": 50.0,  # 4 of the 8 that are there; the ninth is skipped
        "precision": 50.0,  # the recall of Yes: 2 of 4
        "recall": 50.0,  # the recall of No: 2 of 4
        "f1_score": 50.0,
        "model_yes_percentage": 50.0,  # 2 right Yes, and the 2 wrong answers to No questions
        "average_accuracy": 50.0})  # fmt: skip
    assert (found.scored, found.missing) == (8, ("8",))


def test_where_the_released_scorer_divides_by_zero_there_is_no_figure() -> None:
    found = score_choices_released("x", ("modality_agreement",), [item("1", "A"), item("2", "B")], {"1": "B", "2": "A"})
    assert math.isnan(found.figures["modality_agreement_f1_score"].value)
    assert found.to_json()["metrics"]["modality_agreement_f1_score"] is None
    assert found.notes == ("modality_agreement_f1_score: the released scorer divides by zero here",)


def test_a_choice_that_is_neither_yes_nor_no_is_refused_as_there() -> None:
    odd = Item(sample_id="q7", gold="A", task="modality_agreement", choices=("(A) Perhaps", "(B) Maybe"))
    with pytest.raises(InputError, match=r"q7.*'perhaps'"):
        score_choices_released("x", ("modality_agreement",), [odd], {"q7": "a"})
