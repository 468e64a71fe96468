"""Answers as Arrow: what other tools read without a copy.

Instants are timestamps in UTC in the unit of their frame, names dictionaries of text, severities, causes and faults
their names; no cause, no estimate and a function of no value are null. A NaN that a source sent stays a NaN; of
aggregates, which have no NaN, a function that is not finite is null.

GUARANTEE the same answer gives the same bytes: dictionaries hold the names that are used, ascending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lifecycle.packing import Texts
from lifecycle.planner import Field, name_in_answers
from lifecycle.row_kernel import look_up, mark_used
from schemas.faults import Fault
from streams.causes import Cause
from streams.judge_kernel import NO_SEVERITY
from streams.severity import Severity
from streams.windows import By, percentile_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lifecycle.parts import Selected, Values
    from lifecycle.tally import Aggregates

LOCAL: Final = pa.timestamp("us", tz="UTC")
AUTHORITY: Final = pa.timestamp("ms", tz="UTC")
_TYPES: Final[dict[Field, pa.DataType]] = {
    Field.PARTITION: pa.int32(),
    Field.AUTHORITY_MS: AUTHORITY,
    Field.LOCAL_US: LOCAL,
    Field.CORRECTED_US: LOCAL,
    **dict.fromkeys((Field.SEVERITY, Field.CAUSE, Field.FAULT, Field.SOURCE, Field.KIND, Field.EVENT_ID), pa.string()),
    Field.FLAGS: pa.uint8(),
    Field.VALUE: pa.float64(),
    Field.PAYLOAD: pa.binary(),
    Field.CHAIN_HASH: pa.binary(32),
}


def column_of(field: Field) -> pa.Field:
    """Name and type of a field's column; of names text, where an answer has a dictionary of texts."""
    return pa.field(name_in_answers(field), _TYPES.get(field, pa.int64()))


def rows_table(selected: Selected) -> pa.Table:
    """Rows of an answer; columns as they were asked for."""
    arrays = {column_of(name).name: _array(name, values, selected) for name, values in selected.columns.items()}
    return pa.table(arrays)


def aggregates_table(aggregates: Aggregates) -> pa.Table:
    """Groups of an answer: window_start, window_end, source or kind, count, values, functions, percentiles (p99.9).

    In frame corrected near_edge and unknown stand behind values; behind percentiles method, exact or ddsketch, and
    relative_error, as in results of windows.
    """
    arrays: dict[str, pa.Array] = {}
    if aggregates.window_start_us is not None and aggregates.window_end_us is not None:
        arrays["window_start"] = plain(LOCAL, aggregates.window_start_us, None)
        arrays["window_end"] = plain(LOCAL, aggregates.window_end_us, None)
    if aggregates.key is not None:
        name = "kind" if aggregates.by is By.KIND else "source"
        arrays[name] = dictionary(aggregates.key, aggregates.names, None)
    arrays["count"] = plain(pa.int64(), aggregates.count, None)
    arrays["values"] = plain(pa.int64(), aggregates.values, None)
    for name, numbers in aggregates.doubt.items():
        arrays[name] = plain(pa.int64(), numbers, None)
    for function, column in aggregates.functions.items():
        arrays[function.value] = _finite(column)
    for percentile, column in aggregates.percentiles.items():
        arrays[f"p{percentile_text(percentile)}"] = _finite(column)
    if aggregates.relative_error is not None:
        arrays["method"] = named((aggregates.relative_error == 0).astype(np.int32), _METHODS, None)
        arrays["relative_error"] = plain(pa.float64(), aggregates.relative_error, None)
    return pa.table(arrays)


def ipc_bytes(table: pa.Table) -> bytes:
    """A table as an IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _array(name: Field, values: Values, selected: Selected) -> pa.Array:
    column, valid = values
    if isinstance(column, Texts):
        return texts(column_of(name).type, column, valid)
    if name is Field.SOURCE or name is Field.KIND:
        return named(column, selected.sources if name is Field.SOURCE else selected.kinds, valid)
    if name is Field.SEVERITY:
        judged = column != NO_SEVERITY
        codes = np.where(judged, column, 0)
        return dictionary(codes, [severity.name.encode() for severity in Severity], None if judged.all() else judged)
    if name is Field.CAUSE:
        return causes(column)
    if name is Field.FAULT:
        return named(column.astype(np.int32), _FAULTS, None)
    return plain(column_of(name).type, column, valid)


#: How percentiles were found.
_METHODS: Final = [b"ddsketch", b"exact"]

#: Names of faults by their number; numbers that no fault has are never used.
_FAULTS: Final = [Fault(number).name.encode() if number in set(Fault) else b"" for number in range(max(Fault) + 1)]

#: Names of causes by their number, from 1 on.
_CAUSES: Final = [cause.name.encode() for cause in Cause if cause is not Cause.NONE]


def causes(column: NDArray[np.uint8]) -> pa.Array:
    """Names of causes; NONE is null."""
    there = column != Cause.NONE
    return dictionary(np.where(there, column, 1) - 1, _CAUSES, None if there.all() else there)


def texts(data_type: pa.DataType, column: Texts, valid: NDArray[np.bool_] | None) -> pa.Array:
    """Without a copy, like the others."""
    buffers = [_bitmap(valid), pa.py_buffer(column.offsets), pa.py_buffer(column.content)]
    return pa.Array.from_buffers(data_type, len(column.offsets) - 1, buffers)


def plain(data_type: pa.DataType, column: NDArray[Any], valid: NDArray[np.bool_] | None) -> pa.Array:
    """Without a copy."""
    content = np.ascontiguousarray(column)
    return pa.Array.from_buffers(data_type, len(content), [_bitmap(valid), pa.py_buffer(content)])


def _finite(column: NDArray[np.float64]) -> pa.Array:
    finite = np.isfinite(column)
    if finite.all():
        return plain(pa.float64(), column, None)
    return plain(pa.float64(), np.where(finite, column, 0.0), finite)


def _bitmap(valid: NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def named(codes: NDArray[np.int32], names: Sequence[bytes], valid: NDArray[np.bool_] | None) -> pa.Array:
    """Codes of many names as those of the ones that are used, ascending."""
    used = np.zeros(len(names) + 1, np.bool_)  # -1, where there is no name, is the last place
    mark_used(codes, used)
    found = np.flatnonzero(used[:-1]).tolist()
    found.sort(key=names.__getitem__)
    places = np.zeros(used.size, np.int32)
    places[found] = np.arange(len(found))
    indices = np.empty(codes.size, np.int32)
    look_up(codes, places, indices)
    return dictionary(indices, [names[code] for code in found], valid)


def dictionary(codes: NDArray[Any], names: Sequence[bytes], valid: NDArray[np.bool_] | None) -> pa.Array:
    """Codes of these names."""
    indices = plain(pa.int32(), codes.astype(np.int32, copy=False), valid)
    texts = pa.array([name.decode() for name in names], pa.string())
    return pa.DictionaryArray.from_arrays(indices, texts, safe=False)
