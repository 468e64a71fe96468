"""The transactions of one ownership of a lane: everything a batch causes, or nothing of it.

GUARANTEE a producer that failed in any way is ended and not used again; what it had begun is ended by the fence of the
next owner, which may be this process. HAZARD between a commit's request and its answer the outcome is unknown.
HAZARD Kafka answers a commit before it writes the markers, and may lose them on a partition without a leader (4.3.0):
the records there then end with the next transaction of this id that has any for it, as that one does.
"""

from __future__ import annotations

import enum
from contextlib import contextmanager
from typing import TYPE_CHECKING

from schemas.clock import source as time_source
from streams.lane_clients import producer_settings
from streams.rdkafka import NativeProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.outbox import Rows
    from streams.settings import Settings

_CALL_TIMEOUT_SLACK_MS = 5_000
_FIRST_ADDS = 2


class Point(enum.StrEnum):
    """Named moments of a transaction, in order. HALF_PRODUCED: after the first rows, and after the second."""

    BEGUN = "begun"
    HALF_PRODUCED = "half_produced"
    PRODUCED = "produced"
    COMMITTING = "committing"
    COMMITTED = "committed"


class Transactions:
    """A transactional producer from its fence to its end. at: called at each point; tests kill there.

    add ... add, commit: what is added is in the next commit. HAZARD librdkafka points into the memory of rows from add
    until the commit is answered or the producer is ended, as it is by an error here: after any other, close while they
    live.
    """

    def __init__(self, settings: Settings, bootstrap: str, transactional_id: str, at: Callable[[Point], None]) -> None:
        self._settings, self._at = settings, at
        self._producer = NativeProducer(producer_settings(settings, bootstrap), transactional_id)
        self._began_ns = 0
        self._added = 0

    def fence(self) -> None:
        """End whatever an earlier owner has open; from here on nobody else writes under this id (blocks)."""
        self._producer.init_transactions(self._settings.transaction_timeout_ms + _CALL_TIMEOUT_SLACK_MS)

    def add(self, topic: str, rows: Rows) -> None:
        """Queue rows for the next commit, in order. Raises ClientError.

        The coordinator is told of a new partition from here on, while the caller goes on: that takes about as long as
        a step of the folds.
        """
        with self._ended_on_error():
            if not self._added:
                self._began_ns = time_source().monotonic_ns()
                self._producer.begin()
                self._at(Point.BEGUN)
            self._producer.produce(topic, rows.partition, rows.rows)
            self._added += 1
            if self._added <= _FIRST_ADDS:
                self._at(Point.HALF_PRODUCED)

    def commit(self) -> int:
        """All that was added, or nothing of it; returns the ns since the first was added. Raises ClientError."""
        if not self._added:
            return 0
        with self._ended_on_error():
            self._at(Point.PRODUCED)
            self._at(Point.COMMITTING)
            self._producer.commit(self._settings.transaction_timeout_ms)
        self._added = 0
        self._at(Point.COMMITTED)
        return time_source().monotonic_ns() - self._began_ns

    def close(self) -> None:
        """End the producer, and not its transaction."""
        self._added = 0
        self._producer.destroy()

    @contextmanager
    def _ended_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise
