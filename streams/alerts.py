"""When a source's clock changes for the worse or the better, and the record that says so.

Problem: one reading proves little (a retry, a queue, a pause), so a source has a current severity that changes only
when confirm_events of its events in a row agree on another one. Each change is one record of the alerts topic.

The machine, and nothing else decides (`TRANSITIONS`; the kernel works from the same table):

    current   run of    record            alert
    GREEN     YELLOW    OPENED            begins at the first event of the run
    GREEN     RED       OPENED            begins at the first event of the run
    YELLOW    RED       CHANGED           goes on
    RED       YELLOW    CHANGED           goes on
    YELLOW    GREEN     CLOSED            ends
    RED       GREEN     CLOSED            ends

A run is of events of one source with one severity other than the current one. An event of the current severity, or of
a third one, ends it; the third begins its own. Duplicates and conflicts take no part (see `judge`). `events` and
`worst` count from the first event of the opening run, so the confirming run is part of the alert; `at_open` is the
event that completed it. The worst is the largest abs(delta_ms), the first of several.

GUARANTEE the bytes of a record are a function of the partition's DATA entries and DEFINITION settings: no index, no
clock, no batch. Fields stand in the order of the schema.
HAZARD a source that is forgotten (see `sources`) while its alert is open ends that alert with a CLOSED record whose
`at_close` is null and whose severity is the last one known: nothing proved that its clock is right again.

How: each source has a watch, a row of int64 columns that only a run or an open alert touches, and a packed state

    bits 0-1 current severity | bits 2-3 severity of the run | bits 4.. length of the run, 0 for none

A GREEN source without a run has state 0 and an all-zero watch. Fields that are not in use are zero, always: the watch
is part of the snapshot, and a snapshot is the same whatever happened before.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from schemas.codec import Framing, encode
from schemas.instants import format_ms
from schemas.memory import kernel
from streams.severity import GREEN, Severity, drift_seconds
from streams.severity_kernel import severity_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class AlertState(enum.IntEnum):
    """What a record says about its alert."""

    OPENED = 1
    CHANGED = 2
    CLOSED = 3


#: (current severity, severity of the completed run) to the record that is written.
TRANSITIONS: Final[Mapping[tuple[Severity, Severity], AlertState]] = {
    (Severity.GREEN, Severity.YELLOW): AlertState.OPENED,
    (Severity.GREEN, Severity.RED): AlertState.OPENED,
    (Severity.YELLOW, Severity.RED): AlertState.CHANGED,
    (Severity.RED, Severity.YELLOW): AlertState.CHANGED,
    (Severity.YELLOW, Severity.GREEN): AlertState.CLOSED,
    (Severity.RED, Severity.GREEN): AlertState.CLOSED,
}

_SEVERITIES: Final = len(Severity)
#: The table for the kernel: 0 where there is no transition.
_ACTIONS: Final = np.array([TRANSITIONS.get((a, b), 0) for a in Severity for b in Severity], np.int64)
_OPENED: Final = int(AlertState.OPENED)
_CLOSED: Final = int(AlertState.CLOSED)

# Columns of a watch. A reading is four of them: sequence, authority_ms, local_us, delta_ms.
REVISION: Final = 0
FIRST: Final = 1
LAST: Final = 2
EVENTS: Final = 3
AT_OPEN: Final = 4
WORST: Final = 8
RUN_FIRST: Final = 12
RUN_FIRST_MS: Final = 13
RUN_WORST: Final = 14
WATCH_COLUMNS: Final = 18
_DELTA: Final = 3
_NOTE_COLUMNS: Final = 4

_RUN_SHIFT: Final = 4


@kernel
def _note(
    watch: NDArray[np.int64], slot: int, at: int, sequence: int, authority_ms: int, local_us: int, delta_ms: int
) -> None:
    watch[slot, at] = sequence
    watch[slot, at + 1] = authority_ms
    watch[slot, at + 2] = local_us
    watch[slot, at + 3] = delta_ms


@kernel
def _copy_note(watch: NDArray[np.int64], slot: int, target: int, source: int) -> None:
    for column in range(_NOTE_COLUMNS):
        watch[slot, target + column] = watch[slot, source + column]


@kernel
def observe(
    watch: NDArray[np.int64],
    slot: int,
    state: int,
    severity: int,
    confirm_events: int,
    sequence: int,
    authority_ms: int,
    local_us: int,
    delta_ms: int,
) -> tuple[int, int]:
    """One event of a source: its new state, and the AlertState to record (0 for none).

    After a record the caller copies the watch row and then calls `settle`. Not to be called for GREEN in state 0, where
    nothing can change.
    """
    current = state & 3
    if current != GREEN:
        watch[slot, EVENTS] += 1
        if severity != GREEN:
            watch[slot, LAST] = sequence
        if abs(delta_ms) > abs(watch[slot, WORST + _DELTA]):
            _note(watch, slot, WORST, sequence, authority_ms, local_us, delta_ms)
    if severity == current:
        if state != current:
            watch[slot, RUN_FIRST:WATCH_COLUMNS] = 0
        return current, 0
    run = state >> _RUN_SHIFT
    if run == 0 or (state >> 2) & 3 != severity:
        run = 0
        watch[slot, RUN_FIRST] = sequence
        watch[slot, RUN_FIRST_MS] = authority_ms
        _note(watch, slot, RUN_WORST, sequence, authority_ms, local_us, delta_ms)
    elif abs(delta_ms) > abs(watch[slot, RUN_WORST + _DELTA]):
        _note(watch, slot, RUN_WORST, sequence, authority_ms, local_us, delta_ms)
    run += 1
    if run < confirm_events:
        return current | severity << 2 | run << _RUN_SHIFT, 0
    action = _ACTIONS[current * _SEVERITIES + severity]
    watch[slot, REVISION] += 1
    if action == _OPENED:
        watch[slot, FIRST] = watch[slot, RUN_FIRST]
        watch[slot, LAST] = sequence
        watch[slot, EVENTS] = run
        _note(watch, slot, AT_OPEN, sequence, authority_ms, local_us, delta_ms)
        _copy_note(watch, slot, WORST, RUN_WORST)
    return severity, action


@kernel
def settle(watch: NDArray[np.int64], slot: int, action: int) -> None:
    """Zero what is no longer in use after a record: the run, and after CLOSED the alert."""
    watch[slot, RUN_FIRST:WATCH_COLUMNS] = 0
    if action == _CLOSED:
        watch[slot, :RUN_FIRST] = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One event's clock against the authority; fields as in the schema."""

    sequence: int
    authority_timestamp: int
    local_timestamp: int
    delta_ms: int
    severity: str

    @classmethod
    def of(cls, sequence: int, authority_ms: int, local_us: int, delta_ms: int) -> Reading:
        """The severity follows from the delta."""
        return cls(sequence, authority_ms, local_us, delta_ms, Severity(severity_of(delta_ms)).name)


