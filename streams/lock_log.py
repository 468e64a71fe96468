"""Locks of a ledger, asked and written: engage, release, what is engaged.

Problem: whoever stops a ledger must be sure that it stands, and must leave behind who he is, why he did it, and how far
his clock was off. So a lock is a record of the control topic, in each partition that it is for; the caller waits for
the ledger entries: each is the lock and the verification of the caller's clock in one, so neither can be there without
the other. What is engaged is read from the progress topic, where the lane notes it in the transaction of the entry.

    LockLog(ledger).engage("clock of rack 4 is wrong", "ada")                   every partition
    LockLog(ledger).engage("sensor replaced", "ada", source="pump-7")           one source, in its partition
    LockLog(ledger).release("mended", "ada", partition=2)

GUARANTEE each outcome of a partition is told by itself: one that is halted, or has no lane, keeps no other from its
lock, and its record stays written until it is sequenced.
GUARANTEE the record waits for no input: a lane that is live has it in the ledger with its next transaction or the one
after, however far behind it is. The entry's place is where the lock took effect: events before it are in the ledger in
spite of their later time, those behind it came after the release.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.parameters import utf8_of
from schemas.clock import source as time_source
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.faults import MAX_SOURCE_BYTES
from schemas.instants import NS_PER_S, format_ms
from schemas.topics import partition_for
from streams.drift_log import API_SOURCE, SEQUENCED_TIMEOUT_S, DriftLog
from streams.locks import ACTOR_CHARACTERS, LOCKS_MAX, REASON_CHARACTERS, Halts, halts_in, sources_locked
from streams.log import wait_stable
from streams.progress import read_lane

if TYPE_CHECKING:
    from streams.drift_entries import DriftEntry
    from streams.drift_log import Written
    from streams.locks import Lock
    from streams.queries import Ledger

#: A commit is answered before its markers stand on the progress topic.
_MARKERS_TIMEOUT_MS: Final = 2_000


class What(enum.StrEnum):
    """What an entry did."""

    ENGAGED = "engaged"
    #: It was engaged already, by an earlier entry, which holds.
    STOOD = "was engaged"
    #: The partition has as many locked sources as it may have.
    REFUSED = "refused"
    #: It was engaged, by this entry or an earlier one, and somebody has released it since.
    GONE = "released since"
    RELEASED = "released"
    #: It was not engaged.
    IDLE = "was not engaged"
    #: No entry yet: `error` says why.
    WAITS = "waits"


class Outcome(NamedTuple):
    """Of one partition. entry: the verification, lock: what is engaged there now; error: why there is no entry."""

    partition: int
    scope: str | None
    what: What
    entry: DriftEntry | None
    lock: Lock | None
    error: DriftledgerError | None

    def row(self) -> dict[str, Any]:
        """For a listing."""
        entry = self.entry
        row: dict[str, Any] = {"partition": self.partition, "source": self.scope, "lock": self.what}
        if entry is not None:
            row |= {
                "id": entry.id,
                "after_sequence": entry.sequence,
                "server_time_ms": entry.created_at_ms,
                "server_time": format_ms(entry.created_at_ms),
                "delta_ms": entry.drift_delta_ms,
                "severity": entry.severity.name,
                "phase_lock_hash": entry.phase_lock_hash,
            }
        return row


class LockLog:
    """The locks of one opened ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._log = ledger, DriftLog(ledger)

    def engage(
        self,
        reason: str,
        actor: str,
        *,
        partition: int | None = None,
        source: str | None = None,
        clock: str = API_SOURCE,
        timeout_s: float = SEQUENCED_TIMEOUT_S,
    ) -> list[Outcome]:
        """Lock a partition, a source, or without either every partition, for what the setting lock_halts says.

        clock: whose clock is verified, which is this machine's. Raises BadInputError, UnreachableError.
        """
        halts = halts_in(self._ledger.settings.lock_halts)
        if source is not None:
            halts = tuple(what for what in halts if what == Halts.PUT)
        if not halts:
            raise BadInputError(
                "a source is kept from puts alone, and lock_halts = sequence leaves them. Lock its partition, or set "
                "lock_halts to put or sequence,put"
            )
        written = self._write(partition, source, halts, clock, actor, reason, engaged=True)
        return [found.outcome(source, _engaged(found)) for found in self._found(written, source, timeout_s)]

    def release(
        self,
        reason: str,
        actor: str,
        *,
        partition: int | None = None,
        source: str | None = None,
        clock: str = API_SOURCE,
        timeout_s: float = SEQUENCED_TIMEOUT_S,
    ) -> list[Outcome]:
        """Release what `engage` with the same scope engaged; what is not engaged stays so. Raises as it does."""
        before = {(lock.partition, lock.scope) for lock in self.locks()}
        written = self._write(partition, source, (), clock, actor, reason, engaged=False)
        return [
            found.outcome(source, What.RELEASED if (found.partition, source) in before else What.IDLE)
            for found in self._found(written, source, timeout_s)
        ]

    def locks(self) -> list[Lock]:
        """Those that are engaged, by partition, that of the partition first, then by source."""
        ledger = self._ledger
        of_each = (read_lane(ledger.log, ledger.names.progress, lane).locks for lane in range(ledger.lanes))
        return sorted(
            (lock for locks in of_each for lock in locks), key=lambda lock: (lock.partition, lock.scope or "")
        )

    def _write(
        self, partition: int | None, source: str | None, halts: tuple[str, ...], clock: str, actor: str, reason: str, *,
        engaged: bool,
    ) -> dict[int, Written | DriftledgerError]:  # fmt: skip
        """What was written to each partition, or why nothing was."""
        check_asked(partition, source, actor, reason)
        partitions = self._ledger.chosen(partition)
        if source is not None:
            partitions = [partition_for(source.encode(), self._ledger.partitions)]
        written: dict[int, Written | DriftledgerError] = {}
        for p in partitions:
            try:
                written[p] = self._log.write_lock(p, source, halts, clock, actor=actor, reason=reason, engaged=engaged)
            except BadInputError:
                raise
            except DriftledgerError as error:
                written[p] = error
        return written

    def _found(
        self, written: dict[int, Written | DriftledgerError], scope: str | None, timeout_s: float
    ) -> list[_Found]:
        """What became of each, all within timeout_s."""
        ledger, clock = self._ledger, time_source()
        deadline_ns = clock.monotonic_ns() + int(timeout_s * NS_PER_S)
        entries: dict[int, DriftEntry | DriftledgerError] = {}
        for p, record in written.items():
            if isinstance(record, DriftledgerError):
                entries[p] = record
                continue
            try:
                left_s = max(0.0, round((deadline_ns - clock.monotonic_ns()) / NS_PER_S, 1))
                entries[p] = self._log.entry_of(record, left_s)
            except DriftledgerError as error:
                entries[p] = error
        unknown = {
            lane
            for lane in sorted({ledger.lane_of(p) for p in written})
            if not wait_stable(ledger.log, ledger.names.progress, lane, _MARKERS_TIMEOUT_MS)
        }
        locks = {(lock.partition, lock.scope): lock for lock in self.locks()}
        found = []
        for p, entry in entries.items():
            if ledger.lane_of(p) in unknown and not isinstance(entry, DriftledgerError):
                what = f"entry {entry.id} is there; what it did cannot be read yet. See `driftledger lock status`"
                found.append(_Found(p, UnreachableError(what), None, full=False))
                continue
            full = sources_locked([at for of, at in locks if of == p]) >= LOCKS_MAX
            found.append(_Found(p, entry, locks.get((p, scope)), full=full))
        return found


