"""The integrity fold: reads every entry's value, says whose clock is off by how much, and opens and closes alerts.

Problem: what the sequencer wrote down is opaque on purpose. Judge is the first to look inside, so it must survive
anything a producer can send, at the rate at which events come, and its word must be the same for ever.

For each DATA entry exactly one of:
- it cannot be read: one dead letter with the name of the fault and the original bytes. Erased values are only
  counted: they were read once, and their bytes are gone on purpose.
- DUPLICATE or CONFLICT (see `dedupe`): severity and delta are computed, for the drift log, and it is counted. It
  takes no part in alerts, estimates, warnings or the counts by severity: a retry is stamped when first sent, so its
  distance is that of the network.
- judged: severity, warning, the estimate of its source's clock (see `estimate`), its cause (see `causes`), the alert
  machine (see `alert_kernel`). A value that is NaN or infinite is flagged and counted, its clock is judged like any
  other.

CONTROL entries change four things only. A HEARTBEAT says something of its worker's clock (see `guardian`). A LOCK
engages or releases a lock (see `locks`), which no verdict depends on; one that is refused is counted (`refused_locks`).
A DEFINITION named "judge" puts its settings in force from its own index on: a smaller dedupe_horizon forgets at once, a
larger one remembers more from now on, a smaller sources_max takes effect when the next new source comes, answers that
were given count on under new rules of alerts. A FOLD_VERSION of judge above our own is a FoldError: a newer release has
written from there on. HAZARD a definition that cannot be read is passed over, counted (`refused_definitions`) and
changes nothing: an entry cannot be mended, so halting for it would halt for ever.

GUARANTEE those of `fold`; sequences must be contiguous from 1, else FoldError.

How: the rows between two definitions or locks are decoded and judged in one kernel call each; Python acts only where a
kernel stops (growth, eviction, reports, a worker whose clock is wrong), once for each alert record, and once for each
dead letter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.canonical import EntryKind
from schemas.columns import Fault, allocate_events, decode_events, slice_rows
from schemas.errors import BadInputError
from schemas.memory import SHA256_CONTEXT_BYTES, address_of, bytes_at
from streams import dedupe, judge_dump, sources
from streams.alert_kernel import OF_SOURCE, QUESTION_COLUMNS, READ_COLUMNS, AlertState, Question, Rules, severity_in
from streams.alerts import Change, DriftAlert, change_record, forgotten_record
from streams.authority_kernel import AUTHORITY_COLUMNS
from streams.clock_fit import workspace
from streams.control import control_values, decode_control, decode_said, is_heartbeat, is_lock
from streams.dead_letters import dead_letter
from streams.definitions import JUDGE, JudgeSettings
from streams.estimates import TOLD_COLUMNS, estimate_messages
from streams.fold import FoldError, Messages, Record, Target
from streams.guardian import Guard, answered, beats_between, beats_in, heard_of, look
from streams.judge_kernel import (
    MESSAGE_BYTES,
    NO_SEVERITY,
    NUMBER_BEAT,
    NUMBER_SEQUENCE,
    NUMBER_TOLD,
    NUMBERS,
    REPORT_COLUMNS,
    REPORT_MOVED,
    REPORT_NOW,
    REPORT_OF,
    REPORT_PREVIOUS,
    REPORT_QUESTION,
    REPORT_ROW,
    REPORT_SEVERITY,
    REPORT_SKEW,
    REPORT_SKEW_ERROR,
    REPORT_STATE,
    REPORT_WATCH,
    Flag,
    Stop,
    Tally,
    Verdicts,
    identify,
    judge_rows,
)
from streams.locks import GUARDIAN, LockChange, change_of, lock_of
from streams.severity import Severity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries, Events
    from streams.locks import Locks

#: Alert records between two returns of the kernel.
_REPORTS_MAX: Final = 64
_KEY_AND_HASH: Final = 3
_NAME: Final = JUDGE.encode()
#: Plain numbers: comparing an array with a member of an enum takes longer than the comparison.
_CONTROL: Final = int(EntryKind.CONTROL)
_CONTROL_ENTRY: Final = int(Fault.CONTROL_ENTRY)
_WARNED: Final = int(Flag.WARNED)


class Counts(NamedTuple):
    """What one step saw. events = green + yellow + red + duplicates + conflicts + sum of unreadable."""

    events: int
    green: int
    yellow: int
    red: int
    warned: int
    duplicates: int
    conflicts: int
    not_finite: int
    #: DATA entries without a verdict, by fault; each but ERASED is a dead letter.
    unreadable: dict[Fault, int]
    evicted_sources: int
    refused_definitions: int
    refused_locks: int = 0


class Outputs(NamedTuple):
    """Of one step: records for the topics, columns for later folds, numbers for metrics.

    estimates: those that are told. events: the decoded rows; where verdicts.fault is not NONE only their fault is
    valid. warned: rows with Flag.WARNED, ascending. keep: what `events` points into beside the batch itself. locks:
    what was engaged or released, in order.
    """

    records: list[Record]
    estimates: Messages
    events: Events
    verdicts: Verdicts
    warned: NDArray[np.int64]
    counts: Counts
    keep: list[object]
    locks: tuple[LockChange, ...] = ()

    def messages(self, target: Target) -> list[tuple[bytes | None, bytes]]:
        """Key and value of each record for a topic, in order."""
        return [(record.key, record.value) for record in self.records if record.target is target]


def slice_outputs(outputs: Outputs, start: int, stop: int) -> Outputs:
    """The columns of rows start to stop - 1, as views; all else is that of the whole."""
    events = slice_rows(outputs.events, start, stop)
    return outputs._replace(events=events, verdicts=_verdict_rows(outputs.verdicts, start, stop))


@dataclass(slots=True)
class JudgeState:
    """Of one partition. settings: those in force; last_sequence: of the last DATA entry.

    written_by: the version of the judge that writes, as the last FOLD_VERSION entry says. authority: see
    `authority_kernel`; guard: see `guardian`; locks: those that are engaged, in order of index.
    """

    partition: int
    settings: JudgeSettings = field(default_factory=JudgeSettings)
    last_sequence: int = 0
    written_by: int = judge_dump.FIRST_VERSION
    sources: sources.Sources = field(default_factory=sources.no_sources)
    memory: dedupe.Memory = field(default_factory=lambda: dedupe.empty_memory(JudgeSettings().dedupe_horizon))
    authority: NDArray[np.int64] = field(default_factory=lambda: np.zeros(AUTHORITY_COLUMNS, np.int64))
    guard: Guard = field(default_factory=Guard)
    locks: Locks = field(default_factory=dict)


class _Batch(NamedTuple):
    """What a step gathers."""

    verdicts: Verdicts
    tally: NDArray[np.int64]
    records: list[Record]
    told: list[NDArray[np.int64]]
    keep: list[object]
    beats: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Judge:
    """The fold."""

    @property
    def name(self) -> str:
        """Of the fold."""
        return JUDGE

    @property
    def version(self) -> int:
        """Of its rules."""
        return judge_dump.VERSION

    def new_state(self, partition: int) -> JudgeState:
        """Before the first entry; the default settings are in force."""
        return JudgeState(partition)

    def step(self, state: JudgeState, entries: Entries) -> Outputs:
        """Decode and judge the next entries.

        Raises FoldError if the sequence does not go on from the last step, or the ledger says that a newer judge
        wrote it.
        """
        rows = entries.kind.size
        events = allocate_events(rows)
        controls = control_values(entries)
        tally = np.zeros(len(Tally), np.int64)
        batch = _Batch(blank_verdicts(rows), tally, [], [], [], beats_in(entries, len(controls)))
        changes: list[LockChange] = []
        evicted = refused = refused_locks = start = 0
        for row, value in controls:
            if is_heartbeat(value):
                continue
            if is_lock(value):
                evicted += self._judge(state, entries, events, start, row, batch)
                start = row
                refused_locks += not self._lock(state, entries, row, value, changes)
                continue
            try:
                settings = self._settings_in(state, entries, row)
            except BadInputError:  # DecodeError is one; see the HAZARD above
                refused += 1
                continue
            if settings is not None:
                evicted += self._judge(state, entries, events, start, row, batch)
                start = row
                _adopt(state, settings)
        evicted += self._judge(state, entries, events, start, rows, batch)
        batch.verdicts.fault[:] = events.fault
        unread = np.flatnonzero(events.fault > _CONTROL_ENTRY)
        unreadable = Counter(Fault(fault) for fault in events.fault[unread].tolist())
        letters = [
            dead_letter(state.partition, entries, row, Fault(events.fault[row]).name)
            for row in unread.tolist()
            if events.fault[row] != Fault.ERASED
        ]
        told = batch.tally.tolist()
        return Outputs(
            records=sorted(batch.records + letters, key=lambda record: record.at_index),
            estimates=estimate_messages(state.partition, np.concatenate(batch.told)),
            events=events,
            verdicts=batch.verdicts,
            warned=np.flatnonzero(batch.verdicts.flags & _WARNED),
            counts=Counts(
                events=int(np.count_nonzero(entries.kind != _CONTROL)),
                green=told[Tally.GREEN],
                yellow=told[Tally.YELLOW],
                red=told[Tally.RED],
                warned=told[Tally.WARNED],
                duplicates=told[Tally.DUPLICATES],
                conflicts=told[Tally.CONFLICTS],
                not_finite=told[Tally.NOT_FINITE],
                unreadable=dict(unreadable),
                evicted_sources=evicted,
                refused_definitions=refused,
                refused_locks=refused_locks,
            ),
            keep=batch.keep,
            locks=tuple(changes),
        )

    def dump(self, state: JudgeState) -> bytes:
        """See `judge_dump`."""
        return judge_dump.dump(
            judge_dump.Image(
                state.partition,
                state.last_sequence,
                state.written_by,
                state.settings,
                state.sources,
                state.memory,
                state.authority,
                state.guard,
                state.locks,
            )
        )

    def load(self, partition: int, data: bytes) -> JudgeState:
        """See `judge_dump`."""
        image = judge_dump.load(partition, data)
        return JudgeState(
            partition,
            image.settings,
            image.last_sequence,
            image.written_by,
            image.sources,
            image.memory,
            image.authority,
            image.guard,
            image.locks,
        )

    def _lock(self, state: JudgeState, entries: Entries, row: int, value: bytes, changes: list[LockChange]) -> bool:
        """Take a LOCK entry; False where it is refused, which changes nothing, as with a definition."""
        try:
            said = decode_said(value)
            asked = lock_of(state.partition, int(entries.index[row]), int(entries.authority_ms[row]), said)
            change = change_of(state.locks, asked, engaged=said.body["engaged"])
        except BadInputError:
            return False
        if change is not None:
            changes.append(change)
        if said.body["engaged"] and said.actor == GUARDIAN and asked.scope is None:
            answered(state.guard)
        return True

    def _settings_in(self, state: JudgeState, entries: Entries, row: int) -> JudgeSettings | None:
        """The settings that a CONTROL entry puts in force, None for any other entry; notes a FOLD_VERSION."""
        if entries.value_address[row] == 0:
            return None
        value = bytes_at(int(entries.value_address[row]), int(entries.value_length[row]))
        if _NAME not in value:
            return None  # a heartbeat, as a rule: not worth decoding
        kind, body = decode_control(value)
        if kind == "FoldVersion" and body["fold"] == self.name:
            if body["version"] > self.version:
                raise FoldError(
                    f"index {entries.index[row]} says that judge {body['version']} wrote on from there, this is judge "
                    f"{self.version}. Run a release that has judge {body['version']}"
                )
            state.written_by = body["version"]
        if kind == "Definition" and body["name"] == JUDGE:
            return JudgeSettings.parse(body["body"])
        return None

    def _judge(
        self, state: JudgeState, whole: Entries, whole_events: Events, start: int, stop: int, batch: _Batch
    ) -> int:
        """Decode and judge rows start to stop - 1, which stand under the same settings; returns the sources evicted."""
        rows = stop - start
        split = rows < whole.kind.size
        entries = slice_rows(whole, start, stop) if split else whole
        events = slice_rows(whole_events, start, stop) if split else whole_events
        verdicts = _verdict_rows(batch.verdicts, start, stop) if split else batch.verdicts
        batch.keep.append(decode_events(entries, events, state.settings.framing))
        marks = np.empty((rows, _KEY_AND_HASH), np.int64)
        work = np.empty(MESSAGE_BYTES + SHA256_CONTEXT_BYTES + 32, np.uint8)
        message = address_of(work)
        identify(events, marks, message, message + MESSAGE_BYTES, message + MESSAGE_BYTES + SHA256_CONTEXT_BYTES)
        content = entries.value_hash.view(np.int64)
        reports = np.empty((_REPORTS_MAX, REPORT_COLUMNS), np.int64)
        told = np.empty((rows, TOLD_COLUMNS), np.int64)
        numbers = np.zeros(NUMBERS, np.int64)
        numbers[NUMBER_SEQUENCE] = state.last_sequence
        settings, room = state.settings, workspace()
        rules, reading = rules_of(settings), np.empty(READ_COLUMNS, np.int64)
        beats = beats_between(batch.beats, start, stop) if split else batch.beats
        evicted = row = 0
        while True:
            row, why, reported = judge_rows(
                row, entries, events, marks, content, verdicts, state.sources, address_of(state.sources.arena),
                state.memory, state.authority, beats, state.guard.columns, numbers, settings.threshold_us,
                rules, settings.dedupe_horizon, settings.sources_max, settings.estimate_interval_ms, room, reading,
                batch.tally, reports, told,
            )  # fmt: skip
            state.last_sequence = int(numbers[NUMBER_SEQUENCE])
            for report in reports[:reported].tolist():
                batch.records.append(self._change(state.partition, entries, events, report))
            match why:
                case Stop.DONE:
                    batch.told.append(told[: numbers[NUMBER_TOLD]])
                    return evicted
                case Stop.GROW:
                    state.sources = sources.grown(state.sources)
                case Stop.EVICT:
                    evicted += self._evict(state, int(entries.index[row]), batch.records)
                case Stop.BEAT:
                    heard = heard_of(state.partition, entries, row, beats, int(numbers[NUMBER_BEAT]), state.authority)
                    for alert in look(state.guard, heard, rules):
                        batch.records.append(_alert_record(heard.index, alert.source.encode(), alert))
                    numbers[NUMBER_BEAT] += 1
                    row += 1
                case Stop.OUT_OF_ORDER:
                    raise FoldError(
                        f"judge was given sequence {entries.sequence[row]} after {state.last_sequence} in partition "
                        f"{state.partition}. Restore it from a snapshot, or fold again from the first entry"
                    )

    def _change(self, partition: int, entries: Entries, events: Events, report: list[int]) -> Record:
        row, question = report[REPORT_ROW], Question(report[REPORT_QUESTION])
        source = bytes_at(int(events.source_address[row]), int(events.source_length[row]))
        if question is Question.AUTHORITY:
            source = f"broker of partition {partition}".encode()
        change = Change(
            question=question,
            state=AlertState(report[REPORT_STATE]),
            previous=Severity(report[REPORT_PREVIOUS]),
            severity=Severity(report[REPORT_SEVERITY]),
            skew_ppb=report[REPORT_SKEW],
            skew_error_ppb=report[REPORT_SKEW_ERROR],
            moved=report[REPORT_MOVED],
            of=report[REPORT_OF],
            now=report[REPORT_NOW:REPORT_WATCH],
            watch=report[REPORT_WATCH:],
        )
        alert = change_record(partition, source.decode(), change)
        return _alert_record(int(entries.index[row]), source, alert)

    def _evict(self, state: JudgeState, index: int, records: list[Record]) -> int:
        """Make room for a new source at the entry of that index."""
        table = state.sources
        leaving, staying = sources.least_needed(table, state.settings.sources_max)
        for slot in leaving.tolist():
            for question in OF_SOURCE:
                severity = Severity(severity_in(int(table.hot[slot, sources.STATE]), question))
                if severity is not Severity.GREEN:
                    source = sources.name_of(table, slot)
                    watch = table.watch[slot, question * QUESTION_COLUMNS :][:QUESTION_COLUMNS].tolist()
                    alert = forgotten_record(
                        state.partition, source.decode(), question, severity, watch, state.settings.sources_max
                    )
                    records.append(_alert_record(index, source, alert))
        state.sources = sources.only(table, staying)
        return len(leaving)


def rules_of(settings: JudgeSettings) -> Rules:
    """Those of the alert machine."""
    return Rules(
        settings.confirm_events,
        settings.of_events,
        settings.clear_events,
        settings.hysteresis_ms,
        settings.hold_ms,
        settings.fleet_hold_ms,
    )


def _alert_record(index: int, source: bytes, alert: DriftAlert) -> Record:
    return Record(Target.DRIFT_ALERTS, index, source, alert.encode())


def _adopt(state: JudgeState, settings: JudgeSettings) -> None:
    """Put settings in force."""
    before = state.settings.dedupe_horizon
    if settings.dedupe_horizon != before:
        rows = dedupe.remembered(state.memory, before, state.last_sequence)
        state.memory = dedupe.restored(rows, settings.dedupe_horizon, state.last_sequence)
    state.settings = settings


def blank_verdicts(rows: int) -> Verdicts:
    """Of rows about which nothing has been said."""
    return Verdicts(
        fault=np.empty(rows, np.uint8),
        severity=np.full(rows, NO_SEVERITY, np.uint8),
        flags=np.zeros(rows, np.uint8),
        delta_ms=np.zeros(rows, np.int64),
        source=np.full(rows, -1, np.int64),
        offset_us=np.zeros(rows, np.int64),
        bound_us=np.full(rows, -1, np.int64),
        cause=np.zeros(rows, np.uint8),
    )


def _verdict_rows(verdicts: Verdicts, start: int, stop: int) -> Verdicts:
    """Rows start to stop - 1 as views."""
    return Verdicts(
        fault=verdicts.fault[start:stop],
        severity=verdicts.severity[start:stop],
        flags=verdicts.flags[start:stop],
        delta_ms=verdicts.delta_ms[start:stop],
        source=verdicts.source[start:stop],
        offset_us=verdicts.offset_us[start:stop],
        bound_us=verdicts.bound_us[start:stop],
        cause=verdicts.cause[start:stop],
    )
