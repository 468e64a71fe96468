"""The judge, plainly: dictionaries, Python integers and whole histories kept, one entry at a time.

The fold under test works with packed tables, hashes and early returns; this twin does what the rules say and nothing
for speed. It also makes the ledgers that tests step: a `Ledger` lays rows out as `Entries`, `histories` invents them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from schemas.canonical import EntryKind, ValueState
from schemas.codec import Framing, decode, encode
from schemas.columns import Entries, Fault, allocate_entries, slice_rows
from schemas.errors import BadInputError
from schemas.faults import DecodeError
from schemas.memory import address_of
from streams.definitions import JudgeSettings
from streams.estimate import coherent_s
from tests.core.alert_oracle import NAMES, Answer, Question, Reading, alert_fields, blame, cause_of, grade_of
from tests.core.authority_oracle import Authority
from tests.core.clock_oracle import Clock
from tests.core.guardian_oracle import Beat, Guardian

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_MS = 1_795_000_000_000


@dataclass(frozen=True)
class Row:
    """An entry before it has its numbers."""

    value: bytes | None
    authority_ms: int = START_MS
    kind: EntryKind = EntryKind.DATA
    state: ValueState = ValueState.PRESENT
    key: bytes | None = None


class Ledger:
    """Rows as the entries of one partition, numbered from 1, and the memory they point into."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.entries = allocate_entries(len(rows))
        parts: list[bytes] = []
        places: list[tuple[int, int]] = []
        used = 0
        for row in rows:
            for part in (row.value, row.key):
                places.append((used, len(part or b"")))
                parts.append(part or b"")
                used += len(part or b"")
        self._memory = np.frombuffer(b"".join(parts) + b"\0", np.uint8)
        base, sequence, entries = address_of(self._memory), 0, self.entries
        for i, row in enumerate(rows):
            sequence += row.kind is EntryKind.DATA
            present = row.value is not None and row.state is ValueState.PRESENT
            entries.kind[i], entries.index[i], entries.sequence[i] = row.kind, i + 1, sequence
            entries.input_offset[i], entries.control_offset[i] = 2 * sequence - 1, i - sequence
            entries.authority_ms[i] = row.authority_ms
            entries.value_state[i] = ValueState.NULL if row.value is None else row.state
            entries.value_address[i] = base + places[2 * i][0] if present else 0
            entries.value_length[i] = -1 if row.value is None else len(row.value)
            entries.key_address[i] = 0 if row.key is None else base + places[2 * i + 1][0]
            entries.key_length[i] = -1 if row.key is None else len(row.key)
            if row.value is not None:
                entries.value_hash[i] = np.frombuffer(hashlib.sha256(row.value).digest(), np.uint8)

    def batches(self, sizes: Iterator[int], start: int = 0) -> Iterator[Entries]:
        """Consecutive slices from row start on."""
        while start < len(self.rows):
            stop = min(start + next(sizes), len(self.rows))
            yield slice_rows(self.entries, start, stop)
            start = stop


def event(
    source: str,
    event_id: str,
    local_us: int,
    value: float | None = None,
    framing: Framing = Framing.SINGLE_OBJECT,
    exchange: dict[str, int] | None = None,
) -> bytes:
    """An input value."""
    fields = {"event_id": event_id, "source": source, "local_timestamp": local_us, "kind": "k", "value": value}
    fields["exchange"] = exchange
    return encode("Event", fields, framing)


def control(kind: str, authority_ms: int = START_MS, **body: Any) -> Row:
    """A CONTROL entry."""
    return control_by("test", kind, authority_ms, body)


def control_by(actor: str, kind: str, authority_ms: int, body: dict[str, Any]) -> Row:
    """The same, caused by that one."""
    value = encode("Control", {"body": (kind, body), "actor": actor, "reason": "test"})
    return Row(value, authority_ms, EntryKind.CONTROL)


def heartbeat(
    worker_us: int, authority_ms: int = START_MS, trip: tuple[int, int] | None = None, worker: str = "w-1"
) -> Row:
    """One that proves nothing of the input. trip: append time of the one before, and when the worker knew."""
    round_trip = None if trip is None else {"appended_ms": trip[0], "acked_us": trip[1]}
    body = {
        "predecessor_appended_ms": None, "input_end_offset": 0, "worker_us": worker_us, "round_trip": round_trip,
    }  # fmt: skip
    return control_by(worker, "Heartbeat", authority_ms, body)


