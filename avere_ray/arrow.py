"""Records as Arrow tables and back; the schema follows from a record's field annotations.

Nested records become structs, tuples lists, and an array its bytes beside its shape and dtype.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_R = TypeVar("_R")


def arrow_schema(record: type) -> "pa.Schema":
    """Arrow schema of a record type; nested records become structs, tuples lists, arrays flat lists with a shape."""
    import pyarrow as pa

    hints = typing.get_type_hints(record)
    columns: list[pa.Field] = []
    for name in _field_names(record):
        if hints[name] is np.ndarray:
            columns += [
                pa.field(name, pa.large_binary()),
                pa.field(f"{name}_shape", pa.list_(pa.int64())),
                pa.field(f"{name}_dtype", pa.string()),
            ]
        else:
            columns.append(pa.field(name, _arrow_type(hints[name])))
    return pa.schema(columns, metadata={"record": record.__name__})


def to_table(record: type[_R], rows: Iterable[_R]) -> "pa.Table":
    """Arrow table of records, in the given order."""
    import pyarrow as pa

    return pa.Table.from_pylist([to_row(row) for row in rows], schema=arrow_schema(record))


def from_table(record: type[_R], table: "pa.Table") -> list[_R]:
    """Records of an Arrow table written by `to_table`.

    Raises:
        KeyError: a column of the record is missing from the table.
    """
    return [from_row(record, row) for row in table.to_pylist()]


def to_row(record: Any) -> dict[str, Any]:
    """One record as a dict of Arrow-ready values."""
    row: dict[str, Any] = {}
    for name in _field_names(type(record)):
        value = getattr(record, name)
        if isinstance(value, np.ndarray):
            row[name] = np.ascontiguousarray(value).tobytes()
            row[f"{name}_shape"], row[f"{name}_dtype"] = list(value.shape), value.dtype.str
        else:
            row[name] = _plain(value)
    return row


def from_row(record: type[_R], row: dict[str, Any]) -> _R:
    """The inverse of `to_row`. Arrays are read-only views of the stored bytes."""
    hints = typing.get_type_hints(record)
    values: dict[str, Any] = {}
    for name in _field_names(record):
        if hints[name] is np.ndarray:
            values[name] = np.frombuffer(row[name], dtype=row[f"{name}_dtype"]).reshape(row[f"{name}_shape"])
        else:
            values[name] = _typed(hints[name], row[name])
    return record(**values)


def _field_names(record: type) -> list[str]:
    return [f.name for f in dataclasses.fields(record)]


def _arrow_type(hint: Any) -> "pa.DataType":
    import pyarrow as pa

    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _arrow_type(next(a for a in args if a is not type(None)))
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(_arrow_type(args[0]))
    if origin is dict:
        return pa.map_(_arrow_type(args[0]), _arrow_type(args[1]))
    if dataclasses.is_dataclass(hint):
        inner = typing.get_type_hints(hint)
        return pa.struct([pa.field(n, _arrow_type(inner[n])) for n in _field_names(typing.cast(type, hint))])
    if issubclass(hint, str):
        return pa.string()
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[hint]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {n: _plain(getattr(value, n)) for n in _field_names(type(value))}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return [(k, _plain(v)) for k, v in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(args[0], v) for v in value)
    if origin is dict:
        return dict(value)
    if dataclasses.is_dataclass(hint):
        return from_row(typing.cast(Any, hint), value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return value
