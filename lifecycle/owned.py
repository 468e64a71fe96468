"""Questions to the hot tiers of a worker: all partitions that it owns as one store, asked by several at a time.

Problem: partitions come and go with their lanes, are behind their ledger for a while, and a store may be thrown away
while it is read. A question must get all rows that are there, or be told why not and when to ask again.

How: for each thread that asks there is a HotQueries over the stores that the lanes have open; another set of stores
gets new ones. Each read looks whether its store still is the lane's, so a lane that closes, or throws its store away,
waits for one read at most and not for a question. What the store does not hold is read from archives, without it.

GUARANTEE an answer holds each partition up to an entry that was committed, and every row up to it; one whose store is
not level with its ledger is NotReadyError, never a short answer.
GUARANTEE at most ASKERS_MAX questions at a time, each at most ASK_S; damage that is found is reported to the tier,
which makes its store anew.
HAZARD what two partitions are told up to was not committed at the same moment.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from lifecycle.catalog import HEADER_BYTES_MAX
from lifecycle.chunks import ChunkDamagedError, StoreDamagedError
from lifecycle.column_cache import COLUMN_BYTES_MAX
from lifecycle.hot_tier import Standing
from lifecycle.query import HotQueries
from lifecycle.tiered import Tiered
from schemas.clock import SystemTime
from schemas.errors import BadInputError, UnreachableError
from schemas.instants import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from lifecycle.catalog import Unsealed
    from lifecycle.chunks import Applied, Column, Header, Line, Read
    from lifecycle.hot_store import HotStore
    from lifecycle.hot_tier import HotTier
    from lifecycle.tiered import Archives

T = TypeVar("T")

#: Two fill two cores. They share the memory that one may use.
ASKERS_MAX: Final = 2
#: What takes longer is asked for in parts.
ASK_S: Final = 30.0
#: How soon to ask again where a lane opens or a store is made again.
RETRY_AFTER_S: Final = 2
#: How partitions stand of a worker that keeps nothing hot: as part of a sentence.
NOT_KEPT: Final = "kept nowhere, for hot_store is off,"
#: A question is given so much true time, whatever dates the events.
_system: Final = SystemTime()


class OwnedLane(NamedTuple):
    """An owned lane. heads: last index by partition; tier: None where it is not open or keeps nothing hot.

    why: why there is no tier.
    """

    partitions: tuple[int, ...]
    heads: Mapping[int, int]
    tier: HotTier | None
    why: str = ""


class Progress(NamedTuple):
    """A partition's store: how it stands, the index up to which it is read, and the last there is."""

    partition: int
    standing: str
    reached: int
    head: int
    error: str | None


class NotReadyError(UnreachableError):
    """Some partitions are not level yet, or there are none. Attributes: progress (of those), retry_after_s."""

    def __init__(self, progress: Sequence[Progress], retry_after_s: int = RETRY_AFTER_S) -> None:
        told = "; ".join(
            f"partition {found.partition} is {found.standing} at index {found.reached} of {found.head}"
            + (f" ({found.error})" if found.error else "")
            for found in progress
        )
        super().__init__(
            f"{told}. Ask again in a moment, or for other partitions alone"
            if told
            else "this worker has no lane. Ask again in a moment, or another worker"
        )
        self.progress = tuple(progress)
        self.retry_after_s = retry_after_s


class RebuiltError(UnreachableError):
    """A store was found damaged, or was closed, while it was read."""

    retry_after_s = RETRY_AFTER_S


class TooLongError(BadInputError):
    """A question takes longer than it may."""


class NotHeldError(BadInputError):
    """Partitions that this worker does not own."""


