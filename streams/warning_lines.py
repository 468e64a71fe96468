"""Which events beyond the threshold get a line in a worker's log: of every source in time, of none often, all counted.

Problem: a source a day ahead warns with each event, a hundred times a second, and beside it one that is 7 s slow every
ten seconds. A limit on lines alone is used up by the first. So each source has its own, and a count of what was left
out of it; and a limit above keeps a thousand wrong clocks from flooding the log.

GUARANTEE a line of a source in LINE_EVERY_NS at most, and LINES_PER_SECOND lines in a second of all.
GUARANTEE each event that was given is counted once: it has a line, or waits for it, or is in the count of its source,
said in the next line of that, or in the count of the others, said in the next line of its lane. The others are sources
of which no line is remembered.
GUARANTEE while no more than SOURCES_MAX sources of a lane come, a line waits until each other source had one at most:
with one lane SOURCES_MAX / LINES_PER_SECOND, 102 s. Lanes take turns, so none hides another either. HAZARD with more
sources these take turns, too, and which of their events finds room is chance: one that seldom sends may wait for long.

How: a table for each lane of the sources whose lines are remembered, in order of their keys. One that has had no line
for long enough is chosen with its next event: CHOSEN_MAX of a batch, new ones first, from where the last batch ended.
It waits in the queue of its lane. A new one takes the place of the least recently written or counted, never of one that
waits, or may not have a line yet.

Not for two threads at once. Times are monotonic nanoseconds.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.instants import INT64_MAX, NS_PER_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Between two lines of a source.
LINE_EVERY_NS: Final = 10 * NS_PER_S
#: Of all lanes together: some 400 MB of log in a day at worst.
LINES_PER_SECOND: Final = 10
#: Of a lane: sources whose lines are remembered.
SOURCES_MAX: Final = 1_024
#: Lines that one batch begins. Each is made of Python objects, some 10 us.
CHOSEN_MAX: Final = 16
#: A key is the partition and below it the source's number there.
_NUMBER_BITS: Final = 50

# Rows of the table.
_KEY: Final = 0
#: Events left out since the last line was chosen.
_LEFT: Final = 1
#: When the last line was written; not yet where the first one waits.
_LINE_NS: Final = 2
#: When it was counted or written last.
_SEEN_NS: Final = 3
#: 1 while a line waits.
_WAITS: Final = 4
_ROWS: Final = 5
#: The last column: behind every key and never free, so that a search always ends within the table.
_END: Final = (INT64_MAX, 0, 0, 0, 1)


def keys_of(partition: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of sources of a partition, by the numbers that judge gave them there."""
    return numbers + (partition << _NUMBER_BITS)


class Chosen(NamedTuple):
    """A line that waits. place: of its source among those given; left_out: events of it since its line before."""

    key: int
    place: int
    left_out: int


class Line(NamedTuple):
    """A line to write now. left_out: events of its source since its line before; others: of others of its lane."""

    key: int
    left_out: int
    others: int


