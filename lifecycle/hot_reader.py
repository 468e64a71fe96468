"""Reads the ledger of a partition into its hot store, until the lane takes it over.

Problem: a store that was lost or is behind must be brought level while the lane goes on, on a broker that may be away,
and be handed over exactly between two batches: an entry too few is a gap, one too many is in two chunks.

    resume   from judge's and the store's snapshots, each as new as fits the ledger and what is on disk
    follow   committed entries as they come: judged, gathered, ended chunks written
    take     the lane's: where the reader has come to the lane's own head, it ends, and its state is the lane's

Judge may stand before the store: entries in between are judged and not stored. Where the store's rows are kept further
than the state that reads, they are read again, come out the same, and are not written.

GUARANTEE after `stop` or a successful `take` the state is not stepped any more.
GUARANTEE the reader ends by itself after an error, which `error` says; it never raises.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

import numpy as np

from lifecycle.chunks import NOTHING
from lifecycle.hot_database import HotStoreDamagedError
from lifecycle.manifest_log import ManifestLog
from lifecycle.resume import RESUMED, end_of, resume
from lifecycle.store import Store
from schemas.clock import source as time_source
from schemas.columns import Scratch, allocate_entries, slice_rows
from schemas.errors import DriftledgerError, UnreachableError
from schemas.instants import NS_PER_S
from streams.judge import Judge
from streams.ledger_reader import STALL_TIMEOUT_MS, find_offset, first_index, open_reader, read_tail
from streams.log import Log
from streams.records import decode_records
from streams.restore import entries_between
from streams.snapshots import read_snapshots

if TYPE_CHECKING:
    from lifecycle.held_store import HeldStore
    from lifecycle.hot_store import HotStore
    from lifecycle.store import StoreState
    from schemas.columns import Entries
    from schemas.topics import TopicNames
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.records import Records

#: A reader this close may be waited for: a tenth of a second of reading.
NEAR_ENTRIES: Final = 20_000
_ROWS: Final = 5_000
_WAIT_MS: Final = 50
#: Between two looks for what is committed and does not show yet.
_POLL_S: Final = 0.05


class HotReader:
    """The thread of one partition that is behind. turns: how many may catch up at a time; head: the lane's, to begin.

    Attributes: ended (by itself or by `stop`), error (what ended it), visible (state whose published rows go on from
    the chunks on disk, None until then), visible_index (up to where those rows and chunks go).
    """

    def __init__(
        self,
        held: HeldStore,
        turns: threading.Semaphore,
        bootstrap: str,
        names: TopicNames,
        lane: int,
        partition: int,
        head: int,
    ) -> None:
        self.ended = False
        self.error: Exception | None = None
        self.visible: StoreState | None = None
        self.visible_index = 0
        self._held, self._turns, self._bootstrap, self._names = held, turns, bootstrap, names
        self._lane, self._partition = lane, partition
        self._head = head
        self._fold, self._judge = Store(), Judge()
        self._stopped = threading.Event()
        #: Held while a batch is taken, and by the lane while it takes over; notified when the reader has moved.
        self._turn = threading.Condition()
        self._state: StoreState | None = None
        #: Of the last entry that was judged.
        self._index = 0
        self._thread = threading.Thread(target=self._run, name=f"hot-{lane}-{partition}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Have it end soon; returns at once."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait for its end, for a while: a question to a broker that is away is not broken off."""
        self._thread.join(timeout_s)

    def take(self, head: int, until_ns: int) -> StoreState | None:
        """Its state, if that stands after the entry `head` now, or by a monotonic time; the reader then ends.

        Who waited until then waits for the batch that the reader is in the middle of, too; who comes later does not.
        """
        self._head = head
        if self._state is None or head - self._index > NEAR_ENTRIES:
            return None
        if not self._turn.acquire(timeout=max(_left_s(until_ns), 0)):
            return None
        try:
            left_s = _left_s(until_ns)
            if left_s > 0:  # a wait of no time gives the turn away, and gets it back after a batch
                self._turn.wait_for(lambda: self.ended or self._index >= head, left_s)
            state = self._state
            if self.ended or self._stopped.is_set() or self._index != head or state.last_index != head:
                return None
            self._stopped.set()
            return state
        finally:
            self._turn.release()

    # ------------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - whatever it is: the lane says it, and tries again
            self.error = error
        finally:
            with self._turn:
                self.ended = True
                self._turn.notify_all()

    def _read(self) -> None:
        with closing(Log(self._bootstrap)) as log:
            store = self._held.opened()
            with self._held.using(store) as current:
                if not current:
                    return
                self._compare(log, store)
            while not self._turns.acquire(timeout=_POLL_S):
                if self._stopped.is_set():
                    return
            try:
                self._catch_up(log, store)
            finally:
                self._turns.release()

    def _compare(self, log: Log, store: HotStore) -> None:
        """Raise HotStoreDamagedError where the partition's chunks are of another ledger."""
        last = store.last_row(self._partition)
        if last is not None and self._chain_at(log, last[0]) != last[1]:
            detail = f"its row at index {last[0]} of partition {self._partition} is of another ledger"
            raise HotStoreDamagedError(store.folder, detail)
        applied = store.applied(self._partition) or NOTHING
        self.visible_index = applied.index
        self._held.compared(store, self._partition)

    def _catch_up(self, log: Log, store: HotStore) -> None:
        index, judged, state = self._resume(log, store)
        tail = self._tail(log, index)
        topic, partition = self._names.sequenced, self._partition
        if tail is None:
            begin = log.bounds(topic, partition).start
        else:
            begin = find_offset(log, topic, partition, tail, "index", index + 1)
        log.close()  # what is to come needs no more questions
        with self._turn:
            self._index, self._state = index, state
        scratch, waited_ms = Scratch(), 0
        with closing(open_reader(self._bootstrap, topic, partition, begin)) as consumer:
            while not self._stopped.is_set():
                batch = consumer.fetch(_ROWS, _WAIT_MS)
                if batch is None:
                    waited_ms = waited_ms + _WAIT_MS if self._index < self._head else 0
                    if waited_ms >= STALL_TIMEOUT_MS:
                        raise UnreachableError(f"{topic}[{partition}] sent nothing after index {self._index}")
                    continue
                waited_ms = 0
                try:
                    rows = batch.rows
                    if rows and not self._take_batch(_entries_of(batch.records, rows, scratch), judged, state, store):
                        return
                finally:
                    batch.release()

    def _take_batch(self, entries: Entries, judged: JudgeState, state: StoreState, store: HotStore) -> bool:
        """Step over a batch; False where the reader is to end."""
        with self._turn:
            if self._stopped.is_set():
                return False
            self._check_follow(entries)
            known = int(np.searchsorted(entries.index, state.last_index, side="right"))
            if known:
                self._judge.step(judged, slice_rows(entries, 0, known))
            if known < entries.index.size:
                new = slice_rows(entries, known, entries.index.size)
                sealed = self._fold.step(state, new, self._judge.step(judged, new))
                if not self._held.write(store, sealed):
                    return False
                self._fold.publish(state)
                stored = store.applied(self._partition) or NOTHING
                if state.applied.chunks >= stored.chunks:
                    self.visible, self.visible_index = state, state.last_index
            self._index = int(entries.index[-1])
            self._turn.notify_all()
            return True

    def _check_follow(self, entries: Entries) -> None:
        wrong = np.flatnonzero(entries.index != np.arange(self._index + 1, self._index + 1 + entries.index.size))
        if wrong.size:
            where = f"{self._names.sequenced}[{self._partition}]"
            raise DriftledgerError(
                f"index {entries.index[wrong[0]]} stands in {where} where {self._index + 1 + wrong[0]} should. "
                "`driftledger sequence check` says more"
            )

    def _resume(self, log: Log, store: HotStore) -> tuple[int, JudgeState, StoreState]:
        """See `resume`."""
        snapshots = read_snapshots(log, self._names.snapshots, self._lane, RESUMED, self._partition)
        return resume(
            self._partition,
            store.applied(self._partition),
            snapshots,
            lambda snapshot: self._chain_at(log, snapshot.index) == snapshot.chain_hash,
            first_index(log, self._names.sequenced, self._partition),
            lambda: end_of(ManifestLog(log, self._names.manifest).refresh(), self._partition),
        )

    def _chain_at(self, log: Log, index: int) -> bytes | None:
        """Chain hash of the entry of that index, None where the ledger does not go so far, or begins behind it."""
        if index < first_index(log, self._names.sequenced, self._partition):
            return None
        tail = self._tail(log, index) if 0 < index <= self._head else None
        if tail is None:
            return None
        topic, partition = self._names.sequenced, self._partition
        for entries in entries_between(log, self._bootstrap, topic, partition, tail, index, index):
            chain: bytes = entries.chain_hash[-1].tobytes()
            return chain
        return None

    def _tail(self, log: Log, index: int) -> Tail | None:
        """The last entry that shows, once that is as far as an index: what was committed shows a little later."""
        deadline_ns = time_source().monotonic_ns() + STALL_TIMEOUT_MS * 1_000_000
        while True:
            tail = read_tail(log, self._names.sequenced, self._partition)
            if index <= (0 if tail is None else tail.head.index):
                return tail
            if self._stopped.is_set() or time_source().monotonic_ns() >= deadline_ns:
                raise UnreachableError(f"{self._names.sequenced}[{self._partition}] does not show index {index}")
            time_source().sleep_s(_POLL_S)


def _left_s(until_ns: int) -> float:
    return (until_ns - time_source().monotonic_ns()) / NS_PER_S


def _entries_of(records: Records, rows: int, scratch: Scratch) -> Entries:
    """As columns. Raises DriftledgerError for a record that is no entry."""
    entries = allocate_entries(rows)
    broken = decode_records(records, rows, entries, scratch)
    if broken >= 0:
        raise DriftledgerError(f"the record at offset {records.offset[broken]} is no ledger entry")
    return entries
