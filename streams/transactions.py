"""The transactions of one ownership of a lane: everything a batch causes, or nothing of it.

GUARANTEE a producer that failed in any way is ended and not used again; what it had begun is ended by the fence of the
next owner, which may be this process. HAZARD between a commit's request and its answer the outcome is unknown.
HAZARD Kafka answers a commit before it writes the markers, and may lose them on a partition without a leader (4.3.0):
the records there then end with the next transaction of this id that has any for it, as that one does.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from schemas.clock import source as time_source
from streams.lane_clients import producer_settings
from streams.rdkafka import NativeProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streams.outbox import Rows
    from streams.settings import Settings

_CALL_TIMEOUT_SLACK_MS = 5_000


class Point(enum.StrEnum):
    """Named moments of a transaction, in order."""

    BEGUN = "begun"
    HALF_PRODUCED = "half_produced"
    PRODUCED = "produced"
    COMMITTING = "committing"
    COMMITTED = "committed"


class Transactions:
    """A transactional producer from its fence to its end. at: called at each point; tests kill there."""

    def __init__(self, settings: Settings, bootstrap: str, transactional_id: str, at: Callable[[Point], None]) -> None:
        self._settings, self._at = settings, at
        self._producer = NativeProducer(producer_settings(settings, bootstrap), transactional_id)

    def fence(self) -> None:
        """End whatever an earlier owner has open; from here on nobody else writes under this id (blocks)."""
        self._producer.init_transactions(self._settings.transaction_timeout_ms + _CALL_TIMEOUT_SLACK_MS)

    def write(self, outgoing: Sequence[tuple[str, Rows]]) -> int:
        """All of it, by topic and in order, in one transaction; returns its length in ns. Raises ClientError.

        librdkafka points into the rows' memory until the commit is answered, so a producer that failed is ended here,
        while they live.
        """
        clock, producer = time_source(), self._producer
        began_ns = clock.monotonic_ns()
        written = False
        try:
            producer.begin()
            self._at(Point.BEGUN)
            half = (len(outgoing) + 1) // 2
            for topic, rows in outgoing[:half]:
                producer.produce(topic, rows.partition, rows.rows)
            self._at(Point.HALF_PRODUCED)
            for topic, rows in outgoing[half:]:
                producer.produce(topic, rows.partition, rows.rows)
            self._at(Point.PRODUCED)
            self._at(Point.COMMITTING)
            producer.commit(self._settings.transaction_timeout_ms)
            written = True
        finally:
            if not written:
                producer.destroy()
        self._at(Point.COMMITTED)
        return clock.monotonic_ns() - began_ns

    def close(self) -> None:
        """End the producer, and not its transaction."""
        self._producer.destroy()
