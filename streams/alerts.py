"""What the records of the alerts topic say: of a source's clock that is off, or of events that arrive late.

When a record is written is the machine's (`alert_kernel`); why it is so, `causes` says. Here are its fields and its
text. One alert is a row of records with one alert_id: OPENED, any number of CHANGED, CLOSED.

GUARANTEE the bytes of a record are a function of the partition's DATA entries and DEFINITION settings: no index, no
clock, no batch. Fields stand in the order of the schema. Only of the alert about a worker's clock (`guardian`) the
readings are heartbeats: where others have a sequence it has the index of an entry, for a heartbeat has no sequence.
HAZARD a source may be called `broker of partition 3`, and text begins with its name: `subject` says whose clock it is.
HAZARD a source that is forgotten (see `sources`) while an alert of it is open ends that alert with a CLOSED record
whose `at_close` is null and whose severity is the last one known: nothing proved that its clock is right again.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from schemas.codec import Framing, encode
from schemas.instants import format_ms
from streams.alert_kernel import (
    AT_OPEN,
    CALM_FIRST,
    CALM_FIRST_MS,
    CAUSE,
    EVENTS,
    FIRST,
    FIRST_MS,
    LAST,
    OF_SOURCE,
    READ_AUTHORITY_MS,
    READ_COLUMNS,
    READ_SEQUENCE,
    REVISION,
    WORST,
    AlertState,
    Question,
)
from streams.causes import Cause
from streams.clock_columns import SKEW_MAX_PPB
from streams.severity import Severity, drift_seconds
from streams.severity_kernel import rounded_ms, severity_of
from streams.source_clock import PPB_PER_PPM, estimate_text, side_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Subject(enum.Enum):
    """What an alert is about. Names alone do not tell: a source may call itself what it likes."""

    SOURCE = 0
    BROKER = 1
    WORKER = 2


#: Of the questions that are about no source.
_SUBJECTS: Final = {Question.AUTHORITY: Subject.BROKER, Question.WORKER: Subject.WORKER}


class Change(NamedTuple):
    """One record to be written, as the machine left it. watch: the columns of the question's row; now: of a reading.

    previous, severity: of the alert before and after; skew_ppb, skew_error_ppb: of the source's clock. moved, of: so
    many sources of so many moved together, where the question is the authority.
    """

    question: Question
    state: AlertState
    previous: Severity
    severity: Severity
    skew_ppb: int
    skew_error_ppb: int
    moved: int
    of: int
    now: Sequence[int]
    watch: Sequence[int]
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One event of the source; fields as in the schema."""

    sequence: int
    authority_timestamp: int
    local_timestamp: int
    delta_ms: int
    severity: str
    offset_us: int | None
    bound_us: int | None
    value_ms: int

    @classmethod
    def of(cls, columns: Sequence[int]) -> Reading:
        """From the columns of a reading; see `alert_kernel`."""
        sequence, authority_ms, local_us, delta_ms, offset_us, bound_us, value_ms = columns
        severity, known = Severity(severity_of(delta_ms)).name, bound_us >= 0
        return cls(
            sequence, authority_ms, local_us, delta_ms, severity,
            offset_us if known else None, bound_us if known else None, value_ms,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DriftAlert:
    """A record of the alerts topic; fields as in drift_alert.v1.avsc."""

    alert_id: str
    revision: int
    state: str
    partition: int
    source: str
    subject: str
    cause: str
    severity: str
    previous_severity: str
    first_sequence: int
    last_sequence: int
    events: int
    skew_ppb: int | None
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


def change_record(partition: int, source: str, change: Change) -> DriftAlert:
    """The record of a change."""
    closed = change.state is AlertState.CLOSED
    now, worst = Reading.of(change.now), Reading.of(change.watch[WORST : WORST + READ_COLUMNS])
    cause = Cause(change.watch[CAUSE])
    rated = change.question in OF_SOURCE and change.skew_error_ppb < SKEW_MAX_PPB
    skew_ppb = change.skew_ppb if rated else None
    if closed:
        text = _closing_text(partition, source, change, worst)
    elif change.question is Question.WORKER:
        text = worker_text(partition, change.worker, now.value_ms, _severities(change), change.watch)
    else:
        since = f"since {format_ms(change.watch[FIRST_MS])}, sequence {partition}:{change.watch[FIRST]}"
        text = _opening_text(source, cause, now, f"{_severities(change)} {since}")
        if cause is Cause.AUTHORITY:
            text += f": {change.moved} of {change.of} sources moved together"
        if cause in (Cause.AHEAD, Cause.BEHIND) and abs(change.skew_ppb) > change.skew_error_ppb:
            gains = "gains" if change.skew_ppb > 0 else "loses"
            text += f"; its clock {gains} {abs(change.skew_ppb) / PPB_PER_PPM:.1f} ppm"
    return _record(
        partition, source, change.question, change.watch,
        state=change.state, severity=change.severity, previous=change.previous, revision=change.watch[REVISION],
        skew_ppb=skew_ppb, at_close=now if closed else None, text=text,
    )  # fmt: skip


def forgotten_record(
    partition: int, source: str, question: Question, severity: Severity, watch: Sequence[int], sources_max: int
) -> DriftAlert:
    """The record that ends the alert of a source that is no longer watched."""
    text = (
        f"{source} is no longer watched: more than {sources_max} sources, each with an open alert; it was last "
        f"{severity.name} at sequence {partition}:{watch[LAST]}"
    )
    return _record(
        partition, source, question, watch,
        state=AlertState.CLOSED, severity=severity, previous=severity, revision=watch[REVISION] + 1,
        skew_ppb=None, at_close=None, text=text,
    )  # fmt: skip


def replaced_record(
    partition: int, worker: str, successor: str, severity: Severity, watch: Sequence[int]
) -> DriftAlert:
    """The record that ends the alert of a worker that does not write the partition any more."""
    text = (
        f"partition {partition} is written by worker {successor} now; the clock of worker {worker} was last "
        f"{severity.name} at index {partition}:{watch[LAST]}"
    )
    return _record(
        partition, worker_source(partition), Question.WORKER, watch,
        state=AlertState.CLOSED, severity=severity, previous=severity, revision=watch[REVISION] + 1,
        skew_ppb=None, at_close=None, text=text,
    )  # fmt: skip


def is_of_worker(alert_id: str) -> bool:
    """Whether an alert is about a worker's clock: then its sequences are indexes."""
    return alert_id.endswith(f":{Question.WORKER.name.lower()}")


def worker_source(partition: int) -> str:
    """What the alerts about the worker of a partition have as their source."""
    return f"worker of partition {partition}"


def worker_text(partition: int, worker: str, value_ms: int, severity: str, watch: Sequence[int]) -> str:
    """Of a worker's clock that is off, which is proved. severity: in brackets."""
    off = f"{drift_seconds(value_ms)} s {side_of(value_ms)} at least {severity}"
    since = f"since {format_ms(watch[FIRST_MS])}, index {partition}:{watch[FIRST]}"
    return f"the clock of worker {worker} of partition {partition} is {off} {since}"


def _severities(change: Change) -> str:
    """That of the alert, and the one before if it was open with another."""
    was = "" if change.previous in (Severity.GREEN, change.severity) else f", was {change.previous.name}"
    return f"({change.severity.name}{was})"


def _record(
    partition: int, source: str, question: Question, watch: Sequence[int], *, state: AlertState, severity: Severity,
    previous: Severity, revision: int, skew_ppb: int | None, at_close: Reading | None, text: str,
) -> DriftAlert:  # fmt: skip
    return DriftAlert(
        alert_id=f"{partition}:{watch[FIRST]}:{question.name.lower()}",
        revision=revision,
        state=state.name,
        partition=partition,
        source=source,
        subject=_SUBJECTS.get(question, Subject.SOURCE).name,
        cause=Cause(watch[CAUSE]).name,
        severity=severity.name,
        previous_severity=previous.name,
        first_sequence=watch[FIRST],
        last_sequence=watch[LAST],
        events=watch[EVENTS],
        skew_ppb=skew_ppb,
        at_open=Reading.of(watch[AT_OPEN : AT_OPEN + READ_COLUMNS]),
        worst=Reading.of(watch[WORST : WORST + READ_COLUMNS]),
        at_close=at_close,
        text=text,
    )


def _opening_text(source: str, cause: Cause, now: Reading, told: str) -> str:
    """Of an alert that opens or changes."""
    match cause:
        case Cause.BACKLOG:
            text = f"{source}'s events arrive {drift_seconds(now.value_ms)} s late {told}"
            return text if now.offset_us is None else f"{text}; its clock is {_estimated(now)}"
        case Cause.UNKNOWN if now.value_ms < 0:
            return (
                f"{source}'s events are stamped {drift_seconds(now.value_ms)} s before they arrive {told}; too few "
                "agree to tell a slow clock from a slow way"
            )
        case Cause.AUTHORITY:
            return f"the clock of the {source} is {drift_seconds(now.value_ms)} s {side_of(now.value_ms)} {told}"
        case Cause.STEP:
            return f"{source} stepped and is {_clock(now)} {told}"
        case _:
            return f"{source} is {_clock(now)} {told}"


def _closing_text(partition: int, source: str, change: Change, worst: Reading) -> str:
    if change.question is Question.WORKER:
        source = f"the clock of worker {change.worker} of partition {partition}"
    place = "index" if change.question is Question.WORKER else "sequence"
    since = f"since {format_ms(change.watch[CALM_FIRST_MS])}, {place} {partition}:{change.watch[CALM_FIRST]}"
    size, severity = drift_seconds(worst.value_ms), Severity(severity_of(worst.value_ms)).name
    if change.question is Question.AUTHORITY:
        at = f"{format_ms(change.now[READ_AUTHORITY_MS])}, sequence {partition}:{change.now[READ_SEQUENCE]}"
        at_worst = f"at worst it was {size} s {side_of(worst.value_ms)} ({severity})"
        return f"the clock of the {source} is within 1 s again since {at}; {at_worst}"
    if change.question is Question.DELAY:
        return f"{source}'s events arrive within 1 s again {since}; at worst they were {size} s late ({severity})"
    return f"{source} is within 1 s again {since}; at worst it was {size} s {side_of(worst.value_ms)} ({severity})"


def _clock(now: Reading) -> str:
    """Where the clock is: by the estimate, or by what this event proves."""
    if now.offset_us is not None and rounded_ms(now.offset_us) == now.value_ms:
        return _estimated(now)
    proved = " at least" if now.value_ms > 0 else ""
    return f"{drift_seconds(now.value_ms)} s {side_of(now.value_ms)}{proved}"


def _estimated(now: Reading) -> str:
    return estimate_text(now.offset_us or 0, now.bound_us or 0)
