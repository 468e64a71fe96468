"""The gate: whether something may be written, asked before each operation that writes.

Problem: a partition that is halted, or that somebody has locked, must not be written to as if nothing were, and whoever
tries must be told who stopped it, when, why and what to do. Halts and locks stand on the progress topic, so every
process asks the same place: puts, `publish` and the sample fleet for each event, `windows resume` for each partition.

Not asked before: anchors and verifications, which change nothing but the drift log; the lifting of a halt and the
release of a lock; and what a lane writes, which has its own (a halted partition has no lane, one whose input is kept
back defines nothing).

GUARANTEE what is told is at most MAX_AGE_S old, or UnreachableError.
HAZARD a producer that writes to the input by itself, `EventProducer` too, asks nobody: Kafka knows of no lock. One that
halts "sequence" keeps its events out of the ledger until it is released, and they wait in the input as long as that is
kept; one that halts "put" alone, as that of a source, does not stop them.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, UnreachableError
from schemas.instants import NS_PER_S
from schemas.topics import partition_for
from streams.locks import Halts
from streams.log import Log
from streams.progress import LaneNotes
from streams.publish import Accepted, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from schemas.errors import HaltError
    from streams.locks import Lock
    from streams.progress import LaneState

#: How long an answer holds. Shorter would cost a lane's reading of the broker for each request.
MAX_AGE_S: Final = 1.0
#: Sources whose partition is kept; a fleet's.
_SOURCES_KEPT: Final = 65_536


class LockedError(DriftledgerError):
    """A lock stands in the way. Attributes: lock."""

    def __init__(self, lock: Lock) -> None:
        super().__init__(f"{lock.what} is {lock.since}. {lock.remedy}")
        self.lock = lock


class Closed(NamedTuple):
    """What stands in the way of puts. halts, whole: by partition; sources: by partition and name."""

    partitions: int
    halts: Mapping[int, HaltError]
    whole: Mapping[int, Lock]
    sources: Mapping[tuple[int, str], Lock]

    def __bool__(self) -> bool:
        return bool(self.halts or self.whole or self.sources)

    def refusal(self, source: str) -> str | None:
        """Why nothing of a source may be put, None where it may."""
        partition = _partition_of(source, self.partitions)
        error = self.error_of(partition, source)
        return None if error is None else str(error)

    def error_of(self, partition: int, source: str | None = None) -> DriftledgerError | None:
        """What stands in the way in a partition: of that source, or of any."""
        if partition in self.halts:
            return self.halts[partition]
        lock = self.whole.get(partition)
        if lock is None and source is not None:
            lock = self.sources.get((partition, source))
        return None if lock is None else LockedError(lock)


@lru_cache(_SOURCES_KEPT)
def _partition_of(source: str, partitions: int) -> int:
    return partition_for(source.encode(), partitions)


def closed_by(partitions: int, lanes: Iterable[LaneState]) -> Closed:
    """What the records of the progress topic say."""
    states = list(lanes)
    locks = [lock for state in states for lock in state.locks if lock.does(Halts.PUT)]
    return Closed(
        partitions,
        {partition: halt for state in states for partition, halt in state.halts.items()},
        {lock.partition: lock for lock in locks if lock.scope is None},
        {(lock.partition, lock.scope): lock for lock in locks if lock.scope is not None},
    )


class Gate:
    """Of one ledger, for any number of threads; reads when it is asked, not more often than once in MAX_AGE_S."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, lanes: int) -> None:
        self._bootstrap, self._partitions = bootstrap, partitions
        self._notes = [LaneNotes(topic, lane) for lane in range(lanes)]
        self._reading = threading.Lock()
        self._log: Log | None = None
        #: What was read last, or why it could not be.
        self._closed: Closed | UnreachableError | None = None
        self._read_ns = 0

    def closed(self) -> Closed:
        """What stands in the way now. Raises UnreachableError."""
        clock = time_source()
        with self._reading:
            now_ns = clock.monotonic_ns()
            if self._closed is None or now_ns - self._read_ns >= MAX_AGE_S * NS_PER_S:
                self._closed = self._read()
                self._read_ns = clock.monotonic_ns()
            if isinstance(self._closed, UnreachableError):  # those who waited meanwhile do not each wait again
                raise self._closed
            return self._closed

    def _read(self) -> Closed | UnreachableError:
        if self._log is None:
            self._log = Log(self._bootstrap)
        try:
            states = [notes.read(self._log) for notes in self._notes]
        except UnreachableError as error:
            return error
        return closed_by(self._partitions, states)

    def passed(self, lines: Iterable[Accepted | Rejected]) -> Iterator[Accepted | Rejected]:
        """Lines as they are read; an event that may not be put is refused. Raises UnreachableError."""
        for line in lines:
            closed = self.closed()
            why = closed.refusal(line.event["source"]) if closed and isinstance(line, Accepted) else None
            yield line if why is None else Rejected(line.number, why)

    def check(self, partition: int) -> None:
        """Raise HaltError or LockedError where a partition may not be written to. Raises UnreachableError."""
        error = self.closed().error_of(partition)
        if error is not None:
            raise error

    def close(self) -> None:
        """End the client, unless somebody waits for its answer: the end of the process does it then."""
        if self._reading.acquire(blocking=False):
            if self._log is not None:
                self._log.close()
                self._log = None
            self._reading.release()
