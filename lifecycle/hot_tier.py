"""The hot tier of one lane: its store, kept level with the ledger beside the lane, and never in its way.

Problem: every event is to be queryable as soon as it is sequenced, but a store may be lost, damaged, moved or a million
entries behind, and neither sequencing nor alerts may wait for it. So a partition's store is in one of three ways:

    BEHIND       a reader of its own brings it level (hot_reader.py); queries are told how far it has come
    LEVEL        the lane steps it with each batch; what ended is written once the transaction is committed
    UNAVAILABLE  it failed; tried again by itself, later each time, from BEHIND

    BEHIND --taken over between two batches--> LEVEL --error--> UNAVAILABLE --after a while--> BEHIND
       +--error--> UNAVAILABLE
    any --the store is damaged, or of another ledger--> BEHIND, of a new store

GUARANTEE a store that is damaged or of another ledger is not served: it is discarded and read from the ledger again.
GUARANTEE no error of the store reaches the lane: it is logged, and health and queries say it.
GUARANTEE the lane waits for readers HANDOVER_S together between two batches, and then at most for the one batch that a
reader is in the middle of; where that was in vain not again for PATIENCE_S.
HAZARD what is damaged behind RocksDB's back is noticed when it is read.
HAZARD the lane itself writes what ended: a disk that hangs makes it wait.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from lifecycle import store_dump
from lifecycle.chunks import StoreDamagedError
from lifecycle.held_store import HeldStore
from lifecycle.hot_database import HotStoreUnavailableError
from lifecycle.hot_reader import HotReader
from lifecycle.store import Store
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lifecycle.catalog import Unsealed
    from lifecycle.hot_store import HotStore
    from lifecycle.store import Sealed, StoreState
    from schemas.columns import Entries
    from schemas.topics import TopicNames
    from streams.judge import Outputs

#: How long a lane waits between two batches for readers that are close, at most.
HANDOVER_S: Final = 0.5
#: How long it does not wait again after that was in vain; what is level is taken over without waiting.
PATIENCE_S: Final = 10.0
#: How many partitions of a lane are read at a time: the others wait, and the processors are the lane's too.
_READERS_MAX: Final = 2
#: Until what failed is tried again, by how often it has failed since it was level.
_RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
#: How long a lane that closes waits for readers, and for those who use the store.
_END_S: Final = 0.5
_logger = structlog.get_logger()


class Standing(enum.StrEnum):
    """See the module."""

    BEHIND = "behind"
    LEVEL = "level"
    UNAVAILABLE = "unavailable"


@dataclass(slots=True)
class _Part:
    """A partition of the lane. index: of the last entry that queries see; failures: since it was level.

    due_ns: when what is UNAVAILABLE is tried again.
    """

    number: int
    standing: Standing = Standing.BEHIND
    state: StoreState | None = None
    reader: HotReader | None = None
    index: int = 0
    error: str | None = None
    failures: int = 0
    due_ns: int = 0


class Place(NamedTuple):
    """How a partition's store stands, the index up to which queries see it, and what was wrong since it was level."""

    standing: Standing
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks a place for
    error: str | None


