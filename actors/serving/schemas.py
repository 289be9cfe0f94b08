"""How large a JSON schema may be: the engine compiles it between two steps, and everyone in the batch waits for it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from actors.serving.errors import bad

_PARAM = "response_format.json_schema.schema"
_LONGEST = 16_384
_DEEPEST = 16
_COUNT = 256
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_PATTERNS = 1024
_TOKENS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)


def checked_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that is small enough to be compiled at once; a repeat in a pattern takes the square of its count.

    Raises:
        ApiError: it is not.
    """
    patterns = 0
    for node in _nodes(schema):
        if isinstance(node, dict) and any(_above(node.get(name)) for name in _COUNTS):
            raise bad(f"the schema counts further than {_COUNT} ({', '.join(_COUNTS)})", _PARAM)
        for pattern in _patterns(node):
            if any(_above(times) for times in _repeats(pattern)):
                raise bad(f"a pattern of the schema repeats more than {_COUNT} times", _PARAM)
            patterns += written_out(pattern)
    if patterns > _PATTERNS:
        what = f"the schema's patterns have {patterns} characters when repeats like {{1,9}} are written out"
        raise bad(f"{what}, allowed are {_PATTERNS} (pattern, patternProperties)", _PARAM)
    return schema


def _nodes(schema: dict[str, Any]) -> list[Any]:
    """The objects and lists of a schema; it is written out only when it is known to be flat and short.

    Raises:
        ApiError: it is nested too deep, or too long.
    """
    too_long = bad(f"the schema is longer than {_LONGEST} characters", _PARAM)
    found: list[Any] = []
    level: list[Any] = [schema]
    length = 0
    for _ in range(_DEEPEST):
        found += level
        length += sum(map(_length, level))
        if length > _LONGEST:
            raise too_long
        level = [child for node in level for child in _children(node)]
    if level:
        raise bad(f"the schema is nested more than {_DEEPEST} deep", _PARAM)
    if len(json.dumps(schema)) > _LONGEST:
        raise too_long
    return found


def _length(node: dict[str, Any] | list[Any]) -> int:
    """Characters that an object or list takes at least when written out, without the objects and lists in it."""
    names, values = (node.keys(), node.values()) if isinstance(node, dict) else ((), node)
    texts = sum(len(text) for text in (*names, *values) if isinstance(text, str))
    digits = sum(value.bit_length() // 4 for value in values if isinstance(value, int))
    return len(node) + texts + digits


def written_out(pattern: str) -> int:
    """Characters of a regular expression when every counted repeat is written as often as it counts."""
    sizes, last = [0], 0  # by open group; of what a repeat would repeat
    for token in _TOKENS.finditer(pattern):
        if token[0] == "(":
            sizes.append(0)
        elif token[0] == ")" and len(sizes) > 1:
            last = max(1, sizes.pop())
            sizes[-1] += last
        elif token[1]:
            times = max(1, _times(token))
            sizes[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            sizes[-1] += 1
    return sum(sizes)


def _repeats(pattern: str) -> Iterator[int]:
    return (_times(token) for token in _TOKENS.finditer(pattern) if token[1])


def _times(token: "re.Match[str]") -> int:
    return max(int(digits) if len(digits) < 7 else 10**6 for digits in (token[1], token[2] or "0"))


def _patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(found := node.get("pattern"), str):
            yield found
        if isinstance(named := node.get("patternProperties"), dict):
            yield from named


def _above(count: Any) -> bool:
    return isinstance(count, int | float) and count > _COUNT


def _children(node: Any) -> list[Any]:
    found = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in found if isinstance(child, dict | list)]
