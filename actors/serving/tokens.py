"""Who may ask, and how much: bearer tokens known by their SHA-256 alone, rates and numbers in work for each."""

import collections
import hashlib
import hmac
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.serving.errors import ApiError
from avere_ray.errors import ConfigError

TOKEN_VARIABLE = "AVERE_RAY_API_TOKEN"
"""Environment variable with bearer tokens, one or several with commas between."""
ADMIN_VARIABLE = "AVERE_RAY_ADMIN_TOKEN"
"""The same for tokens that may move the champion."""
TOKENS_FILE_VARIABLE = "AVERE_RAY_TOKENS_FILE"
"""Environment variable that tells Ray Serve's proxy serve.tokens_file, empty where there is none; see `proxy`."""
SHORTEST = 16
"""Characters of a token that is no guess."""
_MINUTE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A bearer token, as far as it is kept."""

    name: str
    """For metrics and logs."""
    sha256: str
    """Digest of the token, hex."""
    admin: bool = False
    """Whether it may move the champion."""


def token_digest(token: str) -> str:
    """SHA-256 (hex) of a token, so that the token itself is kept nowhere."""
    return hashlib.sha256(token.encode()).hexdigest()


def known_tokens(file: Path | None) -> tuple[Token, ...]:
    """The tokens of the environment and of a file.

    Raises:
        ConfigError: the file cannot be read, or a token is too short.
    """
    found: list[Token] = []
    for variable, kind, admin in ((TOKEN_VARIABLE, "token", False), (ADMIN_VARIABLE, "admin", True)):
        words = [word.strip() for word in os.environ.get(variable, "").split(",") if word.strip()]
        if any(len(word) < SHORTEST for word in words):
            raise ConfigError(
                f"{variable} holds a token of fewer than {SHORTEST} characters, which can be guessed; make one with "
                "`openssl rand -hex 24`"
            )
        found += [
            Token(name=f"{kind}-{i}", sha256=token_digest(word), admin=admin) for i, word in enumerate(words, start=1)
        ]
    return (*found, *(_from_file(file) if file is not None else ()))


def _from_file(file: Path) -> list[Token]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"serve.tokens_file {file} cannot be read: {error}") from error
    tokens: list[Token] = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) not in (2, 3) or not re.fullmatch("[0-9a-f]{64}", words[1]) or words[2:] not in ([], ["admin"]):
            raise ConfigError(
                f"serve.tokens_file {file}, line {number}: a line must be NAME SHA256 [admin]; the SHA-256 is what "
                "`printf %s TOKEN | sha256sum` prints"
            )
        tokens.append(Token(name=words[0], sha256=words[1], admin=len(words) == 3))
    return tokens


def find_token(tokens: Sequence[Token], authorization: str) -> Token | None:
    """The token of an Authorization header; takes as long for a wrong one as for a right one."""
    scheme, _, word = authorization.partition(" ")
    given = token_digest(word.strip())
    found: Token | None = None
    for token in tokens:
        if hmac.compare_digest(given, token.sha256):
            found = token
    return found if scheme.lower() == "bearer" else None


class Quota:
    """What one token has asked for lately, and has in work."""

    def __init__(self, per_minute: int, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self.at_once = at_once
        self.in_work = 0
        self._clock = clock
        self._times: collections.deque[float] = collections.deque()

    def enter(self) -> None:
        """Takes a place; `leave` gives it back.

        Raises:
            ApiError: there is none; 429, with the time after which there may be one.
        """
        now = self._clock()
        while self._times and now - self._times[0] >= _MINUTE_S:
            self._times.popleft()
        if self.per_minute and len(self._times) >= self.per_minute:
            wait = max(1, math.ceil(_MINUTE_S - (now - self._times[0])))
            what = f"this token has asked {self.per_minute} times within a minute, as often as it may"
            raise ApiError(429, what, code="rate_limit_exceeded", retry_after_s=wait)
        if self.in_work >= self.at_once:
            what = f"this token has {self.in_work} requests in work, as many as it may"
            raise ApiError(429, what, code="concurrency_limit_exceeded", retry_after_s=1)
        if self.per_minute:
            self._times.append(now)
        self.in_work += 1

    def leave(self) -> None:
        """Gives the place back."""
        self.in_work -= 1
