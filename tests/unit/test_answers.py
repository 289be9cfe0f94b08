"""The strict answer parser: one choice or none."""

import pytest

from avere_ray.errors import InputError
from avere_ray.evaluation.answers import parse_answer

YES_NO = ("(A) Yes", "(B) No")
FOUR = ("(A) a wide smile", "(B) tears", "(C) lowered brows", "(D) a smile")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A) Yes", "A"), ("(B)", "B"), ("b", "B"), ("B.", "B"), ("a)", "A"), ("[B] No.", "B"), ("B: No", "B"),
        ("**B**", "B"), ("The answer is (B).", "B"), ("Answer: A", "A"), ("A yes", "A"), ("(B). No", "B"),
        ("Yes", "A"), ("no.", "B"), ("No, there are no tears.", "B"), ("Yes, there is no doubt.", "A"),
        ("I would say yes.", "A"), ("(A) Yes, he has no tears.", "A"), ("No tears are visible.", "B"),
        ("(A) No doubt, the fists show it.", "A"),
        ("(A) No", None), ("(B) Yes, it does.", None), ("Yes and no", None), ("(A) or (B)", None), ("A or B", None),
        ("A man is angry.", None), ("a", "A"), ("A smile is not a sign.", None), ("", None), ("   ", None),
        ("No (A)", None), ("No (B)", "B"),
        ("maybe", None), ("(C)", None), ("Notably happy", None), ("I know.", None), ("B or A", None),
    ],
)  # fmt: skip
def test_yes_no(text: str, letter: str | None) -> None:
    assert parse_answer(text, YES_NO) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(C) lowered brows", "C"), ("C lowered brows", "C"), ("lowered brows", "C"), ("The lowered brows.", "C"),
        ("tears", "B"), ("A wide smile", "A"), ("I see a smile.", "D"), ("(D) a smile", "D"),
        ("(C) tears", None), ("tears or lowered brows", None), ("B, C", None), ("(C), not tears", "C"),
        ("(C) lowered brows, not tears", "C"), ("clenched fists", None), ("A person with something", None),
        ("There are no tears.", None), ("He isn't showing tears.", None), ("Lowered brows rather than tears.", "C"),
        ("Not a wide smile but tears", "B"), ("No tears, but lowered brows.", "C"), ("no tears or a smile", None),
        ("(C) rather than tears", "C"), ("(C), there is no smile, there are tears", None),
        ("There is no smile; there are tears.", "B"), ("Not only tears", "B"),
        ("(E) a gasp", None), ("tears (A)", None), ("tears (B)", "B"), ("He cries (C), I think.", None),
    ],
)  # fmt: skip
def test_four_choices(text: str, letter: str | None) -> None:
    assert parse_answer(text, FOUR) == letter


def test_turned_choices() -> None:
    assert parse_answer("Yes", ("(A) No", "(B) Yes")) == "B"
    assert parse_answer("(A) Yes", ("(A) No", "(B) Yes")) is None


def test_choices_that_deny_are_named_by_their_own_words() -> None:
    choices = ("(A) tears", "(B) no tears", "(C) doesn't smile")
    answers = [parse_answer(text, choices) for text in ("There are no tears.", "Tears.", "He doesn't smile.")]
    assert answers == ["B", "A", "C"]


def test_choices_without_letters_are_refused() -> None:
    with pytest.raises(InputError, match=r"'Yes' has no letter"):
        parse_answer("Yes", ("Yes", "No"))
