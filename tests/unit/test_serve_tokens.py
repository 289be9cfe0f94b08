"""Tokens: where they come from, what is kept of them, and how much each may ask."""

import hashlib
from pathlib import Path

import pytest

from actors.serving.errors import ApiError
from actors.serving.tokens import Quota, Token, find_token, known_tokens, token_digest
from avere_ray.errors import ConfigError

WORDS = ("first-long-random-text", "second-long-random-text")


def test_tokens_of_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVERE_RAY_API_TOKEN", ",".join(WORDS))
    monkeypatch.setenv("AVERE_RAY_ADMIN_TOKEN", "third-long-random-text")
    listed = hashlib.sha256(b"fourth").hexdigest()
    (file := tmp_path / "tokens").write_text(f"# who may ask\n\nann {listed}\nbob {'0' * 64} admin  # the boss\n")
    tokens = known_tokens(file)
    assert [(t.name, t.admin) for t in tokens] == [
        ("token-1", False), ("token-2", False), ("admin-1", True), ("ann", False), ("bob", True)
    ]  # fmt: skip
    assert not any(word in repr(tokens) for word in WORDS)
    assert find_token(tokens, "Bearer fourth") == tokens[3]
    assert find_token(tokens, f"bearer  {WORDS[1]} ") == tokens[1]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", f"Basic {WORDS[0]}", WORDS[0], f"Bearer {WORDS[0]}x"])
def test_what_is_no_token(header: str) -> None:
    assert find_token([Token(name="a", sha256=token_digest(WORDS[0]))], header) is None


@pytest.mark.parametrize("line", ["ann", "ann fourth", f"ann {'0' * 64} boss", f"ann {'0' * 63}", f"ann {'G' * 64}"])
def test_a_line_that_is_no_token(tmp_path: Path, line: str) -> None:
    (file := tmp_path / "tokens").write_text(f"ok {'0' * 64}\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2.*sha256sum"):
        known_tokens(file)


def test_tokens_that_can_be_guessed_and_files_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVERE_RAY_API_TOKEN", "short")
    with pytest.raises(ConfigError, match="fewer than 16"):
        known_tokens(None)
    monkeypatch.delenv("AVERE_RAY_API_TOKEN")
    with pytest.raises(ConfigError, match="cannot be read"):
        known_tokens(tmp_path / "none")


def test_a_rate_counts_the_last_minute() -> None:
    now = [0.0]
    quota = Quota(2, 9, clock=lambda: now[0])
    for at in (0.0, 30.0):
        now[0] = at
        quota.enter()
    with pytest.raises(ApiError) as caught:
        quota.enter()
    assert (caught.value.status, caught.value.retry_after_s) == (429, 30)
    now[0] = 60.0
    quota.enter()
    with pytest.raises(ApiError):
        quota.enter()


def test_a_place_is_given_back_and_zero_sets_no_rate() -> None:
    quota = Quota(0, 1, clock=lambda: 0.0)
    for _ in range(50):
        quota.enter()
        with pytest.raises(ApiError, match="in work"):
            quota.enter()
        quota.leave()
