"""The lane runner: exactly once without trust.

A lane owns a fixed set of partitions (partition mod lanes). It has one consumer of the input, one of the control
topic, one transactional producer and, for each partition, a head and the state of its folds. Everything a batch
causes is committed in one transaction: ledger entries, alerts, dead letters, and progress where the ledger's tail does
not say it (progress.py).

    open    fence earlier owners, check what is there (admission.py), restore the folds, seek to the tail
    fetch   one batch of input columns
    commit  sequence, let control records in, step the folds, write all of it in one transaction
    close   end the clients; the next open starts from the log again

GUARANTEE one input record, one DATA entry, in order, contiguous, whatever dies: the resume point is the ledger's
own tail, written in the same transaction as everything else.
GUARANTEE after any error nothing of this object is used again: the caller closes it and opens a new one. No abort,
no second try on the same producer: a late EndTxn of the same epoch can end a later transaction.
HAZARD between a commit's request and its answer the outcome is unknown; the tail, read after the fence, tells.

Not for two threads at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, HaltCode, HaltError, UnreachableError
from streams import sequence
from streams.admission import SECOND_WRITER_REMEDY, admit, deployment, topic_missing
from streams.arrivals import check_cut, check_follows, check_records
from streams.control import encode_control, read_control
from streams.control_feed import ControlFeed, control_records
from streams.fold import FoldError
from streams.fold_progress import NO_PROGRESS, Standing
from streams.lane_clients import consumer_settings
from streams.log import Log, offset_of, wait_stable
from streams.outbox import Rows, byte_rows, ledger_rows
from streams.progress import produce_durably, progress_message, read_lane
from streams.rdkafka import ERROR_NO_SUCH_OFFSET, ClientError, NativeConsumer
from streams.records import slice_records
from streams.restore import entries_between, restore
from streams.snapshots import Snapshot, SnapshotWriter, read_snapshots
from streams.transactions import Transactions
from streams.warning_log import LOGGED_PER_SECOND, DriftWarning, warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from schemas.columns import Entries
    from schemas.topics import TopicNames
    from streams.admission import Deployment
    from streams.definitions import JudgeSettings
    from streams.fold_progress import FoldProgress
    from streams.judge import Judge, JudgeState, Outputs
    from streams.ledger_reader import Tail
    from streams.rdkafka import Batch
    from streams.records import Records
    from streams.restore import Read
    from streams.settings import Settings
    from streams.transactions import Point

#: How long a fetch waits where nothing comes: how late a control record may be seen on an idle input.
FETCH_WAIT_MS = 50
#: Of a control record, whatever the limit for values of the input is; the ledger's headroom holds it.
CONTROL_VALUE_BYTES = 1_048_576
_PROGRESS_LOST_REMEDY = (
    "The progress topic lost records, so alerts would be written twice: restore it, or begin a new ledger under another"
    " name"
)


class Committed(NamedTuple):
    """What one transaction wrote: entries, DATA entries among them, its length, and the judge's outputs in order.

    The outputs' columns no longer point anywhere; warnings are the first of the `warned` ones, kept from before.
    """

    entries: int
    events: int
    duration_ns: int
    outputs: list[tuple[int, Outputs]]
    warned: int
    warnings: list[DriftWarning]


@dataclass(slots=True)
class Part:
    """What a lane knows of one of its partitions; slot is its place in a fetched batch."""

    number: int
    slot: int
    head: sequence.Head
    position: int
    #: Of the last input record in the ledger, -1 unknown: the broker is asked whether its log still agrees.
    leader_epoch: int
    state: JudgeState | None = None
    #: Index of the ledger entry after which the last snapshot stands.
    snapshot_index: int = 0
    #: Control offset that must be in the ledger before any data is: GENESIS, and DEFINITION where there is a judge.
    begins_with: int = -1


class _Readers(NamedTuple):
    input: NativeConsumer
    control: ControlFeed


def _fold_failed(partition: int, error: FoldError) -> HaltError:
    remedy = "If it names a release run that, else see `driftledger sequence check`; then `driftledger halts lift`"
    return HaltError(partition, HaltCode.FOLD_FAILED, str(error), remedy)


class Lane:
    """One ownership of a lane, from open to close."""

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        names: TopicNames,
        number: int,
        partitions: Sequence[int],
        judge: Judge | None,
        definition: JudgeSettings,
        *,
        worker: str,
        at: Callable[[Point], None] = lambda _point: None,
    ) -> None:
        self.number = number
        self._worker = worker
        self.parts: dict[int, Part] = {}
        #: Partitions that stand halted on the progress topic; they are left alone.
        self.halted: dict[int, HaltError] = {}
        #: What the ledger's topics were when this lane opened.
        self.deployment: Deployment | None = None
        self._settings, self._bootstrap, self._names = settings, bootstrap, names
        self._judge, self._definition, self._at = judge, definition, at
        self.partitions = list(partitions)
        self._transactions: Transactions | None = None
        self._readers: _Readers | None = None
        self._snapshots: SnapshotWriter | None = None
        self._snapshot_due_ns = 0
        self._standing = Standing({})
        self._abandoned = threading.Event()

    def open(self) -> None:
        """Become the owner: fence, check, restore, seek.

        Raises HaltError for a partition that must not be written (the caller records it and opens the lane without it),
        ClientError or UnreachableError where trying again may help.
        """
        log = Log(self._bootstrap)
        try:
            if log.topic(self._names.progress) is None:
                raise topic_missing(self.partitions[0], self._names.progress)
            self.halted = read_lane(log, self._names.progress, self.number).halts
            free = [p for p in self.partitions if p not in self.halted]
            if not free:
                return
            now = self.deployment = deployment(log, self._names, free[0])
            transactional_id = f"{self._settings.prefix}.{self._settings.ledger}.{now.input_id}.{self.number}"
            transactions = self._transactions = Transactions(
                self._settings, self._bootstrap, transactional_id, self._at
            )
            transactions.fence()
            self._wait_stable(log, free)
            recorded = read_lane(log, self._names.progress, self.number)
            self.halted = recorded.halts  # also those that stood behind an open transaction of an earlier owner
            free = [p for p in self.partitions if p not in self.halted]
            snapshots = read_snapshots(log, self._names.snapshots, self.number)
            self._standing = Standing(recorded.folds)
            tails = {partition: self._open_partition(log, partition, now, snapshots) for partition in free}
            if self._judge is not None:
                for part in self.parts.values():
                    self._open_judge(self._judge, log, transactions, part, tails[part.number], snapshots)
            level = {} if self._judge is None else {self._judge.name: self._judge.version}
            self._standing.begin(level, {part.number: part.head.index for part in self.parts.values()})
        finally:
            log.close()
        feed = ControlFeed(
            self._bootstrap, self._names.control, {p.number: p.head.control_offset + 1 for p in self.parts.values()}
        )
        self._readers = _Readers(NativeConsumer(consumer_settings(self._settings, self._bootstrap)), feed)
        places = [(p.number, p.position, p.leader_epoch) for p in self.parts.values()]
        self._readers.input.assign(self._names.input, places)
        self._commit_beginnings()
        self._snapshots = SnapshotWriter(self._bootstrap, self._names.snapshots, self.number)
        self._snapshot_due_ns = time_source().monotonic_ns() + self._settings.snapshot_interval_ms * 1_000_000

    def fetch(self) -> Batch | None:
        """Wait a little for input; None where nothing came. Raises ClientError, HaltError for a truncated input."""
        if self._readers is None:  # every partition is halted
            time_source().sleep_s(FETCH_WAIT_MS / 1_000)
            return None
        rows_max, linger_ms = self._settings.batch_events_max, self._settings.batch_linger_ms
        try:
            return self._readers.input.fetch(rows_max, FETCH_WAIT_MS, linger_ms)
        except ClientError as error:
            if error.code == ERROR_NO_SUCH_OFFSET:
                position = self.parts[error.partition].position
                check_cut(self._bootstrap, self._names.input, error.partition, position, error)
            raise

    def commit(self, batch: Batch | None) -> Committed | None:
        """Take a fetched batch (or None) and what the control topic holds into the ledger; None for nothing.

        The batch is released. Raises HaltError, or another DriftledgerError where opening again may help; then close()
        this lane.
        """
        try:
            return self._commit(batch)
        finally:
            if batch is not None:
                batch.release()

    def abandon(self) -> None:
        """From another thread: an open that reads the ledger gives up with a DriftledgerError. Close it then."""
        self._abandoned.set()

    def close(self) -> None:
        """End the clients. What was committed stands; an open transaction is ended by the next owner's fence."""
        if self._snapshots is not None:
            self._snapshots.close()
        if self._readers is not None:
            self._readers.control.close()
            self._readers.input.close()
        if self._transactions is not None:
            self._transactions.close()
        self._snapshots = self._readers = self._transactions = None

    # ------------------------------------------------------------------------------------------------- one transaction

    def _commit(self, batch: Batch | None) -> Committed | None:
        if self._readers is None or self._transactions is None:  # every partition is halted
            return None
        control = self._readers.control
        control.poll()
        ledger: list[Rows] = []
        heads: dict[int, sequence.Head] = {}
        judged: list[tuple[int, Outputs]] = []
        alive: list[object] = []
        warnings: list[DriftWarning] = []
        events = 0
        for part in self.parts.values():
            head = part.head
            position = part.position
            sections: list[tuple[Records, int]] = []
            if batch is not None:
                records = slice_records(batch.records, int(batch.starts[part.slot]), int(batch.ends[part.slot]))
                check_follows(self._names.input, part.number, part.position, int(batch.before[part.slot]))
                position = int(batch.positions[part.slot])
                if records.offset.size:
                    check_records(self._names.input, part.number, part.position, records)
                    events += records.offset.size
                    sections.append((records, sequence.DATA))
            if taken := control.take(part.number, position):
                controls = control_records(taken)
                alive.append(controls)
                sections.append((controls.records, sequence.CONTROL))
            for records, kind in sections:
                head, sequenced = sequence.advance(head, records, kind, self._value_limit(kind))
                ledger.append(ledger_rows(sequenced, part.number))
                alive.append(sequenced)
                if self._judge is not None and part.state is not None:
                    outputs = self._step(self._judge, part.number, part.state, sequenced.entries)
                    judged.append((part.number, outputs))
                    some = outputs.warned[: LOGGED_PER_SECOND - len(warnings)]
                    warnings.extend(warnings_of(part.number, sequenced.entries, outputs, some))
            part.position = position
            heads[part.number] = head
        if not ledger:
            return None
        tails = {number: head.index for number, head in heads.items()}
        progress = self._standing.to_write(tails, time_source().monotonic_ns())
        duration_ns = self._transactions.write(self._outgoing(ledger, judged, progress))
        for number, head in heads.items():
            self.parts[number].head = head
        self._offer_snapshots()
        entries = sum(len(rows.rows) for rows in ledger)
        warned = sum(outputs.counts.warned for _, outputs in judged)
        return Committed(entries, events, duration_ns, judged, warned, warnings)

    def _value_limit(self, kind: int) -> int:
        """Values of the input are omitted beyond the setting; what the ledger itself was told stays readable."""
        limit = self._settings.max_value_bytes
        return limit if kind == sequence.DATA else max(limit, CONTROL_VALUE_BYTES)

    def _step(self, judge: Judge, partition: int, state: JudgeState, entries: Entries) -> Outputs:
        try:
            return judge.step(state, entries)
        except FoldError as error:
            raise _fold_failed(partition, error) from error

    def _outgoing(
        self, ledger: list[Rows], judged: list[tuple[int, Outputs]], progress: Mapping[str, FoldProgress]
    ) -> list[tuple[str, Rows]]:
        """What goes into one transaction, by topic, in order."""
        names = self._names
        outgoing = [(names.sequenced, rows) for rows in ledger]
        for number, outputs in judged:
            if outputs.records:
                outgoing.append((names.drift_alerts, byte_rows(number, outputs.alert_messages())))
                outgoing.append((names.dead_letters, byte_rows(number, outputs.dead_letter_messages())))
        if progress:
            messages = [progress_message(fold, progress[fold]) for fold in sorted(progress)]
            outgoing.append((names.progress, byte_rows(self.number, messages)))
        return [(topic, rows) for topic, rows in outgoing if len(rows.rows)]

    def _offer_snapshots(self) -> None:
        if self._judge is None or self._snapshots is None:
            return
        now_ns = time_source().monotonic_ns()
        behind = [p.head.index - p.snapshot_index for p in self.parts.values()]
        if now_ns < self._snapshot_due_ns and max(behind) < self._settings.snapshot_entries:
            return
        if not self._snapshots.ready():
            return
        self._snapshot_due_ns = now_ns + self._settings.snapshot_interval_ms * 1_000_000
        due = [p for p in self.parts.values() if p.head.index > p.snapshot_index]
        judge = self._judge
        taken = [
            Snapshot(judge.name, judge.version, p.number, p.head.index, p.head.chain_hash, judge.dump(p.state))
            for p in due
            if p.state is not None
        ]
        if taken and self._snapshots.offer(taken):
            for part in due:
                part.snapshot_index = part.head.index

    # ------------------------------------------------------------------------------------------------------------ open

    def _open_partition(self, log: Log, partition: int, now: Deployment, snapshots: list[Snapshot]) -> Tail | None:
        known = max([s.index for s in snapshots if s.partition == partition] + [self._standing.bound(partition)])
        admitted = admit(
            log,
            self._names,
            partition,
            now,
            known_index=known,
            stable_timeout_ms=self._settings.transaction_timeout_ms,
            write_control=self._write_control,
        )
        tail = admitted.tail
        part = Part(partition, len(self.parts), admitted.head, admitted.resume_offset, admitted.leader_epoch)
        if tail is None:
            part.begins_with = admitted.head.control_offset + 1
        self.parts[partition] = part
        return tail

    def _open_judge(
        self,
        judge: Judge,
        log: Log,
        transactions: Transactions,
        part: Part,
        tail: Tail | None,
        snapshots: list[Snapshot],
    ) -> None:
        """Bring the judge level with the ledger: silently up to its progress, speaking from there."""
        standing = self._standing.of(judge.name)
        if tail is not None and standing is NO_PROGRESS:
            detail = f"{self._names.progress}[{self.number}] says nothing of a ledger of {tail.head.index} entries"
            raise HaltError(part.number, HaltCode.PROGRESS_LOST, detail, _PROGRESS_LOST_REMEDY)
        if standing.version > judge.version:
            detail = (
                f"{self._names.progress}[{self.number}] says that judge {standing.version} wrote on, this is judge "
                f"{judge.version}. Run a release that has judge {standing.version}"
            )
            raise _fold_failed(part.number, FoldError(detail))
        done = standing.done(part.number, part.head.index)
        known = max((s.index for s in snapshots if (s.fold, s.partition) == (judge.name, part.number)), default=0)
        if known > done:
            detail = f"{self._names.progress}[{self.number}] says {done}, a snapshot stands at index {known}"
            raise HaltError(part.number, HaltCode.PROGRESS_LOST, detail, _PROGRESS_LOST_REMEDY)
        read = self._reader(log, part.number, tail)
        try:
            part.state = restore(judge, part.number, snapshots, done, read)
        except FoldError as error:
            raise _fold_failed(part.number, error) from error
        for entries in read(done + 1, part.head.index):
            outputs = self._step(judge, part.number, part.state, entries)
            progress = self._standing.catch_up(judge.name, judge.version, part.number, int(entries.index[-1]))
            transactions.write(self._outgoing([], [(part.number, outputs)], progress))
        if part.state.written_by != judge.version:
            body = {"fold": judge.name, "version": judge.version}
            self._tell(log, part, "FoldVersion", body, "a new version of the fold")
        if tail is None or part.state.settings != self._definition:
            definition = {"name": judge.name, "body": self._definition.canonical()}
            offset = self._tell(log, part, "Definition", definition, "settings of the worker")
            if tail is None:
                part.begins_with = offset

    def _tell(self, log: Log, part: Part, kind: str, body: dict[str, Any], reason: str) -> int:
        """Have a partition's ledger told of its fold, once: what was told before may still wait for its turn.

        Returns the control offset of the record. Of its kind there are those of the one fold that a lane steps.
        """
        end = log.bounds(self._names.control, part.number).stable_end
        told = -1
        for message in log.scan(self._names.control, part.number, part.head.control_offset + 1, end):
            found, said = read_control(message.value())
            if found == kind:
                told = offset_of(message) if said == body else -1
        if told >= 0:
            return told
        return self._write_control(part.number, encode_control(kind, body, self._worker, reason))

    def _reader(self, log: Log, partition: int, tail: Tail | None) -> Read:
        """Entries of a partition by index, as long as nobody wants this lane to end."""

        def read(first: int, last: int) -> Iterator[Entries]:
            if tail is None:
                return
            for entries in entries_between(log, self._bootstrap, self._names.sequenced, partition, tail, first, last):
                if self._abandoned.is_set():
                    raise DriftledgerError(f"lane {self.number} was told to end while it opened")
                yield entries

        return read

    def _commit_beginnings(self) -> None:
        """Entries 1 and 2 of a new ledger partition, GENESIS and DEFINITION, before any data."""
        deadline_ns = time_source().monotonic_ns() + self._settings.transaction_timeout_ms * 1_000_000
        while any(p.head.control_offset < p.begins_with for p in self.parts.values()):
            if self.commit(None) is None:
                if time_source().monotonic_ns() > deadline_ns:
                    raise UnreachableError(f"{self._names.control} does not return what was written to it")
                time_source().sleep_s(0.01)

    def _write_control(self, partition: int, value: bytes) -> int:
        """Append to the control topic; returns the offset."""
        [(offset, _)] = produce_durably(self._bootstrap, self._names.control, partition, [(None, value)])
        return offset

    def _wait_stable(self, log: Log, free: list[int]) -> None:
        """An earlier owner's transaction has been ended by the fence; its markers may still be on their way."""
        names = self._names
        outputs = [(topic, p) for p in free for topic in (names.drift_alerts, names.dead_letters)]
        for topic, partition in [(names.progress, self.number), *outputs]:
            if not wait_stable(log, topic, partition, self._settings.transaction_timeout_ms):
                detail = f"a foreign transaction stays open on {topic}[{partition}]"
                halted = free[0] if topic == names.progress else partition  # without progress none opens, one by one
                raise HaltError(halted, HaltCode.SECOND_WRITER, detail, SECOND_WRITER_REMEDY)
