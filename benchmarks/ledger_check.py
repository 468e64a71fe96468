"""Is what the ledger holds what was loaded? No figure counts before this has said yes.

For each partition: index and sequence contiguous, every value hash and the whole chain (streams.sequence.verify); the
input offsets 0, 1, 2, ... each once; keys and values those that were sent, byte for byte, in order (one running SHA-256
against the loader's); and where there are folds, alerts, dead letters and aggregates equal a second folding of the
ledger, record for record (aggregates by count and one running SHA-256). Where there is a hot tier, the worker is asked
how many events it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lifecycle.reader import Reader
from schemas.canonical import EntryKind
from schemas.columns import Scratch, allocate_entries
from schemas.errors import DriftledgerError
from schemas.memory import SHA256_CONTEXT_BYTES, address_of, kernel, sha256_final, sha256_init, sha256_update
from streams.address import find_workers
from streams.fold import Target
from streams.folds import FOLDS, States
from streams.log import Log
from streams.rdkafka import NativeConsumer
from streams.records import decode_records
from streams.sequence import Break, Head, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from benchmarks.load import Loaded
    from schemas.columns import Entries
    from schemas.topics import TopicNames
    from streams.rdkafka import Batch
    from streams.settings import Settings

    Int64s = NDArray[np.int64]

_DATA: Final = int(EntryKind.DATA)
_ROWS_MAX: Final = 5_000
_WAIT_MS: Final = 200
_STALL_MS: Final = 30_000


class CheckFailedError(DriftledgerError):
    """The ledger does not hold what was loaded: nothing that was measured counts."""


class Checked(NamedTuple):
    """A ledger that is whole.

    appended_ms, events: DATA entries by the instant the broker appended them. per_transaction: entries in the mean.
    green_percent: of the judged events, None without a judge.
    """

    appended_ms: Int64s
    events: Int64s
    per_transaction: float
    green_percent: float | None


class PartitionCheck:
    """Takes the entries of one partition from the first on; raises CheckFailedError where one does not fit."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._head: Head | None = None
        self._context = np.zeros(SHA256_CONTEXT_BYTES, np.uint8)
        sha256_begin(address_of(self._context))

    def take(self, entries: Entries) -> None:
        """The next entries."""
        if self._head is None:
            self._head = Head(control_offset=int(entries.control_offset[0]) - 1)
        self._head, bad, why = verify(self._head, entries)
        if why is not Break.NONE:
            self._fail(f"entry {int(entries.index[bad])} breaks the ledger: {why.name}")
        data = entries.kind == _DATA
        displaced = np.flatnonzero(entries.input_offset[data] != entries.sequence[data] - 1)
        if displaced.size:
            sequence = int(entries.sequence[data][displaced[0]])
            offset = int(entries.input_offset[data][displaced[0]])
            self._fail(f"sequence {sequence} is input offset {offset}, not {sequence - 1}")
        hash_data(entries, address_of(self._context))

    def finish(self, events: int, digest: str) -> None:
        """All entries have been taken: they must be as many events as were loaded, with the same keys and values."""
        held = 0 if self._head is None else self._head.sequence
        if held != events:
            self._fail(f"it holds {held} events, {events} were loaded")
        found = np.zeros(32, np.uint8)
        sha256_end(address_of(found), address_of(self._context))
        if found.tobytes().hex() != digest:
            self._fail("keys or values are not those that were loaded")

    def _fail(self, what: str) -> None:
        raise CheckFailedError(f"the ledger's partition {self._partition} is wrong: {what}. No figure counts")


@kernel
def sha256_begin(context: int) -> None:
    """Start a hash."""
    sha256_init(context)


@kernel
def sha256_end(digest: int, context: int) -> None:
    """Finish it into 32 bytes."""
    sha256_final(digest, context)


@kernel
def hash_data(entries: Entries, context: int) -> None:
    """Add key and value of each DATA entry; null and left-out ones add nothing."""
    for row in range(entries.index.size):
        if entries.kind[row] == _DATA:
            if entries.key_length[row] > 0:
                sha256_update(context, entries.key_address[row], entries.key_length[row])
            if entries.value_address[row] != 0:
                sha256_update(context, entries.value_address[row], entries.value_length[row])


@kernel
def hash_records(
    key_address: Int64s,
    key_length: Int64s,
    value_address: Int64s,
    value_length: Int64s,
    lengths: Int64s,
    lengths_at: int,
    context: int,
) -> None:
    """Add both lengths, key and value of each record. lengths: int64[2] at lengths_at, to put them in."""
    for row in range(key_address.size):
        lengths[0], lengths[1] = key_length[row], value_length[row]
        sha256_update(context, lengths_at, 16)
        sha256_update(context, key_address[row], key_length[row])
        sha256_update(context, value_address[row], value_length[row])


