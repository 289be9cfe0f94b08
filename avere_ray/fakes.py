"""Deterministic stand-ins for the seams, for unit tests only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from avere_ray.insight import Answered, Probe, Scored
from avere_ray.records import DecodedClip, Query, Rollout


@dataclass(frozen=True, slots=True)
class GenerateCall:
    """How a fake was called."""

    query_ids: tuple[str, ...]
    n: int
    temperature: float
    max_tokens: int
    seed: int


@dataclass
class FakeGenerate:
    """A GenerateFn whose responses are `respond(query, index)`; remembers how it was called.

    A response of None stands for a request that was never answered: its rollout is left out.
    """

    respond: Callable[[Query, int], str | None]
    adapter_version: int = 0
    calls: list[GenerateCall] = field(default_factory=list)

    def __call__(
        self, queries: Sequence[Query], *, n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Rollout]]:
        """One list of up to `n` rollouts per query, in the order asked."""
        self.calls.append(GenerateCall(tuple(q.query_id for q in queries), n, temperature, max_tokens, seed))
        return [self._answer(query, n, max_tokens, seed) for query in queries]

    def _answer(self, query: Query, n: int, max_tokens: int, seed: int) -> list[Rollout]:
        texts = [(index, self.respond(query, index)) for index in range(n)]
        return [make_rollout(query, index, text, seed=seed, max_tokens=max_tokens, adapter_version=self.adapter_version)
                for index, text in texts if text is not None]  # fmt: skip


def scripted(texts: Mapping[str, Sequence[str]]) -> FakeGenerate:
    """Gives each query its own texts, by query id, starting over when they run out; unknown queries get nothing."""

    def respond(query: Query, index: int) -> str | None:
        mine = texts.get(query.query_id, ())
        return mine[index % len(mine)] if mine else None

    return FakeGenerate(respond)


def always_right() -> FakeGenerate:
    """Answers every query with its gold letter or its reference."""
    return FakeGenerate(lambda query, _: f"({query.answer})" if query.answer else query.reference)


def make_rollout(
    query: Query, index: int, text: str, *, seed: int = 0, max_tokens: int = 1024, adapter_version: int = 0
) -> Rollout:
    """One rollout as an engine would return it; each word is a token."""
    words = text.split()
    return Rollout(
        rollout_id=f"{query.query_id}#{index}",
        query_id=query.query_id,
        clip_id=query.clip_id,
        index=index,
        text=text if len(words) <= max_tokens else " ".join(words[:max_tokens]),
        token_ids=tuple(range(min(len(words), max_tokens))),
        finish_reason="stop" if len(words) < max_tokens else "length",
        adapter_version=adapter_version,
        seed=seed,
    )


@dataclass
class FakeFace:
    """An `insight.Face` whose answers are `respond(question)`; each word is a token, and a prompt has ten.

    `logp(probe, option)` is what it says of an option; remembers the probes of each call.
    """

    respond: Callable[[str], str]
    logp: Callable[[Probe, str], float]
    batches: list[list[Probe]] = field(default_factory=list)

    def answer(self, question: str, clip: DecodedClip, *, max_tokens: int) -> Answered:
        """The words of `respond`, cut at the limit."""
        words = self.respond(question).split()[:max_tokens]
        return Answered(text=" ".join(words), prompt_tokens=10, tokens=len(words))

    def score(self, probes: Sequence[Probe]) -> list[Scored]:
        """One score per option."""
        self.batches.append(list(probes))
        return [
            Scored(
                logps=tuple(self.logp(probe, option) for option in probe.options),
                tokens=tuple(len(option.split()) for option in probe.options),
                prompt_tokens=10,
            )
            for probe in probes
        ]
