"""Frozen-reference log-probs of pairs: what the learner's loss compares with, computed once.

One pair is one prefix tree: the clip's branches (chosen, rejects), the chosen response under the mismatched input, and
the same responses after the prompt alone (the text prior).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from avere_ray.backbones.qwen2_5_omni import MediaEmbeds, MediaFeatures, Policy, Processor, Sample
from avere_ray.errors import StageError
from avere_ray.modality import apply_swap
from avere_ray.records import DecodedClip, PreferencePair, ReferenceLogps
from avere_ray.stages import digest


@dataclass
class MediaCache:
    """Features and frozen-tower outputs of clips and mismatched inputs, each made once.

    `load` gives a decoded clip by id. Entries are kept by what is shown and heard, not by pair, so in-batch partners
    and later epochs cost nothing. Exact because the towers are frozen.
    """

    processor: Processor
    load: Callable[[str], DecodedClip]
    features: dict[str, MediaFeatures] = field(default_factory=dict)
    embeds: dict[str, MediaEmbeds] = field(default_factory=dict)
    encoder_calls: int = 0

    def key(self, pair: PreferencePair) -> str:
        """Key of the pair's own clip."""
        return pair.clip_id

    def swapped_key(self, pair: PreferencePair) -> str:
        """Key of the pair's mismatched input; it is trimmed to the clip, so it belongs to clip and partner."""
        swap = pair.swap
        assert swap is not None
        return f"{pair.clip_id}|video={swap.video_clip_id}|audio={swap.audio_clip_id}"

    def ensure(self, policy: Policy, pairs: Sequence[PreferencePair]) -> None:
        """Makes sure that the media of these pairs are encoded."""
        wanted: dict[str, DecodedClip] = {}
        for pair in pairs:
            if self.key(pair) not in self.embeds:
                wanted[self.key(pair)] = self.load(pair.clip_id)
            if pair.swap is not None and self.swapped_key(pair) not in self.embeds:
                wanted[self.swapped_key(pair)] = self._mismatched(pair)
        if not wanted:
            return
        features = {key: self.processor.features(clip) for key, clip in wanted.items()}
        with torch.no_grad():
            encoded = policy.encode(list(features.values()))
        self.encoder_calls += len(encoded)
        self.features.update(features)
        self.embeds.update(zip(features, encoded, strict=True))

    def clip(self, policy: Policy, clip_id: str) -> tuple[str, MediaFeatures]:
        """Key and features of a clip, encoded if it was not yet."""
        if clip_id not in self.embeds:
            self.features[clip_id] = self.processor.features(self.load(clip_id))
            with torch.no_grad():
                self.embeds[clip_id] = policy.encode([self.features[clip_id]])[0]
            self.encoder_calls += 1
        return clip_id, self.features[clip_id]

    def _mismatched(self, pair: PreferencePair) -> DecodedClip:
        swap = pair.swap
        assert swap is not None
        own = self.load(pair.clip_id)
        audio = self.load(swap.audio_clip_id) if swap.audio_clip_id != pair.clip_id else None
        video = self.load(swap.video_clip_id) if swap.video_clip_id != pair.clip_id else None
        return apply_swap(own, swap, audio=audio, video=video)


def pair_samples(cache: MediaCache, pair: PreferencePair, *, text_prior: bool) -> list[Sample]:
    """The branches of one pair: chosen, rejects, chosen under the mismatched input if any, then without media."""
    processor = cache.processor
    texts = [pair.chosen, *(r.text for r in pair.rejects)]
    own = (cache.key(pair), cache.features[cache.key(pair)])
    samples = [processor.sample(pair.prompt, text, video=own, audio=own) for text in texts]
    if pair.swap is not None:
        # An unswapped medium keeps its own key, so that its tokens are shared with the other branches.
        key = cache.swapped_key(pair)
        other = (key, cache.features[key])
        video = own if pair.swap.video_clip_id == pair.clip_id else other
        audio = own if pair.swap.audio_clip_id == pair.clip_id else other
        samples.append(processor.sample(pair.prompt, pair.chosen, video=video, audio=audio))
    if text_prior:
        samples += [processor.sample(pair.prompt, text) for text in texts]
    return samples


def reference_key(pair: PreferencePair, *, base_digest: str, decode_spec: str, dtype: str) -> str:
    """Digest of everything that changes a pair's reference figures."""
    return digest(
        pair.clip_id,
        pair.prompt,
        pair.chosen,
        [r.text for r in pair.rejects],
        [pair.swap.audio_clip_id, pair.swap.video_clip_id] if pair.swap else None,
        base_digest,
        decode_spec,
        dtype,
    )


@torch.no_grad()
def score_pairs(
    policy: Policy,
    cache: MediaCache,
    pairs: Sequence[PreferencePair],
    *,
    base_digest: str,
    decode_spec: str,
    dtype: str,
    batch: int = 8,
) -> Iterator[ReferenceLogps]:
    """Reference log-probs of each pair, in order."""
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        cache.ensure(policy, part)
        rows = [pair_samples(cache, pair, text_prior=True) for pair in part]
        scores = iter(policy(rows, cache.embeds).tolist())
        for pair in part:
            count = 1 + len(pair.rejects)
            responses = tuple(next(scores) for _ in range(count))
            swapped = next(scores) if pair.swap is not None else math.nan
            prior = tuple(next(scores) for _ in range(count))
            key = reference_key(pair, base_digest=base_digest, decode_spec=decode_spec, dtype=dtype)
            yield ReferenceLogps(pair_id=pair.pair_id, key=key, responses=responses, swapped=swapped, text_prior=prior)


def check_complete(pairs: Sequence[PreferencePair], scored: Sequence[ReferenceLogps]) -> None:
    """Refuses a reference table with gaps.

    Raises:
        StageError: names the pairs without figures.
    """
    have = {r.pair_id for r in scored}
    missing = [p.pair_id for p in pairs if p.pair_id not in have]
    if missing:
        raise StageError(
            f"{len(missing)} of {len(pairs)} pairs have no reference log-probs, for instance "
            f"{', '.join(missing[:5])}. Delete the reference folder of this round and run again."
        )