def lock(
    scope: str | None, authority_ms: int = START_MS, actor: str = "ada", *, engaged: bool = True, off_us: int = 0
) -> Row:
    """A LOCK that halts everything; off_us: of the clock of who locks."""
    asserted_us = authority_ms * 1_000 + off_us
    halts = ["sequence", "put"] if engaged else []
    body = {"engaged": engaged, "scope": scope, "halts": halts, "source": "CLI", "client_timestamp": asserted_us}
    return control_by(actor, "Lock", authority_ms, body)


def definition(settings: JudgeSettings, authority_ms: int = START_MS) -> Row:
    """The entry that puts settings in force."""
    return control("Definition", authority_ms, name="judge", body=settings.canonical())


class Verdict(NamedTuple):
    """Of one entry."""

    fault: str
    severity: int
    flags: int
    delta_ms: int
    source: int
    offset_us: int = 0
    bound_us: int = -1
    cause: str = "NONE"


@dataclass
class Source:
    """All that ever happened to it."""

    number: int
    clock: Clock = field(default_factory=Clock)
    last_sequence: int = 0
    of_clock: Question = field(default_factory=lambda: Question("clock"))
    of_delay: Question = field(default_factory=lambda: Question("delay"))

    def questions(self) -> tuple[Question, Question]:
        """In the order in which they are asked."""
        return self.of_clock, self.of_delay


def exact_delta_ms(local_us: int, authority_ms: int) -> int:
    """Rounded half away from zero, in fractions."""
    delta = Fraction(local_us - authority_ms * 1000, 1000)
    size = int(abs(delta) + Fraction(1, 2))
    return -size if delta < 0 else size


