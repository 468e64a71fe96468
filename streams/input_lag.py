"""How far a worker is behind its input, and whether records may expire before they are sequenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from schemas.clock import source as time_source
from streams import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.log import Log

_logger = structlog.get_logger()


class InputLag:
    """Of the partitions of one worker, as metrics show it.

    Attribute for health: offsets, by partition (input offsets to come, as read last).
    """

    def __init__(self, topic: str) -> None:
        self.offsets: dict[int, int] = {}
        self._topic = topic
        #: Partitions whose next record is older than half the input's retention.
        self._late: set[int] = set()

    def measure(self, log: Log, positions: Mapping[int, int]) -> None:
        """Read it anew, and say which partitions are late. positions: where the input of each stands in the ledger.

        Raises UnreachableError.
        """
        before = self.offsets
        lag = {p: max(0, end - positions[p]) for p, end in log.ends(self._topic, positions).items()}
        for partition, offsets in lag.items():
            metrics.LAG.labels(str(partition)).set(offsets)
        self.offsets = lag
        for partition in set(before) - set(lag):
            metrics.LAG.remove(str(partition))
        self._warn_of_retention(log, {p: positions[p] for p, offsets in lag.items() if offsets})

    def _warn_of_retention(self, log: Log, behind: Mapping[int, int]) -> None:
        """What expires before it is sequenced is lost. behind: positions of partitions with input to come."""
        retention_ms = log.retention_ms(self._topic) if behind else -1
        late: set[int] = set()
        if retention_ms > 0:
            half = time_source().now_us() // 1_000 - retention_ms // 2
            younger = log.offsets_since(self._topic, behind, half)
            late = {p for p, position in behind.items() if younger[p] < 0 or position < younger[p]}
        for partition in sorted(late - self._late):
            _logger.error(
                "lag_past_half_retention", partition=partition, position=behind[partition], retention_ms=retention_ms
            )
        self._late = late
        metrics.LATE.set(len(late))
