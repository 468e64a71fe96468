r"""Answers to SQL for people, JSON and CSV: any type that DuckDB has, as text, number, list or object.

Instants are RFC 3339 in UTC whatever the year, numbers beyond 64 bits and decimals are texts of all their digits, NaN
and the infinities texts, bytes their text where they are UTF-8 that can be shown, otherwise `\x` and hexadecimal.
"""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from schemas.instants import INT64_MAX, INT64_MIN, format_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PER_US: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_INFINITIES: Final = {INT64_MAX: "infinity", -INT64_MAX: "-infinity"}
_NS_PER_US: Final = 1_000


def names_of(schema: pa.Schema) -> list[str]:
    """Of columns, no two alike: a name that is there before has a number behind it."""
    names: list[str] = []
    for name in schema.names:
        number, unique = 1, name
        while unique in names:
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return names


def rows_of(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """A row each."""
    names = names_of(schema)
    for batch in batches:
        columns = [_values(column) for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        return [None if number is None else _instant(number, kind) for number in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_date(kind):
        days = column.cast(pa.int32()).to_pylist()
        return [None if day is None else format_us(day * 86_400_000_000).partition("T")[0] for day in days]
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    return [_plain(value) for value in column.to_pylist()]


def _instant(number: int, kind: pa.DataType) -> str:
    if kind.unit == "ns":
        text = f"{format_us(number // _NS_PER_US)[:-1]}{number % _NS_PER_US:03d}Z"
    elif number in _INFINITIES:
        return _INFINITIES[number]
    else:
        text = format_us(number * _PER_US[kind.unit])
    return text if kind.tz is not None else text[:-1]


def _plain(value: Any) -> Any:  # noqa: PLR0911 - a line for each type
    """What JSON can spell."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if INT64_MIN <= value <= INT64_MAX else str(value)
        case float():
            return value if math.isfinite(value) else {"nan": "NaN", "inf": "Infinity"}.get(str(value), "-Infinity")
        case Decimal():
            whole = value == value.to_integral_value() and value.as_tuple().exponent == 0
            return _plain(int(value)) if whole else str(value)
        case bytes():
            return _text(value)
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dict():
            return {str(_plain(key)): _plain(member) for key, member in value.items()}
        case list() | tuple():
            return [_plain(member) for member in value]
        case _:
            return str(value)


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"\\x{content.hex()}"
    return text if "\0" not in text else f"\\x{content.hex()}"
