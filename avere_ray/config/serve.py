"""The server of `avere-ray serve`: how many answer, who may ask, how much, and what a request may bring."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from avere_ray.config.section import Positive, Seconds, Section

Count = Annotated[int, Field(ge=0)]


class ServeConfig(Section):
    """Answering over HTTP. How long and how large a clip may be stands in data.decode, what an engine takes in rollout
    (num_cpus, num_gpus, max_model_len)."""

    num_replicas: Positive = 1
    """Replicas, each a process with one engine; with max_replicas, the fewest."""
    max_replicas: Positive | None = None
    """Ray Serve adds replicas up to so many while more is asked, and takes them away again; None never does."""
    target_requests: Positive = 8
    """Requests in work per replica that Ray Serve aims at when it adds and takes away."""
    max_requests: Positive = 32
    """Requests a replica has in work at once; more are refused with 503, to be asked again."""
    queued_requests: Positive = 256
    """Requests that may wait for a replica with room; more are refused with 503."""
    deadline_s: Seconds = 120.0
    """Seconds a request may take, from its last byte to the end of its answer."""
    drain_s: Seconds = 60.0
    """Seconds that requests in work may take after the server was asked to end."""
    max_body_mb: Positive = 64
    """Largest request, MiB."""
    max_text: Positive = 16_384
    """Longest words of a request in all, characters; of POST /v1/emotion, question and answer, 16384 each at most."""
    max_n: Positive = 8
    """Most answers to one request."""
    adapters: Positive = 4
    """Adapters that may be used in one step of the engine."""
    decoders: Positive = 2
    """Processes of a replica that decode media."""
    decoded_mb: Count = 64
    """Decoded media a replica keeps for the next question about them, MiB."""
    media_hosts: tuple[str, ...] = ()
    """Hosts (host or host:port) from which https:// media of requests are fetched, and where these may redirect to.
    Empty: none. Addresses that are not public are refused in any case."""
    fetch_timeout_s: Seconds = 20.0
    """Seconds such a file may take to arrive."""
    tokens_file: Path | None = None
    """File with the SHA-256 of bearer tokens, one `NAME SHA256` a line, with `admin` behind it for those that may move
    the champion; besides those in AVERE_RAY_API_TOKEN."""
    requests_per_minute: Count = 600
    """Requests of one token in a minute, counted by each replica; 0 sets no limit. POST /v1/emotion counts as one
    request, however many passes of the engine it takes."""
    requests_per_token: Positive = 16
    """Requests of one token in work at once, counted by each replica."""
    champion: str | None = None
    """What the model `champion` stands for: "registry", the alias of that name in MLflow's registry; or an adapter
    folder. It is looked at again every champion_poll_s. None offers no champion until an administrator names one."""
    registered_model: str = "avere_ray-adapter"
    """Model in MLflow's registry whose alias is looked at."""
    champion_poll_s: Seconds = 15.0
    """Seconds between two looks at what the champion is."""
    cors_origins: tuple[str, ...] = ()
    """Web pages (as https://host) whose scripts may ask; none by default."""
    log_requests: bool = False
    """Log questions and answers; media never."""

    @model_validator(mode="after")
    def _replicas_in_order(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.num_replicas:
            raise ValueError(
                f"serve.max_replicas {self.max_replicas} is below serve.num_replicas {self.num_replicas}; raise it, or "
                "leave it out"
            )
        return self
