"""Events in an Arrow stream: columns named as the members of schemas/event_json.py, one row an event.

    event_id, source, kind, payload_base64   text
    local_timestamp                          timestamp with a time zone, integer microseconds, or RFC 3339 text
    value                                    any number; NaN and the infinities too
    payload                                  text or binary
    hlc                                      integer
    causes                                   list of struct of integers (partition, sequence)
    exchange                                 struct of integers (partition, offset, sent_us, acked_us, appended_ms)

Text may be dictionary encoded. A null is an absent member, and so is a column that is not there. What an event is, and
in which words one is refused, is publish.py's: where a row may not be an event it becomes one of its lines. Rows are
numbered from 1.

GUARANTEE a column of another type is refused before anything is taken, and so is a stream that ends within a batch.
GUARANTEE rows hold no more memory than the stream: a text that a dictionary repeats counts each time.
HAZARD buffers that are compressed are decompressed, whatever they come to: ask `arrow_bytes` before.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from schemas.errors import BadInputError
from schemas.faults import MAX_EVENT_ID_BYTES, MAX_KIND_BYTES, MAX_SOURCE_BYTES
from streams.publish import COLUMNS, Accepted, Format, Rejected, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Rows that are Python objects at a time.
_ROWS: Final = 1_000
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def open_table(body: bytes) -> pa.Table:
    """The rows of a stream. Raises BadInputError for what is no stream, or has a column that no event has."""
    try:
        table = pa.ipc.open_stream(body).read_all()
        table.validate(full=True)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"the body is not an Arrow stream: {error}") from None
    if table.num_rows and not names:
        raise BadInputError(f"the stream has rows and no column; the columns are {', '.join(COLUMNS)}. Name some")
    for name in names:
        if name not in COLUMNS:
            raise BadInputError(f"column {name!r:.80} is unknown; the columns are {', '.join(COLUMNS)}. Rename it")
        if names.count(name) > 1:
            raise BadInputError(f"column {name} is there twice. Remove one of the two")
    return table


def text_bytes(table: pa.Table) -> int:
    """What the texts of dictionaries come to when each row has its own."""
    total = 0
    for column in table.columns:
        if types.is_dictionary(column.type):
            for chunk in column.chunks:
                total += pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0
    return total


def read_table(table: pa.Table, defaults: Mapping[str, str]) -> Iterator[Accepted | Rejected]:
    """Every row, in order, numbered from 1. defaults: members for rows without them.

    Raises BadInputError, before anything is yielded, for a column whose type is not one of those above.
    """
    columns = [_column(name, table.column(name)) for name in table.column_names]
    names = [name for name, _, _ in columns]
    if len(set(names)) < len(names):
        raise BadInputError("payload is binary, and there is payload_base64 too. Remove one of the two")
    return _rows(table.num_rows, names, columns, defaults)


def _rows(
    rows: int, names: list[str], columns: list[_Column], defaults: Mapping[str, str]
) -> Iterator[Accepted | Rejected]:
    plain = all(_PLAIN[name](column.type) for name, column, _ in columns)
    for start in range(0, rows, _ROWS):
        parts = [column.slice(start, _ROWS) for _, column, _ in columns]
        events = _events(dict(zip(names, parts, strict=True)), len(parts[0]), defaults) if plain else None
        if events is not None:
            yield from map(Accepted, range(start + 1, start + 1 + len(events)), events)
            continue
        values = [values_of(part) for part, (_, _, values_of) in zip(parts, columns, strict=True)]
        documents = [orjson.dumps(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]
        for line in read(io.BytesIO(b"\n".join(documents)), Format.JSONL, defaults):
            yield line._replace(number=start + line.number)


def _events(columns: dict[str, pa.ChunkedArray], rows: int, defaults: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """The rows as events, checked by columns: what the lines of the same rows would become.

    None where a row may not be an event: its line says why.
    """
    texts = {}
    for name, least, most in _TEXTS:
        column = columns.get(name, pa.chunked_array([pa.nulls(rows, pa.string())]))
        if name in defaults:
            column = column.fill_null(defaults[name])
        if name != "event_id" and column.null_count:
            return None
        lengths = pc.min_max(pc.binary_length(column)).as_py()
        if lengths["min"] is not None and not least <= lengths["min"] <= lengths["max"] <= most:
            return None
        texts[name] = column.to_pylist()
    payload = columns.get("payload", columns.get("payload_base64"))
    absent = [None] * rows
    payloads = [b""] * rows if payload is None else payload.cast(pa.large_binary()).fill_null(b"").to_pylist()
    others = [columns[name].to_pylist() if name in columns else absent for name in ("local_timestamp", "value", "hlc")]
    return [
        {
            "event_id": event_id,
            "source": source,
            "local_timestamp": instant,
            "kind": kind,
            "value": value,
            "payload": content,
            "hlc": hlc,
            "causes": [],
            "exchange": None,
        }
        for event_id, source, kind, content, instant, value, hlc in zip(*texts.values(), payloads, *others, strict=True)
    ]


def _column(name: str, column: pa.ChunkedArray) -> _Column:
    """The member that a column gives, the column in one of a few types, and what makes JSON values of it."""
    found = column.type
    if types.is_dictionary(found) and _is_text(found.value_type):
        column, found = column.cast(pa.large_string()), pa.large_string()
    if name == "local_timestamp" and types.is_timestamp(found) and found.tz is not None:
        return name, _microseconds(column), _plain
    if name == "payload" and (types.is_binary(found) or types.is_large_binary(found)):
        return "payload_base64", column, _base64
    if name == "value" and (types.is_floating(found) or types.is_integer(found) or types.is_decimal(found)):
        return name, column.cast(pa.float64(), safe=False), _numbers
    if not (types.is_null(found) or _TYPES[name](found)):
        raise BadInputError(f"column {name} is {found}, it must be {_EXPECTED[name]}. Cast it")
    return name, column, _plain


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rounded down, as the decimals of a text are."""
    per_second = _PER_SECOND[column.type.unit]
    units = column.cast(pa.int64())
    try:
        if per_second <= _PER_SECOND["us"]:
            return pc.multiply_checked(units, _PER_SECOND["us"] // per_second)
    except pa.ArrowInvalid:
        raise BadInputError("column local_timestamp has an instant outside the microseconds of 64 bits") from None
    down = [
        pa.array(
            np.floor_divide(chunk.fill_null(0).to_numpy(), 1_000), mask=chunk.is_null().to_numpy(zero_copy_only=False)
        )
        for chunk in units.chunks
    ]
    return pa.chunked_array(down, pa.int64())


def _plain(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _base64(column: pa.ChunkedArray) -> list[Any]:
    return [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]


def _numbers(column: pa.ChunkedArray) -> list[Any]:
    """What JSON cannot spell is text: "nan" and the like as event_json has them."""
    return [value if value is None or math.isfinite(value) else _NOT_FINITE[str(value)] for value in column.to_pylist()]


def _is_text(found: pa.DataType) -> bool:
    return bool(types.is_string(found) or types.is_large_string(found))


def _is_instant(found: pa.DataType) -> bool:
    return bool(types.is_integer(found)) or _is_text(found)


def _is_integers(found: pa.DataType) -> bool:
    return bool(types.is_struct(found)) and all(types.is_integer(field.type) for field in found)


def _is_list_of_integers(found: pa.DataType) -> bool:
    return bool(types.is_list(found) or types.is_large_list(found)) and _is_integers(found.value_type)


if TYPE_CHECKING:
    _Column = tuple[str, pa.ChunkedArray, Callable[[pa.ChunkedArray], list[Any]]]

#: Texts, and how many bytes they have.
_TEXTS: Final = (("event_id", 0, MAX_EVENT_ID_BYTES), ("source", 1, MAX_SOURCE_BYTES), ("kind", 0, MAX_KIND_BYTES))
_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_TYPES: Final[dict[str, Callable[[pa.DataType], bool]]] = {
    **dict.fromkeys(("event_id", "source", "kind", "payload", "payload_base64"), _is_text),
    "local_timestamp": _is_instant,
    "value": types.is_floating,
    "hlc": types.is_integer,
    "causes": _is_list_of_integers,
    "exchange": _is_integers,
}
#: Types, once normalised, whose rows are checked by columns.
_PLAIN: Final[dict[str, Callable[[pa.DataType], bool]]] = {
    **dict.fromkeys(("event_id", "source", "kind", "payload"), _is_text),
    "payload_base64": lambda found: not _is_text(found),  # binary payloads
    "local_timestamp": types.is_signed_integer,
    "value": types.is_floating,
    "hlc": types.is_signed_integer,
    **dict.fromkeys(("causes", "exchange"), types.is_null),
}
_EXPECTED: Final = {
    **dict.fromkeys(("event_id", "source", "kind", "payload_base64"), "text"),
    "payload": "text or binary",
    "local_timestamp": "a timestamp with a time zone, integer microseconds, or RFC 3339 text",
    "value": "a number",
    "hlc": "an integer",
    "causes": "a list of struct of integers",
    "exchange": "a struct of integers",
}
