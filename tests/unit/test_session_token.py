"""A local Ray asks for a token of its own, unless the user has chosen something else."""

import pytest

from jobs import session

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.mark.parametrize(
    ("before", "mode", "drawn"),
    [
        ({}, "token", True),
        ({"RAY_AUTH_MODE": "token"}, "token", True),
        ({"RAY_AUTH_MODE": "disabled"}, "disabled", False),
        ({"RAY_AUTH_TOKEN": "mine"}, "token", False),
        ({"RAY_AUTH_TOKEN_PATH": "file"}, "token", False),
    ],
)
def test_what_the_user_has_chosen_stays(
    before: dict[str, str], mode: str, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(before)
    monkeypatch.setattr(session.os, "environ", environment)
    session._ask_for_a_token()
    assert environment["RAY_AUTH_MODE"] == mode
    assert (len(environment.get("RAY_AUTH_TOKEN", "")) == 64) == drawn
    assert before.items() - {("RAY_AUTH_MODE", mode)} <= environment.items()
