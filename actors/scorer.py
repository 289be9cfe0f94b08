"""Log-probs as the learner sees them, outside training: reference figures, and its side of the parity gate."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import ray

from avere_ray.backbones import load_policy
from avere_ray.config import ModelConfig
from avere_ray.media_cache import MediaCache
from avere_ray.records import PreferencePair, Query, ReferenceLogps
from avere_ray.reference import score_pairs
from avere_ray.store import DecodedStore


class ScorerWorker:
    """Holds the base model as the learner loads it, and a LoRA slot for the adapter under test."""

    def __init__(self, model: ModelConfig, *, lora_rank: int, lora_alpha: float, decoded: Path) -> None:
        from avere_ray.backbones.qwen2_5_omni import add_lora

        store = DecodedStore(decoded)
        base = load_policy(model)
        self.policy = add_lora(base, rank=lora_rank, alpha=lora_alpha, seed=0)
        self.policy.eval()
        self.cache = MediaCache(processor=base.processor, load=lambda clip_id: store[clip_id])

    def ready(self) -> bool:
        """Answers when the model is loaded."""
        return True

    def score_pairs(
        self, pairs: Sequence[PreferencePair], *, base_digest: str, decode_spec: str, dtype: str
    ) -> list[ReferenceLogps]:
        """Reference log-probs of pairs, adapter off; see `reference.score_pairs`."""
        with self.policy.thinker.disable_adapter():
            return list(
                score_pairs(
                    self.policy, self.cache, pairs, base_digest=base_digest, decode_spec=decode_spec, dtype=dtype
                )
            )

    def response_logps(
        self, queries: Sequence[Query], responses: Sequence[Sequence[int]], adapter: Path | None
    ) -> list[tuple[list[int], list[float]]]:
        """Prompt token ids and response token log-probs as the learner sees them; `adapter` None is the base."""
        from avere_ray.backbones.qwen2_5_omni import load_adapter

        if adapter is not None:
            load_adapter(self.policy, adapter)
        with self.policy.thinker.disable_adapter() if adapter is None else contextlib.nullcontext():
            return [self._one(q, r) for q, r in zip(queries, responses, strict=True)]

    def _one(self, query: Query, response: Sequence[int]) -> tuple[list[int], list[float]]:
        import torch

        with torch.no_grad():
            media = self.cache.clip(self.policy, query.clip_id)
            sample = self.policy.processor.sample(query.prompt, response, video=media.shown(), audio=media.heard())
            logps = self.policy([[sample]], self.cache.embeds, per_token=True)
        return sample.token_ids[: sample.branch.response_start].tolist(), logps.tolist()


ScorerActor = ray.remote(ScorerWorker)
