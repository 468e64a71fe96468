"""From the condition of a query to a question: which sources, times and sequences it can be about at all.

Problem: what a WHERE clause leaves out should not be read. DuckDB hands over the conditions that concern one table as
an expression of Arrow, which may be asked, but not looked into.

How: Arrow tells whether an expression can be true of rows of which something is known, as it does to leave out files
(a fragment of a data set and its `partition_expression`). So it is asked of rows without an instant, of those before
one, of those of one source: an interval is halved until its ends are known, names are tried.

    source = 'pump-7' AND authority_timestamp >= '2026-01-31'      sources ("pump-7",), from_us
    partition = 2 AND sequence BETWEEN 10 AND 20                    partitions (2,), sequences {2: (10, 20)}
    source LIKE 'pump-%', value > 5, a OR b over two columns        nothing: such rows are read, and left out then

GUARANTEE every row for which the expression is true is one that the question asks for: where Arrow does not know, it
may be. The expression is evaluated all the same.
HAZARD a question has one range of times: of several instants the first of AUTHORITY, LOCAL, CORRECTED that is bounded.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from lifecycle.arrow import LOCAL
from lifecycle.planner import Question
from schemas.instants import INT64_MAX, INT64_MIN
from streams.windows import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Columns of instants by frame: of microseconds in UTC.
INSTANTS: Final = {
    Frame.AUTHORITY: "authority_timestamp",
    Frame.LOCAL: "local_timestamp",
    Frame.CORRECTED: "corrected_timestamp",
}
#: Names in an expression that are tried; of more none is left out.
_NAMES_MAX: Final = 64
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_FORMAT: Final = ds.ParquetFileFormat()
_NOWHERE: Final = fs.LocalFileSystem()


class _Interval(NamedTuple):
    """Of integers, both ends included."""

    low: int
    high: int


def question_of(expression: Any, schema: pa.Schema, spans: Mapping[int, tuple[int, int]]) -> Question | None:
    """What an expression over that schema can be about; None: nothing at all. spans: sequences by partition."""
    told = _Told(expression, schema)
    sequences = _sequences(told, spans)
    if not sequences or not told.may(pc.scalar(True)):  # noqa: FBT003 - a value
        return None
    names = {name: _names(told, name) for name in ("source", "kind")}
    if () in names.values():
        return None
    for frame, name in INSTANTS.items():
        interval = _instants(told, name)
        if interval is None:
            return None
        if interval != _ALL:
            from_us = None if interval.low <= -INT64_MAX else interval.low
            to_us = None if interval.high >= INT64_MAX - 1 else interval.high + 1
            return Question(frame, from_us, to_us, names["source"], names["kind"], tuple(sorted(sequences)), sequences)
    return Question(Frame.LOCAL, None, None, names["source"], names["kind"], tuple(sorted(sequences)), sequences)


_ALL: Final = _Interval(INT64_MIN, INT64_MAX)


class _Told:
    """An expression, and whether it can be true."""

    def __init__(self, expression: Any, schema: pa.Schema) -> None:
        self._expression, self._schema = expression, schema
        self.text = str(expression)

    def names(self, column: str) -> bool:
        """Whether it has that column; may say so where it has not."""
        return re.search(rf"\b{re.escape(column)}\b", self.text) is not None

    def may(self, known: Any) -> bool:
        """Of rows of which that is known; True where Arrow cannot tell."""
        fragment = _FORMAT.make_fragment("-", _NOWHERE, partition_expression=known)
        found = ds.FileSystemDataset([fragment], self._schema, _FORMAT, _NOWHERE)
        return next(iter(found.get_fragments(filter=self._expression)), None) is not None


def _sequences(told: _Told, spans: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Which of them it can be about."""
    found = {}
    for partition, span in spans.items():
        here = pc.field("partition") == pa.scalar(partition, pa.int32())
        if told.names("partition") and not told.may(here):
            continue
        interval: _Interval | None = _Interval(*span)
        if told.names("sequence"):
            interval = _bounded(told, _Interval(*span), "sequence", pa.int64(), here)
        if interval is not None:
            found[partition] = interval.low, interval.high
    return found


def _instants(told: _Told, name: str) -> _Interval | None:
    """Between which it can be true, _ALL also where it can be true of rows without one; None: of no row."""
    if not told.names(name) or told.may(pc.field(name).is_null()):
        return _ALL
    return _bounded(told, _ALL, name, LOCAL, pc.scalar(True))  # noqa: FBT003 - a value


def _bounded(told: _Told, within: _Interval, name: str, kind: pa.DataType, known: Any) -> _Interval | None:
    """The least interval that has all for which it can be true of rows of which that is known; None: none."""
    field = pc.field(name)

    def below(number: int) -> bool:
        return told.may(known & (field <= pa.scalar(number, kind)))

    def above(number: int) -> bool:
        return told.may(known & (field >= pa.scalar(number, kind)))

    if not (below(within.high) and above(within.low)):
        return None
    low = _first(below, within)
    high = -_first(lambda number: above(-number), _Interval(-within.high, -within.low))
    return _Interval(low, high) if low <= high else None


def _first(holds: Callable[[int], bool], within: _Interval) -> int:
    """The first number for which it holds, where it holds for all behind that, and for the last."""
    low, high = within
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _names(told: _Told, column: str) -> tuple[bytes, ...] | None:
    """The names that it can be about, None: any.

    Those that are written in it are points, which part all names into intervals: where it can be true in none of these,
    it is about some of the points.
    """
    field = pc.field(column)
    if not told.names(column) or told.may(field.is_null()):
        return None
    points = sorted({_ESCAPED.sub(r"\1", text) for text in _QUOTED.findall(told.text)}, key=str.encode)
    if not points or len(points) > _NAMES_MAX or any(map(told.may, _between(field, points))):
        return None
    return tuple(point.encode() for point in points if told.may(field == pa.scalar(point)))


def _between(field: Any, points: list[str]) -> Iterator[Any]:
    """Before the first, behind the last, and between two."""
    yield field < pa.scalar(points[0])
    yield field > pa.scalar(points[-1])
    for one, other in pairwise(points):
        yield (field > pa.scalar(one)) & (field < pa.scalar(other))
