"""Responses with the label that a person gave them, to measure judges by.

One JSON object a line: `{"id", "kind", "origin", "clip", "query", "text", "label"}`. `clip` is a clip id of a file
`clips.jsonl` beside the set (or of the shipped clips), or a whole clip as in a clip table. `query` has the fields of a
Query (`modality`, `choices`, `answer`, `about_cue`, `subtype`, `prompt`); left out, it is an open question about both
modalities. `kind` and `origin` are words to group by. The rubric is in `responses/labelled/README.md`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from avere_ray.errors import InputError
from avere_ray.protocols import JudgeFn
from avere_ray.records import Clip, Query, Rollout, Verdict, VerdictLabel
from avere_ray.rows import Row, read_rows

SHIPPED = Path(__file__).parents[1] / "responses" / "labelled"
PARTS = ("dev", "test", "fresh")
"""Parts of the shipped set. Rules were improved on the first; the last has clips of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """One response with a person's label."""

    id: str
    """Unique in its set."""
    clip: Clip
    """What it was shown, as annotated."""
    query: Query
    """What it was asked."""
    text: str
    """The response."""
    label: VerdictLabel
    """The person's label."""
    kind: str = ""
    """What makes it hard, for instance "negated"."""
    origin: str = ""
    """"hand" or "template"."""

    @property
    def rollout(self) -> Rollout:
        """The response as a judge takes it."""
        return Rollout(rollout_id=f"{self.query.query_id}#0", query_id=self.query.query_id, clip_id=self.clip.clip_id,
                       index=0, text=self.text, token_ids=(), finish_reason="stop", adapter_version=0,
                       seed=0)  # fmt: skip


def shipped(part: str) -> list[Labelled]:
    """The shipped responses of one part."""
    return read_labelled(SHIPPED / f"{part}.jsonl")


def read_labelled(path: Path) -> list[Labelled]:
    """A labelled set.

    Raises:
        InputError: the file is missing or empty, or a row has an unknown label, clip or field; names the line.
    """
    clips = _shipped_clips() | _clips_beside(path)
    examples = [_example(row, place, clips) for place, row in read_rows(path)]
    if not examples:
        raise InputError(f"{path} holds no responses")
    twice = {e.id for e in examples if sum(o.id == e.id for o in examples) > 1} if len(examples) < 10_000 else set()
    if twice:
        raise InputError(f"{path}: id {min(twice)!r} occurs twice; ids must be unique")
    return examples


def judge_all(examples: Sequence[Labelled], judge: JudgeFn) -> list[Verdict]:
    """One verdict per response, in order."""
    queries = {e.query.query_id: e.query for e in examples}
    return judge([e.rollout for e in examples], queries, {e.clip.clip_id: e.clip for e in examples})


def _example(row: Row, place: str, clips: Mapping[str, Clip]) -> Labelled:
    labels = [label.value for label in VerdictLabel]
    if row.get("label") not in labels:
        raise InputError(f"{place}: label {row.get('label')!r} is unknown; allowed are {', '.join(labels)}")
    if not isinstance(row.get("text"), str):
        raise InputError(f'{place}: "text" must hold the response; it is {row.get("text")!r}')
    name = str(row.get("id") or place)
    clip = _clip_of(row.get("clip"), place, clips)
    asked = {"modality": "audio_video", "task": "describe", "prompt": ""} | _plain(row.get("query") or {}, place)
    query = _record(_query_type, asked | {"query_id": name, "clip_id": clip.clip_id}, f"{place}, query")
    return Labelled(id=name, clip=clip, query=query, text=row["text"], label=VerdictLabel(row["label"]),
                    kind=str(row.get("kind") or ""), origin=str(row.get("origin") or ""))  # fmt: skip


def _plain(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f'{place}: "query" must be an object with fields such as "modality"; it is {value!r}')
    return {key: found for key, found in value.items() if found is not None}


def _clip_of(value: object, place: str, clips: Mapping[str, Clip]) -> Clip:
    if isinstance(value, Mapping):
        return _record(_clip_type, {"uri": ""} | _plain(value, place), f"{place}, clip")
    if value not in clips:
        raise InputError(
            f'{place}: clip {value!r} is unknown; "clip" is a whole clip, or an id in a clips.jsonl beside the set'
        )
    return clips[str(value)]


def _clips_beside(path: Path) -> dict[str, Clip]:
    table = path.with_name("clips.jsonl")
    if not table.is_file():
        return {}
    found = [_record(_clip_type, {"uri": ""} | _plain(row, place), place) for place, row in read_rows(table)]
    return {clip.clip_id: clip for clip in found}


@functools.cache
def _shipped_clips() -> dict[str, Clip]:
    return _clips_beside(SHIPPED / "dev.jsonl")


def _record(kind: Callable[[], TypeAdapter[Any]], values: Mapping[str, Any], place: str) -> Any:
    try:
        return kind().validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{place}: {field} = {first.get('input')!r}: {first['msg']}") from error


@functools.cache
def _clip_type() -> TypeAdapter[Any]:
    return TypeAdapter(Clip)


@functools.cache
def _query_type() -> TypeAdapter[Any]:
    return TypeAdapter(Query)
