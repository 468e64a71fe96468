"""Questions to the hot tier, and what of the store answers them.

Problem: the header of a chunk sums up its counted rows by source, kind and minute, so most of a question needs no
rows; but a range cuts minutes, a percentile needs every value, a window may be shorter than a minute. So a question is
turned into limits (`limits_of`), against which each chunk is decided (`query_kernel.decide`):

    SKIP         no line of it is asked for
    STATISTICS   every line that is asked for lies in the range as a whole, or the whole chunk does
    EDGES        those that do are taken; of the minutes that the range cuts the rows are read
    ROWS         lines cannot tell: percentiles, windows that are not whole minutes, a part of a chunk's sequences, or
                 a line whose sum three doubles could not hold

In frame corrected there are no lines: a minute of corrected time has none of its own. Chunks are left out by the least
and the greatest corrected time in their headers, of the others the rows are read.

GUARANTEE the decision changes how an answer is found, not one bit of it.
Ranges of time are half-open, of sequences inclusive. Rows that cannot be read have no local time and no names: they
are in no range of local time and match no name.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.chunks import Column
from lifecycle.query_kernel import Limits, Span
from lifecycle.sum_kernel import Grouping
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS
from streams.windows import (
    DURATION_MAX_US,
    DURATION_MIN_US,
    PERCENTILE_MAX,
    PERCENTILES_MAX,
    WINDOWS_PER_EVENT_MAX,
    By,
    Doubtful,
    Frame,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_US_PER_MINUTE: Final = 60_000_000
#: What may become of a row without an estimate.
UNKNOWN: Final = (Doubtful.AUTHORITY, Doubtful.EXCLUDE)


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows. Raises BadInputError where a range ends before it begins.

    from_us, to_us: times in the frame, the second exclusive; sources, kinds: names, of which one must be the row's;
    partitions: only these; sequences: first and last, inclusive, by partition, of which only these rows. None: all.
    unknown: in frame corrected, what becomes of a row without an estimate: AUTHORITY (dated by the broker) or EXCLUDE
    (it has no time, and is in no aggregate).
    """

    frame: Frame = Frame.LOCAL
    from_us: int | None = None
    to_us: int | None = None
    sources: tuple[bytes, ...] | None = None
    kinds: tuple[bytes, ...] | None = None
    partitions: tuple[int, ...] | None = None
    sequences: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    unknown: Doubtful = Doubtful.AUTHORITY

    def __post_init__(self) -> None:
        if self.unknown not in UNKNOWN:
            raise BadInputError(f"unknown {self.unknown} is one of windows only. Give {' or '.join(UNKNOWN)}")
        if self.unknown is not Doubtful.AUTHORITY and self.frame is not Frame.CORRECTED:
            raise BadInputError(f"unknown {self.unknown} has a meaning in frame corrected alone. Give that frame, too")
        if self.from_us is not None and self.to_us is not None and self.to_us < self.from_us:
            raise BadInputError(f"the range ends at {self.to_us} us, before it begins at {self.from_us} us. Swap them")
        for partition, (first, last) in self.sequences.items():
            if last < first:
                raise BadInputError(
                    f"the sequences of partition {partition} end at {last}, before they begin at {first}. Swap them"
                )

    def span(self, partition: int, first_sequence: int, rows: int) -> tuple[int, int]:
        """Of consecutive rows from a sequence on, the first that is asked for and the one after the last."""
        first, last = self.sequences.get(partition, (first_sequence, INT64_MAX))
        start = min(max(first - first_sequence, 0), rows)
        return start, max(min(last - first_sequence + 1, rows), start)


