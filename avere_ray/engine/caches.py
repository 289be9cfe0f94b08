"""How far an engine's caches are hit: tower outputs, and the KV cache of prompts that begin alike."""

from collections.abc import Sequence
from typing import Any


class CacheMeter:
    """Counts from the start of an engine whose core is in this process."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self.media = 0
        """Media that requests showed."""
        self.encoded = 0
        """Of these, how many went through a tower."""
        self.prompt_tokens = self.known_tokens = 0
        """Prompt tokens, and how many were found in the KV cache."""
        encoder = llm.llm_engine.engine_core.engine_core.scheduler.encoder_cache_manager
        allocate = encoder.allocate

        def counted(request: Any, input_id: int) -> None:
            self.encoded += 1
            allocate(request, input_id)

        encoder.allocate = counted

    def asked(self, requests: Sequence[dict[str, Any]]) -> None:
        """Requests that were taken into work."""
        self.media += sum(len(ids) for request in requests for ids in request.get("multi_modal_uuids", {}).values())

    def answered(self, outputs: Sequence[Any]) -> None:
        """Requests that were finished."""
        self.prompt_tokens += sum(len(output.prompt_token_ids) for output in outputs)
        self.known_tokens += sum(output.num_cached_tokens or 0 for output in outputs)

    def figures(self) -> dict[str, int]:
        """Counts so far."""
        return {
            "media": self.media,
            "encoded": self.encoded,
            "prompt_tokens": self.prompt_tokens,
            "known_tokens": self.known_tokens,
        }

    def empty(self) -> None:
        """Forgets what is cached, and begins to count anew; nothing may be in work."""
        self._llm.reset_prefix_cache()
        self._llm.llm_engine.engine_core.reset_encoder_cache()
        self._llm.llm_engine.reset_mm_cache()
        self.media = self.encoded = self.prompt_tokens = self.known_tokens = 0
