"""The drift log's entries: the verdict on each reading of a clock, as a pure function of one ledger entry.

Problem: the drift log must say the same for ever, to anybody, without a table of its own. So it has none: a drift-log
entry is a DATA entry whose event could be read, or an ANCHOR, VERIFY or LOCK entry, seen through the rules of
`severity`: who locks, or releases, verifies his clock with the same record.

    id                  partition:index of the ledger entry
    created_at          its authority timestamp
    anchor_timestamp    the instant the source asserts: the event's local timestamp, the client timestamp of a VERIFY
                        or LOCK, the timestamp of an ANCHOR (its authority timestamp where it names none)
    drift_delta_ms      anchor_timestamp minus created_at, rounded half away from zero; null for an ANCHOR
    phase_lock_hash     its chain hash
    severity            of the delta; GREEN for an ANCHOR
    source              the event's, or as the record names it

    cause, offset_ms    why the two lie apart, and what was known of the source's clock after an event: no function of
    bound_ms            one entry, but judge's word, where that is at hand (see `judged_log`); null else

Duplicates and conflicts have entries too: that their reading was repeated is judge's matter, not the log's. What cannot
be read asserts no instant and has none.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from schemas.columns import Fault
from schemas.instants import INT64_MAX, INT64_MIN, US_PER_MS, format_ms, format_us
from schemas.memory import address_of, kernel, load_u8
from streams.causes import Cause
from streams.severity import Severity
from streams.severity_kernel import bound_ms_of, delta_ms_of, rounded_ms, severity_of
from streams.values import ControlBody, decode_values, text_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.codec import Framing
    from schemas.columns import Entries, Events
    from streams.judge import Outputs


#: In place of a bound: no estimate is known.
NO_BOUND: Final = -1


class Reading(enum.StrEnum):
    """What a drift-log entry is the verdict on."""

    DATA = "DATA"
    ANCHOR = "ANCHOR"
    VERIFY = "VERIFY"
    LOCK = "LOCK"
    RELEASE = "RELEASE"


class DriftEntry(NamedTuple):
    """One entry of the drift log."""

    partition: int
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks an entry for
    sequence: int
    reading: Reading
    created_at_ms: int
    anchor_timestamp_us: int
    drift_delta_ms: int | None
    severity: Severity
    source: str
    phase_lock_hash: bytes
    cause: Cause = Cause.NONE
    offset_us: int = 0
    bound_us: int = NO_BOUND

    @property
    def id(self) -> str:
        """Unique within the ledger."""
        return f"{self.partition}:{self.index}"

    def row(self) -> dict[str, Any]:
        """For a listing."""
        return {
            "id": self.id,
            "created_at_ms": self.created_at_ms,
            "created_at": format_ms(self.created_at_ms),
            "anchor_timestamp_us": self.anchor_timestamp_us,
            "anchor_timestamp": format_us(self.anchor_timestamp_us),
            "drift_delta_ms": self.drift_delta_ms,
            "severity": self.severity.name,
            "cause": None if self.cause is Cause.NONE else self.cause.name,
            "offset_ms": None if self.bound_us == NO_BOUND else int(rounded_ms(self.offset_us)),
            "bound_ms": None if self.bound_us == NO_BOUND else int(bound_ms_of(self.bound_us)),
            "source": self.source,
            "phase_lock_hash": self.phase_lock_hash,
            "reading": self.reading,
            "sequence": self.sequence,
        }


@kernel
def mark_source(events: Events, marks: NDArray[np.uint8], source: int, length: int) -> None:
    """marks[row] = 1 where the event's source is those bytes; rows with a fault are left as they are."""
    for row in range(events.fault.size):
        if events.fault[row] != 0 or events.source_length[row] != length:
            continue
        marks[row] = 1
        for i in range(length):
            if load_u8(events.source_address[row] + i) != load_u8(source + i):
                marks[row] = 0
                break


def rows_of_source(events: Events, source: str | None) -> NDArray[np.bool_]:
    """Which rows are events, of that source where one is given."""
    if source is None:
        return np.asarray(events.fault == Fault.NONE)
    marks = np.zeros(events.fault.size, np.uint8)
    name = np.frombuffer(source.encode() + b"\0", np.uint8)
    mark_source(events, marks, address_of(name), name.size - 1)
    return marks.astype(np.bool_)


def with_verdicts(found: list[DriftEntry], entries: Entries, judged: Outputs) -> list[DriftEntry]:
    """Drift entries of these ledger entries, with judge's word on each that is an event."""
    verdicts = judged.verdicts
    rows = np.searchsorted(entries.index, [entry.index for entry in found]).tolist()
    return [
        entry._replace(
            cause=Cause(int(verdicts.cause[row])),
            offset_us=int(verdicts.offset_us[row]),
            bound_us=int(verdicts.bound_us[row]),
        )
        if entry.reading is Reading.DATA
        else entry
        for entry, row in zip(found, rows, strict=True)
    ]


class DriftLogger:
    """Drift entries of consecutive batches of one partition: only the newest of each, so that a long scan is cheap."""

    def __init__(self, partition: int, framing: Framing, source: str | None) -> None:
        self._partition, self._framing, self._source = partition, framing, source

    def newest(self, entries: Entries, most: int) -> list[DriftEntry]:
        """The last `most` drift entries of the next batch, in order of index."""
        decoded = decode_values(entries, self._framing)
        self._framing = decoded.framing
        controls = {control.row: control for control in decoded.controls if self._wanted(control)}
        rows = sorted([*np.flatnonzero(rows_of_source(decoded.events, self._source))[-most:].tolist(), *controls])
        return [
            self._control(entries, controls[row]) if row in controls else self._data(entries, decoded.events, row)
            for row in rows[-most:]
        ]

    def all(self, entries: Entries) -> list[DriftEntry]:
        """Every drift entry of the next batch, in order of index."""
        return self.newest(entries, entries.index.size)

    def _wanted(self, control: ControlBody) -> bool:
        return control.kind in ("Anchor", "Verify", "Lock") and self._source in (None, control.body["source"])

    def _data(self, entries: Entries, events: Events, row: int) -> DriftEntry:
        source = text_at(events.source_address[row], events.source_length[row])
        return self._entry(entries, row, Reading.DATA, int(events.local_us[row]), source)

    def _control(self, entries: Entries, control: ControlBody) -> DriftEntry:
        row, body = control.row, control.body
        if control.kind == "Verify":
            return self._entry(entries, row, Reading.VERIFY, body["client_timestamp"], body["source"])
        if control.kind == "Lock":
            reading = Reading.LOCK if body["engaged"] else Reading.RELEASE
            return self._entry(entries, row, reading, body["client_timestamp"], body["source"])
        anchored_us = body["anchor_timestamp"]
        if anchored_us is None:
            anchored_us = min(max(int(entries.authority_ms[row]) * US_PER_MS, INT64_MIN), INT64_MAX)
        return self._entry(entries, row, Reading.ANCHOR, anchored_us, body["source"])

    def _entry(self, entries: Entries, row: int, reading: Reading, asserted_us: int, source: str) -> DriftEntry:
        authority_ms = int(entries.authority_ms[row])
        delta_ms = None if reading is Reading.ANCHOR else int(delta_ms_of(asserted_us, authority_ms))
        return DriftEntry(
            self._partition,
            int(entries.index[row]),
            int(entries.sequence[row]),
            reading,
            authority_ms,
            asserted_us,
            delta_ms,
            Severity.GREEN if delta_ms is None else Severity(severity_of(delta_ms)),
            source,
            entries.chain_hash[row].tobytes(),
        )
