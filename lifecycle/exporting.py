"""A ledger, or a part of it, as a file that other tools read: CSV, JSON lines, Arrow, Parquet; or a table of Iceberg.

Problem: years of events do not fit into memory, and half a file looks like a whole one. So rows are written part by
part as a `scan` gives them, in order across partitions, and the file has its name when all of them are there, were not
pruned meanwhile, and are on disk (`whole_file`); a table of Iceberg is there with its commit (`iceberg`).

GUARANTEE memory: the parts of a scan, and GROUP_ROWS rows or GROUP_BYTES of Parquet.
"""

from __future__ import annotations

import contextlib
import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lifecycle.arrow import column_of
from lifecycle.export_rows import EVENT_FIELDS, csv_head, csv_lines, events_in, json_lines
from lifecycle.whole_file import whole_file
from schemas.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from lifecycle.planner import Field, Question
    from lifecycle.scan import Scan

#: Of a row group, unless that is more bytes.
GROUP_ROWS: Final = 131_072
GROUP_BYTES: Final = 64 * 1024 * 1024


class Shape(enum.StrEnum):
    """What an export is."""

    CSV = "csv"
    JSONL = "jsonl"
    ARROW = "arrow"
    PARQUET = "parquet"
    ICEBERG = "iceberg"


_SUFFIXES: Final = {
    ".csv": Shape.CSV,
    ".jsonl": Shape.JSONL,
    ".ndjson": Shape.JSONL,
    ".arrow": Shape.ARROW,
    ".feather": Shape.ARROW,
    ".parquet": Shape.PARQUET,
}


class Exported(NamedTuple):
    """What was written. left_out: what is no event, where events were asked for."""

    rows: int
    left_out: int


class Writer(Protocol):
    """Takes rows of one schema, one behind the other."""

    def write(self, table: pa.Table) -> None:
        """The next rows."""
        ...

    def close(self) -> None:
        """No more follow."""
        ...


def shape_of(name: str, suffix: str) -> Shape:
    """What the suffix of a name stands for. Raises BadInputError."""
    found = _SUFFIXES.get(suffix.lower())
    if found is None:
        raise BadInputError(
            f"{name}: its suffix does not say the format. Give --format csv, jsonl, arrow, parquet or iceberg"
        )
    return found


def schema_of(fields: Sequence[Field]) -> pa.Schema:
    """The columns of fields, as files have them."""
    return pa.schema([column_of(field) for field in fields])


def export(
    scan: Scan,
    question: Question,
    fields: Sequence[Field],
    path: Path,
    shape: Shape,
    *,
    events: bool = False,
    force: bool = False,
    tell: Callable[[], None] = lambda: None,
) -> Exported:
    """Write the rows of a question. events: only what may be put again, as events; tell: called after each part.

    Raises BadInputError where the file is there, without `force`, WriteError, and what a scan does; nothing is there
    then under that name that was not before.
    """
    chosen = EVENT_FIELDS if events else tuple(fields)
    if shape is Shape.ICEBERG:
        from lifecycle.iceberg import iceberg_table  # noqa: PLC0415 - an extra

        with iceberg_table(path, schema_of(chosen), force=force) as table:
            return _write_all(scan, question, chosen, table, events=events, tell=tell)
    with whole_file(path, force=force) as file:
        writer = _writer(shape, file, schema_of(chosen), events=events)
        try:
            exported = _write_all(scan, question, chosen, writer, events=events, tell=tell)
        except BaseException:
            with contextlib.suppress(OSError, pa.ArrowException):  # what ended it before may be that the disk is full
                writer.close()
            raise
        writer.close()
        return exported


def _write_all(
    scan: Scan,
    question: Question,
    fields: Sequence[Field],
    writer: Writer,
    *,
    events: bool,
    tell: Callable[[], None],
) -> Exported:
    schema = schema_of(fields)
    rows = left_out = 0
    for table in scan.merged(question, fields):
        wanted = events_in(table) if events else table
        writer.write(wanted.cast(schema))
        rows += wanted.num_rows
        left_out += table.num_rows - wanted.num_rows
        tell()
    scan.check()
    return Exported(rows, left_out)


def _writer(shape: Shape, file: BinaryIO, schema: pa.Schema, *, events: bool) -> Writer:
    match shape:
        case Shape.CSV:
            file.write(csv_head(schema, events=events))
            return _Lines(file, lambda table: csv_lines(table, events=events))
        case Shape.JSONL:
            return _Lines(file, lambda table: json_lines(table, events=events))
        case Shape.ARROW:
            return _Arrow(file, schema)
        case _:
            return Grouped(pq.ParquetWriter(file, schema, compression="zstd"))


class _Lines:
    """Lines of text."""

    def __init__(self, file: BinaryIO, lines: Callable[[pa.Table], bytes]) -> None:
        self._file, self._lines = file, lines

    def write(self, table: pa.Table) -> None:
        for first in range(0, table.num_rows, _LINES_AT_ONCE):
            self._file.write(self._lines(table.slice(first, _LINES_AT_ONCE)))

    def close(self) -> None:
        pass


#: A megabyte or so.
_LINES_AT_ONCE: Final = 4_096


class _Arrow:
    """The file format of Arrow."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer: Any = pa.ipc.new_file(file, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, max_chunksize=GROUP_ROWS)

    def close(self) -> None:
        self._writer.close()


class Grouped:
    """Parquet, in row groups of some size."""

    def __init__(self, parquet: Any) -> None:
        self._parquet = parquet
        self._held: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """See Writer."""
        self._held.append(table)
        if (
            sum(held.num_rows for held in self._held) >= GROUP_ROWS
            or sum(held.nbytes for held in self._held) >= GROUP_BYTES
        ):
            self._end_group()

    def close(self) -> None:
        """See Writer."""
        if self._held:
            self._end_group()
        self._parquet.close()

    def _end_group(self) -> None:
        table = pa.concat_tables(self._held)
        self._held.clear()
        self._parquet.write_table(table, row_group_size=max(table.num_rows, 1))
