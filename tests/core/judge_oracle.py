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
from schemas.instants import format_ms
from schemas.memory import address_of
from streams.definitions import JudgeSettings
from streams.estimate import coherent_s
from tests.core.clock_oracle import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMES = ("GREEN", "YELLOW", "RED")
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
) -> bytes:
    """An input value."""
    fields = {"event_id": event_id, "source": source, "local_timestamp": local_us, "kind": "k", "value": value}
    return encode("Event", fields, framing)


def control(kind: str, authority_ms: int = START_MS, **body: Any) -> Row:
    """A CONTROL entry."""
    value = encode("Control", {"body": (kind, body), "actor": "test", "reason": "test"})
    return Row(value, authority_ms, EntryKind.CONTROL)


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


class Reading(NamedTuple):
    """Of one event that counts."""

    sequence: int
    authority_ms: int
    local_us: int
    delta_ms: int
    severity: int

    def fields(self) -> dict[str, Any]:
        """As in an alert."""
        names = ("sequence", "authority_timestamp", "local_timestamp", "delta_ms")
        return dict(zip(names, self, strict=False)) | {"severity": NAMES[self.severity]}


@dataclass
class Source:
    """All that ever happened to it."""

    number: int
    clock: Clock = field(default_factory=Clock)
    readings: list[Reading] = field(default_factory=list)
    last_sequence: int = 0
    severity: int = 0
    first_sequence: int = 0
    revision: int = 0
    at_open: Reading | None = None

    def run(self) -> list[Reading]:
        """The events at the end that agree on a severity other than the current one."""
        found: list[Reading] = []
        for reading in reversed(self.readings):
            if reading.severity == self.severity or reading.severity != self.readings[-1].severity:
                break
            found.insert(0, reading)
        return found


def exact_delta_ms(local_us: int, authority_ms: int) -> int:
    """Rounded half away from zero, in fractions."""
    delta = Fraction(local_us - authority_ms * 1000, 1000)
    size = int(abs(delta) + Fraction(1, 2))
    return -size if delta < 0 else size


def exact_severity(delta_ms: int) -> int:
    """0 GREEN below 1 s, 1 YELLOW below 5 s, 2 RED."""
    return (abs(delta_ms) >= 1000) + (abs(delta_ms) >= 5000)


class Oracle:
    """One partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.settings = JudgeSettings()
        self.sequence = 0
        self.sources: dict[str, Source] = {}
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
        source.last_sequence = self.sequence
        key, content = (name, fields["event_id"]), hashlib.sha256(row.value or b"").digest()
        delta_ms = exact_delta_ms(local_us, row.authority_ms)
        reading = Reading(self.sequence, row.authority_ms, local_us, delta_ms, exact_severity(delta_ms))
        known = self.first.get(key)
        flags = 0
        if known is not None and self.sequence - known[0] <= self.settings.dedupe_horizon:
            flags = 2 if known[1] == content else 4
        else:
            self.first[key] = (self.sequence, content)
            flags = int(abs(local_us - row.authority_ms * 1000) > self.settings.threshold_us)
            trip = fields["exchange"]
            told = (trip["sent_us"], trip["acked_us"], trip["appended_ms"]) if trip else None
            before = (source.clock.step_ms, source.clock.step_us)
            source.clock.read(self.sequence, row.authority_ms, local_us, told)
            self._tell(
                index,
                name,
                source.clock,
                row.authority_ms,
                stepped=(source.clock.step_ms, source.clock.step_us) != before,
            )
            self._watch(index, name, source, reading)
        if fields["value"] is not None and not abs(fields["value"]) < float("inf"):
            flags |= 8
        offset_us, bound_us = source.clock.known_offset(row.authority_ms)
        self.verdicts.append(Verdict("NONE", reading.severity, flags, delta_ms, source.number, offset_us, bound_us))

    def _tell(self, index: int, name: str, clock: Clock, authority_ms: int, *, stepped: bool) -> None:
        offset_us, bound_us = clock.known_offset(authority_ms)
        interval = authority_ms // self.settings.estimate_interval_ms
        if bound_us < 0 or (clock.told == interval and not stepped):
            return
        why = "KNOWN" if clock.told is None else "STEP" if stepped else "INTERVAL"
        clock.told = interval
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
            "span_ms": authority_ms - clock.begun_ms,
            "severity": NAMES[exact_severity(size_ms)],
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
            order = sorted(self.sources.items(), key=lambda item: (item[1].severity != 0, item[1].last_sequence))
            for leaving, source in order[: len(order) - (most - max(1, most // 8))]:
                if source.severity != 0:
                    last = f"{NAMES[source.severity]} at sequence {self.partition}:{_last_off(source).sequence}"
                    text = (
                        f"{leaving} is no longer watched: more than {most} sources, each with an open alert; "
                        f"it was last {last}"
                    )
                    self._alert(index, leaving, source, "CLOSED", source.severity, None, text)
                del self.sources[leaving]
                self.evicted += 1
        self.given += 1
        self.sources[name] = Source(self.given)
        return self.sources[name]

    def _watch(self, index: int, name: str, source: Source, reading: Reading) -> None:
        source.readings.append(reading)
        run = source.run()
        if len(run) < self.settings.confirm_events:
            return
        before, source.severity = source.severity, reading.severity
        since = f"since {format_ms(run[0].authority_ms)}, sequence {self.partition}:{run[0].sequence}"
        offset = _offset(reading)
        if before == 0:
            source.first_sequence, source.revision, source.at_open = run[0].sequence, 0, reading
            self._alert(
                index, name, source, "OPENED", before, None, f"{name} is {offset} ({NAMES[reading.severity]}) {since}"
            )
        elif reading.severity != 0:
            text = f"{name} is {offset} ({NAMES[reading.severity]}, was {NAMES[before]}) {since}"
            self._alert(index, name, source, "CHANGED", before, None, text)
        else:
            worst = _worst(source)
            text = f"{name} is within 1 s again {since}; at worst it was {_offset(worst)} ({NAMES[worst.severity]})"
            self._alert(index, name, source, "CLOSED", before, reading, text)

    def _alert(
        self, index: int, name: str, source: Source, state: str, before: int, at_close: Reading | None, text: str
    ) -> None:
        source.revision += 1
        assert source.at_open is not None
        fields = {
            "alert_id": f"{self.partition}:{source.first_sequence}",
            "revision": source.revision,
            "state": state,
            "partition": self.partition,
            "source": name,
            "cause": "UNKNOWN",
            "severity": NAMES[source.severity],
            "previous_severity": NAMES[before],
            "first_sequence": source.first_sequence,
            "last_sequence": _last_off(source).sequence,
            "events": sum(r.sequence >= source.first_sequence for r in source.readings),
            "at_open": source.at_open.fields(),
            "worst": _worst(source).fields(),
            "at_close": at_close.fields() if at_close else None,
            "text": text,
        }
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


def _last_off(source: Source) -> Reading:
    return next(r for r in reversed(source.readings) if r.severity != 0)


def _worst(source: Source) -> Reading:
    return max((r for r in source.readings if r.sequence >= source.first_sequence), key=lambda r: abs(r.delta_ms))


def _offset(reading: Reading) -> str:
    size = abs(reading.delta_ms)
    return f"{size // 1000}.{size % 1000:03d} s {'behind' if reading.delta_ms < 0 else 'ahead'}"


def read_record(target: str, value: bytes) -> dict[str, Any]:
    """The fields of a record that the fold wrote."""
    fields: dict[str, Any] = decode("DeadLetter", value) if target == "dead.letters" else orjson.loads(value)
    return fields
