"""The sources of several partitions as a page lists them: sorted, searched, chosen and cut, on this side of the wire.

Problem: ten thousand sources change twice a second, and a browser shows forty. So the list is sorted and searched here,
over columns, and only the rows that are shown become objects.

GUARANTEE the order is total: of equals the one with the smaller partition, then the smaller number, comes first. What
is not known comes last, whichever way is sorted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from schemas.instants import MS_PER_S, US_PER_MS
from streams.board_kernel import (
    B_ALERT,
    B_CAUSE,
    B_ESTIMATE,
    B_GOOD_MS,
    B_LAST_CAUSE,
    B_LAST_DELTA_MS,
    B_LAST_MS,
    B_LAST_SEVERITY,
    B_LATE,
    B_NUMBER,
    B_SEQUENCE,
    B_STATE,
    BOARD_COLUMNS,
)
from streams.causes import Cause
from streams.clock_columns import SKEW_MAX_PPB
from streams.estimate import Estimate, Method
from streams.live_view import View
from streams.severity import Severity
from streams.source_clock import PPB_PER_PPM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from streams.boards import Board

#: Rows of a page: more than a screen of 4K shows.
ROWS_MAX: Final = 200
_METHOD, _OFFSET, _BOUND, _SKEW, _SKEW_ERROR, _SAMPLES = (
    B_ESTIMATE + Estimate._fields.index(field)
    for field in ("method", "offset_us", "bound_us", "skew_ppb", "skew_error_ppb", "samples")
)
_ESTIMATED: Final = B_ESTIMATE + Estimate._fields.index("severity")
_DISTURBANCES: Final = B_ESTIMATE + Estimate._fields.index("disturbances")
_COHERENT: Final = B_ESTIMATE + Estimate._fields.index("coherent_s")
_UNSEEN: Final = -1


class Sort(enum.StrEnum):
    """By what. STATE: severity of the worse open alert, then the size of the offset; DELTA: of the last event."""

    STATE = "state"
    SOURCE = "source"
    CAUSE = "cause"
    OFFSET = "offset"
    BOUND = "bound"
    SKEW = "skew"
    SAMPLES = "samples"
    DELTA = "delta"
    LAST = "last"
    SEQUENCE = "sequence"
    PARTITION = "partition"


@dataclass(frozen=True, slots=True)
class FleetQuestion:
    """Which sources, in which order, and how many of them from which on. Empty sets choose all.

    search: found in a name, whatever the capitals.
    """

    sort: Sort = Sort.STATE
    descending: bool = True
    search: str = ""
    severities: frozenset[Severity] = frozenset()
    causes: frozenset[Cause] = frozenset()
    partitions: frozenset[int] = frozenset()
    offset: int = 0
    limit: int = 100


class Fleet:
    """The boards of several partitions as one table."""

    def __init__(self, boards: Sequence[Board]) -> None:
        self.boards = sorted(boards, key=lambda board: board.partition)
        parts = [board.rows for board in self.boards]
        self._rows: NDArray[np.int64] = np.concatenate([np.zeros((0, BOARD_COLUMNS), np.int64), *parts])
        self._firsts = np.cumsum([0, *map(len, parts)])
        self._part = np.repeat(np.arange(len(parts)), [len(part) for part in parts])

    @property
    def at_ms(self) -> int | None:
        """The newest authority time of a board, None without any."""
        return max((board.at_ms for board in self.boards), default=None)

    def counts(self) -> dict[str, Any]:
        """How many sources there are, with which severity of an open alert, and with which cause."""
        states = np.bincount(self._rows[:, B_STATE], minlength=len(Severity)).tolist()
        causes = np.bincount(self._rows[:, B_CAUSE], minlength=len(Cause)).tolist()
        return {
            "sources": len(self._rows),
            "severities": {severity.name: states[severity] for severity in Severity},
            "causes": {cause.name: causes[cause] for cause in Cause if cause is not Cause.NONE},
        }

    def select(self, asked: FleetQuestion) -> NDArray[np.int64]:
        """The places of all sources that are asked for, in order; offset and limit are not looked at."""
        wanted = np.ones(len(self._rows), bool)
        if asked.severities:
            wanted &= np.isin(self._rows[:, B_STATE], [int(severity) for severity in asked.severities])
        if asked.causes:
            wanted &= np.isin(self._rows[:, B_CAUSE], [int(cause) for cause in asked.causes])
        if asked.partitions:
            numbers = np.array([board.partition for board in self.boards], np.int64)
            wanted &= np.isin(numbers[self._part], list(asked.partitions))
        if asked.search:
            wanted &= self._named(asked.search.casefold())
        places = np.flatnonzero(wanted)
        return places[self._order(places, asked)]

    def rows(self, places: NDArray[np.int64]) -> list[dict[str, Any]]:
        """For a page: what is not known is None."""
        return [self._row(place) for place in places.tolist()]

    def view(self, asked: FleetQuestion) -> View:
        """What a page shows; its facts say how many were found, and how many there are of each sort."""
        found = self.select(asked)
        shown = self.rows(found[asked.offset : asked.offset + min(asked.limit, ROWS_MAX)])
        rows = {f"{row['partition']}:{row['number']}": row for row in shown}
        return View({"found": len(found), "offset": asked.offset, **self.counts()}, tuple(rows), rows)

    def _named(self, search: str) -> NDArray[np.bool_]:
        parts = [[search in name for name in board.names.folded] for board in self.boards]
        return np.array([found for part in parts for found in part], bool)

    def _order(self, places: NDArray[np.int64], asked: FleetQuestion) -> NDArray[np.intp]:
        rows = self._rows[places]
        number = rows[:, B_NUMBER]
        part = self._part[places]
        keys, unknown = self._keys(rows, places, asked.sort)
        turned = [np.where(unknown, 0, -key if asked.descending else key) for key in keys]
        order: NDArray[np.intp] = np.lexsort((number, part, *reversed(turned), unknown))
        return order

    def _keys(
        self, rows: NDArray[np.int64], places: NDArray[np.int64], sort: Sort
    ) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
        """What is sorted by, the first key first, and of which rows that is not known."""
        if sort in _COLUMNS:
            column, unknown = _COLUMNS[sort]
            return [np.abs(rows[:, column])], unknown(rows)
        match sort:
            case Sort.SOURCE:
                keys = [self._ranks(places)]
            case Sort.PARTITION:
                keys = [self._part[places].astype(np.int64)]
            case _:
                offset = np.where(_not_estimated(rows), 0, np.abs(rows[:, _OFFSET]))
                keys = [rows[:, B_CAUSE if sort is Sort.CAUSE else B_STATE], offset]
        return keys, rows[:, B_CAUSE] == Cause.NONE if sort is Sort.CAUSE else _known(rows)

    def _ranks(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of names, by their code points."""
        texts = [self._name(place) for place in places.tolist()]
        ranks = np.empty(len(texts), np.int64)
        ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        return ranks

    def _name(self, place: int) -> str:
        part = int(self._part[place])
        return self.boards[part].names.texts[place - int(self._firsts[part])]

    def _row(self, place: int) -> dict[str, Any]:
        board, columns = self.boards[int(self._part[place])], self._rows[place].tolist()
        known, seen = columns[_METHOD] != Method.NONE, columns[B_LAST_SEVERITY] != _UNSEEN
        rated = known and columns[_SKEW_ERROR] < SKEW_MAX_PPB
        cause, last_cause = Cause(columns[B_CAUSE]), Cause(columns[B_LAST_CAUSE])
        return {
            "source": self._name(place),
            "partition": board.partition,
            "number": columns[B_NUMBER],
            "sequence": columns[B_SEQUENCE],
            "state": Severity(columns[B_STATE]).name,
            "alert": Severity(columns[B_ALERT]).name,
            "late": Severity(columns[B_LATE]).name,
            "cause": None if cause is Cause.NONE else cause.name,
            "offset_ms": columns[_OFFSET] / US_PER_MS if known else None,
            "bound_ms": columns[_BOUND] / US_PER_MS if known else None,
            "skew_ppm": columns[_SKEW] / PPB_PER_PPM if rated else None,
            "skew_error_ppm": columns[_SKEW_ERROR] / PPB_PER_PPM if rated else None,
            "estimate": Severity(columns[_ESTIMATED]).name if known else None,
            "method": Method(columns[_METHOD]).name,
            "samples": columns[_SAMPLES],
            "silent_s": max(0, board.at_ms - columns[B_GOOD_MS]) // MS_PER_S if columns[_SAMPLES] else None,
            "coherent_s": columns[_COHERENT] if known else None,
            "disturbances": columns[_DISTURBANCES],
            "last_ms": columns[B_LAST_MS] if seen else None,
            "delta_ms": columns[B_LAST_DELTA_MS] if seen else None,
            "severity": Severity(columns[B_LAST_SEVERITY]).name if seen else None,
            "last_cause": last_cause.name if last_cause is not Cause.NONE else None,
        }


def _known(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.zeros(len(rows), bool)


def _not_estimated(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.equal(rows[:, _METHOD], Method.NONE)


def _not_rated(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return _not_estimated(rows) | (rows[:, _SKEW_ERROR] >= SKEW_MAX_PPB)


def _not_seen(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.equal(rows[:, B_LAST_SEVERITY], _UNSEEN)


#: What is sorted by the size of one column: which, and of which rows it is not known.
_COLUMNS: Final[Mapping[Sort, tuple[int, Callable[[NDArray[np.int64]], NDArray[np.bool_]]]]] = {
    Sort.OFFSET: (_OFFSET, _not_estimated),
    Sort.BOUND: (_BOUND, _not_estimated),
    Sort.SKEW: (_SKEW, _not_rated),
    Sort.SAMPLES: (_SAMPLES, _known),
    Sort.DELTA: (B_LAST_DELTA_MS, _not_seen),
    Sort.LAST: (B_LAST_MS, _not_seen),
    Sort.SEQUENCE: (B_SEQUENCE, _known),
}
