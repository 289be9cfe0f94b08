"""A vLLM engine for words alone, whose answers follow a JSON schema: the llm judge's own model."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from avere_ray.config import JudgeConfig, RolloutConfig
from avere_ray.engine.start import PLAIN_JSON, START_ERRORS, cannot_start
from avere_ray.engine.surroundings import engine_environment


class TextEngine:
    """A vLLM engine for words alone, whose answers are bound to a JSON schema; implements AskFn."""

    def __init__(self, judge: JudgeConfig) -> None:
        """
        Raises:
            ModelError: vLLM cannot start on the folder.
        """
        assert judge.model_path is not None
        for name, value in engine_environment(RolloutConfig(), int(os.environ.get("OMP_NUM_THREADS", "1"))).items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        gpus = int(judge.num_gpus)
        self._max_tokens = judge.max_tokens
        options: dict[str, Any] = {"tensor_parallel_size": max(1, gpus)} if gpus else {"enforce_eager": True}
        try:
            self._llm = LLM(model=str(judge.model_path), dtype=judge.dtype, max_model_len=judge.max_model_len, seed=0,
                            disable_log_stats=True, limit_mm_per_prompt={"image": 0, "video": 0, "audio": 0},
                            structured_outputs_config=PLAIN_JSON, **options)  # fmt: skip
        except START_ERRORS as error:
            raise cannot_start(judge.model_path, error) from error

    def __call__(
        self, prompts: Sequence[str], schema: Mapping[str, Any], done: Callable[[int, str | None], None]
    ) -> None:
        """Answers all prompts, greedily, in one batch; a prompt that is too long is refused."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        params = SamplingParams(temperature=0.0, max_tokens=self._max_tokens, seed=0,
                                structured_outputs=StructuredOutputsParams(json=dict(schema)))  # fmt: skip
        longest = self._llm.model_config.max_model_len - self._max_tokens
        tokenizer = self._llm.get_tokenizer()
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        sizes = [len(tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False)) for c in chats]
        fitting = [i for i, size in enumerate(sizes) if size <= longest]
        for index in set(range(len(prompts))) - set(fitting):
            done(index, None)
        outputs = self._llm.chat([chats[i] for i in fitting], params, use_tqdm=False) if fitting else []
        for index, output in zip(fitting, outputs, strict=True):
            done(index, output.outputs[0].text)
