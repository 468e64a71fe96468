"""The right answers, from numpy and whole numbers: one pass over the rows for all aggregates, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.store.questions import MINUTE_US, Asked, Groups, Kind, RowsOut
from benchmarks.store.rows import SOURCES, UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.store.questions import Answer
    from benchmarks.store.rows import Piece, Rows

#: A value in steps has up to 53 bits: summed in halves, of which 64 bits hold as many as there ever are.
_HALF_BITS: Final = 26
_NONE: Final = np.zeros(0, np.int64)


@dataclass(slots=True)
class _Sum:
    """Values in steps, exactly."""

    count: int = 0
    total: int = 0
    least: int = 2**63
    greatest: int = -1

    def add(self, count: int, total: int, least: int, greatest: int) -> None:
        self.count += count
        self.total += total
        self.least, self.greatest = min(self.least, least), max(self.greatest, greatest)


class Oracle:
    """Of some rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def aggregates(self, asked: Sequence[Asked]) -> list[Groups]:
        """The answers to questions none of which is for rows."""
        windows: dict[int, _Sum] = {}
        sums = [_Sum() for _ in asked]
        windowed = any(question.kind is Kind.TUMBLING for question in asked)
        for piece in self._rows.pieces():
            by_source = _by_source(piece)
            if windowed:
                _add_windows(windows, piece)
            for question, found in zip(asked, sums, strict=True):
                if question.kind is not Kind.TUMBLING:
                    _add(found, question, piece, by_source)
        tumbling = _groups(windows) if windowed else None
        return [
            tumbling if question.kind is Kind.TUMBLING and tumbling is not None else _groups({0: found})
            for question, found in zip(asked, sums, strict=True)
        ]

    def rows_out(self, asked: Asked) -> RowsOut:
        """The answer to one that is."""
        piece = self._rows.between(asked.first, asked.first + asked.rows)
        if asked.kind is Kind.POINTS:
            return RowsOut(piece.sequence, piece.authority_ms, _NONE, _NONE, piece.value)
        return RowsOut(piece.sequence, piece.authority_ms, piece.local_us, piece.source, piece.value)

    def answer(self, asked: Asked) -> Answer:
        """To any question, by itself."""
        return self.rows_out(asked) if asked.rows else self.aggregates([asked])[0]


def _add(found: _Sum, asked: Asked, piece: Piece, by_source: list[NDArray[np.int64]]) -> None:
    """What of a piece is in the range."""
    if asked.source is None:
        start, stop = np.searchsorted(piece.local_us, [asked.from_us, asked.to_us])
        units = piece.units[start:stop]
    else:
        rows = by_source[asked.source]
        start, stop = np.searchsorted(piece.local_us[rows], [asked.from_us, asked.to_us])
        units = piece.units[rows[start:stop]]
    if units.size:
        found.add(units.size, _total(units), int(units.min()), int(units.max()))


def _add_windows(windows: dict[int, _Sum], piece: Piece) -> None:
    minutes = piece.local_us // MINUTE_US
    starts = np.flatnonzero(np.diff(minutes, prepend=-1))
    stops = [*starts[1:].tolist(), minutes.size]
    for start, stop in zip(starts.tolist(), stops, strict=True):
        units = piece.units[start:stop]
        found = windows.setdefault(int(minutes[start]) * MINUTE_US, _Sum())
        found.add(units.size, _total(units), int(units.min()), int(units.max()))


def _by_source(piece: Piece) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(piece.source == source) for source in range(SOURCES)]


def _total(units: NDArray[np.int64]) -> int:
    return (int((units >> _HALF_BITS).sum()) << _HALF_BITS) + int((units & ((1 << _HALF_BITS) - 1)).sum())


def _groups(found: dict[int, _Sum]) -> Groups:
    """Python divides whole numbers as if it had all bits of the quotient, and rounds once."""
    lines = sorted(found.items())
    return Groups(
        np.array([start for start, _ in lines], np.int64),
        np.array([each.count for _, each in lines], np.int64),
        np.array([each.total / UNITS for _, each in lines]),
        np.array([each.least / UNITS for _, each in lines]),
        np.array([each.greatest / UNITS for _, each in lines]),
        np.array([each.total / (UNITS * max(each.count, 1)) for _, each in lines]),
    )
