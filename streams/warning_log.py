"""The structured warnings of S1.4 in a worker's log, at a bounded rate.

A source a day ahead would otherwise write a line for each of its events. All warnings stay queryable from the ledger
(drift_warnings.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from schemas.memory import bytes_at
from streams.severity import drift_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from schemas.columns import Entries
    from streams.judge import Outputs

#: Lines a worker logs in a second, all lanes together; the rest is counted in the next line.
LOGGED_PER_SECOND = 10
_SECOND_NS = 1_000_000_000
_logger = structlog.get_logger()


def warnings_of(partition: int, entries: Entries, outputs: Outputs, most: int) -> Iterator[dict[str, str | int]]:
    """The fields of the first `most` warnings of a step, in order; call before the batch is released."""
    events = outputs.events
    for row in outputs.warned[:most].tolist():
        yield {
            "partition": partition,
            "sequence": int(entries.sequence[row]),
            "source": bytes_at(int(events.source_address[row]), int(events.source_length[row])).decode(),
            "event_id": bytes_at(int(events.event_id_address[row]), int(events.event_id_length[row])).decode(),
            "local_timestamp_us": int(events.local_us[row]),
            "authority_timestamp_ms": int(entries.authority_ms[row]),
            "drift_seconds": drift_seconds(int(outputs.verdicts.delta_ms[row])),
        }


class WarningLog:
    """Logs at a bounded rate and says how many were left out. Time comes from the caller."""

    def __init__(self) -> None:
        self._second = -1
        self._logged = 0
        self._left_out = 0

    def log(self, warnings: Sequence[dict[str, str | int]], total: int, now_ns: int) -> None:
        """warnings: the first of the `total` of a commit."""
        if now_ns // _SECOND_NS != self._second:
            self._second, self._logged = now_ns // _SECOND_NS, 0
        written = warnings[: LOGGED_PER_SECOND - self._logged]
        for fields in written:
            _logger.warning("clock_drift_detected", **fields, left_out_before=self._left_out)
            self._left_out = 0
        self._logged += len(written)
        self._left_out += total - len(written)
