"""Samples responses from one vLLM engine, with one adapter version at a time."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from avere_ray import engine
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.records import Query, Rollout
from avere_ray.store import DecodedStore


class RolloutWorker:
    """Owns one engine; reads the clips it needs from the decoded store."""

    def __init__(
        self, model: ModelConfig, rollout: RolloutConfig, *, lora_rank: int, decode: DecodeConfig, decoded: Path
    ) -> None:
        self.engine = engine.Engine(model, rollout, lora_rank=lora_rank, decode=decode)
        self.store = DecodedStore(decoded)

    def ready(self) -> bool:
        """Answers when the engine is up."""
        return True

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """See `DecodedStore.arrive`."""
        self.store.arrive(places)

    def process_id(self) -> int:
        """Id of the process that holds the engine, on its node."""
        return os.getpid()

    def generate(
        self, queries: Sequence[Query], *, n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Rollout]]:
        """Samples `n` responses to each query; see `Engine.generate`."""
        clips = [self.store[q.clip_id] for q in queries]
        return self.engine.generate(queries, clips, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)

    def load_adapter(self, folder: Path | None, version: int) -> int:
        """Switches to an adapter, or with version 0 to the base; returns the version now sampled from."""
        return self.engine.load_adapter(folder or Path(), version)

    def response_logps(
        self, queries: Sequence[Query], responses: Sequence[Sequence[int]]
    ) -> list[tuple[list[int], list[float]]]:
        """Prompt token ids and response token log-probs as the engine sees them."""
        return [
            self.engine.response_logps(q.prompt, self.store[q.clip_id], r)
            for q, r in zip(queries, responses, strict=True)
        ]


RolloutActor = ray.remote(RolloutWorker)
