"""The drift log, asked and written: record an anchor, verify a clock, list verdicts.

Problem: an anchor or a verification must be dated by the authority, sequenced and chained like everything else, and the
caller wants the answer at once. So it is a record of the control topic, in the partition of its source (murmur2, as
the source's events); the lane of that partition sequences it, and the caller waits for the ledger entry: the answer.

GUARANTEE an answer names a committed ledger entry; its phase lock hash is that entry's chain hash.
GUARANTEE a record that was acknowledged is sequenced, if not now then when a lane runs or the halt of its partition is
lifted: NotSequencedError and HaltedError say so.
HAZARD waiting ends at the timeout, the record stays: asking again records a second one. So may a broker that dies
before it acknowledges: the record is sent again, and a second reading of the same instant does no harm.
HAZARD nothing is written to a partition whose ledger has not begun, because what stands on the control topic before
GENESIS belongs to no ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.parameters import utf8_of
from schemas.clock import source as time_source
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.faults import MAX_SOURCE_BYTES
from schemas.topics import partition_for
from streams import judged_log
from streams.control import encode_control
from streams.drift_entries import DriftEntry, DriftLogger
from streams.ledger_reader import read_entries
from streams.locks import lock_body
from streams.order import merge, newest_first
from streams.progress import produce_durably, read_lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from schemas.errors import HaltError
    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.severity import Severity

#: What a view of the log shows unless asked; the command has its own, for a terminal.
VIEW_ENTRIES: Final = 50
API_SOURCE: Final = "System"
API_ACTOR: Final = "guardian"
SEQUENCED_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02
_NS_PER_S: Final = 1_000_000_000
#: Offsets read back at first, and how much further each time.
_FIRST_WINDOW: Final = 512
_WINDOW_GROWTH: Final = 4


class NotSequencedError(UnreachableError):
    """No lane took a control record in time. Attributes: written (where it stands)."""

    def __init__(self, written: Written, timeout_s: float) -> None:
        super().__init__(
            f"the record is written ({written}) but no lane sequenced it within {timeout_s:g} s. It will be sequenced "
            "when a worker runs: start `driftledger worker`, or see `driftledger status`"
        )
        self.written = written


class HaltedError(DriftledgerError):
    """A control record is written to a partition that is halted. Attributes: written, halt (why it is)."""

    def __init__(self, written: Written, halt: HaltError) -> None:
        super().__init__(
            f"the record is written ({written}) but {halt}. It will be sequenced once that is mended and "
            f"`driftledger halts lift {halt.partition}` was run"
        )
        self.written, self.halt = written, halt


class NotBegunError(UnreachableError):
    """The ledger partition has no entry yet, so nothing was written."""

    def __init__(self, partition: int) -> None:
        super().__init__(
            f"partition {partition} of the ledger has not begun: nothing was written. Start `driftledger worker`"
        )


class Written(NamedTuple):
    """An acknowledged control record: where it stands, and when the broker appended it."""

    topic: str
    partition: int
    offset: int
    appended_ms: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Verification(NamedTuple):
    """The answer to a verification: the ledger entry's id, the authority's time, the delta to it, the chain there."""

    id: str
    server_time_ms: int
    delta_ms: int
    severity: Severity
    phase_lock_hash: bytes


class DriftLog:
    """The drift log of one opened ledger.

    tell: is told where judge's word is not to be had, see `judged_log`, and where what is asked for begins before the
    ledger does since it was cut.
    """

    def __init__(self, ledger: Ledger, tell: Callable[[str], None] = lambda _: None) -> None:
        self._ledger, self._tell = ledger, tell

    def record_anchor(
        self,
        source: str = API_SOURCE,
        timestamp_us: int | None = None,
        *,
        actor: str = API_ACTOR,
        reason: str = "anchor",
        timeout_s: float = SEQUENCED_TIMEOUT_S,
    ) -> DriftEntry:
        """Write an anchor and return its drift-log entry; without a timestamp it is anchored at its append time.

        Raises BadInputError, NotBegunError, HaltedError, NotSequencedError, UnreachableError.
        """
        return self.entry_of(self.write_anchor(source, timestamp_us, actor=actor, reason=reason), timeout_s)

    def verify_drift(
        self,
        client_timestamp_us: int | None = None,
        source: str = API_SOURCE,
        *,
        actor: str = API_ACTOR,
        reason: str = "verify",
        timeout_s: float = SEQUENCED_TIMEOUT_S,
    ) -> Verification:
        """Let the authority judge an instant of the caller's clock; None: now, as the record leaves.

        Raises as record_anchor does. HAZARD the way to the broker counts as delta: a few milliseconds, more under load.
        """

        def body() -> dict[str, Any]:
            asserted_us = time_source().now_us() if client_timestamp_us is None else client_timestamp_us
            return {"source": source, "client_timestamp": asserted_us}

        written = self._write("Verify", source, body, actor, reason)
        entry = self.entry_of(written, timeout_s)
        delta_ms = 0 if entry.drift_delta_ms is None else entry.drift_delta_ms  # a VERIFY has one
        return Verification(entry.id, entry.created_at_ms, delta_ms, entry.severity, entry.phase_lock_hash)

    def write_anchor(
        self, source: str, timestamp_us: int | None = None, *, actor: str, reason: str, partition: int | None = None
    ) -> Written:
        """Write an anchor and return at its acknowledgement; partition: in place of the source's own."""

        def body() -> dict[str, Any]:
            return {"source": source, "anchor_timestamp": timestamp_us}

        return self._write("Anchor", source, body, actor, reason, partition)

    def write_lock(
        self, partition: int, scope: str | None, halts: Sequence[str], source: str, *, actor: str, reason: str,
        engaged: bool,
    ) -> Written:  # fmt: skip
        """Write a LOCK, which verifies this machine's clock, and return at its acknowledgement; see `lock_log`."""

        def body() -> dict[str, Any]:
            return lock_body(scope, halts, source, time_source().now_us(), engaged=engaged)

        return self._write("Lock", source, body, actor, reason, partition)

    def entry_of(self, written: Written, timeout_s: float) -> DriftEntry:
        """Wait until a written anchor, verification or lock is in the ledger, and return its entry.

        Raises HaltedError at once where the partition is halted, NotSequencedError after timeout_s, HaltError where the
        ledger's tail is no entry.
        """
        ledger, partition = self._ledger, written.partition
        clock = time_source()
        deadline_ns = clock.monotonic_ns() + int(timeout_s * _NS_PER_S)
        self._check_halt(written)
        while True:
            tail = ledger.tail(partition)
            if tail is not None and tail.head.control_offset >= written.offset:
                break
            if clock.monotonic_ns() >= deadline_ns:
                self._check_halt(written)
                raise NotSequencedError(written, timeout_s)
            clock.sleep_s(_POLL_S)
        at = ledger.offset_of(partition, tail, written.offset, "control_offset")
        logger = DriftLogger(partition, ledger.framing(partition), None)
        found: list[DriftEntry] = []
        for batch in read_entries(ledger.bootstrap, ledger.names.sequenced, partition, at, at + 1):
            found += logger.newest(batch.entries, 1)
        if not found:
            raise DriftledgerError(f"index {tail.head.index} passed {written}, which is no entry. Run `sequence check`")
        return found[0]

    def newest(
        self, most: int = VIEW_ENTRIES, *, source: str | None = None, partition: int | None = None
    ) -> list[DriftEntry]:
        """The newest entries, newest first; across partitions as in `order`.

        Reads back from each tail until it has enough. HAZARD a source that has fewer entries than asked for is looked
        for down to the beginning. Raises BadInputError for a partition that is not there.
        """
        if most < 1:
            raise BadInputError(f"the newest {most} entries are none. Ask for 1 or more")
        of_each = [self._newest(p, most, source) for p in self._ledger.chosen(partition)]
        return newest_first(map(_placed, of_each), most)

    def between(
        self, first_ms: int, last_ms: int, *, source: str | None = None, partition: int | None = None
    ) -> Iterator[DriftEntry]:
        """The entries created from first_ms to last_ms, both included, oldest first; across partitions as in `order`.

        Each partition is read to its end: behind a backlog, an anchor of now stands before events of an hour ago.
        HAZARD all are read at once, each by a client of its own, which takes up to some 40 MB.
        """
        of_each = [self._between(p, first_ms, last_ms, source) for p in self._ledger.chosen(partition)]
        return merge(map(_placed, of_each))

    def coming(self, tails: Mapping[int, Tail | None], *, source: str | None = None) -> Iterator[DriftEntry]:
        """Entries behind those tails, by partition, as they are committed, for ever."""
        ledger = self._ledger
        logs = {p: judged_log.follow(ledger, p, tail, self._tell) for p, tail in tails.items()}
        loggers: dict[int, DriftLogger] = {}
        for p, batch in ledger.follow({p: ledger.end(p) if t is None else t.offset + 1 for p, t in tails.items()}):
            if p not in loggers:
                loggers[p] = DriftLogger(p, ledger.framing(p), source)
            yield from logs[p].judged(loggers[p].all(batch.entries), batch.entries)

    def _check_halt(self, written: Written) -> None:
        ledger, partition = self._ledger, written.partition
        halt = read_lane(ledger.log, ledger.names.progress, ledger.lane_of(partition)).halts.get(partition)
        if halt is not None:
            raise HaltedError(written, halt)

    def _tell_of_cut(self, partition: int, begin: int) -> None:
        """begin: where it was read from, to find what there is before as well."""
        first = self._ledger.first(partition)
        if first.index > 1 and begin <= first.offset:
            self._tell(f"entries 1 to {first.index - 1} of partition {partition} are in archives alone, and not listed")

    def _between(self, partition: int, first_ms: int, last_ms: int, source: str | None) -> Iterator[DriftEntry]:
        ledger = self._ledger
        tail = ledger.tail(partition)
        if tail is None:
            return
        logger = DriftLogger(partition, ledger.framing(partition), source)
        log = judged_log.JudgedLog(ledger, partition, self._tell)
        begun, begin = False, ledger.since(partition, first_ms)
        self._tell_of_cut(partition, begin)
        for batch in ledger.batches(partition, tail, begin):
            if not begun:
                log.begin(tail, int(batch.entries.index[0]) - 1)
            begun = True
            for entry in log.judged(logger.all(batch.entries), batch.entries):
                if first_ms <= entry.created_at_ms <= last_ms:
                    yield entry

    def _newest(self, partition: int, most: int, source: str | None) -> list[DriftEntry]:
        """The last `most` of one partition, in order of index."""
        ledger = self._ledger
        topic = ledger.names.sequenced
        tail = ledger.tail(partition)
        found: list[DriftEntry] = []
        if tail is None:
            return found
        start, end, window = ledger.log.bounds(topic, partition).start, tail.offset + 1, _FIRST_WINDOW
        while end > start and len(found) < most:
            begin = max(start, end - window)
            logger = DriftLogger(partition, ledger.framing(partition), source)
            earlier: list[DriftEntry] = []
            for batch in read_entries(ledger.bootstrap, topic, partition, begin, end):
                earlier = (earlier + logger.newest(batch.entries, most))[-most:]
            found = (earlier + found)[-most:]
            end, window = begin, window * _WINDOW_GROWTH
        if len(found) < most:
            self._tell_of_cut(partition, end)
        return judged_log.judged(ledger, partition, tail, found, self._tell)

    def _write(
        self,
        kind: str,
        source: str,
        body: Callable[[], dict[str, Any]],
        actor: str,
        reason: str,
        partition: int | None = None,
    ) -> Written:
        """Append a control record whose body is made at the last moment."""
        name = utf8_of("source", source)
        utf8_of("actor", actor), utf8_of("reason", reason)
        if not 1 <= len(name) <= MAX_SOURCE_BYTES:
            raise BadInputError(f"source has {len(name)} bytes of UTF-8; give it 1 to {MAX_SOURCE_BYTES}")
        ledger = self._ledger
        if partition is None:
            partition = partition_for(name, ledger.partitions)
        if ledger.log.last(ledger.names.sequenced, partition) is None:  # what it holds is the lane's matter
            raise NotBegunError(partition)
        encode_control(kind, body(), actor, reason)  # what cannot be encoded is refused before anything is opened
        record = ((None, encode_control(kind, body(), actor, reason)) for _ in range(1))
        [(offset, appended_ms)] = produce_durably(
            ledger.bootstrap, ledger.names.control, partition, record, idempotent=False
        )
        return Written(ledger.names.control, partition, offset, appended_ms)


def _placed(entries: Iterable[DriftEntry]) -> Iterator[tuple[int, DriftEntry]]:
    return ((entry.created_at_ms, entry) for entry in entries)
