"""How fast a remote endpoint may be asked, and how much it may cost in all."""

from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from avere_ray.config import EndpointConfig
from avere_ray.endpoint.usage import Usage, UsageLog
from avere_ray.endpoint.wire import Reply, Request
from avere_ray.errors import EndpointError

_WINDOW_S = 60.0
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Need:
    """What a request is taken to cost before it is answered."""

    tokens: int
    cost: float


class Gate:
    """Rates and budget; held under the endpoint's lock."""

    def __init__(self, cfg: EndpointConfig, log: UsageLog, now: float) -> None:
        """`log`: what was used before, and by others; it counts against the budget, and the last of it against the
        rates."""
        self.cfg = cfg
        self.usage = Usage()
        """Of this process."""
        self._log = log
        self._sent: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque()
        self._in_flight = Need(0, 0.0)
        self._largest = Need(0, 0.0)
        for age, used in log.lately(self._window_s):
            self._sent.extend([now - age] * int(used.requests))
            if used.tokens:
                self._tokens.append((now - age, used.tokens))

    def need(self, least: Need) -> Need:
        """What a request is taken to cost: as much as the largest so far, since media are not known before."""
        return Need(max(least.tokens, self._largest.tokens), max(least.cost, self._largest.cost))

    def delay(self, now: float, need: Need) -> float:
        """Seconds until the rates allow one more request.

        Raises:
            EndpointError: the budget does not.
        """
        self._check_budget(need)
        while self._sent and self._sent[0] <= now - self._window_s:
            self._sent.popleft()
        while self._tokens and self._tokens[0][0] <= now - _WINDOW_S:
            self._tokens.popleft()
        return max(self._request_delay(now), self._token_delay(now, need))

    def enter(self, now: float, need: Need) -> None:
        """Counts a request that is sent."""
        self._sent.append(now)
        self._in_flight = Need(self._in_flight.tokens + need.tokens, self._in_flight.cost + need.cost)
        self._count(requests=1)

    def leave(self, now: float, need: Need, reply: Reply | None, *, spent: bool = False) -> None:
        """Counts what came of a request.

        One whose tokens nobody counts needed what it was taken to need: the server does not say how many an answer has,
        or may have worked on a request (`spent`) whose answer did not come.
        """
        self._in_flight = Need(self._in_flight.tokens - need.tokens, self._in_flight.cost - need.cost)
        if reply is None and not spent:
            return
        if reply is None or not reply.counted:
            self._tokens.append((now, need.tokens))
            self._count(answers=int(reply is not None), estimated_tokens=need.tokens, cost=need.cost)
            return
        tokens = reply.prompt_tokens + reply.completion_tokens
        cost = _cost(self.cfg, reply.prompt_tokens, reply.completion_tokens)
        self._tokens.append((now, tokens))
        self._largest = self.need(Need(tokens, cost))
        self._count(answers=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens, cost=cost)

    @property
    def _window_s(self) -> float:
        return max(_WINDOW_S, _WINDOW_S / (self.cfg.requests_per_minute or 1))

    def _count(self, **more: float) -> None:
        self.usage = self.usage.plus(**more)
        self._log.add(**more)

    def _request_delay(self, now: float) -> float:
        limit = self.cfg.requests_per_minute
        if limit is None:
            return 0.0
        window, most = (_WINDOW_S, int(limit)) if limit >= 1 else (_WINDOW_S / limit, 1)
        return self._sent[-most] + window - now if len(self._sent) >= most else 0.0

    def _token_delay(self, now: float, need: Need) -> float:
        limit = self.cfg.tokens_per_minute
        used = sum(tokens for _, tokens in self._tokens) + self._in_flight.tokens
        if limit is None or not used or used + need.tokens <= limit:
            return 0.0
        return max(0.01, self._tokens[0][0] + _WINDOW_S - now) if self._tokens else 0.05

    def _remedy(self) -> str:
        if self._log.path is None:
            return "run the same command again, with another budget if you like."
        return (
            f"raise the budget and run the same command again. What was used is in {self._log.path}, of earlier runs "
            "as well; remove it to begin anew."
        )

    def _check_budget(self, need: Need) -> None:
        cfg, coming = self.cfg, self._in_flight
        usage = self.usage if self._log.path is None else self._log.total()
        tokens = usage.tokens
        spent = [
            (cfg.max_requests, usage.requests + 1, "max_requests", f"{usage.requests} requests"),
            (cfg.max_tokens_in_all, tokens + coming.tokens + need.tokens, "max_tokens_in_all", f"{tokens} tokens"),
            (cfg.max_cost, usage.cost + coming.cost + need.cost, "max_cost", f"about {usage.cost:.4f}"),
        ]
        for limit, wanted, name, so_far in spent:
            if limit is not None and wanted > limit:
                raise EndpointError(
                    f"{place(cfg)}: the budget {name} = {limit:g} is used up ({so_far} so far, and the next request "
                    f"would exceed it). What was answered is kept; {self._remedy()}"
                )


def least_need(request: Request, cfg: EndpointConfig) -> Need:
    """Tokens and cost of the words and of the longest answer; media are not counted."""
    words = 0
    for message in request.messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        words += sum(len(part.get("text", "")) for part in parts)
    prompt = words // _CHARACTERS_PER_TOKEN
    return Need(prompt + request.max_tokens, _cost(cfg, prompt, request.max_tokens))


def _cost(cfg: EndpointConfig, prompt: int, completion: int) -> float:
    return (prompt * cfg.price_in + completion * cfg.price_out) / 1e6


def place(cfg: EndpointConfig) -> str:
    """Model and server in words, without a password the address may hold."""
    parts = urlsplit(cfg.url)
    return f"{cfg.model} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
