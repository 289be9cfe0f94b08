"""What the rest of the system knows of a model family: samples, media, and what a processor and a policy can do.

A family's package (see `avere_ray.backbones`) makes these; caches, trees, references, losses and the learner use them
without knowing which family it is.

Legend: L = tokens of a sample, N = nodes of a row, D = model dimension, R = response tokens.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from avere_ray.attention import Layout
from avere_ray.records import DecodedClip
from avere_ray.tree import Branch, Predictions, TreeRow

TEXT, VIDEO, AUDIO = 0, 1, 2
"""What a token stands for, in `Sample.kind`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFeatures:
    """What the vision tower takes of one clip."""

    pixel_values: torch.Tensor
    """float32 [patches, channels * time * height * width]."""
    grid_thw: torch.Tensor
    """int64 [3]: patches over time, height, width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFeatures:
    """What the audio tower takes of one clip."""

    mel: torch.Tensor
    """float32 [mel bins, frames]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaShape:
    """How many tokens a clip's media take, and where in time they stand."""

    grid_thw: torch.Tensor
    """int64 [3]: patches over time, height, width."""
    second_per_grid: float
    """Seconds between temporal patches."""
    video_tokens: int
    audio_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFeatures(MediaShape):
    """Tower inputs of one clip, both media, with their shape."""

    pixel_values: torch.Tensor
    """float32 [patches, channels * time * height * width]."""
    mel: torch.Tensor
    """float32 [mel bins, frames]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaEmbeds:
    """Tower outputs, in the language model's dimension D; None where a key stands for the other medium alone."""

    video: torch.Tensor | None
    """[video tokens, D]."""
    audio: torch.Tensor | None
    """[audio tokens, D]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One branch with what its media tokens stand for."""

    branch: Branch
    token_ids: np.ndarray
    """int64 [L]."""
    kind: np.ndarray
    """int64 [L]: 0 text, 1 video, 2 audio."""
    offset: np.ndarray
    """int64 [L]: index of a media token in its medium."""
    video_id: str
    """Key of the frames that are shown; "" for none."""
    audio_id: str
    """Key of the waveform that is heard; "" for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPlace:
    """Nodes that stand for tokens of one medium."""

    key: str
    """Key of the medium."""
    kind: str
    """"video" or "audio"."""
    nodes: torch.Tensor
    """int64 [M]."""
    offsets: torch.Tensor
    """int64 [M]: which token of the medium stands at each node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRow:
    """Everything about a row of trees that does not depend on weights; N includes what the kernel wants as padding."""

    tree: TreeRow
    token_ids: torch.Tensor
    """int64 [1, N]."""
    positions: torch.Tensor
    """int64 [3, 1, N]."""
    places: tuple[MediaPlace, ...]
    layout: Layout
    predictions: Predictions


class Processor(Protocol):
    """Tokenizer, chat template and media processing of one model folder."""

    end_id: int
    """Token that ends a response."""

    def render(self, prompt: str, *, video: bool = True, audio: bool = True) -> str:
        """The prompt as the model reads it, each medium a single placeholder."""
        ...

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response, end token included."""
        ...

    def video_features(self, frames: np.ndarray) -> VideoFeatures:
        """Vision tower inputs of frames uint8 [T, H, W, 3]."""
        ...

    def audio_features(self, waveform: np.ndarray) -> AudioFeatures:
        """Audio tower inputs of a waveform float32 [S] at 16 kHz."""
        ...

    def media_settings(self) -> str:
        """Everything that decides what the towers are given of frames and of a waveform."""
        ...

    def second_per_grid(self, fps: float) -> float:
        """Seconds between temporal patches at a frame rate."""
        ...

    def sample(
        self,
        prompt: str,
        response: str | Sequence[int],
        *,
        video: tuple[str, MediaShape] | None = None,
        audio: tuple[str, MediaShape] | None = None,
    ) -> Sample:
        """One branch: prompt with the given media, then the response, as words or as token ids."""
        ...


class Policy(Protocol):
    """A model that scores the responses of prefix trees; a `torch.nn.Module`."""

    @property
    def processor(self) -> Any:
        """Its `Processor`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def towers(self) -> Sequence[torch.nn.Module]:
        """The media towers, in an order that stays the same."""
        ...

    def without_adapter(self) -> AbstractContextManager[Any]:
        """Within it the adapter is off and the policy is the base."""
        ...

    def encode_video(self, features: Sequence[VideoFeatures]) -> list[torch.Tensor]:
        """Runs the vision tower once over many videos; [tokens, D] each."""
        ...

    def encode_audio(self, features: Sequence[AudioFeatures]) -> list[torch.Tensor]:
        """Runs the audio tower once over many sounds; [tokens, D] each."""
        ...

    def pack(self, rows: Sequence[Sequence[Sample]]) -> PackedRow:
        """Packs the samples of each row into a tree and puts the trees side by side."""
        ...

    def predictors(self, packed: PackedRow, media: Mapping[str, MediaEmbeds]) -> torch.Tensor:
        """Last hidden states at the nodes that predict response tokens, [R, D]."""
        ...

    def __call__(
        self,
        rows: Sequence[Sequence[Sample]] | PackedRow,
        media: Mapping[str, MediaEmbeds],
        *,
        per_token: bool = False,
        against: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Summed response log-prob (nats, float32) of every sample of every row, [number of samples]; with `per_token`
        of every response token, [R]; with `against` (the reference's `predictors`) also the sums of
        KL(pi_ref || pi_theta), [2, number of samples]."""
        ...


def clip_fps(clip: DecodedClip) -> float:
    """Sampled frames per second of a clip, as processors are told."""
    return round(len(clip.frames) / clip.duration_s, 3)


def content_key(medium: np.ndarray) -> str:
    """Digest of frames or a waveform: what caches know a medium by, in the learner and in the engine."""
    sha = hashlib.sha256(f"{medium.dtype} {medium.shape}".encode())
    sha.update(np.ascontiguousarray(medium).data)
    return sha.hexdigest()[:32]
