"""The lane runner: exactly once without trust.

A lane owns a fixed set of partitions (partition mod lanes). It has one consumer of the input, one of the control
topic, one transactional producer and, for each partition, a head and the state of its folds. Everything a batch
causes is committed in one transaction: ledger entries, alerts, dead letters, and progress where the ledger's tail does
not say it (progress.py).

    open    fence earlier owners, check what is there and restore the folds (lane_opening.py), seek to the tail
    fetch   one batch of input columns
    commit  sequence, let control records in, step the folds, write all of it in one transaction
    close   end the clients; the next open starts from the log again

GUARANTEE one input record, one DATA entry, in order, contiguous, whatever dies: the resume point is the ledger's
own tail, written in the same transaction as everything else.
GUARANTEE of a partition whose lock halts "sequence" no input is taken, from the LOCK entry on until it is released; its
control records are. A lock that comes or goes makes the lane `stale`: whoever runs it closes it and opens it again,
with all checks of a start. A LOCK waits for no input (control_feed.py): it stands with the next transaction.
GUARANTEE no input is taken before the control records are in the ledger that the lane found when it opened, or wrote
then, up to the last one that tells of a fold or a lock. So no event is judged by a version that the ledger names behind
it, none by an older one that must not go on, and none is taken in spite of a lock. HAZARD what is written to the
control topic while the lane is live has its place among the events by chance, within a transaction or two.
GUARANTEE after any error nothing of this object is used again: the caller closes it and opens a new one. No abort,
no second try on the same producer: a late EndTxn of the same epoch can end a later transaction.
HAZARD between a commit's request and its answer the outcome is unknown; the tail, read after the fence, tells.

Not for two threads at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lifecycle.hot_tier import HotTier
from lifecycle.store_dump import STORE
from lifecycle.store_dump import VERSION as STORE_VERSION
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, HaltError, UnreachableError
from schemas.instants import INT64_MAX
from streams import sequence
from streams.admission import deployment, topic_missing
from streams.arrivals import check_cut, check_follows, check_records
from streams.control_feed import ControlFeed, control_records
from streams.fold import FoldError
from streams.fold_opening import fold_failed
from streams.fold_progress import Standing
from streams.folds import Stepped
from streams.lane_clients import consumer_settings
from streams.lane_opening import Opening, wait_for_markers
from streams.lane_part import NOT_READ
from streams.librdkafka import ERROR_NO_SUCH_OFFSET, ClientError
from streams.log import Log
from streams.outbox import Rows, byte_rows, ledger_rows, message_rows
from streams.progress import progress_message, read_lane
from streams.rdkafka import NativeConsumer
from streams.records import slice_records
from streams.snapshots import Offered, Packed, Snapshot, SnapshotWriter, Stored, read_snapshots
from streams.transactions import Transactions
from streams.warning_log import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from schemas.columns import Entries
    from schemas.topics import TopicNames
    from streams.admission import Deployment
    from streams.derived import Derived
    from streams.fold_progress import FoldProgress
    from streams.folds import Configured, Counted, Folds, Note, States
    from streams.judge import Outputs
    from streams.lane_part import Part
    from streams.ledger_reader import Tail
    from streams.live_boards import LiveBoards
    from streams.rdkafka import Batch
    from streams.records import Records
    from streams.settings import Settings
    from streams.transactions import Point
    from streams.warning_log import WarningLog

#: How long a fetch waits where nothing comes: how late a control record may be seen on an idle input.
FETCH_WAIT_MS = 50
#: Of a control record, whatever the limit for values of the input is; the ledger's headroom holds it.
CONTROL_VALUE_BYTES = 1_048_576
#: After a commit's answer its markers are still to be written. A transaction that begins before is refused, and the
#: client tries again 20 ms later (CONCURRENT_TRANSACTIONS). What comes meanwhile is in the batch that waits; where a
#: full one does not, the folds step first.
MARKERS_MS = 3
_NS_PER_MS = 1_000_000


class Committed(NamedTuple):
    """What one transaction wrote: entries, DATA entries among them, its length, what the folds counted in each step."""

    entries: int
    events: int
    duration_ns: int
    counted: list[Counted]


@dataclass(slots=True)
class _Turn:
    """What one transaction gathers. alive: what its rows point into.

    early: the ledger's rows are added before the folds step, so that the coordinator hears of them meanwhile.
    """

    early: bool
    ledger: list[tuple[str, Rows]] = field(default_factory=list)
    stepped: list[tuple[int, Stepped]] = field(default_factory=list)
    judged: list[Step] = field(default_factory=list)
    alive: list[object] = field(default_factory=list)
    entries: int = 0
    events: int = 0


class _Readers(NamedTuple):
    input: NativeConsumer
    control: ControlFeed


class Lane:
    """One ownership of a lane, from open to close. configured: None to sequence without any fold.

    hot_folder: where this worker keeps its lanes' hot tiers; None for none. live: what is shown while somebody watches.
    warnings: where events beyond the threshold are logged; None for nowhere.
    """

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        names: TopicNames,
        number: int,
        partitions: Sequence[int],
        configured: Configured | None,
        *,
        worker: str,
        hot_folder: Path | None = None,
        live: LiveBoards | None = None,
        warnings: WarningLog | None = None,
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
        self._configured, self._at = configured, at
        self.partitions = list(partitions)
        self._transactions: Transactions | None = None
        self._readers: _Readers | None = None
        self._snapshots: SnapshotWriter | None = None
        self._snapshot_due_ns = 0
        #: No batch of input is complete before, unless it is full.
        self._next_ns = 0
        #: The markers of the last transaction are written by then. The first one begins behind the work of the folds:
        #: what that takes may be what ended the lane before.
        self._markers_ns = INT64_MAX
        self._standing = Standing({})
        #: The events of the lane, queryable; None where there is none.
        self.hot: HotTier | None = None
        self._hot_folder = hot_folder
        self._live = live
        self._warnings = warnings
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
            wait_for_markers(log, self._names, self.number, free, self._settings.transaction_timeout_ms)
            recorded = read_lane(log, self._names.progress, self.number)
            self.halted = recorded.halts  # also those that stood behind an open transaction of an earlier owner
            free = [p for p in self.partitions if p not in self.halted]
            snapshots = read_snapshots(log, self._names.snapshots, self.number)
            used: list[Packed] = []
            self._standing = Standing(recorded.folds)
            opening = Opening(
                self._settings, self._bootstrap, self._names, self.number, self._worker, log, self._standing, snapshots,
                self._abandoned,
            )  # fmt: skip
            tails: dict[int, Tail | None] = {}
            for p in free:
                self.parts[p], tails[p] = opening.admit(p, now, recorded.cuts.get(p))
            if self._configured is not None:
                for part in self.parts.values():
                    speak = partial(self._speak, transactions, part.number)
                    used += opening.folds(self._configured, part, tails[part.number], speak)
            level = {} if self._configured is None else self._configured.folds.versions()
            self._standing.begin(level, {part.number: part.head.index for part in self.parts.values()})
        finally:
            log.close()
        feed = ControlFeed(
            self._bootstrap, self._names.control, {p.number: p.head.control_offset + 1 for p in self.parts.values()}
        )
        self._readers = _Readers(NativeConsumer(consumer_settings(self._settings, self._bootstrap)), feed)
        read = [part for part in self.parts.values() if not part.locked]
        for slot, part in enumerate(read):
            part.slot = slot
        places = [(p.number, p.position, p.leader_epoch) for p in read]
        self._readers.input.assign(self._names.input, places)
        if self._hot_folder is not None and self._configured is not None:
            folder = self._hot_folder / f"{self._settings.prefix}.{self._settings.ledger}" / f"lane-{self.number}"
            self.hot = HotTier(folder, self._bootstrap, self._names, self.number)
            self.hot.open({part.number: part.head.index for part in self.parts.values()})
        self._commit_beginnings()
        self._snapshots = SnapshotWriter(self._bootstrap, self._names.snapshots, self.number, held=[*used, *snapshots])
        self._snapshot_due_ns = time_source().monotonic_ns() + self._settings.snapshot_interval_ms * 1_000_000

    def fetch(self) -> Batch | None:
        """Wait a little for input; None where nothing came. Raises ClientError, HaltError for a truncated input."""
        if self._readers is None or self.stale:  # every partition is halted, or nothing may be taken any more
            time_source().sleep_s(FETCH_WAIT_MS / 1_000)
            return None
        try:
            return self._readers.input.fetch(self._rows_max(), FETCH_WAIT_MS, self._next_ns)
        except ClientError as error:
            if error.code == ERROR_NO_SUCH_OFFSET:
                position = self.parts[error.partition].position
                check_cut(self._bootstrap, self._names.input, error.partition, position, error)
            raise

    @property
    def stale(self) -> bool:
        """Whether a lock came or went since the lane opened: it takes no more input, and must be opened again."""
        return any(part.locked != (part.slot == NOT_READ) for part in self.parts.values())

    def _rows_max(self) -> int:
        """Input records of one transaction, at most: fewer where windows make much of each."""
        most = self._settings.batch_events_max
        if self._configured is None:
            return most
        derive = self._configured.folds.derive
        return min(
            [most, *(derive.rows_max(part.states.derive) for part in self.parts.values() if part.states is not None)]
        )

    def commit(self, batch: Batch | None) -> Committed | None:
        """Take a fetched batch (or None) and what the control topic holds into the ledger; None for nothing.

        The batch is released. Raises HaltError, or another DriftledgerError where opening again may help; then close()
        this lane.
        """
        turn = _Turn(early=time_source().monotonic_ns() >= self._markers_ns)
        try:
            return self._commit(batch, turn)
        except BaseException:
            if self._transactions is not None:  # while the turn lives, which it points into
                self._transactions.close()
            raise
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
        if self.hot is not None:
            self.hot.close()
            self.hot = None
        if self._live is not None:
            self._live.drop(self.parts)
        if self._readers is not None:
            self._readers.control.close()
            self._readers.input.close()
        if self._transactions is not None:
            self._transactions.close()
        self._snapshots = self._readers = self._transactions = None

    # ------------------------------------------------------------------------------------------------- one transaction

    def _commit(self, batch: Batch | None, turn: _Turn) -> Committed | None:
        if self._readers is None or self._transactions is None:  # every partition is halted
            return None
        control = self._readers.control
        control.poll()
        if self.hot is not None:
            self.hot.settle({part.number: part.head.index for part in self.parts.values()})
        heads: dict[int, sequence.Head] = {}
        for part in self.parts.values():
            heads[part.number] = part.head
            position, records = self._records_of(part, batch)
            if records is not None:
                turn.events += records.offset.size
                heads[part.number] = self._sequence(part, heads[part.number], records, sequence.DATA, turn)
            if taken := control.take(part.number, position, at_once=part.locked or not part.begun):
                controls = control_records(taken)
                turn.alive.append(controls)
                heads[part.number] = self._sequence(part, heads[part.number], controls.records, sequence.CONTROL, turn)
            part.position = position
        if not turn.entries:
            self._show()
            return None
        tails = {number: head.index for number, head in heads.items()}
        progress = self._standing.to_write(tails, time_source().monotonic_ns())
        next_ns = time_source().monotonic_ns() + self._settings.batch_interval_ms * _NS_PER_MS
        outgoing = self._outgoing(turn.stepped, progress)
        turn.alive.append(outgoing)
        for topic, rows in outgoing if turn.early else [*turn.ledger, *outgoing]:
            self._transactions.add(topic, rows)
        duration_ns = self._transactions.commit()
        self._markers_ns = time_source().monotonic_ns() + MARKERS_MS * _NS_PER_MS
        self._next_ns = max(next_ns, self._markers_ns)
        for number, head in heads.items():
            self.parts[number].head = head
        if self.hot is not None:
            self.hot.commit()
        self._show()
        self._warn(turn)
        self._offer_snapshots()
        counted = [stepped.counted() for _, stepped in turn.stepped]
        return Committed(turn.entries, turn.events, duration_ns, counted)

    def _sequence(self, part: Part, head: sequence.Head, records: Records, kind: int, turn: _Turn) -> sequence.Head:
        """Sequence records of a partition and step its folds over them; returns the head after them."""
        head, sequenced = sequence.advance(head, records, kind, self._value_limit(kind))
        rows = ledger_rows(sequenced, part.number)
        turn.alive.append(sequenced)
        turn.ledger.append((self._names.sequenced, rows))
        turn.entries += len(rows.rows)
        if turn.early and self._transactions is not None:
            self._transactions.add(self._names.sequenced, rows)
        if part.states is not None and self._configured is not None:
            judged, derived = self._step(self._configured.folds, part, part.states, sequenced.entries)
            turn.stepped.append((part.number, Stepped(judged, derived)))
            turn.judged.append(Step(part.number, sequenced.entries, judged))
            if self.hot is not None:
                self.hot.step(part.number, sequenced.entries, judged)
            if self._live is not None and self._live.watched:
                self._live.step(part.number, part.states.judge, sequenced.entries, judged)
        return head

    def _warn(self, turn: _Turn) -> None:
        """Have events beyond the threshold logged, some of them; what they point into is still there."""
        if self._warnings is not None:
            self._warnings.take(self.number, turn.judged, time_source().monotonic_ns())

    def _show(self) -> None:
        """Where somebody watches, what is committed; also where nothing came: he may have begun just now."""
        if self._live is None or not self._live.watched:
            return
        for part in self.parts.values():
            if part.states is not None:
                self._live.commit(part.number, part.states.judge, part.head.index)

    def _records_of(self, part: Part, batch: Batch | None) -> tuple[int, Records | None]:
        """Where a partition's input stands with a batch, and its records in it, None for none."""
        if batch is None or part.slot == NOT_READ:
            return part.position, None
        records = slice_records(batch.records, int(batch.starts[part.slot]), int(batch.ends[part.slot]))
        check_follows(self._names.input, part.number, part.position, int(batch.before[part.slot]))
        if not records.offset.size:
            return int(batch.positions[part.slot]), None
        check_records(self._names.input, part.number, part.position, records)
        return int(batch.positions[part.slot]), records

    def _value_limit(self, kind: int) -> int:
        """Values of the input are omitted beyond the setting; what the ledger itself was told stays readable."""
        limit = self._settings.max_value_bytes
        return limit if kind == sequence.DATA else max(limit, CONTROL_VALUE_BYTES)

    def _step(self, folds: Folds, part: Part, states: States, entries: Entries) -> tuple[Outputs, Derived]:
        try:
            return folds.step(states, entries)
        except FoldError as error:
            raise fold_failed(part.number, error) from error

    def _outgoing(
        self, stepped: list[tuple[int, Stepped]], progress: Mapping[str, FoldProgress]
    ) -> list[tuple[str, Rows]]:
        """What goes into one transaction beside the ledger's entries, by topic, in order."""
        names = self._names
        outgoing: list[tuple[str, Rows]] = []
        for number, outputs in stepped:
            for topic, messages in (
                (names.drift_alerts, outputs.alerts()),
                (names.dead_letters, outputs.dead_letters()),
            ):
                if messages:
                    outgoing.append((topic, byte_rows(number, messages)))
            if outputs.judged is not None:
                outgoing.append((names.drift_estimates, message_rows(number, outputs.judged.estimates)))
            if outputs.derived is not None:
                outgoing.append((names.aggregates, message_rows(number, outputs.derived.aggregates)))
        notes: list[Note] = [progress_message(fold, progress[fold]) for fold in sorted(progress)]
        notes += [note for _, outputs in stepped for note in outputs.locks()]
        if notes:
            outgoing.append((names.progress, byte_rows(self.number, notes)))
        return [(topic, rows) for topic, rows in outgoing if len(rows.rows)]

    def _offer_snapshots(self) -> None:
        if self._configured is None or self._snapshots is None:
            return
        now_ns = time_source().monotonic_ns()
        behind = [p.head.index - p.snapshot_index for p in self.parts.values()]
        if now_ns < self._snapshot_due_ns and max(behind) < self._settings.snapshot_entries:
            return
        due = [p for p in self.parts.values() if p.head.index > p.snapshot_index and p.states is not None]
        if due and self._snapshots.offer(partial(self._taken, self._configured.folds, due)):
            self._snapshot_due_ns = now_ns + self._settings.snapshot_interval_ms * 1_000_000
            for part in due:
                part.snapshot_index = part.head.index

    def _taken(self, folds: Folds, due: list[Part]) -> Offered:
        versions = folds.versions()
        taken = [
            Snapshot(fold, versions[fold], p.number, p.head.index, p.head.chain_hash, state)
            for p in due
            if p.states is not None
            for fold, state in folds.dumps(p.states).items()
        ]
        return Offered(taken, self._stored())

    def _stored(self) -> Stored | None:
        """Snapshots of the hot tier."""
        if self.hot is None:
            return None
        snapshots = []
        for number, state in self.hot.dumps().items():
            head = self.parts[number].head
            snapshots.append(Snapshot(STORE, STORE_VERSION, number, head.index, head.chain_hash, state))
        return Stored(snapshots, self.hot.flush)

    # ------------------------------------------------------------------------------------------------------------ open

    def _speak(
        self, transactions: Transactions, partition: int, stepped: Stepped, progress: Mapping[str, FoldProgress]
    ) -> None:
        """Of a fold that is brought level: outputs and progress, in one transaction."""
        outgoing = self._outgoing([(partition, stepped)], progress)
        for topic, rows in outgoing:
            transactions.add(topic, rows)
        transactions.commit()

    def _commit_beginnings(self) -> None:
        """What must be there before any data: of a new ledger partition entries 1 and 2, GENESIS and DEFINITION."""
        wait_ns, read, deadline_ns = self._settings.transaction_timeout_ms * _NS_PER_MS, -1, 0
        while waiting := [part.number for part in self.parts.values() if not part.begun]:
            if self._abandoned.is_set():
                raise DriftledgerError(f"lane {self.number} was told to end while it opened")
            now_ns, before = time_source().monotonic_ns(), read
            read = 0 if self._readers is None else sum(self._readers.control.read[number] for number in waiting)
            if read != before:
                deadline_ns = now_ns + wait_ns
            if self.commit(None) is None:
                if now_ns > deadline_ns:
                    raise UnreachableError(f"{self._names.control} does not return what was written to it")
                time_source().sleep_s(0.01)
