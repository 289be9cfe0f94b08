"""The shape of our own field in foreign files, which anyone may have edited."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from avere_ray.records import Clip, ModalitySwap, Query, RejectKind


@dataclass(frozen=True)
class _Files:
    video: str
    audio: str


@dataclass(frozen=True)
class _Shown:
    video: str
    sound: str


@dataclass(frozen=True)
class _Kind:
    at: int
    kind: RejectKind
    source: str


@dataclass(frozen=True, kw_only=True)
class Own:
    """What our own field holds; `formats.data` and the formats write it."""

    pair_id: str = ""
    query_id: str = ""
    clip_id: str = ""
    modality: str = ""
    chosen_source: str = ""
    rejects: list[_Kind] = field(default_factory=list)
    swap: ModalitySwap | None = None
    partners: dict[str, _Files] = field(default_factory=dict)
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)
    query: Query | None = None
    branch: int = 0
    more_rejected: list[str] = field(default_factory=list)
    repeated_reject: bool = False
    rejected_media: _Shown | None = None


def wrong_shape(own: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first entry that is not as `Own` says, and what is wrong with it; None when all is well."""
    try:
        _adapter().validate_json(json.dumps(own), strict=True)
        for name, annotations in (own.get("clips") or {}).items():
            _clip_adapter().validate_json(json.dumps({**annotations, "clip_id": name, "uri": ""}), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return (where, first["msg"]) if error.title == Own.__name__ else (f"clips.{name}.{where}", first["msg"])
    except (TypeError, ValueError) as error:
        return "", f"cannot be JSON ({error})"
    return None


@functools.cache
def _adapter() -> TypeAdapter[Own]:
    return TypeAdapter(Own)


@functools.cache
def _clip_adapter() -> TypeAdapter[Clip]:
    return TypeAdapter(Clip)
