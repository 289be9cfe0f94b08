"""What each method's loss was made of, and whether its search ended at the edge of its grid."""

from collections.abc import Mapping, Sequence
from typing import Any

SEARCHED = {"learning_rate": "learning rate", "beta": "beta", "sft_weight": "SFT weight"}
"""Settings that are searched, in this order, as the page names them."""
_OPEN = ("learning_rate", "beta")
"""Those whose grid could go on at both ends; an SFT weight of 0 is an end of its own."""

Settings = Mapping[str, Mapping[str, Any]]
"""Of each method: learning rate, rejects, and the resolved settings of its loss."""


def best_first(tried: Sequence[Mapping[str, float]], *, retention: float) -> list[dict[str, float]]:
    """Candidates by validation accuracy, the highest first, less every point of perception lost beyond what may be.

    A price and not a limit, since a limit would tell two candidates apart whose losses differ by less than their noise.

    Args:
        tried: settings with "accuracy" in percent and "perception_lost" in points; of equals the first stays first.
        retention: points of perception that may be lost for nothing.
    """

    def worth(row: Mapping[str, float]) -> float:
        return row["accuracy"] - max(0.0, row["perception_lost"] - retention)

    return [dict(row) for row in sorted(tried, key=worth, reverse=True)]


def edges(candidates: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Which end of its grid a chosen value is at: {"beta": "lowest"}; what lies within, or had one value, is not there.

    Args:
        candidates: everything that was tried for a method, the chosen one first.
    """
    found = {}
    for name in _OPEN:
        values = sorted({row[name] for row in candidates})
        if len(values) > 1 and candidates[0][name] in (values[0], values[-1]):
            found[name] = "lowest" if candidates[0][name] == values[0] else "highest"
    return found


def without_interior(search: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Settings of which two values were tried, so that every choice is at an edge."""
    tried = {name: {row[name] for rows in search.values() for row in rows} for name in _OPEN}
    return [SEARCHED[name] for name, values in tried.items() if len(values) == 2]


def same_for_all(settings: Settings) -> dict[str, Any]:
    """Settings that every method has with one value."""
    first = next(iter(settings.values()), {})
    return {
        name: value for name, value in first.items() if all(row.get(name) == value for row in settings.values())
    }  # fmt: skip


def that_differ(settings: Settings) -> dict[str, list[Any]]:
    """The other settings, with the value of each method; None where a method has no such setting."""
    same = same_for_all(settings)
    names = dict.fromkeys(name for row in settings.values() for name in row if name not in same)
    return {name: [row.get(name) for row in settings.values()] for name in names}