class Oracle:
    """One partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.settings = JudgeSettings()
        self.sequence = 0
        self.sources: dict[str, Source] = {}
        self.authority = Authority()
        self.guardian = Guardian(partition)
        self.given = 0
        self.first: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.verdicts: list[Verdict] = []
        self.records: list[tuple[str, int, bytes | None, dict[str, Any]]] = []
        self.evicted = 0

    def take(self, index: int, row: Row) -> None:
        """The next entry."""
        if row.kind is EntryKind.CONTROL:
            self.verdicts.append(Verdict("CONTROL_ENTRY", 255, 0, 0, -1))
            self._define(row)
            self._guard(index, row)
            return
        self.sequence += 1
        try:
            fields = self._read(row)
        except DecodeError as error:
            self.verdicts.append(Verdict(error.fault.name, 255, 0, 0, -1))
            if error.fault is not Fault.ERASED:
                self._bury(index, row, error.fault)
            return
        self._judge(index, row, fields)

    def _read(self, row: Row) -> dict[str, Any]:
        if row.value is None:
            raise DecodeError("Event", Fault.NULL_VALUE, "")
        if row.state is not ValueState.PRESENT:
            raise DecodeError("Event", Fault[row.state.name], "")
        return decode("Event", row.value, self.settings.framing)

    def _guard(self, index: int, row: Row) -> None:
        try:
            said = decode("Control", row.value or b"")
        except DecodeError:
            return
        kind, body = said["body"]
        if kind == "Lock":
            self.guardian.take(index, row.authority_ms, said)
        elif kind == "Heartbeat":
            trip = body["round_trip"]
            told = None if trip is None else (trip["appended_ms"], trip["acked_us"])
            beat = Beat(index, row.authority_ms, said["actor"], body["worker_us"], told)
            shift_ms, shifted_ms = self.authority.shift_ms, self.authority.shifted_ms
            for record in self.guardian.hear(beat, shift_ms, shifted_ms, self.settings):
                self.records.append(("drift.alerts", index, record["source"].encode(), record))

    def _define(self, row: Row) -> None:
        try:
            kind, body = decode("Control", row.value or b"")["body"]
            if kind != "Definition" or body["name"] != "judge":
                return
            settings = JudgeSettings.parse(body["body"])
        except BadInputError:
            return
        horizons = self.settings.dedupe_horizon, settings.dedupe_horizon
        self.first = {k: v for k, v in self.first.items() if self.sequence - v[0] < min(horizons)}
        self.settings = settings

    def _judge(self, index: int, row: Row, fields: dict[str, Any]) -> None:
        name, local_us = fields["source"], fields["local_timestamp"]
        source = self._source(index, name)
        before, source.last_sequence = source.last_sequence, self.sequence
        key, content = (name, fields["event_id"]), hashlib.sha256(row.value or b"").digest()
        delta_ms = exact_delta_ms(local_us, row.authority_ms)
        known = self.first.get(key)
        flags, cause = 0, "NONE"
        if known is not None and self.sequence - known[0] <= self.settings.dedupe_horizon:
            flags = 2 if known[1] == content else 4
        else:
            self.first[key] = (self.sequence, content)
            flags = int(abs(local_us - row.authority_ms * 1000) > self.settings.threshold_us)
            cause = self._measure(index, name, source, row, fields, before)
        if fields["value"] is not None and not abs(fields["value"]) < float("inf"):
            flags |= 8
        offset_us, bound_us = source.clock.known_offset(row.authority_ms - self.authority.shift_ms)
        self.verdicts.append(
            Verdict("NONE", grade_of(delta_ms), flags, delta_ms, source.number, offset_us, bound_us, cause)
        )

    def _measure(
        self, index: int, name: str, source: Source, row: Row, fields: dict[str, Any], before_sequence: int
    ) -> str:
        """The estimate of its clock, what that tells of the broker's, and the alerts; returns the event's cause."""
        clock, local_us = source.clock, fields["local_timestamp"]
        delta_ms = exact_delta_ms(local_us, row.authority_ms)
        plain = Reading(self.sequence, row.authority_ms, local_us, delta_ms, None, None)
        clocks = [one.clock for one in self.sources.values()]
        if self.authority.shift_ms:
            true_delta_ms = exact_delta_ms(local_us, row.authority_ms - self.authority.shift_ms)
            record = self.authority.look(self.partition, clocks, before_sequence, true_delta_ms, plain)
            if record is not None:
                self.records.append(("drift.alerts", index, record["source"].encode(), record))
        shift_ms = self.authority.shift_ms
        trip = fields["exchange"]
        told = None
        if trip and trip["appended_ms"] >= self.authority.shifted_ms:
            told = trip["sent_us"], trip["acked_us"], trip["appended_ms"] - shift_ms
        before = (clock.step_ms, clock.step_us)
        place = clock.read(self.sequence, row.authority_ms - shift_ms, local_us, told)
        stepped = (clock.step_ms, clock.step_us) != before
        if place not in ("NEAR", "BEGAN") or stepped:
            record = self.authority.ask(self.partition, clocks, clock, plain, stepped=stepped)
            if record is not None:
                self.records.append(("drift.alerts", index, record["source"].encode(), record))
            if self.authority.shift_ms != shift_ms:
                place, stepped = "NEAR", False
        true_ms = row.authority_ms - self.authority.shift_ms
        self._tell(index, name, clock, row.authority_ms, true_ms, stepped=stepped)
        offset_us, bound_us = clock.known_offset(true_ms)
        reading = plain if bound_us < 0 else plain._replace(offset_us=offset_us, bound_us=bound_us)
        cause = self._ask(index, name, source, reading, place, true_ms)
        return "AUTHORITY" if cause == "NONE" and grade_of(delta_ms) else cause

    def _tell(self, index: int, name: str, clock: Clock, authority_ms: int, true_ms: int, *, stepped: bool) -> None:
        offset_us, bound_us = clock.known_offset(true_ms)
        if bound_us < 0:
            return
        if clock.told is not None and not stepped:
            length, apart_ms = self.settings.estimate_interval_ms, abs(true_ms - clock.told)
            events = Fraction(apart_ms * clock.samples, true_ms - clock.begun_ms)  # of its mean rate
            if true_ms // length == clock.told // length or (apart_ms < 10 * length and events < 16):
                return
        why = "KNOWN" if clock.told is None else "STEP" if stepped else "INTERVAL"
        clock.told = true_ms
        size_ms = (abs(offset_us) + 500) // 1_000
        fields = {
            "partition": self.partition,
            "source": name,
            "sequence": self.sequence,
            "authority_timestamp": authority_ms,
            "why": why,
            "method": "ONE_WAY" if clock.reach_us is None else "TWO_WAY",
            "offset_us": offset_us,
            "bound_us": bound_us,
            "skew_ppb": clock.skew_ppb,
            "skew_error_ppb": clock.error_ppb,
            "samples": clock.samples,
            "span_ms": true_ms - clock.begun_ms,
            "severity": NAMES[grade_of(size_ms)],
            "coherent_s": coherent_s(offset_us, bound_us, clock.skew_ppb, clock.error_ppb),
            "disturbances": clock.disturbances,
            "step_sequence": clock.step_sequence if clock.disturbances else None,
            "step_us": clock.step_us if clock.disturbances else None,
        }
        self.records.append(("drift.estimates", index, name.encode(), fields))

    def _source(self, index: int, name: str) -> Source:
        if name in self.sources:
            return self.sources[name]
        most = self.settings.sources_max
        if len(self.sources) >= most:
            order = sorted(
                self.sources.items(),
                key=lambda item: (any(q.severity for q in item[1].questions()), item[1].last_sequence),
            )
            for leaving, source in order[: len(order) - (most - max(1, most // 8))]:
                for question in source.questions():
                    if question.severity != 0:
                        last = f"{NAMES[question.severity]} at sequence {self.partition}:{question.last_over()}"
                        text = (
                            f"{leaving} is no longer watched: more than {most} sources, each with an open alert; "
                            f"it was last {last}"
                        )
                        question.revision += 1
                        self._alert(index, leaving, source, question, "CLOSED", question.severity, text)
                del self.sources[leaving]
                self.evicted += 1
        self.given += 1
        self.sources[name] = Source(self.given)
        return self.sources[name]

    def _ask(self, index: int, name: str, source: Source, reading: Reading, place: str, true_ms: int) -> str:
        true_delta_ms = exact_delta_ms(reading.local_us, true_ms)
        value_ms, cause, delay_ms = blame(source.clock, place, true_delta_ms, reading.offset_us)
        hold_ms = self.settings.fleet_hold_ms
        settled = place != "ABOVE" and true_ms - source.clock.last_step_ms >= hold_ms
        proved = cause == "AHEAD" and true_delta_ms > 0 and grade_of(true_delta_ms) > 0
        waits_ms = 0 if proved or (cause == "STEP" and settled) else hold_ms
        self._answer(index, name, source, source.of_clock, Answer(reading, value_ms, cause), waits_ms)
        waits_ms = self.settings.fleet_hold_ms
        if source.clock.reach_us is not None:
            waits_ms = max(waits_ms, 25_000)
        self._answer(index, name, source, source.of_delay, Answer(reading, delay_ms, "BACKLOG"), waits_ms)
        return cause_of(true_delta_ms, value_ms, cause, delay_ms)

    def _answer(self, index: int, name: str, source: Source, question: Question, answer: Answer, waits_ms: int) -> None:
        before = question.severity
        state = question.ask(answer, waits_ms, self.settings)
        if state is not None:
            self._alert(index, name, source, question, state, before, None)
        if state == "CLOSED":
            question.forget()

    def _alert(
        self, index: int, name: str, source: Source, question: Question, state: str, before: int, text: str | None
    ) -> None:
        skew = source.clock.skew_ppb, source.clock.error_ppb
        fields = alert_fields(self.partition, name, question, state, before, skew, text, self.settings)
        self.records.append(("drift.alerts", index, name.encode(), fields))

    def _bury(self, index: int, row: Row, fault: Fault) -> None:
        present = row.value is not None and row.state is ValueState.PRESENT
        fields = {
            "partition": self.partition,
            "sequence": self.sequence,
            "input_offset": 2 * self.sequence - 1,
            "authority_timestamp": row.authority_ms,
            "reason": fault.name,
            "value_length": -1 if row.value is None else len(row.value),
            "value_hash": bytes(32) if row.value is None else hashlib.sha256(row.value).digest(),
            "value": row.value if present else None,
        }
        self.records.append(("dead.letters", index, row.key, fields))


def read_record(target: str, value: bytes) -> dict[str, Any]:
    """The fields of a record that the fold wrote."""
    fields: dict[str, Any] = decode("DeadLetter", value) if target == "dead.letters" else orjson.loads(value)
    return fields