@dataclass(frozen=True, slots=True)
class Window:
    """Windows [k * slide, k * slide + size) of the question's frame; slide 0: as long as they are, so tumbling.

    Raises BadInputError where there are none such.
    """

    size_us: int
    slide_us: int = 0

    def __post_init__(self) -> None:
        if self.slide_us == 0:
            object.__setattr__(self, "slide_us", self.size_us)
        if self.size_us % US_PER_MS or self.slide_us % US_PER_MS:
            raise BadInputError(f"a window of {self.size_us} us each {self.slide_us} us is not of whole milliseconds")
        if not DURATION_MIN_US <= self.slide_us <= self.size_us <= DURATION_MAX_US:
            raise BadInputError(
                f"a window of {self.size_us} us each {self.slide_us} us cannot be: size and slide are 1 ms to 366 "
                "days, and the slide is not longer than the size"
            )
        if self.size_us > self.slide_us * WINDOWS_PER_EVENT_MAX:
            raise BadInputError(
                f"a window of {self.size_us} us each {self.slide_us} us puts an event in more than "
                f"{WINDOWS_PER_EVENT_MAX} windows. Make the slide longer"
            )

    @property
    def whole_minutes(self) -> bool:
        """Whether windows begin and end with minutes, so that a line belongs to its windows as a whole."""
        return self.size_us % _US_PER_MINUTE == 0 and self.slide_us % _US_PER_MINUTE == 0


class Function(enum.StrEnum):
    """What is computed over the finite values of a group; its count and number of values are always told."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What to compute of the counted rows of a question. Raises BadInputError for percentiles that there are not.

    by, window: a group for each name and window that has rows; without both there is one group, if need be empty.
    percentiles: in thousandths of a percent (p99.9 is 99_900), by nearest rank, at most PERCENTILES_MAX; of groups with
    many values within the error of a sketch, or exact, see `spread`.
    """

    by: By = By.ALL
    window: Window | None = None
    functions: frozenset[Function] = frozenset(Function)
    percentiles: tuple[int, ...] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        if self.exact and not self.percentiles:
            raise BadInputError("exact is of percentiles, and there are none. Ask for some, for example 50,99")
        if len(self.percentiles) > PERCENTILES_MAX:
            raise BadInputError(f"{len(self.percentiles)} percentiles are asked for. List up to {PERCENTILES_MAX}")
        for percentile in self.percentiles:
            if not 0 < percentile <= PERCENTILE_MAX:
                raise BadInputError(
                    f"the percentile {percentile} cannot be: they are thousandths of a percent, 1 to {PERCENTILE_MAX}"
                )

    @property
    def sums(self) -> bool:
        """Whether sums are needed."""
        return bool(self.functions & {Function.SUM, Function.MEAN})


class Field(enum.StrEnum):
    """A column of the rows of an answer, in the order in which they stand."""

    PARTITION = "partition"
    SEQUENCE = "sequence"
    INDEX = "index"
    INPUT_OFFSET = "input_offset"
    AUTHORITY_MS = "authority_ms"
    LOCAL_US = "local_us"
    CORRECTED_US = "corrected_us"
    DELTA_MS = "delta_ms"
    SEVERITY = "severity"
    CAUSE = "cause"
    OFFSET_US = "offset_us"
    BOUND_US = "bound_us"
    FLAGS = "flags"
    FAULT = "fault"
    SOURCE = "source"
    KIND = "kind"
    EVENT_ID = "event_id"
    VALUE = "value"
    PAYLOAD = "payload"
    HLC = "hlc"
    CHAIN_HASH = "chain_hash"


#: What columns of instants are called in answers: as in Event and LedgerEntry.
_IN_ANSWERS: Final = {
    Field.AUTHORITY_MS: "authority_timestamp",
    Field.LOCAL_US: "local_timestamp",
    Field.CORRECTED_US: "corrected_timestamp",
}


def name_in_answers(field: Field) -> str:
    """What the column of a field is called in answers."""
    return _IN_ANSWERS.get(field, field.value)


_BY_NAME: Final = {field.value: field for field in Field} | {name_in_answers(field): field for field in Field}


def field_of(name: str) -> Field:
    """The field of a column, by its name in answers or by the field's own. Raises BadInputError where it is none."""
    found = _BY_NAME.get(name)
    if found is None:
        raise BadInputError(f"{name!r:.40} is none of {', '.join(map(name_in_answers, Field))}. Give one of them")
    return found


class Unit(NamedTuple):
    """In what the times of a frame are counted. of_us: microseconds in one of it; of_minute: of it in a minute.

    column: where they stand; None: in none, they are reckoned.
    """

    column: Column | None
    of_us: int
    of_minute: int


