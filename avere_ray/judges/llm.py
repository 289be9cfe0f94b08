"""The llm judge: a text model that holds a response against the clip's description, its reply bound to a schema."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avere_ray.config import EndpointConfig
from avere_ray.endpoint import Endpoint, Reply, Request, Usage, json_schema, text_part, user
from avere_ray.errors import InputError, RequestRefused, StageError, VerdictParseError
from avere_ray.judges.findings import SCHEMA, Findings, read_findings, to_verdict, unread
from avere_ray.judges.instructions import judge_prompt, reference_description
from avere_ray.judges.replies import ReplyCache
from avere_ray.judges.writing import EDIT_SCHEMA, read_edit
from avere_ray.protocols import AskFn
from avere_ray.records import Clip, Query, Rollout, Verdict
from avere_ray.stages import digest

VERSION = "llm/1"
UNREAD_SHARE = 0.1
"""Share of replies that cannot be read above which a batch stops: then the model or its server is at fault."""
ReadableFn = Callable[[str, Mapping[str, Any]], bool]
"""Whether a reply can be used by whoever asked for one of this schema."""


class CachedModel:
    """A text model whose replies are kept; implements AskFn, and asks each prompt once.

    On disk are replies that can be read alone: what cannot be, or is refused, another server of that name or a repaired
    one may answer, so it is remembered as long as this object lives.
    """

    def __init__(self, ask: AskFn, cache: ReplyCache, readable: ReadableFn) -> None:
        self._ask, self.cache, self._readable = ask, cache, readable
        self._unusable: dict[tuple[str, str], str | None] = {}

    @property
    def usage(self) -> Usage | None:
        """What a remote model was asked and has cost so far; None for one of our own."""
        return self._ask.usage if isinstance(self._ask, RemoteText) else None

    def __call__(
        self, prompts: Sequence[str], schema: Mapping[str, Any], done: Callable[[int, str | None], None]
    ) -> None:
        """Known replies first, then the others as they come; each is kept before `done` is told of it."""
        places: dict[str, list[int]] = {}
        form = digest(dict(schema))
        for index, prompt in enumerate(prompts):
            known = self.cache.get(prompt, schema)
            if known is not None and self._readable(known, schema):
                done(index, known)
            elif (prompt, form) in self._unusable:
                done(index, self._unusable[prompt, form])
            else:
                places.setdefault(prompt, []).append(index)
        new = list(places)

        def keep(at: int, reply: str | None) -> None:
            if reply is not None and self._readable(reply, schema):
                self.cache.put(new[at], schema, reply)
            else:
                self._unusable[new[at], form] = reply
            for index in places[new[at]]:
                done(index, reply)

        if new:
            self._ask(new, schema, keep)


def readable(reply: str, schema: Mapping[str, Any]) -> bool:
    """Whether a reply is what the judge or the writer of rejects reads; one of another schema always is."""
    try:
        if schema == SCHEMA:
            read_findings(reply)
    except VerdictParseError:
        return False
    return schema != EDIT_SCHEMA or read_edit(reply) is not None


class LlmJudge:
    """Implements JudgeFn over a text model."""

    def __init__(self, ask: AskFn, model: str) -> None:
        """`model`: its name, for the verdicts."""
        self._ask, self.name = ask, f"{VERSION} {model}"

    def __call__(
        self, rollouts: Sequence[Rollout], queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> list[Verdict]:
        """One verdict per rollout, in the order given.

        Raises:
            InputError: nothing is known of a clip.
            EndpointError: the server does not answer or the budget is used up; what was answered is kept.
            StageError: more than a tenth of the replies cannot be read.
        """
        for rollout in rollouts:
            check_described(clips[rollout.clip_id])
        prompts = [judge_prompt(queries[r.query_id], clips[r.clip_id], r.text) for r in rollouts]
        replies: dict[int, str | None] = {}
        self._ask(prompts, SCHEMA, replies.__setitem__)
        verdicts = [self._verdict(r, replies.get(i), queries, clips) for i, r in enumerate(rollouts)]
        self._check(verdicts)
        return verdicts

    def _verdict(
        self, rollout: Rollout, reply: str | None, queries: Mapping[str, Query], clips: Mapping[str, Clip]
    ) -> Verdict:
        if reply is None:
            return unread(rollout, "the model refuses the request", self.name)
        try:
            findings: Findings = read_findings(reply)
        except VerdictParseError as error:
            return unread(rollout, str(error), self.name)
        return to_verdict(findings, rollout, queries[rollout.query_id], clips[rollout.clip_id], self.name)

    def _check(self, verdicts: Sequence[Verdict]) -> None:
        failed = [v for v in verdicts if v.confidence == 0.0 and v.evidence.startswith("Not judged")]
        if len(failed) > max(1, UNREAD_SHARE * len(verdicts)):
            raise StageError(
                f"judge {self.name}: {len(failed)} of {len(verdicts)} replies cannot be used, for instance about "
                f"{failed[0].rollout_id}: {failed[0].evidence} Raise judge.max_tokens, or use a model and server that "
                "support response_format json_schema."
            )


def check_described(clip: Clip) -> None:
    """
    Raises:
        InputError: the clip has neither cues nor captions nor labels, so there is nothing to judge by.
    """
    if not reference_description(clip):
        raise InputError(
            f"clip {clip.clip_id} has no cues, captions or emotion labels; the llm judge reads a description "
            "of it. Annotate it, or set judge.backend to omni, which watches and listens itself."
        )


class RemoteText:
    """A text model behind an OpenAI-compatible endpoint; implements AskFn."""

    def __init__(
        self, cfg: EndpointConfig, max_tokens: int, used: Path | None = None, *, start_within_s: float = math.inf
    ) -> None:
        """
        Args:
            cfg: where it is and what it may cost.
            max_tokens: longest reply.
            used: file in which usage is kept; see `Endpoint`.
            start_within_s: seconds in which a call takes up requests; see `Endpoint.ask_all`.

        Raises:
            ConfigError: see `Endpoint`.
        """
        self._endpoint, self._max_tokens = Endpoint(cfg, used=used), max_tokens
        self._start_within_s = start_within_s

    @property
    def usage(self) -> Usage:
        """What was asked and has cost so far."""
        return self._endpoint.usage

    def __call__(
        self, prompts: Sequence[str], schema: Mapping[str, Any], done: Callable[[int, str | None], None]
    ) -> None:
        """Asks each prompt once; one that the server refuses is None.

        Raises:
            EndpointError: the server refuses the client, does not answer, or the budget is used up.
            RequestsLeft: some prompts were not taken up in time.
        """
        requests = [
            Request(messages=[user(text_part(prompt))], max_tokens=self._max_tokens, seed=0,
                    response_format=json_schema("reply", schema))
            for prompt in prompts
        ]  # fmt: skip

        def settle(index: int, outcome: Reply | RequestRefused) -> None:
            done(index, outcome.text if isinstance(outcome, Reply) else None)

        self._endpoint.ask_all(requests, settle, start_within_s=self._start_within_s)
