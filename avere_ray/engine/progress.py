"""What one request of a live engine wants, and what each step adds to its answers, without vLLM's own types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """How one request is answered."""

    max_tokens: int | None
    """Longest answer, tokens; None: `default_tokens`, as far as there is room."""
    default_tokens: int = 48
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    """The same request with the same seed gets the same answer."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    logprobs: int | None = None
    """Alternatives told with each token, 0 for the token's own log-prob alone; None tells nothing."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer."""
    json_object: bool = False
    """The answer is some JSON object."""
    stream: bool = True
    """Tell every step; else only the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogp:
    """A token and its log-prob (nats)."""

    text: str
    logp: float
    others: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens at its place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """What was added to one of the answers."""

    index: int
    text: str
    tokens: int
    logps: tuple[TokenLogp, ...] = ()
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What one step added to the answers of a request."""

    prompt_tokens: int
    pieces: tuple[Piece, ...]
    finished: bool


def sampling_params(wanted: Wanted, tokens: int, processor: Any) -> Any:
    """vLLM's parameters for an answer of so many tokens; media tokens are never sampled."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    shape = None
    if wanted.schema is not None or wanted.json_object:
        shape = StructuredOutputsParams(
            json=dict(wanted.schema) if wanted.schema is not None else None,
            json_object=True if wanted.json_object else None,
        )
    return SamplingParams(
        n=wanted.n,
        temperature=wanted.temperature,
        top_p=wanted.top_p if wanted.temperature else 1.0,
        seed=wanted.seed,
        max_tokens=tokens,
        stop=list(wanted.stop),
        stop_token_ids=[processor.end_id],
        logprobs=wanted.logprobs,
        logit_bias=dict.fromkeys((processor.video_id, processor.audio_id), -100.0),
        structured_outputs=shape,
        output_kind=RequestOutputKind.DELTA if wanted.stream else RequestOutputKind.FINAL_ONLY,
    )


def progress_of(outputs: Sequence[Any]) -> Progress:
    """Of RequestOutputs of vLLM, in the order of their steps."""
    pieces = [_piece(out) for output in outputs for out in sorted(output.outputs, key=lambda out: out.index)]
    return Progress(
        prompt_tokens=len(outputs[-1].prompt_token_ids or ()), pieces=tuple(pieces), finished=outputs[-1].finished
    )


def failed(output: Any) -> bool:
    """Whether vLLM has ended a request, or one of its answers, with an error of its own."""
    return any(str(out.finish_reason) == "error" for out in output.outputs)


def _piece(out: Any) -> Piece:
    rows = zip(out.token_ids, out.logprobs or (), strict=False)
    logps = tuple(_token_logp(token, row) for token, row in rows if row is not None)
    reason = None if out.finish_reason is None else str(out.finish_reason)
    return Piece(index=out.index, text=out.text, tokens=len(out.token_ids), logps=logps, finish_reason=reason)


def _token_logp(token: int, row: Mapping[int, Any]) -> TokenLogp:
    """The token's own log-prob; the others in the order of their rank. The row holds the token itself besides them."""
    ranked = sorted(row.values(), key=lambda found: found.rank)
    own = row[token]
    return TokenLogp(
        text=own.decoded_token or "",
        logp=float(own.logprob),
        others=tuple((found.decoded_token or "", float(found.logprob)) for found in ranked),
    )
