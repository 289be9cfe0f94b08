"""The batch engine as `avere_ray.insight` sees it: greedy answers, and scores of many responses in one call."""

from collections.abc import Sequence
from typing import Any, Protocol

from avere_ray.engine.omni import Shown
from avere_ray.insight import Answered, Probe, Scored
from avere_ray.records import DecodedClip, Query, Rollout


class BatchEngine(Protocol):
    """What of `Engine` is needed."""

    processor: Any

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
        """Rollouts by query."""

    def option_logps(
        self, queries: Sequence[Query], clips: Sequence[DecodedClip | Shown], options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Log-probs (nats) of each option's words, by query."""


class InsightFace:
    """Implements `insight.Face` over one engine, with whichever adapter it has loaded."""

    def __init__(self, engine: BatchEngine) -> None:
        self._engine = engine
        self._media_tokens: dict[str, int] = {}

    def answer(self, question: str, clip: DecodedClip, *, max_tokens: int) -> Answered:
        """The greedy answer.

        Raises:
            ModelError: clip, question and answer do not fit the engine.
        """
        queries = [_query(question, clip.clip_id)]
        [[rollout]] = self._engine.generate(queries, [clip], n=1, temperature=0.0, max_tokens=max_tokens, seed=0)
        return Answered(
            text=rollout.text, prompt_tokens=self._prompt_tokens(question, clip), tokens=len(rollout.token_ids)
        )

    def score(self, probes: Sequence[Probe]) -> list[Scored]:
        """Log-probabilities of every option of every probe, all in one call to the engine.

        Raises:
            ModelError: a probe does not fit the engine.
        """
        queries = [_query(probe.prompt, "|".join(map(str, probe.about))) for probe in probes]
        shown = [Shown(probe.clip) for probe in probes]
        logps = self._engine.option_logps(queries, shown, [probe.options for probe in probes])
        return [
            Scored(
                logps=tuple(found),
                tokens=tuple(len(self._engine.processor.text_ids(option)) for option in probe.options),
                prompt_tokens=self._prompt_tokens(probe.prompt, probe.clip),
            )
            for probe, found in zip(probes, logps, strict=True)
        ]

    def _prompt_tokens(self, prompt: str, clip: DecodedClip | None) -> int:
        """Tokens of a prompt with its media; a swap or a blank takes as many as the clip's own media."""
        there = clip is not None
        words = len(self._engine.processor.prompt_ids(prompt, there, there))
        return words if clip is None else words - 2 + self._media_tokens_of(clip)

    def _media_tokens_of(self, clip: DecodedClip) -> int:
        shape = f"{clip.frames.shape} {len(clip.waveform)}"
        if shape not in self._media_tokens:
            features = self._engine.processor.features(clip)
            self._media_tokens[shape] = features.video_tokens + features.audio_tokens
        return self._media_tokens[shape]


def _query(prompt: str, name: str) -> Query:
    return Query(query_id=f"insight/{name}", clip_id=name, modality="audio_video", task="insight", prompt=prompt)