class WarningLines:
    """All lanes of a worker."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        #: In order of their turns.
        self._turns: deque[_Lane] = deque()
        self._second = -1
        self._written = 0

    def choose(self, lane: int, keys: NDArray[np.int64], counts: NDArray[np.int64], now_ns: int) -> list[Chosen]:
        """Count a lane's batch and choose whose first event gets a line, which waits from here on.

        keys: int64[n] of its sources, ascending, each once; counts: int64[n], their events, at least one each.
        """
        if lane not in self._lanes:
            self._lanes[lane] = _Lane()
            self._turns.append(self._lanes[lane])
        return self._lanes[lane].choose(keys, counts, now_ns)

    def due(self, now_ns: int) -> list[Line]:
        """The lines that are to be written now; they wait no longer."""
        if now_ns // NS_PER_S != self._second:
            self._second, self._written = now_ns // NS_PER_S, 0
        lines: list[Line] = []
        silent = 0
        while self._written < LINES_PER_SECOND and silent < len(self._turns):
            self._turns.rotate(-1)
            line = self._turns[-1].next_line(now_ns)
            silent = silent + 1 if line is None else 0
            if line is not None:
                lines.append(line)
                self._written += 1
        return lines


class _Lane:
    """The table, and the lines that wait: SOURCES_MAX at most, for of a source one does."""

    def __init__(self) -> None:
        self._table = np.array(_END, np.int64).reshape(_ROWS, 1)
        self._waiting: deque[Chosen] = deque()
        self._others = 0
        #: The new source chosen last.
        self._last = -1

    def choose(self, keys: NDArray[np.int64], counts: NDArray[np.int64], now_ns: int) -> list[Chosen]:
        """See `WarningLines.choose`."""
        at, known = self._find(keys)
        held = at[known]
        self._table[_LEFT, held] += counts[known]
        self._table[_SEEN_NS, held] = now_ns
        chosen: list[Chosen] = []
        if held.size < keys.size:
            new = np.flatnonzero(~known)
            self._others += int(counts[new].sum())
            chosen = self._admit(keys, counts, new, now_ns)
            at, known = self._find(keys)
        due = np.flatnonzero(known & self._may_have_line(now_ns)[at])
        by_age = np.argsort(self._table[_LINE_NS, at[due]], kind="stable")
        for place in due[by_age[: CHOSEN_MAX - len(chosen)]].tolist():
            column, count = at[place], int(counts[place])
            chosen.append(Chosen(int(keys[place]), place, int(self._table[_LEFT, column]) - count))
            self._table[_LEFT, column], self._table[_WAITS, column] = count - 1, 1
        self._waiting += chosen
        return chosen

    def next_line(self, now_ns: int) -> Line | None:
        """The one that waits for longest, as written now."""
        if not self._waiting:
            return None
        key, _, left_out = self._waiting.popleft()
        column = np.searchsorted(self._table[_KEY], key)
        self._table[_LINE_NS, column] = self._table[_SEEN_NS, column] = now_ns
        self._table[_WAITS, column] = 0
        others, self._others = self._others, 0
        return Line(key, left_out, others)

    def _find(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Columns of the table, and whether they are of these keys."""
        at = np.searchsorted(self._table[_KEY], keys)
        return at, self._table[_KEY, at] == keys

    def _may_have_line(self, now_ns: int) -> NDArray[np.bool_]:
        since_ns = np.where(self._table[_WAITS] == 0, self._table[_LINE_NS], INT64_MAX)
        return since_ns <= now_ns - LINE_EVERY_NS

    def _admit(
        self, keys: NDArray[np.int64], counts: NDArray[np.int64], new: NDArray[np.intp], now_ns: int
    ) -> list[Chosen]:
        """Take new sources into the table, as many as there is room for."""
        table = self._table
        room = SOURCES_MAX + 1 - table.shape[1]
        free = np.flatnonzero(self._may_have_line(now_ns))
        begin = np.searchsorted(keys[new], self._last, side="right")
        places = np.concatenate((new[begin:], new[:begin]))[: min(CHOSEN_MAX, room + free.size)]
        if not places.size:
            return []
        self._last = int(keys[places[-1]])
        oldest = np.lexsort((table[_LINE_NS, free], table[_SEEN_NS, free]))
        leaving = free[oldest[: max(0, places.size - room)]]
        self._others += int(table[_LEFT, leaving].sum()) - int(counts[places].sum())
        added = np.zeros((_ROWS, places.size), np.int64)
        added[_KEY], added[_LEFT], added[_SEEN_NS], added[_WAITS] = keys[places], counts[places] - 1, now_ns, 1
        table = np.concatenate((np.delete(table, leaving, axis=1), added), axis=1)
        self._table = np.take(table, np.argsort(table[_KEY]), axis=1)
        return [Chosen(key, place, 0) for key, place in zip(keys[places].tolist(), places.tolist(), strict=True)]
