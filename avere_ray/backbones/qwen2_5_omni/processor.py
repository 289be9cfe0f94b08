"""Prompt layout, media features and position ids of Qwen2.5-Omni.

A prompt shows the video first, then the audio, then the words. Audio is a separate item, or, with `audio_in_video`,
interleaved with the video's tokens in chunks of two seconds when both are there. Frames are already at the model's
final size, so the processor is told never to resize them.

Source of the position and interleaving rules: the model's `get_rope_index` and its processor (temporal ids advance 25
per second).
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avere_ray.backbones.types import (
    AUDIO,
    TEXT,
    VIDEO,
    AudioFeatures,
    MediaFeatures,
    MediaShape,
    Sample,
    VideoFeatures,
    clip_fps,
    content_key,
)
from avere_ray.errors import InputError, ModelError
from avere_ray.records import DecodedClip
from avere_ray.tree import Branch

SAMPLE_RATE = 16_000
LONGEST_KEPT = 1024
"""Characters of the longest prompt whose tokens are kept."""
_NO_RESIZE = {"shortest_edge": 28 * 28, "longest_edge": 1 << 30}


class Processor:
    """Tokenizer, chat template and media processing of one model folder."""

    def __init__(self, path: Path, *, audio_in_video: bool = False) -> None:
        from transformers import Qwen2_5OmniProcessor

        try:
            self.hf = Qwen2_5OmniProcessor.from_pretrained(str(path))
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"cannot read the processor of {path}: {error}. The folder must hold a Qwen2.5-Omni "
                "tokenizer, preprocessor_config.json and chat template."
            ) from error
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        self.thinker_config = config.get("thinker_config", config)
        self.audio_in_video = audio_in_video
        tokenizer = self.hf.tokenizer
        self.video_id = tokenizer.convert_tokens_to_ids(self.hf.video_token)
        self.audio_id = tokenizer.convert_tokens_to_ids(self.hf.audio_token)
        self.audio_bounds = tokenizer.convert_tokens_to_ids([self.hf.audio_bos_token, self.hf.audio_eos_token])
        self.end_id = tokenizer.eos_token_id
        self.merge = self.hf.video_processor.merge_size
        self.seconds_positions = int(self.thinker_config.get("position_id_per_seconds", 25))
        self.chunk_positions = int(self.seconds_positions * self.thinker_config.get("seconds_per_chunk", 2))
        self.prompt_ids = PromptIds(self._prompt_ids)

    def render(self, prompt: str, *, video: bool = True, audio: bool = True) -> str:
        """The prompt as the model reads it, each medium a single placeholder."""
        content = _content(prompt, video=video, audio=audio and not (video and self.audio_in_video))
        return self.hf.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def conversation_ids(self, turns: Sequence[tuple[str, str]], prompt: str, *, media: bool) -> list[int]:
        """Tokens of a prompt after answered examples (prompt, response), which show both media each."""
        messages: list[dict[str, Any]] = []
        for asked, answered in turns:
            messages.append({"role": "user", "content": _content(asked, video=True, audio=not self.audio_in_video)})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": answered}]})
        last = _content(prompt, video=media, audio=media and not self.audio_in_video)
        messages.append({"role": "user", "content": last})
        return self.text_ids(self.hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def chat_ids(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Tokens of a whole conversation that the model is to go on with; parts of type video and audio are media.

        Raises:
            InputError: the model's template does not take it, for instance because of a role.
        """
        from jinja2.exceptions import TemplateError

        try:
            text = self.hf.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        except (TemplateError, ValueError, TypeError) as error:
            raise InputError(f"the model's chat template does not take this conversation: {error}") from error
        return self.text_ids(text)

    def _prompt_ids(self, prompt: str, video: bool, audio: bool) -> list[int]:
        return self.text_ids(self.render(prompt, video=video, audio=audio))

    def text_ids(self, text: str) -> list[int]:
        """Tokens of words alone."""
        return list(self.hf.tokenizer(text, add_special_tokens=False)["input_ids"])

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response, end token included."""
        return [*self.text_ids(text), self.end_id]

    def video_features(self, frames: np.ndarray) -> VideoFeatures:
        """Vision tower inputs of frames uint8 [T, H, W, 3], exactly as the engine's processor makes them."""
        video = self.hf.video_processor(videos=[frames.copy()], return_tensors="pt", size=_NO_RESIZE)
        return VideoFeatures(pixel_values=video["pixel_values_videos"], grid_thw=video["video_grid_thw"][0])

    def audio_features(self, waveform: np.ndarray) -> AudioFeatures:
        """Audio tower inputs of a waveform float32 [S] at 16 kHz, exactly as the engine's processor makes them."""
        sound = self.hf.feature_extractor(
            [waveform],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return AudioFeatures(mel=sound["input_features"][0][:, : int(sound["attention_mask"][0].sum())])

    def media_settings(self) -> str:
        """The settings of the video and the audio processor as JSON: normalisation, patches, mel bins."""
        parts = [part.to_dict() for part in (self.hf.video_processor, self.hf.feature_extractor)]
        return json.dumps(parts, sort_keys=True, default=str)

    def features(self, clip: DecodedClip) -> MediaFeatures:
        """Tower inputs of both media of one decoded clip."""
        video, audio = self.video_features(clip.frames), self.audio_features(clip.waveform)
        return MediaFeatures(
            pixel_values=video.pixel_values,
            grid_thw=video.grid_thw,
            mel=audio.mel,
            second_per_grid=self.second_per_grid(clip_fps(clip)),
            video_tokens=self.video_tokens(video.grid_thw),
            audio_tokens=self.audio_tokens(audio.mel.shape[1]),
        )

    def second_per_grid(self, fps: float) -> float:
        """Seconds between temporal patches at a frame rate."""
        return float(self.hf.video_processor.temporal_patch_size / fps)

    def video_tokens(self, grid_thw: torch.Tensor) -> int:
        """Tokens of a video, from its grid [3] of patches."""
        return int(grid_thw.prod()) // self.merge**2

    def audio_tokens(self, mel_frames: int) -> int:
        """Tokens of a sound, from its number of mel frames."""
        return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1

    def sample(
        self,
        prompt: str,
        response: str | Sequence[int],
        *,
        video: tuple[str, MediaShape] | None = None,
        audio: tuple[str, MediaShape] | None = None,
    ) -> Sample:
        """One branch: prompt with the given media, then the response.

        Args:
            response: words (the end token is added) or token ids as sampled.
            video, audio: key and shape of what is shown or heard; None leaves the medium out.
        """
        layout = _Layout()
        for token in self.prompt_ids(prompt, video is not None, audio is not None):
            if token == self.video_id and video is not None:
                self._place_video(layout, video[1], audio[1] if audio and self.audio_in_video else None)
            elif token == self.audio_id and audio is not None:
                layout.audio(self.audio_id, 0, audio[1].audio_tokens, layout.next)
            else:
                layout.text([token])
        start = len(layout.ids)
        layout.text(self.response_ids(response) if isinstance(response, str) else list(response))
        token_ids, kinds, offsets = (np.asarray(x, np.int64) for x in (layout.ids, layout.kinds, layout.offsets))
        video_id, audio_id = video[0] if video else "", audio[0] if audio else ""
        keys = np.where(
            kinds == VIDEO,
            _media_key(video_id, "video") + offsets,
            np.where(kinds == AUDIO, _media_key(audio_id, "audio") + offsets, token_ids),
        )
        return Sample(
            branch=Branch(keys=keys, positions=np.concatenate(layout.positions, axis=1), response_start=start),
            token_ids=token_ids,
            kind=kinds,
            offset=offsets,
            video_id=video_id,
            audio_id=audio_id,
        )

    def _place_video(self, layout: "_Layout", video: MediaShape, audio: MediaShape | None) -> None:
        grid = self._video_positions(video)
        if audio is None:
            layout.video(self.video_id, 0, grid + layout.next)
            return
        # The audio's bounds stand inside the video's, at the same position ids (the video's opening one is placed).
        opening, closing = self.audio_bounds
        layout.text_at(opening, layout.next - 1)
        first = layout.next
        ends = [_chunk_ends(t, self.chunk_positions) for t in (grid[0], np.arange(audio.audio_tokens))]
        cuts = zip_longest(*ends)
        shown = heard = 0
        for video_end, audio_end in cuts:
            if video_end is not None and video_end > shown:
                layout.video(self.video_id, shown, grid[:, shown:video_end] + first)
                shown = video_end
            if audio_end is not None and audio_end > heard:
                layout.audio(self.audio_id, heard, audio_end, first)
                heard = audio_end
        layout.text_at(closing, layout.next)
        layout.next -= 1

    def _video_positions(self, video: MediaShape) -> np.ndarray:
        """M-RoPE position ids [3, tokens] of a video, from 0."""
        t, h, w = (int(x) for x in video.grid_thw)
        h, w = h // self.merge, w // self.merge
        seconds = (np.arange(t, dtype=np.float32) * np.float32(video.second_per_grid) * self.seconds_positions).astype(
            np.int64
        )
        return np.stack(
            [np.repeat(seconds, h * w), np.tile(np.repeat(np.arange(h), w), t), np.tile(np.arange(w), t * h)]
        )


class PromptIds:
    """Tokens of prompts. Those of short ones are kept, since many clips are asked the same: 21 MiB of English at most,
    whatever a server is asked."""

    def __init__(self, make: Callable[[str, bool, bool], Sequence[int]]) -> None:
        self._make = make
        self._kept = lru_cache(maxsize=4096)(self._packed)

    def __call__(self, prompt: str, video: bool, audio: bool) -> tuple[int, ...]:
        """Tokens of a prompt that shows these media."""
        return tuple((self._kept if len(prompt) <= LONGEST_KEPT else self._make)(prompt, video, audio))

    def _packed(self, prompt: str, video: bool, audio: bool) -> "array[int]":
        return array("i", self._make(prompt, video, audio))


class _Layout:
    """Tokens of a branch as they are laid out, with their position ids."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kinds: list[int] = []
        self.offsets: list[int] = []
        self.positions: list[np.ndarray] = []
        self.next = 0
        """Position id of the next word."""

    def text(self, tokens: Sequence[int]) -> None:
        """Words: one position after another, equal on all axes."""
        self._add(tokens, TEXT, 0, _line(self.next, len(tokens)))
        self.next += len(tokens)

    def text_at(self, token: int, position: int) -> None:
        """One word at a given position."""
        self._add([token], TEXT, 0, _line(position, 1))
        self.next = position + 1

    def video(self, token: int, begin: int, positions: np.ndarray) -> None:
        """A video's tokens from `begin` on; what follows stands after their highest position."""
        self._add([token] * positions.shape[1], VIDEO, begin, positions)
        self.next = int(positions.max()) + 1

    def audio(self, token: int, begin: int, end: int, first: int) -> None:
        """A sound's tokens [begin, end), the first of all of which stands at position `first`."""
        self._add([token] * (end - begin), AUDIO, begin, _line(first + begin, end - begin))
        self.next = first + end

    def _add(self, tokens: Sequence[int], kind: int, begin: int, positions: np.ndarray) -> None:
        self.ids += tokens
        self.kinds += [kind] * len(tokens)
        self.offsets += range(begin, begin + len(tokens)) if kind != TEXT else [0] * len(tokens)
        self.positions.append(positions)


def _content(prompt: str, *, video: bool, audio: bool) -> list[dict[str, str]]:
    """A user's message: the video, the audio, then the words."""
    media = [{"type": name} for name, there in (("video", video), ("audio", audio)) if there]
    return [*media, {"type": "text", "text": prompt}]


def _line(first: int, count: int) -> np.ndarray:
    return np.broadcast_to(np.arange(first, first + count), (3, count))


def _chunk_ends(times: np.ndarray, chunk: int) -> list[int]:
    """Where each chunk ends. A token at or beyond the next bound opens one chunk, as in the published processor, so
    tokens far apart in time give chunks of one token until the bound has caught up."""
    ends: list[int] = []
    for i, time in enumerate(times.tolist()):
        if time >= (len(ends) + 1) * chunk:
            ends.append(i)
    return [*ends, len(times)]


def engine_inputs(
    *clips: DecodedClip, audio_in_video: bool = False, video: bool = True, audio: bool = True
) -> dict[str, Any]:
    """Media of one vLLM request, with the settings that keep it equal to `Processor.features`.

    `video`, `audio`: which media of the clips are shown. The published processor knows one frame rate per request: that
    of the last clip, the one that is asked about. The engine's caches know a medium by the digest of its content, to
    which vLLM adds these settings; so a swapped medium never meets the entry of the clip's own.
    """
    options: dict[str, Any] = {"use_audio_in_video": True} if audio_in_video else {}
    media: dict[str, Any] = {}
    if video:
        media["video"] = [clip.frames.copy() for clip in clips]
        options = {"size": _NO_RESIZE, "fps": clip_fps(clips[-1]), **options}
    if audio:
        media["audio"] = [(clip.waveform.copy(), SAMPLE_RATE) for clip in clips]
    names = {"video": [content_key(c.frames) for c in clips] if video else [],
             "audio": [content_key(c.waveform) for c in clips] if audio else []}  # fmt: skip
    uuids = {medium: names[medium] for medium in media}
    return {"multi_modal_data": media, "multi_modal_uuids": uuids, "mm_processor_kwargs": options}


def _media_key(medium_id: str, medium: str) -> int:
    """Start of a range of negative keys that belongs to one medium; token ids are never negative."""
    value = int.from_bytes(hashlib.sha256(f"{medium}:{medium_id}".encode()).digest()[:7], "big")
    return -((value << 7) | (1 << 62))
