"""Rejects that a text model writes: minimal edits of the chosen response, its reply bound to a schema."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avere_ray.judges.instructions import edit_prompt
from avere_ray.protocols import AskFn, JudgeFn
from avere_ray.records import Clip, Query, RejectKind, Rollout, Verdict, VerdictLabel

EDIT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 1200}, "cue": {"type": "string", "maxLength": 200}},
    "required": ["text", "cue"],
    "additionalProperties": False,
}
"""JSON schema of a written reject."""
MOST_WORDS = 12
"""Words that an edit may add, leave out or exchange at most."""


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One reject to be written."""

    query: Query
    """The prompt."""
    clip: Clip
    """What it is about."""
    chosen: str
    """The response to edit."""
    kind: RejectKind
    """The failure to bring in."""


Written = dict[tuple[str, RejectKind], list[str]]
"""Texts by query id and kind."""
_LABEL_OF = {
    RejectKind.SPURIOUS: VerdictLabel.SPURIOUS_ASSOCIATION,
    RejectKind.HALLUCINATED: VerdictLabel.HALLUCINATION,
}


def write_judged(
    requests: Sequence[WriteRequest], write: Callable[[Sequence[WriteRequest]], Written], judge: JudgeFn
) -> Written:
    """What `write` makes of the requests, as far as the judge finds it wrong in the way that was asked for."""
    written = write(requests)
    queries = {r.query.query_id: r.query for r in requests}
    verdicts = judge(to_rollouts(written, requests), queries, {r.clip.clip_id: r.clip for r in requests})
    return caught(written, {v.rollout_id: v for v in verdicts}, queries)


def write_rejects(requests: Sequence[WriteRequest], ask: AskFn) -> Written:
    """Texts by query id and kind; nothing for what the model refuses or does not write as a minimal edit.

    Raises:
        EndpointError: the server does not answer or the budget is used up.
    """
    prompts = [edit_prompt(r.query, r.clip, r.chosen, r.kind.value) for r in requests]
    replies: dict[int, str | None] = {}
    ask(prompts, EDIT_SCHEMA, replies.__setitem__)
    found: Written = {}
    for index, request in enumerate(requests):
        text = edited(replies.get(index), request.chosen)
        if text:
            found.setdefault((request.query.query_id, request.kind), []).append(text)
    return found


def edited(reply: str | None, chosen: str) -> str:
    """The text of a reply; empty when it is no JSON of the schema, or no minimal edit of the chosen response."""
    text, cue = read_edit(reply or "") or ("", "")
    if not cue or cue.lower() not in text.lower():
        return ""
    return text if 0 < changed_words(chosen, text) <= MOST_WORDS else ""


def read_edit(reply: str) -> tuple[str, str] | None:
    """The text of a reply and the cue it brings in; None when it is no JSON of the schema."""
    try:
        row = json.loads(reply)
        return str(row["text"]).strip(), str(row["cue"]).strip()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def changed_words(a: str, b: str) -> int:
    """Words that differ between two texts, an exchanged word counted once."""
    matcher = difflib.SequenceMatcher(None, a.lower().split(), b.lower().split(), autojunk=False)
    return sum(max(i2 - i1, j2 - j1) for op, i1, i2, j1, j2 in matcher.get_opcodes() if op != "equal")


def to_rollouts(written: Written, requests: Sequence[WriteRequest]) -> list[Rollout]:
    """Written texts as a judge takes them."""
    clips = {r.query.query_id: r.clip.clip_id for r in requests}
    return [Rollout(rollout_id=_written_id(query_id, kind, i), query_id=query_id, clip_id=clips[query_id], index=i,
                    text=text, token_ids=(), finish_reason="stop", adapter_version=0, seed=0)
            for (query_id, kind), texts in written.items() for i, text in enumerate(texts)]  # fmt: skip


def caught(written: Written, verdicts: Mapping[str, Verdict], queries: Mapping[str, Query]) -> Written:
    """Written texts that show the failure they were written for; in a choice question the letter may be the graver.

    `verdicts`: by the rollout ids of `to_rollouts`, since one text may be right about one clip and wrong about another.
    """
    kept: Written = {}
    for (query_id, kind), texts in written.items():
        wanted = {_LABEL_OF[kind], *([VerdictLabel.WRONG_EMOTION] if queries[query_id].choices else [])}
        found = [t for i, t in enumerate(texts) if verdicts[_written_id(query_id, kind, i)].label in wanted]
        if found:
            kept[query_id, kind] = found
    return kept


def _written_id(query_id: str, kind: RejectKind, index: int) -> str:
    return f"{query_id}#written-{kind}-{index}"
