"""What every store is asked, and when two answers are the same.

An aggregate is a count, a sum, the least, the greatest and the mean; of windows one line for each that has rows. Rows
come out in the order of their times, as columns.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.store.rows import NAMES, SOURCES, SPACING_US, START_US, row_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

MINUTE_US: Final = 60_000_000
_MOST: Final = 0.8
#: Of one source in fifty: a hundredth of the rows.
_HALF: Final = 0.5
_OUT: Final = 100_000
_POINTS: Final = 1_000_000
_SEED: Final = 7
_US_PER_MS: Final = 1_000
#: Of rounding alone, when a mean is divided from the true sum that was rounded once.
_ULPS: Final = 5e-16


class Kind(enum.StrEnum):
    """The questions by name."""

    MOST = "most"
    TUMBLING = "tumbling"
    ONE_SOURCE = "one source"
    ROWS_OUT = "rows out"
    POINTS = "points"


class Asked(NamedTuple):
    """One question. Times are local, from_us <= time < to_us, of whole milliseconds; source: a place in NAMES.

    rows: how many come out, 0 for an aggregate. first: the number of the first of them.
    """

    kind: Kind
    from_us: int
    to_us: int
    source: int | None = None
    rows: int = 0
    first: int = 0


class Groups(NamedTuple):
    """An aggregate: a line for each window, ascending by start; one that starts at 0 where there are none."""

    start_us: NDArray[np.int64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    sum: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    mean: NDArray[np.float64]


class RowsOut(NamedTuple):
    """Rows, ascending by time; points have no local_us and no source (none of them)."""

    sequence: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    local_us: NDArray[np.int64]
    source: NDArray[np.int64]
    value: NDArray[np.float64]


Answer = Groups | RowsOut


class Tolerance(NamedTuple):
    """What an answer may be off.

    sums: of sums and means, as a part of each; values: of single values, as a part of the greatest; local_us: of local
    times.
    """

    sums: float = 0.0
    values: float = 0.0
    local_us: int = 0


def label(kind: Kind, count: int) -> str:
    """For people, of a store of so many rows."""
    return {
        Kind.MOST: "aggregate of 80 %",
        Kind.TUMBLING: "1 minute over all",
        Kind.ONE_SOURCE: "one source, 1 %",
        Kind.ROWS_OUT: f"{rows_of(kind, count):,} rows out",
        Kind.POINTS: f"{rows_of(kind, count):,} points",
    }[kind]


def rows_of(kind: Kind, count: int) -> int:
    """How many rows come out: fewer where there are few."""
    return min({Kind.ROWS_OUT: _OUT, Kind.POINTS: _POINTS}.get(kind, 0), count // 2)


def drawn(kind: Kind, count: int, rounds: int) -> list[Asked]:
    """Questions of a kind to so many rows, each with other borders, the same ones each time."""
    random = np.random.default_rng([_SEED, tuple(Kind).index(kind)])
    return [_drawn(kind, count, random) for _ in range(rounds)]


def _drawn(kind: Kind, count: int, random: np.random.Generator) -> Asked:
    if kind is Kind.TUMBLING:
        return Asked(kind, START_US, row_at(count))
    if kind in (Kind.ROWS_OUT, Kind.POINTS):
        rows = rows_of(kind, count)
        first = int(random.integers(0, count - rows + 1))
        return Asked(kind, row_at(first), row_at(first + rows), None, rows, first)
    share = _MOST if kind is Kind.MOST else _HALF
    span_ms = count * SPACING_US // _US_PER_MS
    length_ms = int(span_ms * share)
    from_us = START_US + int(random.integers(0, span_ms - length_ms)) * _US_PER_MS
    source = int(random.integers(0, SOURCES)) if kind is Kind.ONE_SOURCE else None
    return Asked(kind, from_us, from_us + length_ms * _US_PER_MS, source)


def source_codes(names: list[str]) -> NDArray[np.int64]:
    """Places in NAMES; -1 for what is none of them."""
    places = {name.decode(): place for place, name in enumerate(NAMES)}
    return np.array([places.get(name, -1) for name in names], np.int64)


def difference(expected: Answer, found: Answer, allowed: Tolerance) -> str:
    """In which column an answer is not the one that is expected, and how; empty where it is."""
    for name, right, said in zip(expected._fields, expected, found, strict=True):
        if right.shape != said.shape:
            return f"{name} has {said.size:,} lines instead of {right.size:,}"
        if name in ("sum", "mean"):
            off = np.abs(said - right) > np.maximum(allowed.sums, _ULPS if name == "mean" else 0.0) * np.abs(right)
        elif name == "local_us":
            off = np.abs(said - right) > allowed.local_us
        elif right.dtype == np.float64:
            off = np.abs(said - right) > allowed.values * np.abs(right).max()
        else:
            off = said != right
        off |= said != said  # noqa: PLR0124 - what is no number is off
        if off.any():
            line = int(np.argmax(off))
            return f"{name} of line {line} is {said[line].item()!r} instead of {right[line].item()!r}"
    return ""
