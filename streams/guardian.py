"""The guardian: whether the worker's own clock is right, from its heartbeats alone.

Problem: workers date what they write of their own (verifications, halts, addresses), and people read their logs by
those times. A worker cannot tell that its own clock is wrong. The ledger can: a HEARTBEAT carries the worker's clock,
and the broker dates it.

How. Two instants bound the clock, as with an event's round trips (docs/clocks.md):

    worker - appended    of this heartbeat: made before it was appended, so the clock is at least so far ahead
    acked - appended     of the one before: known after it was appended, so the clock is at most so far ahead

So AHEAD is proved by the first, BEHIND by the second, and by how much at least. A slow broker, a pause of the worker or
a queue moves neither over the limit: what can be explained by a delay is no fault of the clock. The machine of the
other alerts (`alert_kernel`) follows the answers, with the same settings; none is proved before fleet_hold_ms, because
it may be the broker's clock that moved. While it is known to have (`authority_kernel`), append times are taken without
that.

One alert for each partition, of the source `worker of partition P`, whose text names the worker. Where another worker
takes over, an open one is closed without proof: it was about another clock.

GUARANTEE a function of the partition's entries. Heartbeats of a right clock leave no trace in the state.
HAZARD where a broker's clock is wrong and a partition has too few sources to tell, the worker's is said to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.codec import single_object_prefix
from schemas.memory import bytes_at
from streams.alert_kernel import (
    FIRST,
    QUESTION_COLUMNS,
    READ_COLUMNS,
    READ_VALUE_MS,
    WORST,
    AlertState,
    Question,
    observe,
    settle,
    severity_in,
)
from streams.alerts import Change, DriftAlert, change_record, replaced_record, worker_source, worker_text
from streams.causes import Cause
from streams.control import HEARTBEAT_BRANCH
from streams.guardian_kernel import (
    BEAT_COLUMNS,
    BEAT_NAME,
    BEAT_NAME_LENGTH,
    BEAT_ROW,
    BEAT_WORKER_US,
    GUARD_ANSWERED,
    GUARD_COLUMNS,
    GUARD_STATE,
    read_beats,
    worker_off_ms,
)
from streams.locks import ACTOR_CHARACTERS
from streams.severity import Severity
from streams.severity_kernel import delta_ms_of, severity_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.alert_kernel import Rules
    from streams.locks import Locks

#: The row is a table of its own, of one question.
_QUESTION: Final = int(Question.CLOCK)
_NO_BOUND: Final = -1
#: Of a control record, as `read_beats` takes it.
_FINGERPRINT: Final = int.from_bytes(single_object_prefix("Control")[2:], "little", signed=True)


@dataclass(slots=True)
class Guard:
    """Of one partition. worker: whose clock it is about, empty while it is right; columns: int64[GUARD_COLUMNS]."""

    worker: str = ""
    columns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(GUARD_COLUMNS, np.int64))

    @property
    def severity(self) -> Severity:
        """Of the open alert, GREEN for none."""
        return Severity(severity_in(int(self.columns[GUARD_STATE]), _QUESTION))


def beats_in(entries: Entries, controls: int) -> NDArray[np.int64]:
    """The heartbeats of a batch of so many CONTROL entries, int64[n, BEAT_COLUMNS]; they point into the entries."""
    beats = np.empty((controls, BEAT_COLUMNS), np.int64)
    return beats[: read_beats(entries, beats, _FINGERPRINT, HEARTBEAT_BRANCH)] if controls else beats


def beats_between(beats: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Those of rows start to stop - 1, counted from start."""
    first, last = np.searchsorted(beats[:, BEAT_ROW], (start, stop)).tolist()
    some = beats[first:last].copy()
    some[:, BEAT_ROW] -= start
    return some


def worker_of(beats: NDArray[np.int64], beat: int) -> str:
    """Who sent a heartbeat, while the entries that it points into are there."""
    name = bytes_at(int(beats[beat, BEAT_NAME]), int(beats[beat, BEAT_NAME_LENGTH]))
    return name.decode()[:ACTOR_CHARACTERS]