class HotTier:
    """One lane's. Methods are the lane's thread's, but for those that say so."""

    def __init__(self, folder: Path, bootstrap: str, names: TopicNames, lane: int) -> None:
        self._bootstrap, self._names, self._lane = bootstrap, names, lane
        self._fold = Store()
        self._held = HeldStore(folder)
        self._turns = threading.Semaphore(_READERS_MAX)
        self._parts: dict[int, _Part] = {}
        #: By partition, as of the last batch.
        self._heads: dict[int, int] = {}
        self._pending: list[Sealed] = []
        #: Readers are not waited for before.
        self._wait_ns = 0

    def open(self, heads: Mapping[int, int]) -> None:
        """Begin to bring partitions level; returns at once. heads: last index by partition."""
        self._heads = dict(heads)
        self._parts = {number: _Part(number) for number in heads}
        for part in self._parts.values():
            self._begin(part)

    def settle(self, heads: Mapping[int, int]) -> None:
        """Between two batches: discard what is damaged, take over what is close. heads: last index by partition."""
        self._heads = dict(heads)
        damage = self._held.damage()
        if damage is not None:
            self._discard(damage)
        clock = time_source()
        now_ns = clock.monotonic_ns()
        until_ns = now_ns + int(HANDOVER_S * 1e9) if now_ns >= self._wait_ns else now_ns
        for part in self._parts.values():
            if part.standing is Standing.BEHIND:
                self._take_over(part, until_ns)
            elif part.standing is Standing.UNAVAILABLE and now_ns >= part.due_ns:
                self._begin(part)
        if now_ns < until_ns <= clock.monotonic_ns():
            self._wait_ns = until_ns + int(PATIENCE_S * 1e9)

    def step(self, partition: int, entries: Entries, judged: Outputs) -> None:
        """Take the entries of a batch, which go on from where `settle` saw the partition."""
        part = self._parts[partition]
        if part.state is None:
            return
        try:
            self._pending += self._fold.step(part.state, entries, judged)
        except Exception as error:  # noqa: BLE001 - whatever it is, the lane goes on without
            self._fail(part, error)

    def commit(self) -> None:
        """The transaction of what was stepped is committed: write the chunks that ended, show the rows."""
        pending, self._pending = self._pending, []
        store = self._held.store
        try:
            if store is not None:
                self._held.write(store, pending)
            for part in self._parts.values():
                if part.state is not None:
                    self._fold.publish(part.state)
                    part.index = part.state.last_index
        except StoreDamagedError as error:
            self._discard(error)
        except Exception as error:  # noqa: BLE001 - as in step
            self._let_go(error)

    def dumps(self) -> dict[int, bytes]:
        """State of each level partition, for a snapshot."""
        dumps = {}
        for part in self._parts.values():
            if part.state is not None:
                try:
                    dumps[part.number] = store_dump.dump(part.state)
                except Exception as error:  # noqa: BLE001 - as in step
                    self._fail(part, error)
        return dumps

    def close(self) -> None:
        """End the readers and the store. A reader that asks a broker that is away ends when that question does."""
        readers = [part.reader for part in self._parts.values() if part.reader is not None]
        for reader in readers:
            reader.stop()
        clock = time_source()
        until_ns = clock.monotonic_ns() + int(_END_S * 1e9)
        for reader in readers:
            reader.join(max(0.0, (until_ns - clock.monotonic_ns()) / 1e9))
        self._held.close(_END_S)

    # ------------------------------------------------------------------------------------------------- for any thread

    @contextlib.contextmanager
    def reading(self) -> Iterator[HotStore | None]:
        """The store, kept open meanwhile; None until each partition in it was found to be of this ledger.

        Another store is another object: what is remembered of one does not hold for the next.
        """
        with self._held.serving(self._parts) as store:
            yield store

    def unsealed(self, partition: int) -> Unsealed | None:
        """The rows after the last chunk; ask before the chunks."""
        part = self._parts[partition]
        reader, state = part.reader, part.state  # in this order: who takes over sets the state first
        if state is None and reader is not None:
            state = reader.visible
        return None if state is None else self._fold.unsealed(state)

    def places(self) -> dict[int, Place]:
        """How each partition stands."""
        found = {}
        for part in self._parts.values():
            reader = part.reader
            found[part.number] = Place(
                part.standing, part.index if reader is None else reader.visible_index, part.error
            )
        return found

    def flush(self) -> None:
        """Make what was written durable: without it a snapshot of the store speaks of chunks that may be gone."""
        with self._held.serving(()) as store:
            if store is None:
                raise HotStoreUnavailableError(f"lane {self._lane} has no hot store now")
            store.flush()

    # ------------------------------------------------------------------------------------------------------- the lane's

    def _begin(self, part: _Part) -> None:
        reader = HotReader(
            self._held, self._turns, self._bootstrap, self._names, self._lane, part.number, self._heads[part.number]
        )
        part.standing, part.state, part.reader, part.index = Standing.BEHIND, None, reader, 0
        try:
            reader.start()
        except RuntimeError as error:  # no more threads
            self._fail(part, error)

    def _take_over(self, part: _Part, until_ns: int) -> None:
        """Where the reader is close, have it take what is left, and go on from its state."""
        reader, head = part.reader, self._heads[part.number]
        if reader is None:
            return
        if reader.ended:
            error, reader.error = reader.error, None  # its traceback holds the reader, and all that was read
            if isinstance(error, HotStoreUnavailableError):
                self._let_go(error)
            else:
                self._fail(part, error or DriftledgerError("the store was let go of while it was filled"))
            return
        state = reader.take(head, until_ns)
        if state is not None:
            part.state, part.index = state, head
            part.standing, part.reader, part.error, part.failures = Standing.LEVEL, None, None, 0
            _logger.info("hot_tier_level", lane=self._lane, partition=part.number, index=head)

    def _fail(self, part: _Part, error: Exception) -> None:
        if part.reader is not None:
            part.reader.stop()
        known = isinstance(error, DriftledgerError)
        retry_s = _RETRY_S[min(part.failures, len(_RETRY_S) - 1)]
        part.failures += 1
        part.due_ns = time_source().monotonic_ns() + int(retry_s * 1e9)
        part.error = str(error) if known else repr(error)
        part.standing, part.state, part.reader, part.index = Standing.UNAVAILABLE, None, None, 0
        _logger.error(
            "hot_tier_unavailable",
            lane=self._lane,
            partition=part.number,
            error=part.error,
            retry_s=retry_s,
            trace=None if known else "".join(traceback.format_exception(error)),  # without locals: they are large
        )

    def _let_go(self, error: Exception) -> None:
        """Have the store opened again: once a write of it has failed, RocksDB refuses all that follow."""
        self._held.retire(spoiled=False)
        for part in self._parts.values():
            self._fail(part, error)

    def _discard(self, error: DriftledgerError) -> None:
        """Throw the store away; every partition is read again, at once where this is not the second time in a row."""
        _logger.error("hot_store_damaged", lane=self._lane, error=str(error))
        self._pending = []
        self._held.retire(spoiled=True)
        for part in self._parts.values():
            if part.failures:
                self._fail(part, error)
            else:
                part.error, part.failures = str(error), 1
                if part.reader is not None:
                    part.reader.stop()
                self._begin(part)
