"""Warnings of drift: a record each, and their lines in a worker's log at a bounded rate.

A source a day ahead would otherwise write a line for each of its events; which of them do says `warning_lines`. All
warnings stay queryable from the ledger (drift_warnings.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import structlog

from schemas.instants import format_ms, format_us
from schemas.memory import bytes_at
from streams.causes import Cause
from streams.severity import drift_seconds
from streams.severity_kernel import bound_ms_of, rounded_ms
from streams.warning_lines import WarningLines, keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.judge import Outputs

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


class Step(NamedTuple):
    """Entries of a partition, and what judge said of them."""

    partition: int
    entries: Entries
    outputs: Outputs


class WarningLog:
    """Logs at a bounded rate and says how many were left out. Lanes give, each on its thread; the worker writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = WarningLines()
        #: Of the lines that wait, by their keys.
        self._waiting: dict[int, DriftWarning] = {}

    def take(self, lane: int, steps: Sequence[Step], now_ns: int) -> None:
        """Count what a lane committed; some of it will be lines. Its batch must still be there."""
        steps = [step for step in steps if step.outputs.warned.size]
        if not steps:
            return
        keys = [keys_of(step.partition, step.outputs.verdicts.source[step.outputs.warned]) for step in steps]
        begins = np.cumsum([0, *(some.size for some in keys)])
        distinct, first, counts = np.unique(np.concatenate(keys), return_index=True, return_counts=True)
        with self._lock:
            for chosen in self._lines.choose(lane, distinct, counts, now_ns):
                at = int(first[chosen.place])
                number = int(np.searchsorted(begins, at, side="right")) - 1
                partition, entries, outputs = steps[number]
                row = outputs.warned[at - begins[number] :][:1]
                [self._waiting[chosen.key]] = warnings_of(partition, entries, outputs, row)

    def write(self, now_ns: int) -> None:
        """Log what waits, as far as there is room for it now."""
        with self._lock:
            lines = [(self._waiting.pop(line.key), line) for line in self._lines.due(now_ns)]
        for warning, line in lines:
            left_out = {"left_out_before": line.left_out, "left_out_of_others": line.others}
            _logger.warning("clock_drift_detected", **warning.row(), **left_out)
