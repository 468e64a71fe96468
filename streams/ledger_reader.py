"""Reads a ledger partition back: its tail, the place of an index, and from there on columns.

GUARANTEE entries come in the order of the log; a value that is no ledger entry is a halt (LEDGER_BROKEN), not skipped.
Whether they are contiguous is for the reader to say: `sequence check` reports what a fold must halt for.

How the place of an index is found: every entry takes one offset and every transaction a marker besides, so the
offset of the wanted entry is at most that of a later known entry minus their distance. Reading there gives an entry
nearer to it, and only the markers in between are left to go back; a few steps end it. The same holds for sequences and
control offsets. Where many entries share a number (an hour of heartbeats repeats one sequence) the steps back double,
and what they overshoot is halved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schemas.codec import DecodeError, decode
from schemas.columns import Scratch, allocate_entries, slice_rows
from schemas.errors import HaltCode, HaltError, UnreachableError
from streams.log import offset_of
from streams.rdkafka import NativeConsumer
from streams.records import decode_records
from streams.sequence import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from schemas.columns import Entries
    from streams.log import Log
    from streams.records import Records

REMEDY = "Run `driftledger sequence check` to see where, and restore the ledger topic from a copy"
_WAIT_MS = 200
#: A broker that has sent nothing for so long is away: committed records were promised by its own bounds.
STALL_TIMEOUT_MS = 30_000
_QUEUE_KILOBYTES = 16_384
#: Four batches, or the one of a restore. The client's own 100,000 are half a kilobyte each beside their bytes: memory
#: that nobody has touched before, which costs more than what stands in it.
_QUEUE_MESSAGES = 20_000


class Tail(NamedTuple):
    """The last entry of a ledger partition: the head after it, its ledger offset, authority time."""

    head: Head
    offset: int
    authority_ms: int


def decode_entry(partition: int, value: bytes | None) -> dict[str, Any]:
    """One encoded entry as a dict. Raises HaltError where it is none."""
    try:
        return decode("LedgerEntry", value or b"")
    except DecodeError as error:
        raise HaltError(
            partition, HaltCode.LEDGER_BROKEN, f"a ledger record does not decode: {error}", REMEDY
        ) from error


def head_after(entry: Mapping[str, Any]) -> Head:
    """The head of a partition that ends with a decoded entry."""
    return Head(
        entry["index"], entry["sequence"], entry["input_offset"], entry["control_offset"], bytes(entry["chain_hash"])
    )


def read_tail(log: Log, topic: str, partition: int) -> Tail | None:
    """The last committed entry, None where the partition holds none."""
    message = log.last(topic, partition)
    if message is None:
        return None
    entry = decode_entry(partition, message.value())
    return Tail(head_after(entry), offset_of(message), entry["authority_timestamp"])


def first_index(log: Log, topic: str, partition: int) -> int:
    """Of the first entry that the ledger still has, 1 where it has none."""
    message = log.first(topic, partition)
    return 1 if message is None else int(decode_entry(partition, message.value())["index"])


def find_offset(log: Log, topic: str, partition: int, tail: Tail, field: str, wanted: int) -> int:
    """Offset of the first entry whose `field` is at least wanted; tail.offset + 1 where none is.

    field: "index", "sequence" or "control_offset": a number of Head that does not fall along the log.
    """
    last = getattr(tail.head, field)
    if wanted > last:
        return tail.offset + 1
    start = log.bounds(topic, partition).start
    end = tail.offset + 1

    def at(offset: int) -> tuple[int, int]:
        """Offset and number of the first entry at or after an offset."""
        message = next(log.scan(topic, partition, offset, end))
        return offset_of(message), int(decode_entry(partition, message.value())[field])

    probe = max(start, tail.offset - (last - wanted))
    offset, found = at(probe)
    back = 1
    while found >= wanted and probe > start:
        if found == wanted and field == "index":
            return offset
        probe = max(start, probe - max(found - wanted, back))
        back *= 2
        first, found = at(probe)
        if found < wanted:
            return _first_between(at, first, offset, wanted)
        offset = first
    return offset if found >= wanted else _first_between(at, offset, end - 1, wanted)


def _first_between(at: Callable[[int], tuple[int, int]], below: int, fits: int, wanted: int) -> int:
    """Offset of the first entry whose number is at least wanted: after `below`, up to `fits`, which is one."""
    low, high = below + 1, fits
    while low < high:
        middle = (low + high) // 2
        offset, found = at(middle)
        if found >= wanted:
            high, fits = middle, offset
        else:
            low = offset + 1
    return fits


class EntryBatch(NamedTuple):
    """Consecutive entries; `offsets` are theirs in the ledger. Valid until the reader goes on."""

    entries: Entries
    offsets: np.ndarray[Any, np.dtype[np.int64]]


def open_reader(bootstrap: str, topic: str, partition: int, begin: int) -> NativeConsumer:
    """A client that reads the committed records of one partition from an offset on; the caller closes it."""
    reader = NativeConsumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "driftledger-reader",  # never joined
            "enable.auto.commit": "false",
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "check.crcs": "true",
            "fetch.wait.max.ms": 10,  # closing waits for a fetch that waits
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": _QUEUE_KILOBYTES,
            "queued.min.messages": _QUEUE_MESSAGES,
        }
    )
    reader.assign(topic, [(partition, begin, -1)])
    return reader


def read_entries(
    bootstrap: str, topic: str, partition: int, begin: int, end: int, rows_max: int = 5_000
) -> Iterator[EntryBatch]:
    """Committed entries with begin <= offset < end as batches of columns; a batch is valid until the next is asked for.

    Raises HaltError (LEDGER_BROKEN) for a record that is no entry, once all before it have been given; UnreachableError
    where the broker sends nothing for STALL_TIMEOUT_MS.
    """
    if begin >= end:
        return
    consumer = open_reader(bootstrap, topic, partition, begin)
    scratch = Scratch()
    position, waited_ms = begin, 0
    try:
        while position < end:
            batch = consumer.fetch(rows_max, _WAIT_MS)
            if batch is None:
                waited_ms += _WAIT_MS
                if waited_ms >= STALL_TIMEOUT_MS:
                    text = f"{topic}[{partition}] sent nothing after offset {position - 1} for {waited_ms // 1_000} s"
                    raise UnreachableError(f"{text}: is the broker at {bootstrap} up?")
                continue
            waited_ms = 0
            position = int(batch.positions[0])
            rows = int(np.searchsorted(batch.records.offset[: batch.rows], end))
            try:
                entries, whole = _decode(batch.records, rows, scratch)
                if whole:
                    yield EntryBatch(slice_rows(entries, 0, whole), batch.records.offset[:whole])
                if whole < rows:
                    where = int(batch.records.offset[whole])
                    detail = f"the record at {topic}[{partition}]@{where} is no ledger entry"
                    raise HaltError(partition, HaltCode.LEDGER_BROKEN, detail, REMEDY)
            finally:
                batch.release()
    finally:
        consumer.close()


def _decode(records: Records, rows: int, scratch: Scratch) -> tuple[Entries, int]:
    """Columns for the first rows, and how many of them are entries, up to the first that is none."""
    entries = allocate_entries(rows)
    whole = rows
    while whole:
        broken = decode_records(records, whole, entries, scratch)
        if broken < 0:
            break
        whole = broken
    return entries, whole
