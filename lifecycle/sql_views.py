"""What SQL sees of a ledger: events wherever they lie, archives and jobs, each as a data set that is read when asked.

Problem: DuckDB reads Parquet by itself, but an archive is believed here only as far as its checksums go, half of the
events are in no file, and a file that a job removes meanwhile is no error. So the views are data sets of Arrow whose
scanner is ours: DuckDB tells the columns that it needs and the conditions that Arrow can evaluate (see `pushdown`),
and is given the rows of a `scan`.

    partition              INTEGER      sequence, index, input_offset    BIGINT
    authority_timestamp, local_timestamp, corrected_timestamp            TIMESTAMP WITH TIME ZONE
    delta_ms, offset_us, bound_us                                        BIGINT
    severity, cause, fault VARCHAR      flags UTINYINT                   counted BOOLEAN
    source, kind, event_id VARCHAR      value DOUBLE                     payload BLOB
    hlc                    BIGINT       chain_hash BLOB

counted: readable, and neither duplicate nor conflict: what `aggregate` counts. Where a value could not be read its
columns are NULL. HAZARD instants beyond DuckDB's calendar are '-infinity' and 'infinity'.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from lifecycle.arrow import LOCAL, column_of
from lifecycle.planner import Field, Question
from lifecycle.pushdown import question_of
from schemas.errors import DriftledgerError
from schemas.instants import INT64_MAX
from streams.judge_kernel import Flag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lifecycle.scan import Scan

#: Before this DuckDB has no date.
_INSTANT_MIN: Final = -9_223_372_022_400_000_000
_UNCOUNTED: Final = int(Flag.DUPLICATE | Flag.CONFLICT)
#: Where DuckDB is given another type than a file: instants of one unit, and bytes of any length.
_TYPES: Final[dict[Field, pa.DataType]] = {Field.AUTHORITY_MS: LOCAL, Field.CHAIN_HASH: pa.binary()}
_COUNTED: Final = "counted"
_NEEDED: Final = {_COUNTED: (Field.FLAGS, Field.FAULT)} | {column_of(field).name: (field,) for field in Field}


def _schema() -> pa.Schema:
    fields = [column_of(field).with_type(_TYPES.get(field, column_of(field).type)) for field in Field]
    names = [field.name for field in fields]
    fields.insert(names.index("fault") + 1, pa.field(_COUNTED, pa.bool_()))
    return pa.schema(fields)


EVENTS: Final = _schema()


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was read for a part of a query. question: None where nothing could be in it."""

    columns: tuple[str, ...]
    condition: str
    question: Question | None


class Readable(Protocol):
    """A table that is read when it is asked for."""

    @property
    def schema(self) -> pa.Schema:
        """Of all columns."""
        ...

    def tables(self, columns: Sequence[str], condition: Any) -> Iterator[pa.Table]:
        """Tables that have at least these columns, of all rows for which the condition may be true."""
        ...


class View(ds.Dataset):  # type: ignore[misc] # pyarrow has no types
    """What is readable as DuckDB knows a data set of pyarrow. Attributes: schema."""

    def __init__(self, readable: Readable) -> None:
        self._readable = readable

    @property
    def schema(self) -> pa.Schema:
        """Of all columns."""
        return self._readable.schema

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None) -> Rows:  # noqa: A002 - pyarrow's name
        """Rows for which an expression is true, and of these some columns."""
        return Rows(self._readable, self.schema.names if columns is None else list(columns), filter)


class Rows:
    """What a view was asked for; as DuckDB knows a scanner of pyarrow."""

    def __init__(self, readable: Readable, columns: Sequence[str], condition: Any) -> None:
        self._readable, self._columns, self._condition = readable, columns, condition

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows, as they are asked for."""
        schema = pa.schema([self._readable.schema.field(name) for name in self._columns])
        return pa.RecordBatchReader.from_batches(schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        wanted = list(self._columns)
        if self._condition is not None:
            every = self._readable.schema.names
            wanted += [name for name in every if name not in wanted and _in(name, self._condition)]
        for table in self._readable.tables(wanted, self._condition):
            rows = table if self._condition is None else table.filter(self._condition)
            yield from rows.select(self._columns).to_batches()


class Events:
    """DATA entries of a ledger. Attributes: failed (what ended a scan), pushed (what scans were asked for)."""

    def __init__(self, scan: Scan) -> None:
        self.schema: pa.Schema = EVENTS
        self._scan = scan
        self.failed: DriftledgerError | None = None
        self.pushed: list[Pushed] = []

    def tables(self, columns: Sequence[str], condition: Any) -> Iterator[pa.Table]:
        """See Readable."""
        try:
            yield from self._tables(columns, condition)
        except DriftledgerError as error:  # DuckDB hands on no more than its text
            self.failed = error
            raise

    def _tables(self, columns: Sequence[str], condition: Any) -> Iterator[pa.Table]:
        question: Question | None = Question()
        if condition is not None:
            question = question_of(condition, EVENTS, self._scan.spans)
        self.pushed.append(Pushed(tuple(columns), "" if condition is None else str(condition), question))
        if question is None:
            return
        fields = tuple(dict.fromkeys(field for name in columns for field in _NEEDED[name]))
        for table in self._scan.parts(question, fields):
            yield events_of(table, columns)


class Lazy:
    """A small table that is made once, when it is first asked for."""

    def __init__(self, schema: pa.Schema, make: Callable[[], pa.Table]) -> None:
        self.schema = schema
        self._make, self._lock = make, threading.Lock()
        self._made: pa.Table | None = None
        self.failed: DriftledgerError | None = None

    def tables(self, columns: Sequence[str], condition: Any) -> Iterator[pa.Table]:
        """See Readable."""
        del columns, condition
        with self._lock:
            if self._made is None:
                try:
                    self._made = self._make()
                except DriftledgerError as error:
                    self.failed = error
                    raise
        yield self._made


def events_of(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Columns of EVENTS from rows as a scan gives them."""
    return pa.table([_column(table, name) for name in columns], schema=pa.schema([EVENTS.field(c) for c in columns]))


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name == _COUNTED:
        known = pc.equal(pc.bit_wise_and(table["flags"], pa.scalar(_UNCOUNTED, pa.uint8())), 0)
        return pc.and_(known, pc.equal(table["fault"].cast(pa.string()), "NONE"))
    column, kind = table[name], EVENTS.field(name).type
    if kind == LOCAL:
        return pa.chunked_array([_instants(chunk) for chunk in column.chunks], LOCAL)
    return column if column.type == kind else column.cast(kind)


def _instants(chunk: pa.Array) -> pa.Array:
    """In microseconds, and such as DuckDB can have; what is beyond is infinite."""
    numbers = chunk.cast(pa.int64())
    if chunk.type.unit == "ms":
        ends = INT64_MAX // 1_000
        found = np.clip(numbers.fill_null(0).to_numpy(), -ends, ends) * 1_000
        found[found == ends * 1_000] = INT64_MAX
    else:
        found = numbers.fill_null(0).to_numpy()
    found = np.where(found < _INSTANT_MIN, -INT64_MAX, found)
    mask = chunk.is_null().to_numpy(zero_copy_only=False) if chunk.null_count else None
    return pa.array(found, pa.int64(), mask=mask).cast(LOCAL)


def _in(name: str, condition: Any) -> bool:
    """Whether a condition may have that column."""
    return re.search(rf"\b{re.escape(name)}\b", str(condition)) is not None