class Asker:
    """What one thread asks with: the open stores by partition, and the queries over them. One question at a time."""

    def __init__(self, places: dict[int, tuple[HotTier, HotStore]], archives: Archives | None = None) -> None:
        self.places = places
        self.deadline_ns = 0
        #: First sequences of the chunks of which a question has read rows, by partition.
        self.touched: dict[int, set[int]] = {}
        self._tiered = Tiered(_Stores(self._reading), archives, self._resumed)
        self._begins: dict[int, int] = {}
        self.queries = self._new_queries()

    def begin(self) -> None:
        """Before a question: where chunks are kept no longer, what is remembered of them is not either."""
        begins = {partition: self._tiered.begins(partition) for partition in self.places}
        if begins != self._begins:
            self._begins, self.queries = begins, self._new_queries()

    def last_sequence(self, partition: int) -> int:
        """Of the rows that there are."""
        unsealed = self.unsealed(partition)
        rows: list[int] = [] if unsealed is None else unsealed.rows.sequence[-1:].tolist()
        return max(self._tiered.last_sequence(partition), *rows, 0)

    # ----------------------------------------------------------------------------------------- the protocol of catalog

    def partitions(self) -> list[int]:
        """Those whose stores are open."""
        return sorted(self.places)

    def unsealed(self, partition: int) -> Unsealed | None:
        """Rows after the last chunk; of a partition that was level before and after."""
        tier = self._tier(partition)
        found = tier.unsealed(partition)
        self._tier(partition)
        return found

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        """Of the store and the archives."""
        self._tier(partition)
        return self._tiered.headers(partition, first_sequence, most)

    def column(self, partition: int, first_sequence: int, column: Column, rows: int) -> Read:
        """Of the store, or of an archive."""
        self.touched.setdefault(partition, set()).add(first_sequence)
        return self._tiered.column(partition, first_sequence, column, rows)

    def archived(self, partition: int, first_sequences: NDArray[np.int64]) -> int:
        """How many the store does not hold."""
        return self._tiered.archived(partition, first_sequences)

    def _new_queries(self) -> HotQueries:
        return HotQueries(self, HEADER_BYTES_MAX // ASKERS_MAX, COLUMN_BYTES_MAX // ASKERS_MAX)

    def _resumed(self, partition: int) -> int:
        """The sequence before the rows that are in no chunk."""
        found = self.places[partition][0].unsealed(partition)
        return 0 if found is None else found.before_sequence

    @contextlib.contextmanager
    def _reading(self, partition: int) -> Iterator[HotStore]:
        """The store, kept open meanwhile."""
        with self.places[partition][0].reading():
            yield self._store(partition)

    def _tier(self, partition: int) -> HotTier:
        """The tier, which is level and has the store."""
        tier = self.places[partition][0]
        self._store(partition)
        place = tier.places()[partition]
        if place.standing is not Standing.LEVEL:
            raise NotReadyError([Progress(partition, place.standing, place.index, place.index, place.error)])
        return tier

    def _store(self, partition: int) -> HotStore:
        """The store, if it still is the lane's and there is time left."""
        if _system.monotonic_ns() > self.deadline_ns:
            raise TooLongError(f"it takes longer than {ASK_S:.0f} s. Ask for a shorter range, or fewer partitions")
        tier, store = self.places[partition]
        with tier.reading() as now:
            if now is not store:
                raise RebuiltError(f"the store of partition {partition} was closed. Ask again in a moment")
        return store


class _Stores:
    """The stores of an asker as one, each of which is looked at anew with each read and kept open as long as that."""

    def __init__(self, reading: Callable[[int], AbstractContextManager[HotStore]]) -> None:
        self._reading = reading

    def applied(self, partition: int) -> Applied | None:
        with self._reading(partition) as store:
            return store.applied(partition)

    def begins(self, partition: int) -> int | None:
        with self._reading(partition) as store:
            return store.begins(partition)

    def away(self, partition: int) -> NDArray[np.int64]:
        with self._reading(partition) as store:
            return store.away(partition)

    def lines(self, partition: int, first_sequence: int, most: int) -> list[Line]:
        with self._reading(partition) as store:
            return store.lines(partition, first_sequence, most)

    def headers(self, partition: int, first_sequence: int, most: int) -> list[Header]:
        with self._reading(partition) as store:
            return store.headers(partition, first_sequence, most)

    def header(self, partition: int, first_sequence: int) -> Header:
        with self._reading(partition) as store:
            return store.header(partition, first_sequence)

    def column(self, partition: int, first_sequence: int, column: Column) -> bytes:
        with self._reading(partition) as store:
            return store.column(partition, first_sequence, column)


class Kept(Protocol):
    """What lies beside the stores; see `keeper.Keeper`. For any thread."""

    @property
    def archives(self) -> Archives:
        """Chunks that the stores may not hold."""
        ...

    def note(self, partition: int, first_sequences: Iterable[int]) -> None:
        """A question that read rows of the chunks that begin there."""
        ...


class OwnedPartitions:
    """For any thread. lanes: those that the worker owns now; kept: of what their stores do not hold."""

    def __init__(self, lanes: Callable[[], Sequence[OwnedLane]], kept: Kept | None = None) -> None:
        self._lanes, self._kept = lanes, kept
        self._idle: list[Asker] = []
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(ASKERS_MAX)

    def progress(self) -> list[Progress]:
        """Of all owned partitions. Takes no lock, and reads nothing that a store has."""
        return sorted(found for lane in self._lanes() for found in _progress(lane))

    def choose(self, wanted: Sequence[int] | None) -> tuple[int, ...]:
        """The partitions asked for, None for all that are owned. Raises NotHeldError, NotReadyError."""
        found = {place.partition: place for place in self.progress()}
        chosen = tuple(sorted(found if wanted is None else set(wanted)))
        if missing := [partition for partition in chosen if partition not in found]:
            raise NotHeldError(
                f"partitions {missing} are not held here, but {sorted(found)}. Ask the worker that holds them"
            )
        late = [found[partition] for partition in chosen if found[partition].standing != Standing.LEVEL]
        if late or not chosen:
            raise NotReadyError(late)
        return chosen

    def ask(self, question: Callable[[Asker], T]) -> T:
        """Have a question asked once a place is free. Raises NotReadyError, RebuiltError, BadInputError."""
        with self._slots:
            asker = self._taken()
            asker.deadline_ns = _system.monotonic_ns() + int(ASK_S * NS_PER_S)
            asker.touched.clear()
            try:
                asker.begin()
                return question(asker)
            except StoreDamagedError as error:
                _report(asker, error)
                raise RebuiltError(f"{error}. Ask again in a moment") from error
            finally:
                if self._kept is not None:
                    for partition, first_sequences in asker.touched.items():
                        self._kept.note(partition, first_sequences)
                with self._lock:
                    self._idle.append(asker)

    def _taken(self) -> Asker:
        """The asker that was last used, if the stores are still those; else a new one."""
        places: dict[int, tuple[HotTier, HotStore]] = {}
        for lane in self._lanes():
            if lane.tier is not None:
                with lane.tier.reading() as store:
                    if store is not None:
                        places |= dict.fromkeys(lane.partitions, (lane.tier, store))
        with self._lock:
            while self._idle:
                asker = self._idle.pop()
                if asker.places == places:
                    return asker
        return Asker(places, None if self._kept is None else self._kept.archives)


def _progress(lane: OwnedLane) -> list[Progress]:
    if lane.tier is None:
        return [Progress(partition, lane.why, 0, lane.heads.get(partition, 0), None) for partition in lane.partitions]
    places = lane.tier.places()
    found = []
    for partition in lane.partitions:
        head = lane.heads.get(partition, 0)
        place = places.get(partition)
        if place is None:
            found.append(Progress(partition, "halted", 0, head, None))
            continue
        reached = head if place.standing is Standing.LEVEL else place.index
        found.append(Progress(partition, place.standing, reached, head, place.error))
    return found


def _report(asker: Asker, error: StoreDamagedError) -> None:
    """Tell the tier whose chunk it was; of a store as a whole it knows, for it saw the error pass."""
    if isinstance(error, ChunkDamagedError) and error.partition in asker.places:
        tier, store = asker.places[error.partition]
        with contextlib.suppress(StoreDamagedError), tier.reading() as now:
            if now is store:
                raise error
