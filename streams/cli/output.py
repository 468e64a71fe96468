"""One way out for every list: rows to stdout as a table, JSON lines or CSV.

Guarantee: jsonl and csv are written row by row as they come, so a million rows cost the memory of one and a pipe sees
the first at once; the table is for people and is held whole, because its columns are as wide as their widest value.
Machine output is on stdout and nothing else is; a closed pipe (`| head`) ends the command quietly.
"""

from __future__ import annotations

import csv
import enum
import sys
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

#: Columns of a table when stdout is no terminal: wide enough that no hash is cut.
PLAIN_WIDTH = 200


class Output(enum.StrEnum):
    """The form of a list."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="Form of the list: a table to read, JSON lines or CSV to process.")
]


def emit(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output: Output, *, sparing: Collection[str] = ()
) -> int:
    """Write rows, the named columns in that order; return how many there were.

    sparing: columns that a table leaves out where no row has a value for them.

    A missing or None value is "-" in a table, null or empty elsewhere. Values: str, int, float, bool, None; bytes are
    written as lower-case hex; enum members by value; lists and dicts as compact JSON.
    """
    count = 0
    if output is Output.TABLE:
        count = _table(rows, columns, sparing)
    elif output is Output.JSONL:
        for count, row in enumerate(rows, 1):  # noqa: B007 - returned
            line = orjson.dumps(
                {column: row.get(column) for column in columns}, default=_plain, option=orjson.OPT_APPEND_NEWLINE
            )
            sys.stdout.write(line.decode())
            sys.stdout.flush()
    else:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        for count, row in enumerate(rows, 1):  # noqa: B007 - returned
            writer.writerow(["" if row.get(column) is None else _plain(row[column]) for column in columns])
            sys.stdout.flush()
    sys.stdout.flush()  # a closed pipe is found here, not after the command
    return count


def emit_lines(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], fields: Sequence[str], output: Output
) -> None:
    """Write rows that come for ever, each at once: a table becomes lines of `columns`, jsonl and csv hold `fields`.

    A table is as wide as its widest row, which is not known; a column of lines is as wide as its widest up to now.
    """
    if output is not Output.TABLE:
        emit(rows, fields, output)
        return
    widths = [0] * len(columns)
    for row in rows:
        values = ["-" if row.get(column) is None else printable(str(_plain(row[column]))) for column in columns]
        widths = [max(width, len(value)) for width, value in zip(widths, values, strict=True)]
        line = "  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True))
        typer.echo(line.rstrip())


def printable(text: str) -> str:
    """Without what would steer a terminal: producers choose some of these texts."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return orjson.dumps(value, default=_plain).decode()
    return value if isinstance(value, str | int | float) else str(value)


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], sparing: Collection[str]) -> int:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    if sparing:
        rows = list(rows)
        empty = {column for column in sparing if all(row.get(column) is None for row in rows)}
        columns = [column for column in columns if column not in empty]
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    numeric = dict.fromkeys(columns, True)
    for row in rows:
        values = [row.get(column) for column in columns]
        for column, value in zip(columns, values, strict=True):
            numeric[column] = numeric[column] and (value is None or isinstance(value, int | float))
        table.add_row(*(Text("-" if value is None else printable(str(_plain(value)))) for value in values))
    for column, definition in zip(columns, table.columns, strict=True):
        if numeric[column]:
            definition.justify = "right"
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(table)
    return table.row_count