def check(bootstrap: str, names: TopicNames, loaded: Loaded, *, judged: bool) -> Checked:
    """Read the whole ledger and compare. Raises CheckFailedError."""
    appended: dict[int, int] = {}
    entries_total = markers_total = judged_total = green_total = 0
    log = Log(bootstrap)
    try:
        for partition, events in enumerate(loaded.counts):
            checker = PartitionCheck(partition)
            states = States(FOLDS.judge.new_state(partition), FOLDS.derive.new_state(partition))
            aggregates = _Digest()
            estimates = _Digest()
            told: dict[Target, list[tuple[bytes | None, bytes]]] = {target: [] for target in Target}
            end = log.bounds(names.sequenced, partition).stable_end
            held = 0
            for entries, times_ms in _read(bootstrap, names.sequenced, partition, end):
                checker.take(entries)
                held += entries.index.size
                instants, counts = np.unique(times_ms[entries.kind == _DATA], return_counts=True)
                for instant, count in zip(instants.tolist(), counts.tolist(), strict=True):
                    appended[instant] = appended.get(instant, 0) + count
                if judged:
                    outputs, derived = FOLDS.step(states, entries)
                    aggregates.add(*derived.aggregates[1:5])
                    estimates.add(*outputs.estimates[1:5])
                    for target in Target:
                        told[target] += outputs.messages(target)
                    judged_total += outputs.counts.events
                    green_total += outputs.counts.green
            checker.finish(events, loaded.digests[partition])
            _compare(log, names.drift_alerts, partition, told[Target.DRIFT_ALERTS])
            _compare(log, names.dead_letters, partition, told[Target.DEAD_LETTERS])
            if judged:
                for topic, digest in ((names.aggregates, aggregates), (names.drift_estimates, estimates)):
                    _compare_digest(bootstrap, log, topic, partition, digest)
            entries_total += held
            markers_total += end - held
    finally:
        log.close()
    return Checked(
        np.array(list(appended), np.int64),
        np.array(list(appended.values()), np.int64),
        entries_total / max(markers_total, 1),
        100 * green_total / judged_total if judged_total else None,
    )


def check_hot(settings: Settings, events: int) -> None:
    """That the worker's hot tier holds all events, while it runs; nothing where there is none."""
    if not settings.hot_store:
        return
    [worker] = find_workers(settings)
    held = int(Reader(worker.address).aggregate(functions=())["count"][0].as_py())
    if held != events:
        raise CheckFailedError(f"the hot tier holds {held} of {events} events. No figure counts")


class _Digest:
    """Of records in order: how many, and SHA-256 over the length of each key and value and what they hold."""

    def __init__(self) -> None:
        self.count = 0
        self._context = np.zeros(SHA256_CONTEXT_BYTES, np.uint8)
        sha256_begin(address_of(self._context))

    def add(self, key_address: Int64s, key_length: Int64s, value_address: Int64s, value_length: Int64s) -> None:
        """The next records, as columns."""
        self.count += key_address.size
        lengths = np.zeros(2, np.int64)
        hash_records(
            key_address,
            key_length,
            value_address,
            value_length,
            lengths,
            address_of(lengths),
            address_of(self._context),
        )

    def hex(self) -> str:
        """Finish."""
        found = np.zeros(32, np.uint8)
        sha256_end(address_of(found), address_of(self._context))
        return found.tobytes().hex()


def _compare(log: Log, topic: str, partition: int, expected: list[tuple[bytes | None, bytes]]) -> None:
    bounds = log.bounds(topic, partition)
    found = [(m.key(), m.value()) for m in log.scan(topic, partition, bounds.start, bounds.stable_end)]
    if found != expected:
        raise CheckFailedError(
            f"{topic}[{partition}] holds {len(found)} records, a second judging of the ledger gives {len(expected)}, "
            "and they are not equal. No figure counts"
        )


def _compare_digest(bootstrap: str, log: Log, topic: str, partition: int, expected: _Digest) -> None:
    found = _Digest()
    for batch in _batches(bootstrap, topic, partition, log.bounds(topic, partition).stable_end):
        records = batch.records
        columns_of = (records.key_address, records.key_length, records.value_address, records.value_length)
        found.add(*(column[: batch.rows] for column in columns_of))
    if (found.count, found.hex()) != (expected.count, expected.hex()):
        raise CheckFailedError(
            f"{topic}[{partition}] holds {found.count} records, a second folding of the ledger gives {expected.count}, "
            "and they are not equal. No figure counts"
        )


def _read(bootstrap: str, topic: str, partition: int, end: int) -> Iterator[tuple[Entries, Int64s]]:
    """Entries up to an offset, and when the broker appended each; valid until the next are asked for."""
    scratch = Scratch()
    for batch in _batches(bootstrap, topic, partition, end):
        yield columns(batch, topic, scratch), batch.records.timestamp_ms[: batch.rows]


def _batches(bootstrap: str, topic: str, partition: int, end: int) -> Iterator[Batch]:
    """Batches up to an offset, each valid until the next is asked for."""
    consumer = open_ledger(bootstrap, topic, [partition])
    position = waited_ms = 0
    try:
        while position < end:
            batch = consumer.fetch(_ROWS_MAX, _WAIT_MS)
            if batch is None:
                waited_ms += _WAIT_MS
                if waited_ms >= _STALL_MS:
                    raise CheckFailedError(f"{topic}[{partition}] cannot be read beyond offset {position} of {end}")
                continue
            waited_ms = 0
            position = int(batch.positions[0])
            try:
                if batch.rows:
                    yield batch
            finally:
                batch.release()
    finally:
        consumer.close()


def open_ledger(bootstrap: str, topic: str, partitions: list[int], **settings: str | int) -> NativeConsumer:
    """A read_committed consumer of whole ledger partitions, slot i the i-th."""
    consumer = NativeConsumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "driftledger-benchmark",  # never joined: assign() only, nothing committed
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 2,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )
    consumer.assign(topic, [(partition, 0, -1) for partition in partitions])
    return consumer


def columns(batch: Batch, topic: str, scratch: Scratch) -> Entries:
    """The entries of a fetched batch of that topic."""
    records, rows = batch.records, batch.rows
    entries = allocate_entries(rows)
    broken = decode_records(records, rows, entries, scratch)
    if broken >= 0:
        offset = int(records.offset[broken])
        raise CheckFailedError(f"the record at offset {offset} of {topic} is no entry. No figure counts")
    return entries
