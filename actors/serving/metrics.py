"""Figures of one replica for Prometheus; a registry of its own, so that only ours are told."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counters and histograms; `labels` name the replica."""

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self.replica = replica

        def named(kind: type, name: str, text: str, labels: tuple[str, ...] = (), **more: object):  # type: ignore[no-untyped-def]
            return kind(f"avere_ray_{name}", text, ("replica", *labels), registry=self._registry, **more)

        self._requests = named(Counter, "requests_total", "Requests by route and status", ("route", "status"))
        self._seconds = named(
            Histogram, "request_seconds", "From request to end of answer", ("route",), buckets=_SECONDS
        )
        self._first = named(
            Histogram, "first_token_seconds", "From request to first token of a stream", buckets=_SECONDS
        )
        self._decode = named(Histogram, "decode_seconds", "Fetching and decoding media", buckets=_SECONDS)
        self._tokens = named(Counter, "tokens_total", "Tokens by kind", ("kind",))
        self._working = named(Gauge, "requests_in_work", "Requests in work")
        self._engine = named(Gauge, "engine_requests", "Requests in the engine's batch")
        self._healthy = named(Gauge, "healthy", "1 while the engine works")

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request has been answered."""
        self._requests.labels(self.replica, route, str(status)).inc()
        self._seconds.labels(self.replica, route).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """An answer has begun."""
        self._first.labels(self.replica).observe(seconds)

    def decoded(self, seconds: float) -> None:
        """Media were decoded."""
        self._decode.labels(self.replica).observe(seconds)

    def tokens(self, prompt: int, completion: int) -> None:
        """Tokens of one answer."""
        self._tokens.labels(self.replica, "prompt").inc(prompt)
        self._tokens.labels(self.replica, "completion").inc(completion)

    def text(self, *, in_work: int, in_engine: int, healthy: bool) -> bytes:
        """All figures, with what is true at this moment."""
        self._working.labels(self.replica).set(in_work)
        self._engine.labels(self.replica).set(in_engine)
        self._healthy.labels(self.replica).set(int(healthy))
        return generate_latest(self._registry)
