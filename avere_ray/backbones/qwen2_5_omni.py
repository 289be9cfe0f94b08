"""Qwen2.5-Omni (Thinker): prompt layout, media features, M-RoPE positions, log-probs over prefix trees, LoRA names.

A prompt shows the video first, then the audio, then the words. Audio is a separate item (not interleaved with the
video's frames), in the engine and in the learner alike. Frames are already at the model's final size, so the
processor is told never to resize them.

Source of the position rule: the model's `get_rope_index` (temporal ids advance 25 per second).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from avere_ray.errors import ModelError
from avere_ray.logprobs import branch_logps, token_logps
from avere_ray.records import DecodedClip
from avere_ray.tree import Branch, TreeBatch, TreeRow, collate_rows, pack_branches

SAMPLE_RATE = 16_000
LORA_TARGETS = r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
"""Linear layers of the language model; towers and projectors stay frozen."""
_THINKER_PREFIX, _FULL_PREFIX = "base_model.model.model.", "base_model.model.thinker.model."
_NO_RESIZE = {"shortest_edge": 28 * 28, "longest_edge": 1 << 30}
_TEXT, _VIDEO, _AUDIO = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaFeatures:
    """What the towers take of one clip, and how many tokens they give."""

    pixel_values: torch.Tensor
    """float32 [patches, channels * time * height * width]."""
    grid_thw: torch.Tensor
    """int64 [3]: patches over time, height, width."""
    mel: torch.Tensor
    """float32 [mel bins, frames]."""
    second_per_grid: float
    """Seconds between temporal patches."""
    video_tokens: int
    audio_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaEmbeds:
    """Tower outputs of one clip, in the language model's dimension D."""

    video: torch.Tensor
    """[video tokens, D]."""
    audio: torch.Tensor
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
    """Key of the clip whose frames are shown; "" for none."""
    audio_id: str
    """Key of the clip whose waveform is heard; "" for none."""