class Heard(NamedTuple):
    """A heartbeat that the guardian must look at. off_ms: see `guardian_kernel`; delta_ms: worker minus authority."""

    partition: int
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks for
    worker: str
    worker_us: int
    authority_ms: int
    delta_ms: int
    off_ms: int


def heard_of(
    partition: int, entries: Entries, row: int, beats: NDArray[np.int64], beat: int, authority: NDArray[np.int64]
) -> Heard:
    """The heartbeat of a row. authority: what is known of the broker's clock there, see `authority_kernel`."""
    authority_ms, worker_us = int(entries.authority_ms[row]), int(beats[beat, BEAT_WORKER_US])
    off_ms = int(worker_off_ms(beats, beat, authority_ms, authority))
    delta_ms = int(delta_ms_of(worker_us, authority_ms))
    name = worker_of(beats, beat)
    return Heard(partition, int(entries.index[row]), name, worker_us, authority_ms, delta_ms, off_ms)


def look(guard: Guard, heard: Heard, rules: Rules) -> list[DriftAlert]:
    """Take a heartbeat; the records that it causes."""
    alerts: list[DriftAlert] = []
    watch = guard.columns[:QUESTION_COLUMNS].reshape(1, -1)
    if guard.columns[GUARD_STATE] != 0 and guard.worker != heard.worker:
        if guard.severity is not Severity.GREEN:
            row = watch[0].tolist()
            alerts.append(replaced_record(heard.partition, guard.worker, heard.worker, guard.severity, row))
        guard.columns[:] = 0
    before = guard.severity
    if guard.columns[GUARD_STATE] == 0 and severity_of(heard.off_ms) == Severity.GREEN:
        guard.worker = ""
        return alerts
    reading = np.zeros(READ_COLUMNS, np.int64)
    reading[:] = (
        heard.index, heard.authority_ms, heard.worker_us, heard.delta_ms, 0, _NO_BOUND, heard.off_ms,
    )  # fmt: skip
    cause, known = int(Cause.AHEAD if heard.off_ms > 0 else Cause.BEHIND), int(guard.columns[GUARD_STATE])
    state, action = observe(watch, 0, known, _QUESTION, cause, rules.fleet_hold_ms, rules, reading)
    guard.columns[GUARD_STATE] = state
    guard.worker = heard.worker if state != 0 else ""
    if action != 0:
        change = Change(
            question=Question.WORKER,
            state=AlertState(action),
            previous=before,
            severity=guard.severity,
            skew_ppb=0,
            skew_error_ppb=0,
            moved=0,
            of=0,
            now=reading.tolist(),
            watch=watch[0].tolist(),
            worker=heard.worker,
        )
        alerts.append(change_record(heard.partition, worker_source(heard.partition), change))
        settle(watch, 0, _QUESTION, action)
    if guard.severity is Severity.GREEN:
        guard.columns[GUARD_ANSWERED] = 0
    return alerts


def answered(guard: Guard) -> None:
    """The guardian has locked the partition."""
    if guard.severity is not Severity.GREEN:
        guard.columns[GUARD_ANSWERED] = 1


class Alarm(NamedTuple):
    """Why a partition is to be locked: for the clock of that worker.

    first: index of the first heartbeat of the alert, which is its name.
    """

    worker: str
    first: int
    reason: str


def alarm_of(partition: int, guard: Guard, locks: Locks) -> Alarm | None:
    """What the guardian would lock a partition for: the worker's clock is RED, and that was not answered yet."""
    if guard.severity is not Severity.RED or guard.columns[GUARD_ANSWERED] != 0 or None in locks:
        return None
    watch = guard.columns.tolist()
    reason = worker_text(partition, guard.worker, watch[WORST + READ_VALUE_MS], "(RED)", watch)
    return Alarm(guard.worker, watch[FIRST], reason)