def check_asked(partition: int | None, source: str | None, actor: str, reason: str) -> None:
    """Raise BadInputError for what cannot be locked or released, or without who and why."""
    if partition is not None and source is not None:
        raise BadInputError("a source has its partition. Give --partition or --source, not both")
    if source is not None and not 1 <= len(utf8_of("source", source)) <= MAX_SOURCE_BYTES:
        raise BadInputError(f"source has {len(source.encode())} bytes of UTF-8; give it 1 to {MAX_SOURCE_BYTES}")
    for name, text, most in (("actor", actor, ACTOR_CHARACTERS), ("reason", reason, REASON_CHARACTERS)):
        if not text.strip() or len(text) > most:
            raise BadInputError(f"--{name} has {len(text)} characters. Give it some text, {most} characters at most")


class _Found(NamedTuple):
    """Of one partition: its entry, or why there is none, what is engaged now, and whether it has no room for more."""

    partition: int
    entry: DriftEntry | DriftledgerError
    lock: Lock | None
    full: bool

    def outcome(self, scope: str | None, what: What) -> Outcome:
        if isinstance(self.entry, DriftledgerError):
            return Outcome(self.partition, scope, What.WAITS, None, self.lock, self.entry)
        return Outcome(self.partition, scope, what, self.entry, self.lock, None)


def _engaged(found: _Found) -> What:
    if found.lock is None or isinstance(found.entry, DriftledgerError):
        return What.REFUSED if found.full else What.GONE
    return What.ENGAGED if found.lock.index == found.entry.index else What.STOOD