@dataclass(frozen=True, slots=True)
class DriftAlert:
    """A record of the alerts topic; fields as in drift_alert.v1.avsc."""

    alert_id: str
    revision: int
    state: str
    partition: int
    source: str
    cause: str
    severity: str
    previous_severity: str
    first_sequence: int
    last_sequence: int
    events: int
    at_open: Reading
    worst: Reading
    at_close: Reading | None
    text: str

    def encode(self, framing: Framing = Framing.JSON) -> bytes:
        """The bytes of the record: compact JSON in the schema's field order, or single-object Avro."""
        if framing is Framing.JSON:
            return orjson.dumps(self)  # the same bytes as schemas.codec's, without its checks of every field
        fields: dict[str, Any] = asdict(self)
        return encode("DriftAlert", fields, framing)


def change_record(
    partition: int, source: str, previous: Severity, severity: Severity, watch: list[int], now: Reading
) -> DriftAlert:
    """The record of a transition, from the watch as `observe` left it and the event that completed the run."""
    state = TRANSITIONS[previous, severity]
    since = f"since {format_ms(watch[RUN_FIRST_MS])}, sequence {partition}:{watch[RUN_FIRST]}"
    worst = Reading.of(*watch[WORST : WORST + 4])
    match state:
        case AlertState.OPENED:
            text = f"{source} is {_offset(now.delta_ms)} ({severity.name}) {since}"
        case AlertState.CHANGED:
            text = f"{source} is {_offset(now.delta_ms)} ({severity.name}, was {previous.name}) {since}"
        case AlertState.CLOSED:
            text = f"{source} is within 1 s again {since}; at worst it was {_offset(worst.delta_ms)} ({worst.severity})"
    at_close = now if state is AlertState.CLOSED else None
    return _record(partition, source, state, previous, severity, watch, at_close, text)


def forgotten_record(partition: int, source: str, severity: Severity, watch: list[int], sources_max: int) -> DriftAlert:
    """The record that ends the alert of a source that is no longer watched."""
    text = (
        f"{source} is no longer watched: more than {sources_max} sources, each with an open alert; it was last "
        f"{severity.name} at sequence {partition}:{watch[LAST]}"
    )
    ended = [watch[REVISION] + 1, *watch[1:]]
    return _record(partition, source, AlertState.CLOSED, severity, severity, ended, None, text)


def _record(
    partition: int,
    source: str,
    state: AlertState,
    previous: Severity,
    severity: Severity,
    watch: list[int],
    at_close: Reading | None,
    text: str,
) -> DriftAlert:
    return DriftAlert(
        alert_id=f"{partition}:{watch[FIRST]}",
        revision=watch[REVISION],
        state=state.name,
        partition=partition,
        source=source,
        cause="UNKNOWN",
        severity=severity.name,
        previous_severity=previous.name,
        first_sequence=watch[FIRST],
        last_sequence=watch[LAST],
        events=watch[EVENTS],
        at_open=Reading.of(*watch[AT_OPEN : AT_OPEN + 4]),
        worst=Reading.of(*watch[WORST : WORST + 4]),
        at_close=at_close,
        text=text,
    )


def _offset(delta_ms: int) -> str:
    """In words: `3.200 s ahead` or `3.200 s behind`."""
    return f"{drift_seconds(delta_ms)} s {'behind' if delta_ms < 0 else 'ahead'}"
