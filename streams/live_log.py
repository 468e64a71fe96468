"""The drift log as a page shows it, and as a file: the newest entry first, out of pages of the hot tiers.

Problem: a page of a hot tier ends after so many entries, and after so many chunks also where they have little or
nothing of what is asked for: the last entry of a source that is silent may be many pages back. A log is longer than
memory.

How: each partition is read backward, and asked on from where its last page ended. A view gives that VIEW_MS, the
partitions by turns, and says in `stopped` how far it came; a file goes on until the log begins.

GUARANTEE a file has every entry of its partitions up to the one that was the last of each when it was first read, or
it breaks off. GUARANTEE of a file LOG_ROWS_HELD rows are held, however slow its reader is.
HAZARD across partitions a file is in order of (running minimum of authority time from the newest entry back,
partition): behind a clock that stepped back it may mix them differently from a view, which has the order of `order`.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lifecycle.drift_arrow import table_of
from lifecycle.drift_question import DriftQuestion
from lifecycle.rows import rows_in
from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.instants import INT64_MAX, NS_PER_MS
from streams.live_view import View
from streams.order import newest_first

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lifecycle.drift_rows import DriftPage
    from lifecycle.live_questions import LogQuestion
    from lifecycle.owned import OwnedPartitions

    Row = dict[str, Any]

#: After which a view begins no further page: views of other pages wait for it.
VIEW_MS: Final = 500
#: Of all partitions of a file, some 1 KB each. Partitions are 1,024 at most.
LOG_ROWS_HELD: Final = 16_384
#: Rows of a file that are handed on at once.
_ROWS_AT_ONCE: Final = 1_000
_FIELDS: Final = (
    "partition", "index", "sequence", "created_at_ms", "drift_delta_ms", "severity", "cause", "offset_ms", "bound_ms",
    "source", "reading", "anchor_timestamp", "phase_lock_hash",
)  # fmt: skip
#: Pages are made in true time, whatever dates the events.
_system: Final = SystemTime()


@dataclass(slots=True)
class _Reading:
    """A partition, read backward down to the index `before`. rows: behind their place in the order, the newest last."""

    partition: int
    before: int = INT64_MAX
    more: bool = True
    least_ms: int = INT64_MAX
    rows: list[tuple[int, Row]] = field(default_factory=list)

    def take(self, page: DriftPage, rows: Sequence[Row]) -> None:
        """Add the next page, the oldest first."""
        added = []
        for row in reversed(rows):
            self.least_ms = min(self.least_ms, row["created_at_ms"])
            added.append((self.least_ms, row))
        self.rows[:0] = reversed(added)
        self.before, self.more = page.reached, page.more

    def place(self) -> tuple[int, int]:
        """Where its newest row stands: the least comes first."""
        return -self.rows[-1][0], -self.partition


class LiveLog:
    """Of the partitions of a worker. For any thread."""

    def __init__(self, owned: OwnedPartitions) -> None:
        self._owned = owned

    def view(self, asked: LogQuestion) -> View:
        """The newest entries. Its facts: `error`, of partitions that cannot be asked now, and `stopped`.

        stopped: by partition, the index down to which it was read, where there may be older ones that belong here.
        """
        deadline_ns = _system.monotonic_ns() + VIEW_MS * NS_PER_MS
        readings = [_Reading(place.partition) for place in self._owned.progress()]
        missing = []
        waiting = deque(readings)
        while waiting and (waiting[0].before == INT64_MAX or _system.monotonic_ns() < deadline_ns):
            reading = waiting.popleft()
            try:
                self._go_on(reading, asked.source, asked.limit)
            except DriftledgerError as error:
                missing.append(str(error))
                continue
            if reading.more and len(reading.rows) < asked.limit:
                waiting.append(reading)
        found = [[(row["created_at_ms"], row) for _, row in reading.rows] for reading in readings]
        rows = {f"{row['partition']}:{row['index']}": row for row in newest_first(found, asked.limit)}
        stopped = {str(reading.partition): reading.before for reading in waiting}
        return View({"error": "; ".join(missing) or None, "stopped": stopped}, tuple(rows), rows)

    def parts(self, source: str | None, partitions: Sequence[int] | None) -> Iterator[list[Row]]:
        """All entries, the newest first, in parts; one is empty where a page was read and nothing can be told yet.

        partitions: None for all of this worker. Raises DriftledgerError where one cannot be asked: before the first
        part, or in the middle.
        """
        readings = [_Reading(partition) for partition in self._owned.choose(partitions)]
        limit = max(LOG_ROWS_HELD // len(readings), 1)
        while readings:
            for reading in readings:
                while reading.more and not reading.rows:
                    self._go_on(reading, source, limit)
                    yield []
            readings = [reading for reading in readings if reading.rows]
            if readings:
                yield _newest(readings)

    def _go_on(self, reading: _Reading, source: str | None, limit: int) -> None:
        name = None if source is None else source.encode()
        question = DriftQuestion(reading.partition, source=name, before=reading.before, newest=True, limit=limit)
        self._owned.choose((reading.partition,))
        page = self._owned.ask(lambda asker: asker.queries.drift(question))
        reading.take(page, [{name: row[name] for name in _FIELDS} for row in rows_in(table_of(question, page))])


def _newest(readings: Sequence[_Reading]) -> list[Row]:
    """The newest rows of several, up to where one has none left."""
    heap = [(reading.place(), reading) for reading in readings]
    heapq.heapify(heap)
    part: list[Row] = []
    while len(part) < _ROWS_AT_ONCE:
        reading = heap[0][1]
        part.append(reading.rows.pop()[1])
        if not reading.rows:
            break
        heapq.heapreplace(heap, (reading.place(), reading))
    return part
