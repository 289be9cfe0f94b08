"""An engine on an audio-visual model: queries and clips in, rollouts out; adapters are swapped while it runs.

One engine belongs to one process. Requests are added in the order given and each has its own seed, so the same calls
give the same rollouts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from avere_ray.backbones import backbone, load_processor
from avere_ray.config import DecodeConfig, ModelConfig, RolloutConfig
from avere_ray.engine.batches import Asking, Batch, Batches
from avere_ray.engine.caches import CacheMeter
from avere_ray.engine.grids import seen_grid
from avere_ray.engine.start import refusals, start_vllm
from avere_ray.engine.surroundings import media_limits
from avere_ray.errors import EngineBroken, ModelError
from avere_ray.parity import Scored
from avere_ray.records import DecodedClip, Modality, Query, Rollout
from avere_ray.stages import digest

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a request shows."""

    clip: DecodedClip | None
    """The clip asked about; None asks with words alone."""
    examples: tuple[tuple[str, DecodedClip, str], ...] = ()
    """Answered examples before it: prompt, clip, response."""


class EngineFace:
    """What callers ask of an engine with queries and clips, whatever runs beneath: `_ask` is given by the engines.

    `version`: the adapter version in use, for the rollouts; 0 is the base.
    """

    def __init__(self, processor: Any, family: Any, rollout: RolloutConfig) -> None:
        self.processor = processor
        self._family = family
        self._top_p = rollout.top_p
        self._max_model_len = rollout.max_model_len
        self.version = 0

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
        return self._answer(
            self.sampling(queries, clips, n=n, temperature=temperature, max_tokens=max_tokens, seed=seed)
        )

    def option_logps(
        self, queries: Sequence[Query], clips: Sequence[DecodedClip | Shown], options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Log-prob (nats) of each option's words as the beginning of a response, by query."""
        return self._answer(self.scoring(queries, clips, options))

    def sampling(
        self,
        queries: Sequence[Query],
        clips: Sequence[DecodedClip | Shown],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
    ) -> Asking[list[list[Rollout]]]:
        """What `generate` asks, and how it reads the outputs."""
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
        version = self.version

        def read(outputs: Sequence[Any]) -> list[list[Rollout]]:
            return [
                [self._rollout(query, out, s, version) for out in sorted(result.outputs, key=lambda o: o.index)]
                for query, result, s in zip(queries, outputs, seeds, strict=True)
            ]

        return Asking(self._requests(queries, clips), params, read)

    def scoring(
        self, queries: Sequence[Query], clips: Sequence[DecodedClip | Shown], options: Sequence[Sequence[str]]
    ) -> Asking[list[list[float]]]:
        """What `option_logps` asks, and how it reads the outputs."""
        from vllm import SamplingParams

        requests, lengths = [], []
        for request, texts in zip(self._requests(queries, clips), options, strict=True):
            for text in texts:
                tokens = self.processor.text_ids(text)
                requests.append({**request, "prompt_token_ids": [*request["prompt_token_ids"], *tokens]})
                lengths.append(len(tokens))
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)

        def read(outputs: Sequence[Any]) -> list[list[float]]:
            sums = iter(_tail_logp(output, length) for output, length in zip(outputs, lengths, strict=True))
            return [[next(sums) for _ in texts] for texts in options]

        return Asking(requests, [params] * len(requests), read)

    def _answer(self, asking: Asking[_T]) -> _T:
        return asking.read(self._ask(asking.requests, asking.params))

    def _ask(self, requests: list[dict[str, Any]], params: list[Any]) -> list[Any]:
        """What the engine makes of requests, in order; `params` has one setting for each.

        Raises:
            ModelError: it refuses one.
        """
        raise NotImplementedError

    def _requests(self, queries: Sequence[Query], clips: Sequence[DecodedClip | Shown]) -> list[dict[str, Any]]:
        """What vLLM is asked; media that several queries show are prepared once."""
        media: dict[tuple[int, ...], dict[str, Any]] = {}
        return [self._request(q.prompt, clip, media) for q, clip in zip(queries, clips, strict=True)]

    def _request(
        self, prompt: str, clip: DecodedClip | Shown, media: dict[tuple[int, ...], dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """What vLLM is asked; `media` keeps the inputs of the clips that live as long as it does."""
        shown = clip if isinstance(clip, Shown) else Shown(clip)
        there = shown.clip is not None
        if shown.examples:
            turns = [(asked, answered) for asked, _, answered in shown.examples]
            ids = self.processor.conversation_ids(turns, prompt, media=there)
        else:
            ids = list(self.processor.prompt_ids(prompt, there, there))
        clips = [c for c in (*(clip for _, clip, _ in shown.examples), shown.clip) if c is not None]
        known, name = {} if media is None else media, tuple(id(clip) for clip in clips)
        if clips and name not in known:
            known[name] = self._family.engine_inputs(*clips)
        return {"prompt_token_ids": ids, **known.get(name, {})}

    def _rollout(self, query: Query, out: Any, seed: int, version: int) -> Rollout:
        text = self.processor.hf.tokenizer.decode(out.token_ids, skip_special_tokens=True).strip()
        return Rollout(
            rollout_id=f"{query.query_id}#{out.index}",
            query_id=query.query_id,
            clip_id=query.clip_id,
            index=out.index,
            text=text,
            token_ids=tuple(out.token_ids),
            finish_reason=str(out.finish_reason),
            adapter_version=version,
            seed=seed,
        )


class Engine(EngineFace):
    """A vLLM engine with at most one adapter version in use, asked in batches."""

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutConfig,
        *,
        lora_rank: int,
        decode: DecodeConfig,
        clips_per_request: int = 1,
        in_group: bool = False,
    ) -> None:
        """
        Args:
            clips_per_request: most clips that one request shows, examples included.
            in_group: whether this process is in a placement group with a bundle for each of the engine's GPUs.

        Raises:
            ModelError: vLLM cannot start on the folder.
        """
        super().__init__(load_processor(model), backbone(model.backbone), rollout)
        self._lora: Any = None
        self._loads = 0
        media = media_limits(decode, clips_per_request)
        self._llm = start_vllm(model, rollout, lora_rank, media, in_group=in_group)
        self._batches = Batches(self._llm.llm_engine)
        self.caches = CacheMeter(self._llm)

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
        except refusals() as error:
            raise ModelError(f"the engine does not accept adapter {folder}: {error}") from error
        self._lora, self.version = request, version
        return version

    def response_logps(
        self, prompt: str, clip: DecodedClip, response: Sequence[int], shown: Modality = "audio_video"
    ) -> Scored:
        """The whole prompt and a response as the engine sees them: token ids, log-probs (nats) and media grids.

        `shown`: which media of the clip the prompt has.
        """
        from vllm import SamplingParams

        video, audio = "video" in shown, "audio" in shown
        ids = list(self.processor.prompt_ids(prompt, video, audio))
        request = {"prompt_token_ids": ids, **self._family.engine_inputs(clip, video=video, audio=audio)}
        first = self._ask([request], [SamplingParams(max_tokens=1, temperature=0.0)])[0]
        longer = {**request, "prompt_token_ids": [*request["prompt_token_ids"], *response]}
        scored = self._ask([longer], [SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)])[0]
        rows = scored.prompt_logprobs[-len(response) :]
        logps = [float(row[token].logprob) for row, token in zip(rows, response, strict=True)]
        return Scored(list(first.prompt_token_ids), logps, seen_grid(self._llm.llm_engine.renderer, request))

    def begin(self, requests: list[dict[str, Any]], params: list[Any]) -> Batch:
        """Takes requests into work, beside those that are; `step` until none is left, then read its `outputs`.

        Raises:
            ModelError: the engine refuses one, for instance because its media and examples do not fit.
        """
        from vllm.exceptions import VLLMClientError

        try:
            batch = self._batches.begin(requests, params, self._lora)
        except (VLLMClientError, ValueError) as error:
            longest = max(len(request["prompt_token_ids"]) for request in requests)
            raise ModelError(
                f"the engine refuses a request: {error}. Prompts have up to {longest} tokens before their media; with "
                f"media, examples and answer they must fit rollout.max_model_len ({self._max_model_len})."
            ) from error
        self.caches.asked(requests)
        return batch

    def step(self, batch: Batch) -> bool:
        """One step for all batches in work; whether this one is finished.

        Raises:
            EngineBroken: the step failed (out of GPU memory, a lost worker, ...), which leaves requests half done.
        """
        try:
            self._batches.step()
        except Exception as error:  # whatever it is, no further step can be trusted
            raise EngineBroken(f"the engine failed in a step: {type(error).__name__}: {error}") from error
        if not batch.left:
            self.caches.answered(batch.outputs)
        return not batch.left

    def _ask(self, requests: list[dict[str, Any]], params: list[Any]) -> list[Any]:
        """What the engine makes of requests, in order.

        Raises:
            ModelError: see `begin`.
            EngineBroken: see `step`.
        """
        batch = self.begin(requests, params)
        while not self.step(batch):
            pass
        return batch.outputs


def _tail_logp(output: Any, length: int) -> float:
    """Summed log-prob of the last tokens of a prompt."""
    tokens = output.prompt_token_ids[-length:]
    rows = output.prompt_logprobs[-length:]
    return float(sum(row[token].logprob for row, token in zip(rows, tokens, strict=True)))


def request_seed(seed: int, query_id: str) -> int:
    """Sampling seed of one query: depends on nothing but the run's seed and the query, so order does not matter."""
    return int(digest(seed, query_id)[:8], 16) & 0x7FFFFFFF
