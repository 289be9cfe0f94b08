"""Which pairs can be trained on: each of the others becomes a drop with its reason, before any worker starts.

Nothing is truncated: a response or prompt over the limit leaves its pair out. A pair whose modality tag is empty stays;
it has no modality preference. Lengths are measured once, and decide the micro-batches when they have a token budget.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from avere_ray.config import DecodeConfig, TrainConfig
from avere_ray.ledger import Ledger
from avere_ray.modality import fit_swap
from avere_ray.records import DecodedClip, Modality, PreferencePair

if TYPE_CHECKING:
    from avere_ray.learner.objective import Pass

STAGE = "adapters"


def check_pairs(
    pairs: Sequence[PreferencePair],
    cfg: TrainConfig,
    ledger: Ledger,
    *,
    passes: "Sequence[Pass]",
    response_tokens: Callable[[str], int],
    prompt_tokens: Callable[[PreferencePair], int | None],
    words_tokens: Callable[[PreferencePair], int],
) -> tuple[list[PreferencePair], list[int]]:
    """The pairs that can be trained on, in order, and the tokens of each; the others go to the ledger.

    Args:
        passes: the forward passes over a micro-batch, and which branches of a pair each has.
        response_tokens: length of a response, end token included.
        prompt_tokens: length of a pair's prompt with its media; None when its clip was not decoded.
        words_tokens: length of a pair's prompt without media.

    Returns:
        Pairs and lengths. A length is that of the longest pass, which counts the prompt once for each input and every
        response under it: at least what the pair's prefix tree has.
    """
    usable: list[PreferencePair] = []
    sizes: list[int] = []
    for pair in pairs:
        fault = _form_fault(pair)
        lengths = [] if fault else [response_tokens(text) for text in (pair.chosen, *(r.text for r in pair.rejects))]
        prompt = None if fault else prompt_tokens(pair)
        fault = fault or _length_fault(pair, prompt, lengths, cfg)
        if fault:
            ledger.drop(pair.pair_id, *fault)
            continue
        assert prompt is not None
        usable.append(pair)
        words = words_tokens(pair) if any(one.wanted.text_prior for one in passes) else 0
        sizes.append(max(_pass_tokens(one, pair, prompt, words, lengths) for one in passes))
    return usable, sizes


def _pass_tokens(one: "Pass", pair: PreferencePair, prompt: int, words: int, lengths: Sequence[int]) -> int:
    """Tokens of a pair in one pass; `prompt` with media, mismatched ones are as long as its own, `words` without."""
    every, wanted, swap = sum(lengths), one.wanted, pair.swap
    size = prompt + every if one.clean else 0
    if swap is not None and wanted.relevant:
        size += prompt + (every if wanted.relevant_rejects else lengths[0])
    if swap is not None and wanted.irrelevant and swap.modality != "audio_video":
        size += prompt + (every if wanted.irrelevant_rejects else lengths[0])
    return size + (words + every if wanted.text_prior else 0)


def _form_fault(pair: PreferencePair) -> tuple[str, str] | None:
    """Reason and message when the pair itself is wrong."""
    if not pair.chosen.strip():
        return "no_chosen", f"pair {pair.pair_id} has no chosen response"
    if not pair.rejects:
        return "no_reject", f"pair {pair.pair_id} has no rejected response"
    for reject in pair.rejects:
        if not reject.text.strip():
            return "empty_response", f"pair {pair.pair_id} has an empty {reject.kind.value} reject"
        if reject.text.strip() == pair.chosen.strip():
            return "chosen_equals_reject", f"pair {pair.pair_id}: the {reject.kind.value} reject is the chosen response"
    if pair.modality not in ("", *get_args(Modality)):
        allowed = ", ".join(get_args(Modality))
        return "unknown_modality", f"pair {pair.pair_id} has modality {pair.modality!r}; allowed: {allowed}, or empty"
    if pair.swap is not None and fit_swap(pair.swap, pair.modality, pair.clip_id) != pair.swap:
        return "swap_of_another_modality", (
            f"pair {pair.pair_id} asks about {pair.modality}, but its mismatched input replaces {pair.swap.modality}; "
            "a swap replaces what the prompt asks about and nothing else"
        )
    return None


def _length_fault(
    pair: PreferencePair, prompt: int | None, lengths: Sequence[int], cfg: TrainConfig
) -> tuple[str, str] | None:
    """Reason and message when the pair is longer than the limits, or its clip is not there."""
    if prompt is None:
        return "clip_not_decoded", f"pair {pair.pair_id} needs a clip that was not decoded ({pair.clip_id} or its swap)"
    if max(lengths) > cfg.max_response_tokens:
        return "response_too_long", (
            f"pair {pair.pair_id} has a response of {max(lengths)} tokens; train.max_response_tokens allows "
            f"{cfg.max_response_tokens}"
        )
    if prompt > cfg.max_prompt_tokens:
        return "prompt_too_long", (
            f"pair {pair.pair_id} has a prompt of {prompt} tokens with its media; train.max_prompt_tokens allows "
            f"{cfg.max_prompt_tokens}"
        )
    return None


class Lengths:
    """Counts tokens as the model's processor makes them; media are counted by the shape of the decoded clip."""

    def __init__(self, processor: Any, decoded: Path, spec: DecodeConfig) -> None:
        self._processor, self._spec = processor, spec
        self._shapes = clip_shapes(decoded)
        self._media = functools.lru_cache(maxsize=65536)(self._media_features)

    def response(self, text: str) -> int:
        """Tokens of a response, end token included."""
        return len(self._processor.response_ids(text))

    def prompt(self, pair: PreferencePair) -> int | None:
        """Tokens of a pair's prompt with its media; None when a clip it needs was not decoded."""
        from avere_ray.learner.stream import media_of

        if any(clip not in self._shapes for media in media_of(pair) for clip in media):
            return None
        if not pair.clip_id:
            return self.words(pair)
        own = ("", self._media(*self._shapes[pair.clip_id]))
        sample = self._processor.sample(pair.prompt, [self._processor.end_id], video=own, audio=own)
        return int(sample.branch.response_start)

    def words(self, pair: PreferencePair) -> int:
        """Tokens of a pair's prompt without media."""
        return int(self._processor.sample(pair.prompt, [self._processor.end_id]).branch.response_start)

    def _media_features(self, frames: int, samples: int, duration_s: float) -> Any:
        blank = DecodedClip(
            clip_id="",
            spec="",
            frames=np.zeros((frames, self._spec.height, self._spec.width, 3), np.uint8),
            frame_times_s=np.linspace(0, duration_s, frames, dtype=np.float32),
            waveform=np.zeros(samples, np.float32),
            duration_s=duration_s,
        )
        return self._processor.features(blank)


def clip_shapes(decoded: Path) -> dict[str, tuple[int, int, float]]:
    """Frames, samples and seconds of every decoded clip, by id."""
    import pyarrow.parquet as pq

    from avere_ray.store import INDEX

    table = pq.read_table(decoded / INDEX, columns=["clip_id", "frames", "samples", "duration_s"])
    return {row["clip_id"]: (row["frames"], row["samples"], row["duration_s"]) for row in table.to_pylist()}
