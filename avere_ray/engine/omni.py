"""An engine on an audio-visual model: queries and clips in, rollouts out; adapters are swapped while it runs.

One engine belongs to one process. Requests are added in the order given and each has its own seed, so the same calls
give the same rollouts.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avere_ray.backbones import backbone, load_processor
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.engine.cpu_lora import plain_matmul_for_one_adapter
from avere_ray.engine.surroundings import engine_environment, media_limits
from avere_ray.errors import ModelError
from avere_ray.records import DecodedClip, Query, Rollout
from avere_ray.stages import digest


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows."""

    clip: DecodedClip | None
    """The clip asked about; None asks with words alone."""
    examples: tuple[tuple[str, DecodedClip, str], ...] = ()
    """Answered examples before it: prompt, clip, response."""


class Engine:
    """A vLLM engine with at most one adapter version in use."""

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutConfig,
        *,
        lora_rank: int,
        decode: DecodeConfig,
        clips_per_request: int = 1,
    ) -> None:
        self.processor = load_processor(model)
        self._family = backbone(model.backbone)
        self._top_p = rollout.top_p
        self._max_model_len = rollout.max_model_len
        self._lora: Any = None
        self._loads = 0
        self.version = 0
        self._llm = _start(model, rollout, lora_rank, decode, clips_per_request)

    def generate(
        self,
        queries: Sequence[Query],
        clips: Sequence[DecodedClip | Shown],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
    ) -> list[list[Rollout]]:
        """Samples `n` responses to each query about the clip at the same index; temperature 0 is greedy."""
        from vllm import SamplingParams

        seeds = [request_seed(seed, q.query_id) for q in queries]
        never = dict.fromkeys((self.processor.video_id, self.processor.audio_id), -100.0)
        params = [
            SamplingParams(
                n=n,
                temperature=temperature,
                top_p=self._top_p if temperature else 1.0,
                seed=s,
                max_tokens=max_tokens,
                stop_token_ids=[self.processor.end_id],
                logit_bias=never,
            )
            for s in seeds
        ]
        prompts = [self._request(q.prompt, clip) for q, clip in zip(queries, clips, strict=True)]
        outputs = self._ask(prompts, params)
        return [
            [self._rollout(query, out, s) for out in sorted(result.outputs, key=lambda o: o.index)]
            for query, result, s in zip(queries, outputs, seeds, strict=True)
        ]

    def response_logps(self, prompt: str, clip: DecodedClip, response: Sequence[int]) -> tuple[list[int], list[float]]:
        """Token ids of the whole prompt as the engine sees it, and the log-prob (nats) of each response token."""
        from vllm import SamplingParams, TokensPrompt

        first = self._llm.generate(
            [self._request(prompt, clip)],
            SamplingParams(max_tokens=1, temperature=0.0),
            lora_request=self._lora,
            use_tqdm=False,
        )[0]
        text_ids = list(self.processor.prompt_ids(prompt, True, True))
        request = TokensPrompt(prompt_token_ids=[*text_ids, *response], **self._family.engine_inputs(clip))
        scored = self._llm.generate(
            [request],
            SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0),
            lora_request=self._lora,
            use_tqdm=False,
        )[0]
        rows = scored.prompt_logprobs[-len(response) :]
        return (
            list(first.prompt_token_ids),
            [float(row[token].logprob) for row, token in zip(rows, response, strict=True)],
        )

    def option_logps(
        self, queries: Sequence[Query], clips: Sequence[DecodedClip | Shown], options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Log-prob (nats) of each option's words as the beginning of a response, by query."""
        from vllm import SamplingParams

        requests, lengths = [], []
        for query, clip, texts in zip(queries, clips, options, strict=True):
            request = self._request(query.prompt, clip)
            for text in texts:
                tokens = self.processor.text_ids(text)
                requests.append({**request, "prompt_token_ids": [*request["prompt_token_ids"], *tokens]})
                lengths.append(len(tokens))
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        outputs = self._ask(requests, params)
        sums = iter(_tail_logp(output, length) for output, length in zip(outputs, lengths, strict=True))
        return [[next(sums) for _ in texts] for texts in options]

    def load_adapter(self, folder: Path, version: int) -> int:
        """Serves requests with the adapter in `folder` from now on; version 0 goes back to the base.

        Every load has a number of its own, since vLLM keeps adapters by number and two runs may both have a version 1.

        Raises:
            ModelError: the folder is not an adapter that the engine accepts.
        """
        from vllm.lora.request import LoRARequest

        if version == 0:
            self._lora, self.version = None, 0
            return 0
        self._loads += 1
        request = LoRARequest(f"adapter-{version}-{digest(str(folder))[:8]}", self._loads, str(folder.resolve()))
        try:
            self._llm.llm_engine.add_lora(request)
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelError(f"the engine does not accept adapter {folder}: {error}") from error
        self._lora, self.version = request, version
        return version

    def _ask(self, requests: list[dict[str, Any]], params: Any) -> list[Any]:
        """What the engine makes of requests, in order.

        Raises:
            ModelError: it refuses one, for instance because its media and examples do not fit.
        """
        try:
            return self._llm.generate(requests, params, lora_request=self._lora, use_tqdm=False)
        except ValueError as error:
            longest = max(len(request["prompt_token_ids"]) for request in requests)
            raise ModelError(
                f"the engine refuses a request: {error}. Prompts have up to {longest} tokens before their media; with "
                f"media, examples and answer they must fit rollout.max_model_len ({self._max_model_len})."
            ) from error

    def _request(self, prompt: str, clip: DecodedClip | Shown) -> dict[str, Any]:
        shown = clip if isinstance(clip, Shown) else Shown(clip)
        there = shown.clip is not None
        if shown.examples:
            turns = [(asked, answered) for asked, _, answered in shown.examples]
            ids = self.processor.conversation_ids(turns, prompt, media=there)
        else:
            ids = list(self.processor.prompt_ids(prompt, there, there))
        clips = [c for c in (*(clip for _, clip, _ in shown.examples), shown.clip) if c is not None]
        return {"prompt_token_ids": ids, **(self._family.engine_inputs(*clips) if clips else {})}

    def _rollout(self, query: Query, out: Any, seed: int) -> Rollout:
        text = self.processor.hf.tokenizer.decode(out.token_ids, skip_special_tokens=True).strip()
        return Rollout(
            rollout_id=f"{query.query_id}#{out.index}",
            query_id=query.query_id,
            clip_id=query.clip_id,
            index=out.index,
            text=text,
            token_ids=tuple(out.token_ids),
            finish_reason=str(out.finish_reason),
            adapter_version=self.version,
            seed=seed,
        )


def _tail_logp(output: Any, length: int) -> float:
    """Summed log-prob of the last tokens of a prompt."""
    tokens = output.prompt_token_ids[-length:]
    rows = output.prompt_logprobs[-length:]
    return float(sum(row[token].logprob for row, token in zip(rows, tokens, strict=True)))


def request_seed(seed: int, query_id: str) -> int:
    """Sampling seed of one query: depends on nothing but the run's seed and the query, so order does not matter."""
    return int(digest(seed, query_id)[:8], 16) & 0x7FFFFFFF


def _start(model: ModelConfig, rollout: RolloutConfig, lora_rank: int, decode: DecodeConfig, clips: int) -> Any:
    for name, value in engine_environment(rollout, int(os.environ.get("OMP_NUM_THREADS", "1"))).items():
        os.environ.setdefault(name, value)
    from vllm import LLM

    if bool(rollout.num_gpus) == _is_cpu_build():
        built = "CPU; set it to 0" if rollout.num_gpus else "GPU; set it to 1, or to a share of one"
        raise ModelError(
            f"rollout.num_gpus is {rollout.num_gpus:g}, but vLLM here is built for {built}, or install the other build "
            "(make setup ACCEL=cpu or ACCEL=gpu)"
        )
    if not rollout.num_gpus:
        plain_matmul_for_one_adapter()
    # On CPU no chunked prefill: vLLM 0.32 would rewind the generator of a seeded request, which CPU ones cannot.
    options: dict[str, Any] = (
        {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(8192, rollout.max_model_len),
        }
        if not rollout.num_gpus
        else {
            "tensor_parallel_size": max(1, int(rollout.num_gpus)),
            "gpu_memory_utilization": rollout.gpu_memory_utilization,
        }
    )
    try:
        return LLM(
            model=str(model.path),
            dtype=model.dtype,
            max_model_len=rollout.max_model_len,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=max(8, lora_rank),
            seed=0,
            max_num_seqs=rollout.batch_queries,
            limit_mm_per_prompt=media_limits(decode, clips),
            disable_log_stats=True,
            **options,
        )
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"vLLM cannot start on {model.path}: {error}") from error


def _is_cpu_build() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())
