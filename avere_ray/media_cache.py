"""Frozen-tower outputs, each distinct medium encoded once: in memory, and on disk for later epochs, rounds and runs.

A medium is known by its content: the sampled frames or the waveform as they reach the tower. So a clip shown by many
pairs, a swap partner that is another pair's clip, and a branch of the policy and of the reference all meet one entry.
Entries on disk belong to the towers' weights and dtype and to the processor's settings (normalisation, mel bins) too,
so a change of any of them is a miss.

    pair -> which frames and which waveform -> content digest -> memory -> disk -> towers

No setting trains the towers. `frozen=False` is for code that does: it keeps nothing, and encodes every medium of every
call, with gradient.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from avere_ray.backbones.types import MediaEmbeds, MediaShape, Policy, Processor, clip_fps, content_key
from avere_ray.embed_folder import EmbedFolder, Encoded
from avere_ray.modality import apply_swap, partner_ids
from avere_ray.records import DecodedClip, ModalitySwap, PreferencePair
from avere_ray.stages import digest

MEMORY_BYTES = 2 << 30
_ENCODED_AT_ONCE = 16
"""On a GPU. On CPU a medium goes through its tower alone: the last bits of a product may depend on its number of rows,
after a restart other media are encoded beside it, and a training that goes on must repeat itself bit for bit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownMedia:
    """What one input shows and plays: keys of its media and their shape; a key is "" where there is none."""

    video: str
    audio: str
    shape: MediaShape

    def shown(self) -> tuple[str, MediaShape] | None:
        """The video as `Processor.sample` takes it."""
        return (self.video, self.shape) if self.video else None

    def heard(self) -> tuple[str, MediaShape] | None:
        """The audio as `Processor.sample` takes it."""
        return (self.audio, self.shape) if self.audio else None


class MediaCache:
    """The media of pairs and clips, encoded.

    Args:
        processor: of the policy that encodes.
        load: gives a decoded clip by id.
        folder: tower outputs on disk; None keeps them in memory alone.
        memory_bytes: limit of what is kept in memory between calls.
        frozen: False when the towers train.
    """

    def __init__(
        self,
        *,
        processor: Processor,
        load: Callable[[str], DecodedClip],
        folder: EmbedFolder | None = None,
        memory_bytes: int = MEMORY_BYTES,
        frozen: bool = True,
    ) -> None:
        self.processor, self.load, self.folder = processor, load, folder if frozen else None
        self.memory_bytes, self.frozen = memory_bytes, frozen
        self.encoder_calls = 0
        """Media that went through a tower."""
        self._shown: dict[str, ShownMedia] = {}
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._towers = ""

    @property
    def embeds(self) -> Mapping[str, MediaEmbeds]:
        """Tower outputs by medium key, as `Policy.forward` takes them."""
        return _Embeds(self._kept)

    def clip(self, policy: Policy, clip_id: str) -> ShownMedia:
        """A clip's own media, encoded if they were not yet."""
        return self._ensure(policy, {clip_id: lambda: self.load(clip_id)})[clip_id]

    def ensure(
        self, policy: Policy, pairs: Sequence[PreferencePair], *, relevant: bool = True, irrelevant: bool = False
    ) -> None:
        """Makes sure that the media of these pairs are encoded: their own, with `relevant` the mismatched ones, with
        `irrelevant` those in which only the other modality is replaced."""
        decoded = _Loader(self.load)
        wanted: dict[str, Callable[[], DecodedClip]] = {}
        for pair in pairs:
            if not pair.clip_id:
                continue
            for swap in (None, pair.swap if relevant else None, irrelevant_swap(pair) if irrelevant else None):
                wanted[_name(pair, swap)] = decoded.maker(pair, swap)
        self._ensure(policy, wanted)

    def own(self, pair: PreferencePair) -> ShownMedia | None:
        """The pair's own media, None for a pair without a clip; `ensure` has been called."""
        return self._shown[_name(pair, None)] if pair.clip_id else None

    def mismatched(self, pair: PreferencePair, swap: ModalitySwap) -> ShownMedia:
        """The media of a mismatched input; `ensure` has been called."""
        return self._shown[_name(pair, swap)]

    def _ensure(self, policy: Policy, wanted: Mapping[str, Callable[[], DecodedClip]]) -> dict[str, ShownMedia]:
        if not self.frozen:
            self._kept.clear()
            self._shown.clear()
        missing = {n: make for n, make in wanted.items() if not self._held(n)}
        clips = {name: make() for name, make in missing.items()}
        videos = {content_key(c.frames): c.frames for c in clips.values() if len(c.frames)}
        audios = {content_key(c.waveform): c.waveform for c in clips.values() if len(c.waveform)}
        self._encode(policy, videos, audios)
        for name, clip in clips.items():
            self._shown[name] = self._describe(clip)
        needed = {key for name in wanted for key in (self._shown[name].video, self._shown[name].audio)}
        self._trim(needed)
        return {name: self._shown[name] for name in wanted}

    def _held(self, name: str) -> bool:
        shown = self._shown.get(name)
        if shown is None:
            return False
        return all(not key or key in self._kept or self._fetch(key) for key in (shown.video, shown.audio))

    def _fetch(self, key: str) -> bool:
        """Whether an entry could be brought from disk to memory."""
        found = self.folder.get(digest(key, self._towers)) if self.folder is not None and self._towers else None
        if found is not None:
            self._kept[key] = found
        return found is not None

    def _encode(self, policy: Policy, videos: Mapping[str, np.ndarray], audios: Mapping[str, np.ndarray]) -> None:
        if self.folder is not None and not self._towers:
            self._towers = tower_digest(policy)
        new_videos = [k for k in videos if k not in self._kept and not self._fetch(k)]
        new_audios = [k for k in audios if k not in self._kept and not self._fetch(k)]
        with torch.no_grad() if self.frozen else nullcontext():
            at_once = 1 if policy.device.type == "cpu" else _ENCODED_AT_ONCE
            for part in _parts(new_videos, at_once):
                features = [self.processor.video_features(videos[k]) for k in part]
                grids = [tuple(f.grid_thw.tolist()) for f in features]
                self._keep(part, policy.encode_video(features), grids)
            for part in _parts(new_audios, at_once):
                sounds = [self.processor.audio_features(audios[k]) for k in part]
                self._keep(part, policy.encode_audio(sounds), [(0, 0, 0)] * len(part))

    def _keep(self, keys: Sequence[str], vectors: Sequence[torch.Tensor], grids: Sequence[tuple[int, ...]]) -> None:
        self.encoder_calls += len(keys)
        for key, value, (t, h, w) in zip(keys, vectors, grids, strict=True):
            # A clone, since the rows of one tower call share its whole output.
            entry = Encoded(vectors=value.clone() if self.frozen else value, grid_thw=(t, h, w))
            self._kept[key] = entry
            if self.folder is not None:
                self.folder.put(digest(key, self._towers), entry)

    def _describe(self, clip: DecodedClip) -> ShownMedia:
        video = content_key(clip.frames) if len(clip.frames) else ""
        audio = content_key(clip.waveform) if len(clip.waveform) else ""
        grid = torch.tensor(self._kept[video].grid_thw if video else (0, 0, 0))
        shape = MediaShape(
            grid_thw=grid,
            second_per_grid=self.processor.second_per_grid(clip_fps(clip)) if video else 0.0,
            video_tokens=len(self._kept[video].vectors) if video else 0,
            audio_tokens=len(self._kept[audio].vectors) if audio else 0,
        )
        return ShownMedia(video=video, audio=audio, shape=shape)

    def _trim(self, needed: set[str]) -> None:
        """Lets go of the least recently used entries above the limit, never of those needed now."""
        for key in needed & self._kept.keys():
            self._kept.move_to_end(key)
        total = sum(e.vectors.nbytes for e in self._kept.values())
        for key in list(self._kept):
            if total <= self.memory_bytes or key in needed:
                break
            total -= self._kept.pop(key).vectors.nbytes


