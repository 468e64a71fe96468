"""Questions to the hot tier, compiled: which chunks matter, by the lines of their headers.

Problem: a question may be about thousands of chunks, and most of them are answered for, or left out, by their headers
alone. So those are laid out as columns (`Lines`), and one pass decides what is to be read of each chunk. What kernels
take of a question, of lines and of rows is defined here too; `sum_kernel` adds up what was chosen, `row_kernel` picks
rows.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.faults import Fault
from schemas.instants import INT64_MIN
from schemas.memory import kernel
from streams.judge_kernel import Flag

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Decision(enum.IntEnum):
    """What answers for a chunk."""

    #: Nothing in it is asked for.
    SKIP = 0
    #: The lines of its header.
    STATISTICS = 1
    #: Lines, and rows for the minutes that the range cuts.
    EDGES = 2
    ROWS = 3


class Limits(NamedTuple):
    """The range asked for, in the unit of its frame, in minutes and in sequences; all inclusive.

    low, high: times; touched: minutes of which some instant is in the range; inside: minutes that lie in it as a whole.
    by_lines: whether lines can answer at all; by_exact_lines: whether they must be exact.
    """

    low: int
    high: int
    touched_first: int
    touched_last: int
    inside_first: int
    inside_last: int
    first_sequence: int
    last_sequence: int
    by_lines: bool
    by_exact_lines: bool


class Wanted(NamedTuple):
    """Filters by name. sources: codes, ascending; kinds: 1 at the codes that are wanted. Used where filter_ says so."""

    filter_sources: bool
    sources: NDArray[np.int32]
    filter_kinds: bool
    kinds: NDArray[np.uint8]


class Lines(NamedTuple):
    """Lines of Stats of consecutive chunks of a partition, names as codes of a catalog.

    Lines start[c] to start[c + 1] - 1 are chunk c's, ascending by source. After the last chunk's comes a line for each
    chunk as a whole, without names and of its least minute, exact if it is the sum of exact lines and holds it.
    In the frame of `minute`: time_low and time_high bound the times of each chunk's rows, low and high are the least
    and the greatest minute of its lines (low > high without lines). sum: the bits of the doubles.
    """

    first_sequence: NDArray[np.int64]
    last_sequence: NDArray[np.int64]
    time_low: NDArray[np.int64]
    time_high: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    inexact: NDArray[np.uint8]
    start: NDArray[np.int64]
    source: NDArray[np.int32]
    kind: NDArray[np.int32]
    minute: NDArray[np.int64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    values: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    sum: NDArray[np.int64]
    exact: NDArray[np.uint8]


class RowsIn(NamedTuple):
    """Columns of one chunk's rows; a column that is not needed has no elements.

    source_of, kind_of: codes of a catalog by the chunk's codes, -1 where not wanted.
    """

    time: NDArray[np.int64]
    value: NDArray[np.float64]
    bits: NDArray[np.int64]
    flags: NDArray[np.uint8]
    fault: NDArray[np.uint8]
    source: NDArray[np.int32]
    source_of: NDArray[np.int32]
    kind: NDArray[np.int32]
    kind_of: NDArray[np.int32]


class Span(NamedTuple):
    """Rows first to last - 1, with times from low to high but not from skip_low to skip_high, all inclusive."""

    first: int
    last: int
    low: int
    high: int
    skip_low: int
    skip_high: int


#: What the fault of a readable row is, and the flags of rows that are not counted.
NO_FAULT: Final = int(Fault.NONE)
UNCOUNTED: Final = int(Flag.DUPLICATE | Flag.CONFLICT)
_SKIP, _STATISTICS, _EDGES, _ROWS = (int(decision) for decision in Decision)


@kernel
def below(codes: NDArray[np.int32], start: int, stop: int, code: int) -> int:
    """The first place from start to stop whose code is not below."""
    while start < stop:
        middle = (start + stop) >> 1
        if codes[middle] < code:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def minutes_inside(lines: Lines, limits: Limits, chunk: int) -> tuple[int, int]:
    """The first and last minute whose lines of this chunk lie in the range: all, where all its rows do."""
    if lines.time_low[chunk] >= limits.low and lines.time_high[chunk] <= limits.high:
        return lines.low[chunk], lines.high[chunk]
    return limits.inside_first, limits.inside_last


@kernel
def decide(lines: Lines, limits: Limits, wanted: Wanted, decisions: NDArray[np.uint8]) -> None:
    """decisions[c] = the Decision for each chunk, for questions over counted rows."""
    for c in range(decisions.size):
        decisions[c] = _SKIP
        if lines.last_sequence[c] < limits.first_sequence or lines.first_sequence[c] > limits.last_sequence:
            continue
        if lines.time_high[c] < limits.low or lines.time_low[c] > limits.high or lines.low[c] > lines.high[c]:
            continue
        inside_first, inside_last = minutes_inside(lines, limits, c)
        edge = inside = inexact = False
        if (
            not wanted.filter_sources
            and not wanted.filter_kinds
            and lines.low[c] >= inside_first
            and lines.high[c] <= inside_last
        ):
            inside = True
            inexact = lines.inexact[c] != 0
        else:
            for run in range(wanted.sources.size if wanted.filter_sources else 1):
                start, stop = lines.start[c], lines.start[c + 1]
                if wanted.filter_sources:
                    start = below(lines.source, start, stop, wanted.sources[run])
                    stop = below(lines.source, start, stop, wanted.sources[run] + 1)
                for i in range(start, stop):
                    if wanted.filter_kinds and wanted.kinds[lines.kind[i]] == 0:
                        continue
                    minute = lines.minute[i]
                    if inside_first <= minute <= inside_last:
                        inside = True
                        inexact |= lines.exact[i] == 0
                    elif limits.touched_first <= minute <= limits.touched_last:
                        edge = True
        if not inside and not edge:
            continue
        whole = lines.first_sequence[c] >= limits.first_sequence and lines.last_sequence[c] <= limits.last_sequence
        if not limits.by_lines or not whole or not inside or (inexact and limits.by_exact_lines):
            decisions[c] = _ROWS
        else:
            decisions[c] = _EDGES if edge else _STATISTICS


@kernel
def holding(
    start: NDArray[np.int64], codes: NDArray[np.int32], wanted: NDArray[np.uint8], held: NDArray[np.uint8]
) -> None:
    """held[c] = 0 where none of a chunk's names, codes start[c] to start[c + 1] - 1, is wanted."""
    for c in range(held.size):
        found = 0
        for i in range(start[c], start[c + 1]):
            found |= wanted[codes[i]]
        if found == 0:
            held[c] = 0


@kernel
def latest_minute(lines: Lines, source: int, most: int) -> int:
    """The greatest minute up to `most` in which the source has lines; INT64_MIN for none."""
    latest = INT64_MIN
    for c in range(lines.low.size):
        if lines.low[c] > most or lines.high[c] <= latest:
            continue
        start = below(lines.source, lines.start[c], lines.start[c + 1], source)
        stop = below(lines.source, start, lines.start[c + 1], source + 1)
        for i in range(start, stop):
            if latest < lines.minute[i] <= most:
                latest = lines.minute[i]
    return latest


@kernel
def chunks_with(lines: Lines, source: int, minute: int, found: NDArray[np.uint8]) -> None:
    """found[c] = whether the source has a line of that minute in the chunk."""
    for c in range(found.size):
        found[c] = 0
        if lines.low[c] > minute or lines.high[c] < minute:
            continue
        start = below(lines.source, lines.start[c], lines.start[c + 1], source)
        stop = below(lines.source, start, lines.start[c + 1], source + 1)
        for i in range(start, stop):
            if lines.minute[i] == minute:
                found[c] = 1


def bits_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The same doubles as the integers their bits are."""
    return np.ascontiguousarray(values).view(np.int64)
