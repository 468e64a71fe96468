"""One way out for every list: rows to stdout as a table, JSON lines or CSV.

Guarantee: jsonl and csv are written row by row as they come, so a million rows cost the memory of one and a pipe sees
the first at once; the table is for people and is held whole, because its columns are as wide as their widest value.
GUARANTEE no instant, name or number of a table is broken: what a terminal has no room for is left out by whole columns,
and named on stderr. Only texts wider than FOLD_WIDTH are folded, and of a hash the first digits stand for it.
Machine output is on stdout and nothing else is; a closed pipe (`| head`) ends the command quietly.
"""

from __future__ import annotations

import csv
import enum
import re
import sys
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Literal

#: What a table has room for where stdout is no terminal: anything.
_ENDLESS: Final = 1_000_000
#: A column of a terminal's table that is wider is a text, and folded; to no less than an instant and a comma.
FOLD_WIDTH, FOLDED_WIDTH_MIN = 40, 25
#: Left out first where a terminal has no room for all.
_SECONDARY: Final = frozenset(
    {"kind", "window_end", "revision", "values", "percentiles", "entries", "gone_from_input", "lane"}
)
#: Between the columns of a table, and around them.
_GAP_WIDTH, _EDGES_WIDTH = 3, 2
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
#: Enough to tell one hash from another.
_HASH_DIGITS: Final = 12


class Output(enum.StrEnum):
    """The form of a list."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="Form of the list: a table to read, JSON lines or CSV to process.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="The same as --output jsonl.")]


def chosen(output: Output, *, json: bool) -> Output:
    """The form that two options ask for."""
    return Output.JSONL if json else output


def emit(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], output: Output, *, sparing: Collection[str] = ()
) -> int:
    """Write rows, the named columns in that order; return how many there were.

    sparing: columns that a table leaves out where no row has a value for them.

    A missing or None value is "-" in a table, null or empty elsewhere. Values: str, int, float, bool, None; bytes are
    written as lower-case hex; enum members by value; lists and dicts as compact JSON. A table shortens hashes.
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

    A table is as wide as its widest row, which is not known; a column of lines is as wide as its widest up to now. The
    first line names the columns.
    """
    if output is not Output.TABLE:
        emit(rows, fields, output)
        return
    titles = {column: column.replace("_", " ") for column in columns}
    widths = [0] * len(columns)
    for row in chain([titles], rows):
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
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    empty = {column for column in sparing if all(row.get(column) is None for row in rows)}
    columns = [column for column in columns if column not in empty]
    cells = {column: [_cell(row.get(column)) for row in rows] for column in columns}
    titles = {column: column.replace("_", " ") for column in columns}
    widths = {column: max(map(cell_len, (titles[column], *cells[column]))) for column in columns}
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _ENDLESS, highlight=False)
    shown = fitting(widths, console.width)
    table = Table(box=SIMPLE, pad_edge=False)
    for column in shown:
        numeric = all(row.get(column) is None or isinstance(row[column], int | float) for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        folds = terminal and widths[column] > FOLD_WIDTH
        table.add_column(titles[column], justify=justify, overflow="fold", no_wrap=not folds)
    for values in zip(*(cells[column] for column in shown), strict=True):
        table.add_row(*map(Text, values))
    console.print(table)
    if len(shown) < len(columns):
        names = ", ".join(titles[column] for column in columns if column not in shown)
        typer.echo(f"no room for {names}: --output jsonl has all, a wider terminal more", err=True)
    return len(rows)


def fitting(widths: Mapping[str, int], room: int) -> list[str]:
    """The columns of a table that a line of so many characters has room for, at least one; in their order.

    What folds is kept before the others: it says what they are about. Then from the left each that fits, and what is
    secondary at last.
    """
    needed = {name: width if width <= FOLD_WIDTH else FOLDED_WIDTH_MIN for name, width in widths.items()}
    by_rank = sorted(widths, key=lambda name: (name in _SECONDARY, widths[name] <= FOLD_WIDTH))
    shown: set[str] = set()
    left = room - _EDGES_WIDTH + _GAP_WIDTH
    for name in by_rank:
        if not shown or needed[name] + _GAP_WIDTH <= left:
            left -= needed[name] + _GAP_WIDTH
            shown.add(name)
    return [name for name in widths if name in shown]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = printable(str(_plain(value)))
    return f"{text[:_HASH_DIGITS]}..." if _HASH.fullmatch(text) else text
