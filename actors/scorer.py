"""Log-probs as the learner sees them, outside training: reference figures, and its side of the parity gate."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from avere_ray.backbones import backbone, load_policy
from avere_ray.config import ModelConfig
from avere_ray.embed_folder import EmbedFolder
from avere_ray.logp_cache import LogpCache
from avere_ray.media_cache import MediaCache
from avere_ray.parity import BOTH, Scored
from avere_ray.records import Modality, PreferencePair, Query, ReferenceLogps
from avere_ray.reference import AdapterOff, AsIs, Cached, to_record
from avere_ray.store import DecodedStore


class ScorerWorker:
    """Holds the base model as the learner loads it, and a LoRA slot for the adapter under test.

    Model and tower outputs are on `device`. Tower outputs are kept in `features` up to `features_gb` GiB (0: in memory
    alone), reference figures in `logps`.
    """

    def __init__(
        self,
        model: ModelConfig,
        *,
        lora_rank: int,
        lora_alpha: float,
        decoded: Path,
        features: Path,
        features_gb: float,
        logps: Path,
        device: str = "cpu",
    ) -> None:
        self.store = store = DecodedStore(decoded)
        self.family, base = backbone(model.backbone), load_policy(model, device=device)
        self.policy = self.family.add_lora(base, rank=lora_rank, alpha=lora_alpha, seed=0)
        self.policy.eval()
        folder = EmbedFolder(features, int(features_gb * 2**30)) if features_gb else None
        self.media = MediaCache(processor=base.processor, load=lambda clip_id: store[clip_id], folder=folder)
        self.known = LogpCache(logps)

    def ready(self) -> bool:
        """Answers when the model is loaded."""
        return True

    def arrive(self, places: Mapping[str, tuple[Path, int]]) -> None:
        """See `DecodedStore.arrive`."""
        self.store.arrive(places)

    def score_pairs(
        self, pairs: Sequence[PreferencePair], *, weights: str, dtype: str, adapter: Path | None
    ) -> list[ReferenceLogps]:
        """Reference log-probs of pairs under the base, or under an adapter; those known already are looked up."""
        self._use(adapter)
        source = (AdapterOff if adapter is None else AsIs)(self.policy, self.media)
        cached = Cached(source, self.known, weights=weights, dtype=dtype)
        found = []
        for pair, row in zip(pairs, source.rows(pairs), strict=True):
            key, scores = cached.keyed(row)
            found.append(to_record(pair, scores, key))
        return found

    def response_logps(
        self,
        queries: Sequence[Query],
        responses: Sequence[Sequence[int]],
        adapter: Path | None,
        shown: Sequence[Modality] | None = None,
    ) -> list[Scored]:
        """Prompts and responses as the learner sees them; `adapter` None is the base.

        `shown`: which media each prompt has, else both.
        """
        self._use(adapter)
        asked = zip(queries, responses, shown or [BOTH] * len(queries), strict=True)
        with self.policy.without_adapter() if adapter is None else contextlib.nullcontext():
            return [self._one(*probe) for probe in asked]

    def _use(self, adapter: Path | None) -> None:
        if adapter is not None:
            self.family.load_adapter(self.policy, adapter)

    def _one(self, query: Query, response: Sequence[int], shown: Modality) -> Scored:
        import torch

        with torch.no_grad():
            media = self.media.clip(self.policy, query.clip_id)
            video = media.shown() if "video" in shown else None
            audio = media.heard() if "audio" in shown else None
            sample = self.policy.processor.sample(query.prompt, response, video=video, audio=audio)
            logps = self.policy([[sample]], self.media.embeds, per_token=True)
        ids, shape = sample.token_ids[: sample.branch.response_start].tolist(), media.shape
        grid: dict[str, tuple[float, ...]] = {}
        if video:
            grid |= {"video": tuple(shape.grid_thw.tolist()), "seconds": (shape.second_per_grid,)}
        if audio:
            grid["audio"] = (shape.audio_tokens,)
        return Scored(ids, logps.tolist(), grid)


ScorerActor = ray.remote(ScorerWorker)
