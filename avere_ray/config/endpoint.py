"""A remote endpoint: where it is, who asks, how fast, and how much it may cost."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from avere_ray.config.section import Positive, Seconds, Section

Price = Annotated[float, Field(ge=0)]


class EndpointConfig(Section):
    """A server with OpenAI's chat API: a hosted model, `vllm serve`, or `avere-ray serve`."""

    url: str = ""
    """Its address up to the version, for instance "https://host/v1"; empty asks no server."""
    model: str = ""
    """Name of the model as the server knows it."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A server on this machine may do without."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    """Requests in flight at most."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Requests sent within any minute at most, retries included; None sets no limit."""
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Tokens (prompt and answer) within any minute at most, by the server's own count; None sets no limit."""
    timeout_s: Seconds = 120.0
    """Seconds one request may take."""
    attempts: Positive = 6
    """How often a request is sent at most, when the server is busy, away or slow."""
    longest_wait_s: Seconds = 120.0
    """Longest pause between attempts, seconds; a server that asks for more is given up for now."""
    max_requests: Positive | None = None
    """Budget of requests, retries included; None sets none. A judge's budgets are for all runs that keep its replies in
    one folder (cache.folder), those of an evaluated model for one start of the verb."""
    max_tokens_in_all: Positive | None = None
    """Budget of tokens, prompt and answer; None sets none. A server that does not count them, or whose answer does
    not come, is taken to use what the words and the longest answer need."""
    price_in: Price = 0.0
    """Price of a million prompt tokens, in any currency."""
    price_out: Price = 0.0
    """Price of a million tokens of answers, in the same currency."""
    max_cost: Price | None = None
    """Budget in that currency; None sets none."""

    @property
    def patience_s(self) -> float:
        """Longest that requests in flight may take to end, seconds: all their attempts, the pauses between them, and
        their turns by the rates, between which a pause that the server asks for holds up all of them."""
        turns, turn_s = self._turns()
        return (self.attempts + turns) * (self.timeout_s + self.longest_wait_s) + turns * turn_s

    def _turns(self) -> tuple[int, float]:
        """How many spans of a minute (longer at less than a request a minute) all attempts of the requests in flight
        take by the rates, the one before included, and its seconds. A limit of tokens may let one a minute through."""
        rates = [self.requests_per_minute, None if self.tokens_per_minute is None else 1.0]
        rate = min((rate for rate in rates if rate is not None), default=math.inf)
        if rate == math.inf:
            return 0, 0.0
        return 1 + math.ceil(self.attempts * self.concurrency / max(1, int(rate))), 60.0 * max(1.0, 1.0 / rate)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.url:
            return self
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(
                f"endpoint url {self.url!r} must start with http:// or https://, for instance https://host/v1"
            )
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "endpoint url holds a user name or key, which would end up in logs; use key_variable instead"
            )
        if not self.model:
            raise ValueError(
                f"endpoint url {self.url!r} is set but model is not; name the model as the server knows it"
            )
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise ValueError("endpoint max_cost is set but price_in and price_out are not; state the prices")
        return self
