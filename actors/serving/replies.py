"""Answers in OpenAI's shape: whole ones, chunks of a stream, the list of models."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from avere_ray.engine import Progress, TokenLogp

DONE = "data: [DONE]\n\n"
_FLOOR = -9999.0
"""Stands for minus infinity, which JSON has not."""


class Answer:
    """One reply on its way: its id, what was said of each answer, and its tokens."""

    def __init__(self, model: str, n: int, *, logprobs: int | None, usage: bool = False) -> None:
        """`logprobs`: alternatives told with each token, None tells none; `usage`: a stream ends with token counts."""
        self.model = model
        self.n = n
        self.logprobs = logprobs
        self.usage_wanted = usage
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.prompt_tokens = self.completion_tokens = 0
        self._texts = [""] * n
        self._logps: list[list[TokenLogp]] = [[] for _ in range(n)]
        self._reasons: list[str | None] = [None] * n
        self._begun: set[int] = set()

    @property
    def texts(self) -> list[str]:
        """What was said so far."""
        return list(self._texts)

    def add(self, progress: Progress) -> None:
        """Takes in what a step added."""
        self.prompt_tokens = progress.prompt_tokens or self.prompt_tokens
        for piece in progress.pieces:
            self._texts[piece.index] += piece.text
            self._logps[piece.index] += piece.logps
            self._reasons[piece.index] = piece.finish_reason or self._reasons[piece.index]
            self.completion_tokens += piece.tokens

    def usage(self) -> dict[str, int]:
        """Tokens so far."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def body(self) -> dict[str, Any]:
        """The whole reply."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": self._texts[index], "refusal": None},
                "logprobs": _logprobs(self._logps[index], self.logprobs),
                "finish_reason": self._reasons[index],
            }
            for index in range(self.n)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage()}

    def events(self, progress: Progress) -> Iterator[str]:
        """Server-sent events of a step; the last ones of a stream with the last step."""
        self.add(progress)
        for piece in progress.pieces:
            if piece.index not in self._begun:
                self._begun.add(piece.index)
                yield self._event(piece.index, {"role": "assistant", "content": ""}, (), None)
            if piece.text or piece.logps:
                yield self._event(piece.index, {"content": piece.text}, piece.logps, None)
            if piece.finish_reason is not None:
                yield self._event(piece.index, {}, (), piece.finish_reason)
        if progress.finished:
            if self.usage_wanted:
                yield _sent({**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage()})
            yield DONE

    def _event(self, index: int, delta: dict[str, Any], logps: Sequence[TokenLogp], reason: str | None) -> str:
        logprobs = _logprobs(logps, self.logprobs) if logps else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage: dict[str, Any] = {"usage": None} if self.usage_wanted else {}
        return _sent({**self._head("chat.completion.chunk"), "choices": [choice], **usage})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def model_list(models: Sequence[str]) -> dict[str, Any]:
    """The body of GET /v1/models."""
    return {"object": "list", "data": [model_card(m) for m in models]}


def model_card(model: str) -> dict[str, Any]:
    """One model of the list."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "avere_ray"}


def error_event(body: dict[str, Any]) -> str:
    """How a stream that has begun says that it fails."""
    return _sent(body)


def _sent(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _logprobs(logps: Sequence[TokenLogp], others: int | None) -> dict[str, Any] | None:
    if others is None:
        return None
    content = [
        {**_token(logp.text, logp.logp), "top_logprobs": [_token(text, value) for text, value in logp.others[:others]]}
        for logp in logps
    ]
    return {"content": content, "refusal": None}


def _token(text: str, logp: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logp, _FLOOR), "bytes": list(text.encode())}
