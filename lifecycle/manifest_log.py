"""The manifest on Kafka: read from its beginning, followed as it grows, and written by one job at a time.

Problem: a commit says which files are the archive, so it must be there whole or not at all, once, and whoever writes it
must know all that was committed before. So the log has one transactional id, the name of its topic, and holding that is
the lease: Kafka fences whoever held it before. The holder reads the log to its stable end, and writes each commit in a
transaction of its own.

    with JobRun(bootstrap, names.jobs, "seal") as run, ManifestLease(bootstrap, names, run) as lease:
        tree = lease.commit(record)                 record.commit = lease.tree.commit + 1

After any error the outcome is unknown. The producer is ended and never used again; nothing is aborted, for a request
that is under way could end the transaction of whoever comes next. Then another is begun under the same id, which ends
what was open, and what stands in the log decides: the record is there and all is well; or nobody wrote, and it is
written again; or somebody else did, and the lease is lost.

GUARANTEE a commit that has returned was read back, committed, at the number that it has.
GUARANTEE of two that hold the lease the one that began last goes on; the other raises LeaseLostError before it writes
any more, and what it had committed stays.
HAZARD a holder that stands still for longer than the transaction timeout is fenced by the broker though nobody came:
it begins again by itself, unless the jobs topic knows of a run that came since.
HAZARD a manifest that is deleted and made anew is read anew by who follows it; it knows none of the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import structlog
from confluent_kafka import KafkaException, Producer

from lifecycle.manifest import ManifestError, Tree, decode, encode
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, UnreachableError
from schemas.instants import NS_PER_S, format_ms
from streams.admission import SECOND_WRITER_REMEDY
from streams.log import CLIENT_BYTES_MAX, Log, offset_of, wait_stable
from streams.transactions import Point

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.job_record import Heard
    from lifecycle.job_run import JobRun
    from lifecycle.manifest import Commit
    from schemas.topics import TopicNames

#: How long a commit, or the beginning of a lease, is tried again while the broker gives no clear answer.
PATIENCE_S: Final = 60.0

#: Of a commit, which is not there each time.
_TRIES: Final = 5
_TRANSACTION_TIMEOUT_MS: Final = 10_000
_CALL_TIMEOUT_S: Final = 15.0
#: Until a commit that was answered can be read: its marker is written after the answer.
_READ_BACK_S: Final = 5.0
_POLL_S: Final = 0.01
_BACKOFF_S: Final = 0.25
_logger = structlog.get_logger()


class LeaseLostError(DriftledgerError):
    """Another run has the lease of the manifest. Attributes: other (None: nobody knows who), remedy."""

    def __init__(self, topic: str, detail: str, other: Heard | None) -> None:
        self.other = other
        self.remedy = (
            "What it committed stays; see what the other does with `driftledger lifecycle history`, and run this job "
            "again when that has ended"
        )
        who = "another run" if other is None else _who(other)
        super().__init__(f"the lease of {topic} is lost to {who}: {detail}. {self.remedy}")


class ManifestLog:
    """The tree of a manifest, read on as the log grows. Not for two threads at once.

    Attributes: tree, as of the last `refresh`; last, the bytes of its last commit.
    """

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self.topic = log, topic
        self.tree, self.last = Tree(), b""
        #: Of the topic that was read, up to the offset.
        self._topic_id, self._offset = "", 0

    def refresh(self) -> Tree:
        """Read what was committed since; returns the tree.

        Raises ManifestError, which names the offset, for a record that the manifest cannot hold and for records that
        are gone; UnreachableError.
        """
        facts = self._log.topic(self.topic)
        if facts is None:
            raise UnreachableError(f"topic {self.topic} does not exist. Run `driftledger topics create`")
        if facts.topic_id != self._topic_id:
            self.tree, self.last = Tree(), b""
            self._topic_id, self._offset = facts.topic_id, 0
        bounds = self._log.bounds(self.topic, 0)
        if not bounds.start <= self._offset <= bounds.stable_end:
            raise ManifestError(
                f"{self.topic}[0] holds offsets {bounds.start} to {bounds.stable_end}, but is to be read from "
                f"{self._offset}: commits are gone. Restore the topic from a copy, or make it again from the archives"
            )
        for message in self._log.scan(self.topic, 0, self._offset, bounds.stable_end):
            content = message.value() or b""
            try:
                self.tree = self.tree.after(decode(content))
            except ManifestError as error:
                raise ManifestError(f"{self.topic}[0]@{offset_of(message)}: {error}") from error
            self.last, self._offset = content, offset_of(message) + 1
        self._offset = bounds.stable_end
        return self.tree


def read_manifest(bootstrap: str, names: TopicNames) -> Tree:
    """The tree as it is committed now. Raises ManifestError, which names the offset, and UnreachableError."""
    log = Log(bootstrap)
    try:
        return ManifestLog(log, names.manifest).refresh()
    finally:
        log.close()


class ManifestLease:
    """The right to write the manifest, from entering to leaving. Not for two threads at once.

    run: entered and not begun; it begins here. take_over: also where another run has the lease: that one loses it.
    at: called at each point of a transaction; tests kill there. Raises JobRunningError, ManifestError, LeaseLostError,
    and UnreachableError where the broker gives no clear answer for `patience_s`.
    """

    def __init__(
        self,
        bootstrap: str,
        names: TopicNames,
        run: JobRun,
        *,
        take_over: bool = False,
        patience_s: float = PATIENCE_S,
        at: Callable[[Point], None] = lambda _: None,
    ) -> None:
        self._bootstrap, self._topic, self._run = bootstrap, names.manifest, run
        self._take_over, self._patience_s, self._at = take_over, patience_s, at
        self._log = Log(bootstrap)
        self._reader = ManifestLog(self._log, names.manifest)
        self._producer: Producer | None = None

    def __enter__(self) -> Self:
        try:
            self._run.begin(take_over=self._take_over)
            self._begin(self._deadline_ns())
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    @property
    def tree(self) -> Tree:
        """As of the last commit."""
        return self._reader.tree

    def commit(self, record: Commit) -> Tree:
        """Write a commit, once; returns the tree after it.

        Raises ManifestError, before anything is written, for one that the manifest cannot hold.
        """
        content = encode(record)
        self.tree.after(record)
        deadline_ns = self._deadline_ns()
        for _ in range(_TRIES):
            try:
                self._write(record, content)
                self._read_back(record)
            except (KafkaException, BufferError, UnreachableError) as error:
                _logger.warning("manifest_commit_unclear", commit=record.commit, detail=str(error))
                told = str(error)  # kept whole, it would keep the frames, and all that is in them
                self._begin(deadline_ns)
            if self.tree.commit == record.commit and self._reader.last == content:
                return self.tree
            if self.tree.commit != record.commit - 1:
                self._end()
                detail = f"commit {record.commit} was to be written, and the manifest is at {self.tree.commit}"
                raise LeaseLostError(self._topic, detail, self._run.rival())
        raise UnreachableError(f"{self._topic} did not take commit {record.commit} in {_TRIES} tries: {told}")

    def held(self) -> Tree:
        """The tree, once it is seen that no other run has begun, or committed, since. Raises LeaseLostError."""
        known = self.tree.commit
        found = self._reader.refresh().commit
        other = self._run.rival()  # last: who begins after this look has committed nothing before it
        if other is not None or found != known:
            self._end()
            detail = "it began since" if found == known else f"the manifest was at {known}, and is at {found}"
            raise LeaseLostError(self._topic, detail, other)
        return self.tree

    # ---------------------------------------------------------------------------------------------------------- steps

    def _write(self, record: Commit, content: bytes) -> None:
        self._live.begin_transaction()
        self._at(Point.BEGUN)
        # A record that fails makes the commit fail. A callback of its own would be called while the client raises what
        # is fatal, such as a fence, and all that comes out then is a SystemError.
        self._live.produce(self._topic, content, str(record.partition).encode(), 0)
        self._at(Point.HALF_PRODUCED)
        self._live.flush(_CALL_TIMEOUT_S)
        self._at(Point.PRODUCED)
        self._at(Point.COMMITTING)
        self._live.commit_transaction(_CALL_TIMEOUT_S)
        self._at(Point.COMMITTED)

    @property
    def _live(self) -> Producer:
        """The producer. In no variable of a frame: with that, an error would keep it from being ended."""
        if self._producer is None:
            raise UnreachableError(f"nobody holds the lease of {self._topic} here")
        return self._producer

    def _read_back(self, record: Commit) -> None:
        clock = time_source()
        deadline_ns = clock.monotonic_ns() + int(_READ_BACK_S * NS_PER_S)
        while self._reader.refresh().commit < record.commit:
            if clock.monotonic_ns() >= deadline_ns:
                raise UnreachableError(
                    f"commit {record.commit} was answered, and cannot be read from {self._topic} after "
                    f"{_READ_BACK_S:.0f} s"
                )
            clock.sleep_s(_POLL_S)

    def _begin(self, deadline_ns: int) -> None:
        """A producer that nobody has fenced yet, and the tree as it stands since. Raises LeaseLostError."""
        clock = time_source()
        while True:
            self._end()
            try:
                other = self._run.rival()
                if other is not None:
                    raise LeaseLostError(self._topic, "it began since", other)
                self._fence()
            except (KafkaException, UnreachableError) as error:
                if clock.monotonic_ns() >= deadline_ns:
                    raise UnreachableError(
                        f"{self._topic} at {self._bootstrap} gives no clear answer: {error}. Run the job again when it "
                        "does: what was committed is known then"
                    ) from error
                clock.sleep_s(_BACKOFF_S)
            else:
                return

    def _fence(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "transactional.id": self._topic,
                "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
                "message.max.bytes": CLIENT_BYTES_MAX,
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        self._producer.init_transactions(_CALL_TIMEOUT_S)
        if not wait_stable(self._log, self._topic, 0, _TRANSACTION_TIMEOUT_MS):
            raise UnreachableError(f"a foreign transaction stays open on {self._topic}[0]. {SECOND_WRITER_REMEDY}")
        self._reader.refresh()

    def _end(self) -> None:
        """End the producer, and not its transaction."""
        if self._producer is not None:
            self._producer.purge()
        self._producer = None

    def _leave(self) -> None:
        self._end()
        self._log.close()

    def _deadline_ns(self) -> int:
        return time_source().monotonic_ns() + int(self._patience_s * NS_PER_S)


def _who(other: Heard) -> str:
    job = other.job
    return f"{job.job} of {job.by} (run {job.id}), which began at {format_ms(other.appended_ms)}"
