"""An untrained, tiny Qwen2.5-Omni in Hugging Face format: own byte-level tokenizer, processors, chat template, weights.

Same classes and file layout as the published checkpoints, so everything that loads those loads this.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avere_ray.backbones.qwen2_5_omni import Policy, load_policy

END, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
_MEDIA_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
_ANY_SIZE = {"shortest_edge": 28 * 28, "longest_edge": 1 << 30}
_HEAD = 32
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'video' -%}<|vision_bos|><|VIDEO|><|vision_eos|>
{%- elif part['type'] == 'audio' -%}<|audio_bos|><|AUDIO|><|audio_eos|>
{%- elif part['type'] == 'text' -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TinyShape:
    """Sizes of the model."""

    hidden: int = 192
    """Width of the language model; a multiple of 32."""
    layers: int = 4
    vocab: int = 768
    """Largest vocabulary; the tokenizer may need less."""
    tower: int = 128
    """Width of the vision and the audio tower; a multiple of 32."""
    vision_layers: int = 3
    audio_layers: int = 2
    audio_seconds: int = 10
    """Longest audio that is heard."""


def make_model(folder: Path, shape: TinyShape, sentences: Iterable[str], *, seed: int) -> Policy:
    """Writes an untrained model with its processor to `folder`, and loads it back.

    `sentences` train the tokenizer; they are whole conversations with their special tokens.
    """
    from transformers import Qwen2_5OmniForConditionalGeneration

    processor = _make_processor(folder, shape, sentences)
    torch.manual_seed(seed)
    model = Qwen2_5OmniForConditionalGeneration(_make_config(processor, shape))
    model.save_pretrained(str(folder))
    return load_policy(folder, "float32")


def save_trained(policy: Policy, folder: Path) -> None:
    """Replaces the weights in a folder made by `make_model` with the policy's, stored in bfloat16."""
    from safetensors.torch import save_file

    weights = {
        f"thinker.{name}": value.detach().to(torch.bfloat16).contiguous()
        for name, value in policy.thinker.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def conversation(prompt: str, response: str) -> str:
    """One exchange with its special tokens, as tokenizer training text."""
    return f"{START}user\n{prompt}{END}\n{START}assistant\n{response}{END}"


def _make_processor(folder: Path, shape: TinyShape, sentences: Iterable[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2_5OmniProcessor, Qwen2TokenizerFast, WhisperFeatureExtractor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocab,
        special_tokens=[PAD, START, END, *_MEDIA_TOKENS.values()],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sentences, trainer)
    fast = Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=None,
        bos_token=None,
        extra_special_tokens=_MEDIA_TOKENS,
        model_max_length=32768,
    )
    processor = Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(size=_ANY_SIZE),
        video_processor=Qwen2VLVideoProcessor(size=_ANY_SIZE, cap_pixels_per_frame=False),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=128, chunk_length=shape.audio_seconds, sampling_rate=16000
        ),
        tokenizer=fast,
        chat_template=CHAT_TEMPLATE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(str(folder))
    return processor


def _make_config(processor: Any, shape: TinyShape) -> Any:
    from transformers import Qwen2_5OmniConfig

    ids = processor.tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": shape.hidden,
        "intermediate_size": 3 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.hidden // _HEAD,
        "num_key_value_heads": shape.hidden // _HEAD,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
        "bos_token_id": ids(PAD),
        "eos_token_id": ids(END),
        "pad_token_id": ids(PAD),
    }
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.tower,
        "intermediate_size": 2 * shape.tower,
        "num_heads": shape.tower // _HEAD,
        "out_hidden_size": shape.hidden,
        "fullatt_block_indexes": list(range(shape.vision_layers)),
        "window_size": 112,
    }
    audio = {
        "num_mel_bins": 128,
        "encoder_layers": shape.audio_layers,
        "encoder_attention_heads": shape.tower // _HEAD,
        "encoder_ffn_dim": 2 * shape.tower,
        "d_model": shape.tower,
        "max_source_positions": 1500,
        "n_window": 100,
        "output_dim": shape.hidden,
    }
    thinker = {
        "text_config": text,
        "vision_config": vision,
        "audio_config": audio,
        "audio_token_index": ids("<|AUDIO|>"),
        "image_token_index": ids("<|IMAGE|>"),
        "video_token_index": ids("<|VIDEO|>"),
        "vision_start_token_id": ids("<|vision_bos|>"),
        "vision_end_token_id": ids("<|vision_eos|>"),
        "audio_start_token_id": ids("<|audio_bos|>"),
        "audio_end_token_id": ids("<|audio_eos|>"),
        "user_token_id": ids("user"),
        "pad_token_id": ids(PAD),
        "tie_word_embeddings": False,
    }
    return Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False, tie_word_embeddings=False)
