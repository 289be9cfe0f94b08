"""How large a JSON schema may be, and the patterns in it."""

import json
from typing import Any

import pytest

from actors.serving import schemas
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


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (nested(16), "nested more than 16 deep"),
        (nested(900), "nested more than 16 deep"),
        (nested(100_000), "nested more than 16 deep"),
        ({"anyOf": [nested(14), nested(15)]}, "nested more than 16 deep"),
        ({"enum": ["x" * 20_000]}, "longer than 16384"),
        ({"enum": [0] * 20_000}, "longer than 16384"),
        ({"enum": [10**4000] * 10}, "longer than 16384"),
        ({"enum": [[], {}] * 10_000}, "longer than 16384"),
        ({"properties": {"x" * 20_000: {}}}, "longer than 16384"),
        ({str(i): {} for i in range(20_000)}, "longer than 16384"),
        ({"items": {"items": {"title": "x" * 20_000}}}, "longer than 16384"),
    ],
)
def test_what_is_too_deep_or_too_long_is_never_written_out(
    schema: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dumps(value: Any) -> str:
        raise AssertionError("it was written out")

    monkeypatch.setattr(schemas.json, "dumps", dumps)
    with pytest.raises(ApiError, match=words) as caught:
        checked_schema(schema)
    assert caught.value.status == 400


def test_the_largest_schemas_are_taken_and_no_larger() -> None:
    assert checked_schema(nested(15))
    for text in ("x", "é", "😀", '"', "\n"):
        longest = (16_384 - len('{"enum": [""]}')) // (len(json.dumps(text)) - 2)
        assert checked_schema({"enum": [text * longest]})
        with pytest.raises(ApiError, match="longer than"):
            checked_schema({"enum": [text * (longest + 1)]})
    assert checked_schema({"enum": [10**999] * 16, "const": True})


def test_patterns_in_use_are_taken() -> None:
    phone, mail = r"^\+?\d{1,3}[ -]?\d{3,12}$", r"^[\w.+-]{1,64}@[\w-]{1,255}\.[a-z]{2,24}$"
    schema = {"properties": {"phone": {"pattern": phone}, "mail": {"pattern": mail}, "pattern": {"type": "string"}}}
    assert checked_schema(schema) is schema
