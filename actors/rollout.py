"""Samples responses from one vLLM engine, with one adapter version at a time.

The actor is an asyncio one: calls begin in the order in which they were sent, and each gives way to the others after
every step of the engine, so that a second call fills what the first leaves free towards its end. Everything runs in
one thread.
"""

import asyncio
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import ray

from avere_ray import engine
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.engine import Asking, Shown
from avere_ray.evaluation.showing import PLAIN, Showing
from avere_ray.modality import apply_swap, partner_ids
from avere_ray.parity import BOTH, Scored
from avere_ray.records import DecodedClip, Modality, Query, Rollout
from avere_ray.store import DecodedStore

_T = TypeVar("_T")


class RolloutWorker:
    """Owns one engine; reads the clips it needs from the decoded store."""

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutConfig,
        *,
        lora_rank: int,
        decode: DecodeConfig,
        decoded: Path,
        clips_per_request: int = 1,
    ) -> None:
        self.engine = engine.Engine(
            model, rollout, lora_rank=lora_rank, decode=decode, clips_per_request=clips_per_request, in_group=True
        )
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

    async def generate(
        self,
        queries: Sequence[Query],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        showings: Sequence[Showing] | None = None,
    ) -> list[list[Rollout]]:
        """Samples `n` responses to each query; see `Engine.generate`. `showings`: what each shows, else its clip."""
        shown = self._shown(queries, showings)
        return await self._answer(
            self.engine.sampling(queries, shown, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)
        )

    async def option_logps(
        self,
        queries: Sequence[Query],
        *,
        options: Sequence[Sequence[str]],
        showings: Sequence[Showing] | None = None,
    ) -> list[list[float]]:
        """Log-prob (nats) of each option's words as the beginning of a response."""
        return await self._answer(self.engine.scoring(queries, self._shown(queries, showings), options))

    def load_adapter(self, folder: Path | None, version: int) -> int:
        """Switches to an adapter, or with version 0 to the base; returns the version now sampled from."""
        return self.engine.load_adapter(folder or Path(), version)

    def response_logps(
        self, queries: Sequence[Query], responses: Sequence[Sequence[int]], shown: Sequence[Modality] | None = None
    ) -> list[Scored]:
        """Prompts and responses as the engine sees them; `shown`: which media each prompt has, else both."""
        return [
            self.engine.response_logps(q.prompt, self.store[q.clip_id], r, media)
            for q, r, media in zip(queries, responses, shown or [BOTH] * len(queries), strict=True)
        ]

    async def _answer(self, asking: Asking[_T]) -> _T:
        """Takes steps for all calls in work until this one is answered."""
        batch = self.engine.begin(asking.requests, asking.params)
        while not self.engine.step(batch):
            await asyncio.sleep(0)
        return asking.read(batch.outputs)

    def _shown(self, queries: Sequence[Query], showings: Sequence[Showing] | None) -> list[DecodedClip | Shown]:
        """What each query shows; a clip that several show is read once."""
        load = functools.cache(self.store.__getitem__)
        if showings is None:
            return [load(q.clip_id) for q in queries]
        return [_one_shown(q, showing, load) for q, showing in zip(queries, showings, strict=True)]


def _one_shown(query: Query, showing: Showing, load: Callable[[str], DecodedClip]) -> DecodedClip | Shown:
    if showing == PLAIN:
        return load(query.clip_id)
    examples = tuple((e.query.prompt, load(e.query.clip_id), e.answer) for e in showing.examples)
    if showing.words_only:
        return Shown(None, examples)
    clip = load(query.clip_id)
    if showing.swap is not None:
        partners = (load(name) if name else None for name in partner_ids(showing.swap, query.clip_id))
        clip = apply_swap(clip, showing.swap, *partners)
    return Shown(clip, examples)


RolloutActor = ray.remote(RolloutWorker)