class Processor:
    """Tokenizer, chat template and media processing of one model folder."""

    def __init__(self, path: Path) -> None:
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
        tokenizer = self.hf.tokenizer
        self.video_id = tokenizer.convert_tokens_to_ids(self.hf.video_token)
        self.audio_id = tokenizer.convert_tokens_to_ids(self.hf.audio_token)
        self.end_id = tokenizer.eos_token_id
        self.seconds_positions = int(self.thinker_config.get("position_id_per_seconds", 25))
        self.prompt_ids = lru_cache(maxsize=4096)(self._prompt_ids)

    def render(self, prompt: str, *, video: bool = True, audio: bool = True) -> str:
        """The prompt as the model reads it, each medium a single placeholder."""
        content: list[dict[str, str]] = []
        if video:
            content.append({"type": "video"})
        if audio:
            content.append({"type": "audio"})
        content.append({"type": "text", "text": prompt})
        return self.hf.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    def _prompt_ids(self, prompt: str, video: bool, audio: bool) -> tuple[int, ...]:
        text = self.render(prompt, video=video, audio=audio)
        return tuple(self.text_ids(text))

    def text_ids(self, text: str) -> list[int]:
        """Tokens of words alone."""
        return list(self.hf.tokenizer(text, add_special_tokens=False)["input_ids"])

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a response, end token included."""
        return [*self.text_ids(text), self.end_id]

    def features(self, clip: DecodedClip) -> MediaFeatures:
        """Tower inputs of one decoded clip, exactly as the engine's processor makes them."""
        video = self.hf.video_processor(
            videos=[clip.frames.copy()], return_tensors="pt", size=_NO_RESIZE, fps=clip_fps(clip)
        )
        sound = self.hf.feature_extractor(
            [clip.waveform],
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        grid = video["video_grid_thw"][0]
        frames = int(sound["attention_mask"][0].sum())
        merge = self.hf.video_processor.merge_size
        return MediaFeatures(
            pixel_values=video["pixel_values_videos"],
            grid_thw=grid,
            mel=sound["input_features"][0][:, :frames],
            second_per_grid=self.hf.video_processor.temporal_patch_size / clip_fps(clip),
            video_tokens=int(grid.prod()) // merge**2,
            audio_tokens=((frames - 1) // 2 + 1 - 2) // 2 + 1,
        )

    def sample(
        self,
        prompt: str,
        response: str | Sequence[int],
        *,
        video: tuple[str, MediaFeatures] | None = None,
        audio: tuple[str, MediaFeatures] | None = None,
    ) -> Sample:
        """One branch: prompt with the given media, then the response.

        Args:
            response: words (the end token is added) or token ids as sampled.
            video, audio: key and features of the clip that is shown or heard; None leaves the medium out.
        """
        ids: list[int] = []
        kind: list[int] = []
        offset: list[int] = []
        counts = {
            self.video_id: (_VIDEO, video[1].video_tokens if video else 0),
            self.audio_id: (_AUDIO, audio[1].audio_tokens if audio else 0),
        }
        for token in self.prompt_ids(prompt, video is not None, audio is not None):
            which, count = counts.get(token, (_TEXT, 1))
            ids += [token] * count
            kind += [which] * count
            offset += range(count)
        start = len(ids)
        answer = self.response_ids(response) if isinstance(response, str) else list(response)
        ids += answer
        kind += [_TEXT] * len(answer)
        offset += [0] * len(answer)
        token_ids, kinds, offsets = (np.asarray(x, np.int64) for x in (ids, kind, offset))
        video_id, audio_id = video[0] if video else "", audio[0] if audio else ""
        keys = np.where(
            kinds == _VIDEO,
            _media_key(video_id, "video") + offsets,
            np.where(kinds == _AUDIO, _media_key(audio_id, "audio") + offsets, token_ids),
        )
        positions = self._positions(kinds, video[1] if video else None)
        return Sample(
            branch=Branch(keys=keys, positions=positions, response_start=start),
            token_ids=token_ids,
            kind=kinds,
            offset=offsets,
            video_id=video_id,
            audio_id=audio_id,
        )

    def _positions(self, kinds: np.ndarray, video: MediaFeatures | None) -> np.ndarray:
        """M-RoPE position ids [3, L]: text and audio advance by one on all axes, a video by its grid."""
        length = len(kinds)
        plain = np.broadcast_to(np.arange(length), (3, length)).copy()
        where = np.flatnonzero(kinds == _VIDEO)
        if video is None or not len(where):
            return plain
        merge = self.hf.video_processor.merge_size
        t, h, w = (int(x) for x in video.grid_thw)
        h, w = h // merge, w // merge
        seconds = (np.arange(t) * video.second_per_grid * self.seconds_positions).astype(np.int64)
        first, last = int(where[0]), int(where[-1])
        grid = np.stack(
            [np.repeat(seconds, h * w), np.tile(np.repeat(np.arange(h), w), t), np.tile(np.arange(w), t * h)]
        )
        plain[:, first : last + 1] = grid + first
        plain[:, last + 1 :] = np.arange(length - last - 1) + plain[:, first : last + 1].max() + 1
        return plain


def clip_fps(clip: DecodedClip) -> float:
    """Sampled frames per second of a clip, as the processor is told."""
    return round(len(clip.frames) / clip.duration_s, 3)


def engine_inputs(clip: DecodedClip) -> dict[str, Any]:
    """Media of a clip for one vLLM request, with the settings that keep it equal to `Processor.features`."""
    return {
        "multi_modal_data": {"video": [clip.frames.copy()], "audio": [(clip.waveform.copy(), SAMPLE_RATE)]},
        "mm_processor_kwargs": {"size": _NO_RESIZE, "fps": clip_fps(clip)},
    }


def _media_key(clip_id: str, medium: str) -> int:
    """Start of a range of negative keys that belongs to one medium; token ids are never negative."""
    value = int.from_bytes(hashlib.sha256(f"{medium}:{clip_id}".encode()).digest()[:7], "big")
    return -((value << 7) | (1 << 62))


class Policy(nn.Module):
    """The Thinker with its processor: encodes media and scores trees of branches."""

    def __init__(self, thinker: nn.Module, processor: Processor) -> None:
        super().__init__()
        self.thinker = thinker
        self.processor = processor

    @property
    def core(self) -> Any:
        """The plain Thinker, below any adapter."""
        unwrap = getattr(self.thinker, "get_base_model", None)
        return unwrap() if unwrap is not None else self.thinker

    def encode(self, features: Sequence[MediaFeatures]) -> list[MediaEmbeds]:
        """Runs the towers once over many clips."""
        core = self.core
        video = core.visual(
            torch.cat([f.pixel_values for f in features]).to(core.visual.dtype),
            grid_thw=torch.stack([f.grid_thw for f in features]),
        ).pooler_output
        lengths = torch.tensor([f.mel.shape[1] for f in features])
        after_cnn, _ = core.audio_tower._get_feat_extract_output_lengths(lengths)
        audio = core.audio_tower(
            torch.cat([f.mel for f in features], dim=1), feature_lens=lengths, aftercnn_lens=after_cnn
        ).last_hidden_state
        videos = video.split([f.video_tokens for f in features])
        audios = audio.split([f.audio_tokens for f in features])
        return [MediaEmbeds(video=v, audio=a) for v, a in zip(videos, audios, strict=True)]

    def forward(
        self, rows: Sequence[Sequence[Sample]], media: dict[str, MediaEmbeds], *, per_token: bool = False
    ) -> torch.Tensor:
        """Summed response log-prob of every sample of every row, in order; [number of samples].

        Args:
            rows: samples that are packed into one tree each.
            media: tower outputs by clip key.
            per_token: give each response token's log-prob instead, in order.
        """
        packed = [pack_branches([s.branch for s in row]) for row in rows]
        batch = collate_rows(packed, [[s.branch for s in row] for row in rows])
        hidden = self._hidden(rows, packed, batch, media)
        logps = token_logps(hidden[batch.predict_row, batch.predict_node], self.core.lm_head.weight, batch.target)
        return logps if per_token else branch_logps(logps, batch.branch, batch.num_branches)

    def _hidden(
        self,
        rows: Sequence[Sequence[Sample]],
        packed: Sequence[TreeRow],
        batch: TreeBatch,
        media: dict[str, MediaEmbeds],
    ) -> torch.Tensor:
        embeds = self._embed(rows, packed, batch.mask.shape[-1], media)
        out = self.core.model(
            inputs_embeds=embeds,
            attention_mask={"full_attention": batch.mask},
            position_ids=batch.positions,
            use_cache=False,
        )
        return out.last_hidden_state

    def _embed(
        self, rows: Sequence[Sequence[Sample]], packed: Sequence[TreeRow], size: int, media: dict[str, MediaEmbeds]
    ) -> torch.Tensor:
        """Input embeddings [B, N, D]: words from the table, media tokens from the towers."""
        ids = torch.zeros(len(rows), size, dtype=torch.long)
        places: list[tuple[int, int]] = []
        vectors: list[torch.Tensor] = []
        for b, (row, tree) in enumerate(zip(rows, packed, strict=True)):
            for s, sample in enumerate(row):
                mine = tree.origin[:, 0] == s
                nodes, at = np.flatnonzero(mine), tree.origin[mine, 1]
                ids[b, nodes] = torch.from_numpy(sample.token_ids[at])
                for kind, key, field in ((_VIDEO, sample.video_id, "video"), (_AUDIO, sample.audio_id, "audio")):
                    hit = sample.kind[at] == kind
                    if hit.any():
                        places += [(b, int(n)) for n in nodes[hit]]
                        vectors.append(getattr(media[key], field)[torch.from_numpy(sample.offset[at][hit])])
        embeds = self.core.model.embed_tokens(ids)
        if not vectors:
            return embeds
        at_row, at_node = torch.tensor(places).unbind(1)
        return embeds.index_put((at_row, at_node), torch.cat(vectors).to(embeds.dtype))


def load_policy(path: Path, dtype: str) -> Policy:
    """The Thinker of a Qwen2.5-Omni folder (speech generation is left out).

    Raises:
        ModelError: the weights cannot be read.
    """
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    processor = Processor(path)
    try:
        thinker = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            str(path), dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot load the weights of {path}: {error}") from error
    return Policy(thinker.eval(), processor)


def add_lora(policy: Policy, *, rank: int, alpha: float, seed: int) -> Policy:
    """The policy with a fresh LoRA adapter on the language model; everything else is frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=LORA_TARGETS)
    return Policy(get_peft_model(policy.thinker, config), policy.processor)


def save_adapter(policy: Policy, folder: Path) -> None:
    """Writes the adapter in peft format under the full model's key names, without which vLLM applies nothing."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        _full_name(name): value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(policy.thinker).items()
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = policy.thinker.peft_config["default"].to_dict()
    names = sorted({name.split(".lora_")[0].removeprefix("base_model.model.") for name in weights})
    plain = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "r": config["r"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config["lora_dropout"],
        "target_modules": names,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def load_adapter(policy: Policy, folder: Path) -> None:
    """Sets the weights of the policy's adapter from a folder written by `save_adapter`.

    Raises:
        ModelError: the folder does not fit this model.
    """
    from peft import set_peft_model_state_dict

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ModelError(f"adapter folder {folder} has no adapter_model.safetensors")
    weights = {_thinker_name(name): value for name, value in load_file(path).items()}
    result = set_peft_model_state_dict(policy.thinker, weights)
    if result.unexpected_keys:
        raise ModelError(f"adapter {folder} does not fit this model; unexpected: {result.unexpected_keys[:3]}")


def _full_name(name: str) -> str:
    return name.replace(_THINKER_PREFIX, _FULL_PREFIX, 1) if name.startswith(_THINKER_PREFIX) else name


def _thinker_name(name: str) -> str:
    return name.replace(_FULL_PREFIX, _THINKER_PREFIX, 1) if name.startswith(_FULL_PREFIX) else name
