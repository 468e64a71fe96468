"""Rows of answers for people and for JSON: instants as integers and as text, bytes as text or base64.

The members are those of `streams.values`, so an event looks the same however it was found.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from schemas.instants import format_ms, format_us

if TYPE_CHECKING:
    from collections.abc import Iterator

    #: A name and its value in each row.
    Member = tuple[str, list[Any]]


#: Made into Python objects together: some 1 KB a row.
_ROWS_AT_ONCE: Final = 4_096


def names_in(schema: pa.Schema) -> list[str]:
    """The members of each row."""
    return [name for field in schema for name, _ in _members(field.name, pa.array([], field.type))]


def rows_in(table: pa.Table) -> Iterator[dict[str, Any]]:
    """A row each."""
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        members = [member for field, column in zip(batch.schema, batch.columns, strict=True)
                   for member in _members(field.name, column)]  # fmt: skip
        names = [name for name, _ in members]
        for values in zip(*(values for _, values in members), strict=True):
            yield dict(zip(names, values, strict=True))


def _members(name: str, column: pa.Array) -> list[Member]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        instants = column.cast(pa.int64()).to_pylist()
        text = format_ms if kind.unit == "ms" else format_us
        return [
            (f"{name}_{kind.unit}", instants),
            (name, [None if instant is None else text(instant) for instant in instants]),
        ]
    if pa.types.is_fixed_size_binary(kind):
        return [(name, [None if value is None else value.hex() for value in column.to_pylist()])]
    if pa.types.is_binary(kind):
        texts = [_text(value) for value in column.to_pylist()]
        return [(name, [text for text, _ in texts]), (f"{name}_base64", [coded for _, coded in texts])]
    if pa.types.is_dictionary(kind):  # several times as fast as value by value
        return [(name, column.dictionary_decode().to_pylist())]
    if pa.types.is_floating(kind):
        return [(name, [None if value is None else _number(value) for value in column.to_pylist()])]
    return [(name, column.to_pylist())]


def _text(content: bytes | None) -> tuple[str | None, str | None]:
    if not content:
        return None, None
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def _number(value: float) -> float | str:
    """As in schemas/event_json.py: what JSON cannot spell is text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