class _Embeds(Mapping[str, MediaEmbeds]):
    """Entries as `Policy.forward` looks them up; a key holds one medium."""

    def __init__(self, kept: Mapping[str, Encoded]) -> None:
        self._kept = kept

    def __getitem__(self, key: str) -> MediaEmbeds:
        entry = self._kept[key]
        shown = any(entry.grid_thw)
        return MediaEmbeds(video=entry.vectors if shown else None, audio=None if shown else entry.vectors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


class _Loader:
    """Loads each decoded clip of one call at most once."""

    def __init__(self, load: Callable[[str], DecodedClip]) -> None:
        self._load = load
        self._clips: dict[str, DecodedClip] = {}

    def maker(self, pair: PreferencePair, swap: ModalitySwap | None) -> Callable[[], DecodedClip]:
        """Makes the pair's input, with its media replaced as the swap says."""
        if swap is None:
            return lambda: self._clip(pair.clip_id)
        return lambda: self._mismatched(pair.clip_id, swap)

    def _clip(self, clip_id: str) -> DecodedClip:
        if clip_id not in self._clips:
            self._clips[clip_id] = self._load(clip_id)
        return self._clips[clip_id]

    def _mismatched(self, clip_id: str, swap: ModalitySwap) -> DecodedClip:
        audio, video = (self._clip(c) if c is not None else None for c in partner_ids(swap, clip_id))
        return apply_swap(self._clip(clip_id), swap, audio=audio, video=video)


def irrelevant_swap(pair: PreferencePair) -> ModalitySwap | None:
    """The pair's swap with the modality that the prompt does NOT ask about replaced, by the same partner.

    None when the pair has no swap or asks about both modalities, or the swap replaces both.
    """
    swap = pair.swap
    if swap is None or "audio_video" in (swap.modality, pair.modality):
        return None
    own = pair.clip_id
    if swap.modality == "audio":
        return replace(swap, modality="video", audio_clip_id=own, video_clip_id=swap.audio_clip_id)
    return replace(swap, modality="audio", audio_clip_id=swap.video_clip_id, video_clip_id=own)


def tower_digest(policy: Policy) -> str:
    """Digest of the towers' weights and dtype, and of how media are made ready for them."""
    sha = hashlib.sha256(policy.processor.media_settings().encode())
    for tower in policy.towers():
        for name, value in sorted(tower.state_dict().items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _name(pair: PreferencePair, swap: ModalitySwap | None) -> str:
    return pair.clip_id if swap is None else f"{pair.clip_id}|{swap}"


def _parts(keys: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), length):
        yield keys[start : start + length]
