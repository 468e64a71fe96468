"""Warnings of drift: a record each, and their lines in a worker's log at a bounded rate.

A source a day ahead would otherwise write a line for each of its events. All warnings stay queryable from the ledger
(drift_warnings.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from schemas.instants import format_ms, format_us
from schemas.memory import bytes_at
from streams.causes import Cause
from streams.severity import drift_seconds
from streams.severity_kernel import bound_ms_of, rounded_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.judge import Outputs

#: Lines a worker logs in a second, all lanes together; the rest is counted in the next line.
LOGGED_PER_SECOND = 10
_SECOND_NS = 1_000_000_000
_logger = structlog.get_logger()


class DriftWarning(NamedTuple):
    """An event beyond the threshold; drift_seconds has three decimals and no sign.

    cause: the name of a Cause, None for none; offset_ms, bound_ms: the estimate of the source's clock, None without.
    """

    partition: int
    sequence: int
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks a record for
    event_id: str
    source: str
    local_timestamp_us: int
    authority_timestamp_ms: int
    drift_seconds: str
    cause: str | None
    offset_ms: int | None
    bound_ms: int | None

    def row(self) -> dict[str, Any]:
        """For a listing; logged_at is the authority timestamp: there is no other time in the ledger."""
        authority = format_ms(self.authority_timestamp_ms)
        return {
            "id": f"{self.partition}:{self.index}",
            "event_id": self.event_id,
            "source": self.source,
            "local_timestamp_us": self.local_timestamp_us,
            "local_timestamp": format_us(self.local_timestamp_us),
            "authority_timestamp_ms": self.authority_timestamp_ms,
            "authority_timestamp": authority,
            "drift_seconds": self.drift_seconds,
            "cause": self.cause,
            "offset_ms": self.offset_ms,
            "bound_ms": self.bound_ms,
            "logged_at_ms": self.authority_timestamp_ms,
            "logged_at": authority,
            "sequence": self.sequence,
        }


def warnings_of(partition: int, entries: Entries, outputs: Outputs, rows: NDArray[np.int64]) -> Iterator[DriftWarning]:
    """The warnings of these rows of a step, in order; the batch must still be there."""
    events, verdicts = outputs.events, outputs.verdicts
    for row in rows.tolist():
        cause, known = Cause(int(verdicts.cause[row])), verdicts.bound_us[row] >= 0
        yield DriftWarning(
            partition,
            int(entries.sequence[row]),
            int(entries.index[row]),
            bytes_at(int(events.event_id_address[row]), int(events.event_id_length[row])).decode(),
            bytes_at(int(events.source_address[row]), int(events.source_length[row])).decode(),
            int(events.local_us[row]),
            int(entries.authority_ms[row]),
            drift_seconds(int(verdicts.delta_ms[row])),
            None if cause is Cause.NONE else cause.name,
            int(rounded_ms(int(verdicts.offset_us[row]))) if known else None,
            int(bound_ms_of(int(verdicts.bound_us[row]))) if known else None,
        )


class WarningLog:
    """Logs at a bounded rate and says how many were left out. Time comes from the caller."""

    def __init__(self) -> None:
        self._second = -1
        self._logged = 0
        self._left_out = 0

    def log(self, warnings: Sequence[DriftWarning], total: int, now_ns: int) -> None:
        """warnings: the first of the `total` of a commit."""
        if now_ns // _SECOND_NS != self._second:
            self._second, self._logged = now_ns // _SECOND_NS, 0
        written = warnings[: LOGGED_PER_SECOND - self._logged]
        for warning in written:
            _logger.warning("clock_drift_detected", **warning.row(), left_out_before=self._left_out)
            self._left_out = 0
        self._logged += len(written)
        self._left_out += total - len(written)