_UNITS: Final = {
    Frame.LOCAL: Unit(Column.LOCAL_US, 1, _US_PER_MINUTE),
    Frame.AUTHORITY: Unit(Column.AUTHORITY_MS, US_PER_MS, _US_PER_MINUTE // US_PER_MS),
    Frame.CORRECTED: Unit(None, 1, _US_PER_MINUTE),
}


def unit_of(frame: Frame) -> Unit:
    """The unit of its column of times."""
    return _UNITS[frame]


def times_of(question: Question) -> tuple[int, int]:
    """The least and the greatest time in the range, in the unit of its frame and cut to 64 bits."""
    unit = unit_of(question.frame).of_us
    low = INT64_MIN if question.from_us is None else -(-question.from_us // unit)
    high = INT64_MAX if question.to_us is None else (question.to_us - 1) // unit
    if max(low, INT64_MIN) > min(high, INT64_MAX):
        return INT64_MAX, INT64_MIN  # no time at all
    return _cut(low), _cut(high)


def limits_of(question: Question, aggregation: Aggregation, partition: int, *, statistics: bool = True) -> Limits:
    """What chunks of a partition are decided against; without statistics no line answers."""
    low, high = times_of(question)
    minute = unit_of(question.frame).of_minute
    first, last = question.sequences.get(partition, (0, INT64_MAX))
    window = aggregation.window
    return Limits(
        low=low,
        high=high,
        touched_first=low // minute,
        touched_last=high // minute,
        inside_first=low // minute if question.from_us is None else -(-low // minute),
        inside_last=high // minute if question.to_us is None else (high + 1) // minute - 1,
        first_sequence=_cut(first),
        last_sequence=_cut(last),
        by_lines=statistics and not aggregation.percentiles and (window is None or window.whole_minutes),
        by_exact_lines=aggregation.sums,
    )


def spans_of(question: Question, limits: Limits, rows: tuple[int, int]) -> tuple[Span, Span]:
    """Where rows answer together with lines, and where they answer alone; `rows` as by Question.span."""
    low, high = times_of(question)
    minute = unit_of(question.frame).of_minute
    alone = Span(*rows, low, high, INT64_MAX, INT64_MIN)
    if limits.inside_first > limits.inside_last:  # no minute; the last instants of 64 bits are in one that never ends
        return alone, alone
    skip_low = _cut(limits.inside_first * minute)
    skip_high = _cut((limits.inside_last + 1) * minute - 1)
    return alone._replace(skip_low=skip_low, skip_high=skip_high), alone


def grouping_of(question: Question, aggregation: Aggregation, *, minutes: bool) -> Grouping:
    """For lines in minutes, for rows in the unit of the frame."""
    by = (By.ALL, By.SOURCE, By.KIND).index(aggregation.by)
    window = aggregation.window
    if window is None:
        return Grouping(by, 0, 0)
    unit = _US_PER_MINUTE if minutes else unit_of(question.frame).of_us
    return Grouping(by, window.size_us // unit, window.slide_us // unit)


@dataclass(slots=True)
class Explain:
    """How an answer was found. chunks_statistics: by lines alone, chunks_edges: by both, chunks_rows: by rows alone.

    chunks_archived: those of the three that the hot store does not hold, so that what is not remembered of them is read
    from archives.
    columns: sections read and decoded, by name; cached: those that were still decoded from an earlier question.
    rows_scanned: rows of chunks that were looked at one by one; rows_unsealed: of no chunk yet, looked at as well.
    rows_left_out: of an aggregate in frame corrected, rows without an estimate that are not in it, as it was asked, and
    whose authority time lies in the range.
    readings: how often the rows were read: twice for exact percentiles of more values than are kept.
    """

    chunks_skipped: int = 0
    chunks_statistics: int = 0
    chunks_edges: int = 0
    chunks_rows: int = 0
    chunks_archived: int = 0
    headers_read: int = 0
    columns: dict[str, int] = field(default_factory=dict)
    cached: int = 0
    bytes_read: int = 0
    rows_scanned: int = 0
    rows_unsealed: int = 0
    rows_left_out: int = 0
    readings: int = 0
    elapsed_us: int = 0


def _cut(number: int) -> int:
    return max(min(number, INT64_MAX), INT64_MIN)
