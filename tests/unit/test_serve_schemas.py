"""How large a JSON schema may be, and the patterns in it."""

from typing import Any

import pytest

from actors.serving.errors import ApiError
from actors.serving.schemas import checked_schema, written_out


@pytest.mark.parametrize(
    ("pattern", "size"),
    [("", 0), ("abc", 3), (r"\d{3}-\d{4}", 8), ("a{2,5}b", 6), ("a{3,}", 3), ("(ab){4}", 8), ("(a{10}b){10}", 110),
     ("((a{10}){10}){10}", 1000), ("a{10}{10}", 100), ("[a-z{9}]{3}", 3), ("a{0}", 1), ("{5}", 0), ("(a{9}", 9),
     ("a)b{2}", 4), (r"\{9}", 3), ("(a|b)*", 4)],
)  # fmt: skip
def test_a_pattern_as_long_as_its_repeats(pattern: str, size: int) -> None:
    assert written_out(pattern) == size


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a{1,200}){1,200}$"},
        {"type": "string", "pattern": "x" * 3000},
        {"type": "string", "pattern": "^[^a]{1,300}$"},
        {"properties": {str(i): {"pattern": "^[a-z]{200}$"} for i in range(20)}},
        {"patternProperties": {"^(a{99}){99}$": {"type": "string"}}},
        {"items": {"anyOf": [{"propertyNames": {"pattern": "(((a{20}){20}){20}){20}"}}]}},
        {"type": "string", "pattern": f"a{{{'9' * 5000}}}"},
    ],
)
def test_patterns_that_take_long_to_compile_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"patterns have|repeats more than 256") as caught:
        checked_schema(schema)
    assert caught.value.status == 400


def test_patterns_in_use_are_taken() -> None:
    phone, mail = r"^\+?\d{1,3}[ -]?\d{3,12}$", r"^[\w.+-]{1,64}@[\w-]{1,255}\.[a-z]{2,24}$"
    schema = {"properties": {"phone": {"pattern": phone}, "mail": {"pattern": mail}, "pattern": {"type": "string"}}}
    assert checked_schema(schema) is schema
