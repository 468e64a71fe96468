"""Consumers and producers of lanes: rows of pointers in, rows of pointers out, no Python object for a record.

Problem: confluent-kafka makes a Python object of every record, which costs more than the ledger's whole work on it.
The same librdkafka, the one inside the confluent-kafka wheel, also hands out arrays of pointers. So: assign and
fetch, one pass that turns pointers into columns (`Records`), and a transactional producer that takes rows of pointers
back. What is called of it is declared in `librdkafka`.

GUARANTEE a batch's memory is valid from `fetch` until `release`; every delivery of a producer is counted by a
callback that runs without the GIL.
GUARANTEE after any error the producer is unusable: the caller destroys it, makes a new one and reads the tail.
There is no abort here on purpose.
HAZARD a wrong pointer kills the process. So memory is owned by the batch that names it, and the contract tests compare
what is read here with confluent-kafka's own answers.
HAZARD header names are read up to their first NUL byte, as librdkafka hands them out.
HAZARD a handle does not survive fork().
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from schemas.clock import source as time_source
from schemas.memory import address_of, bytes_at, c_function, copy, kernel, load_i64, load_u8, store_i64, store_u8
from streams import librdkafka
from streams.librdkafka import (
    ERROR_ALL_BROKERS_DOWN,
    ERROR_PARTITION_EOF,
    ERROR_TIMED_OUT,
    ERROR_TRANSPORT,
    INT32_MASK,
    MESSAGE_WORDS,
    W_ERROR,
    W_KEY,
    W_KEY_LENGTH,
    W_OFFSET,
    W_VALUE,
    W_VALUE_LENGTH,
    ClientError,
    error_of,
    error_text,
    header_get_all,
    message_destroy,
    message_headers,
    message_leader_epoch,
    message_timestamp,
    partition_of,
    signed_32,
)
from streams.records import Records, allocate_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

#: What _gather returns where the arena for headers is too small.
_NO_ROOM: Final = -2
_NS_PER_MS: Final = 1_000_000


@kernel
def _store_be32(target: int, value: int) -> None:
    store_u8(target, value >> 24)
    store_u8(target + 1, value >> 16)
    store_u8(target + 2, value >> 8)
    store_u8(target + 3, value)


@kernel
def _gather_headers(message: int, target: int, room: int, scratch: int) -> int:
    """Write a message's headers in canonical form; returns their bytes, 0 for none, -1 where room is too small."""
    if message_headers(message, scratch) != 0:
        return 0
    headers = load_i64(scratch)
    count = 0
    used = 4
    while header_get_all(headers, count, scratch + 8, scratch + 16, scratch + 24) == 0:
        name, value, value_length = load_i64(scratch + 8), load_i64(scratch + 16), load_i64(scratch + 24)
        name_length = 0
        while load_u8(name + name_length) != 0:
            name_length += 1
        needed = 9 + name_length + (value_length if value != 0 else 0)
        if used + needed > room:
            return -1
        _store_be32(target + used, name_length)
        copy(target + used + 4, name, name_length)
        used += 4 + name_length
        store_u8(target + used, 1 if value != 0 else 0)
        used += 1
        if value != 0:
            _store_be32(target + used, value_length)
            copy(target + used + 4, value, value_length)
            used += 4 + value_length
        count += 1
    if count == 0:
        return 0
    _store_be32(target, count)
    return used


@kernel
def _gather(
    messages: Int64s,
    slots: Int64s,
    starts: Int64s,
    ends: Int64s,
    positions: Int64s,
    records: Records,
    arena: int,
    arena_bytes: int,
    scratch: int,
) -> int:
    """Pointers to columns, grouped by slot. Returns -1, or the row of an error, or _NO_ROOM for its headers."""
    starts[:] = 0
    for i in range(messages.size):
        message = messages[i]
        error = error_of(message)
        if error == 0:
            starts[slots[partition_of(message)]] += 1
        elif error not in (ERROR_PARTITION_EOF, ERROR_TRANSPORT, ERROR_ALL_BROKERS_DOWN, ERROR_TIMED_OUT):
            return i
    row = 0
    for slot in range(starts.size):
        count = starts[slot]
        starts[slot] = row
        ends[slot] = row
        row += count
    used = 0
    for i in range(messages.size):
        message = messages[i]
        error = error_of(message)
        if error not in (0, ERROR_PARTITION_EOF):
            continue  # "not now": the client goes on by itself
        slot = slots[partition_of(message)]
        offset = load_i64(message + 8 * W_OFFSET)
        if error != 0:
            positions[slot] = max(positions[slot], offset)
            continue
        row = ends[slot]
        ends[slot] += 1
        positions[slot] = max(positions[slot], offset + 1)
        records.offset[row] = offset
        records.timestamp_ms[row] = message_timestamp(message, scratch)
        records.timestamp_type[row] = load_i64(scratch) & INT32_MASK
        records.leader_epoch[row] = message_leader_epoch(message)
        value = load_i64(message + 8 * W_VALUE)
        key = load_i64(message + 8 * W_KEY)
        records.value_address[row] = value
        records.value_length[row] = load_i64(message + 8 * W_VALUE_LENGTH) if value != 0 else -1
        records.key_address[row] = key
        records.key_length[row] = load_i64(message + 8 * W_KEY_LENGTH) if key != 0 else -1
        length = _gather_headers(message, arena + used, arena_bytes - used, scratch)
        if length < 0:
            return _NO_ROOM
        records.headers_address[row] = arena + used if length else 0
        records.headers_length[row] = length
        used += length
    return -1


def _fetch_error(message: int) -> ClientError:
    """What a message says that is no record; its value, if any, is a text."""
    code, partition = error_of(message), partition_of(message)
    words = (ctypes.c_int64 * MESSAGE_WORDS).from_address(message)
    text, length = words[W_VALUE], words[W_VALUE_LENGTH]
    detail = bytes_at(text, length).decode(errors="replace") if text and length > 0 else error_text(code)
    return ClientError("fetch", code, detail, partition=partition)


@kernel
def _release(messages: Int64s) -> None:
    for i in range(messages.size):
        message_destroy(messages[i])


def warm_kernels() -> None:
    """Compile the kernels of this module, or load them from the cache."""
    none = np.zeros(0, np.int64)
    scratch = np.zeros(64, np.uint8)
    _gather(none, none, none, none, none, allocate_records(0), address_of(scratch), scratch.size, address_of(scratch))
    _release(none)


class Batch(NamedTuple):
    """What one fetch returned: rows of `records` from starts[slot] to ends[slot], and each slot's position after them.

    before: the positions after the fetch before, so that who is handed batches can tell that none is missing.
    positions: the offset the next record of that slot has at least; it also moves over markers and aborted records,
    but only once the end of the partition was seen.
    """

    messages: Int64s
    records: Records
    starts: Int64s
    ends: Int64s
    before: Int64s
    positions: Int64s
    arena: NDArray[np.uint8]

    @property
    def rows(self) -> int:
        """Records in the batch."""
        return int(self.ends[-1]) if self.ends.size else 0

    def release(self) -> None:
        """Give the memory back to librdkafka; the columns are invalid from here on."""
        _release(self.messages)


class NativeConsumer:
    """Reads given partitions of one topic from given offsets; slot i is the i-th partition of `assign`."""

    def __init__(self, settings: Mapping[str, str | int]) -> None:
        conf = librdkafka.configure({"enable.partition.eof": "true", **settings})
        self._handle = librdkafka.open_client(librdkafka.CONSUMER, conf)
        self._queue = librdkafka.queue_get_consumer(self._handle)
        self._slots = np.zeros(0, np.int64)
        self._positions = np.zeros(0, np.int64)
        self._scratch = np.zeros(64, np.uint8)
        self._arena_bytes = 4096

    def assign(self, topic: str, positions: Iterable[tuple[int, int, int]]) -> None:
        """Read from (partition, offset, leader epoch or -1) on; with an epoch a truncated log is an error."""
        wanted = list(positions)
        partitions = librdkafka.list_new(len(wanted))
        self._slots = np.zeros(max((p for p, _, _ in wanted), default=-1) + 1, np.int64)
        self._positions = np.array([offset for _, offset, _ in wanted], np.int64)
        for slot, (partition, offset, epoch) in enumerate(wanted):
            self._slots[partition] = slot
            row = librdkafka.list_add(partitions, topic.encode(), partition)
            librdkafka.list_set_offset(partitions, topic.encode(), partition, offset)
            if epoch >= 0:
                librdkafka.set_leader_epoch(row, epoch)
        code = librdkafka.assign(self._handle, partitions)
        librdkafka.list_destroy(partitions)
        if code != 0:
            raise ClientError("assign", code, error_text(code))

    def fetch(self, rows_max: int, wait_ms: int, until_ns: int = 0) -> Batch | None:
        """Wait up to wait_ms for the first record, then take what is there, and what comes until an instant.

        until_ns: of the monotonic clock.

        Returns None where nothing came. The caller releases the batch. Raises ClientError for anything but the end of
        a partition or a broker that is away for a while.
        """
        first = librdkafka.consume_queue(self._queue, wait_ms)
        if not first:
            return None
        pointers = np.zeros(rows_max, np.int64)
        pointers[0] = first
        more = 0
        if rows_max > 1:
            linger_ms = -(min(0, time_source().monotonic_ns() - until_ns) // _NS_PER_MS)  # rounded up
            more = librdkafka.consume_batch_queue(self._queue, linger_ms, address_of(pointers) + 8, rows_max - 1)
        messages = pointers[: 1 + max(more, 0)]
        records = allocate_records(messages.size)
        starts, ends = np.zeros((2, self._positions.size), np.int64)
        positions = self._positions.copy()
        while True:
            arena = np.empty(self._arena_bytes, np.uint8)
            state = _gather(
                messages,
                self._slots,
                starts,
                ends,
                positions,
                records,
                address_of(arena),
                arena.size,
                address_of(self._scratch),
            )
            if state != _NO_ROOM:
                break
            self._arena_bytes *= 2
        if state >= 0:
            error = _fetch_error(int(messages[state]))
            _release(messages)
            raise error
        before, self._positions = self._positions, positions
        return Batch(messages, records, starts, ends, before, positions, arena)

    def close(self) -> None:
        """End the client; batches must have been released."""
        if self._handle:
            librdkafka.queue_destroy(self._queue)
            librdkafka.destroy_flags(self._handle, librdkafka.DESTROY_NO_CONSUMER_CLOSE)
            self._handle = 0


def _count_delivery(_client: int, message: int, counts: int) -> None:
    """For every record: counts[0] delivered, counts[1] failed, counts[2] the last error."""
    error = error_of(message)
    if error == 0:
        store_i64(counts, load_i64(counts) + 1)
    else:
        store_i64(counts + 8, load_i64(counts + 8) + 1)
        store_i64(counts + 16, error)


_DELIVERY_KEEP, DELIVERY_CALLBACK = c_function(_count_delivery, "int64", "int64", "int64")


class NativeProducer:
    """A transactional producer that takes rows of rd_kafka_message_t and counts every delivery.

    handle: for calls of `librdkafka` that are not here, 0 once destroyed.
    """

    def __init__(self, settings: Mapping[str, str | int], transactional_id: str) -> None:
        conf = librdkafka.configure({**settings, "transactional.id": transactional_id})
        self._counts = np.zeros(3, np.int64)
        librdkafka.conf_set_dr_msg_cb(conf, DELIVERY_CALLBACK)
        librdkafka.conf_set_opaque(conf, address_of(self._counts))
        self.handle = librdkafka.open_client(librdkafka.PRODUCER, conf)
        self._topics: dict[str, int] = {}
        self._produced = 0

    def init_transactions(self, timeout_ms: int) -> None:
        """Fence any earlier owner of the transactional id and end its open transaction (blocks)."""
        librdkafka.check("init_transactions", librdkafka.init_transactions(self.handle, timeout_ms))

    def begin(self) -> None:
        """Begin a transaction."""
        if not self.handle:
            raise ClientError("begin_transaction", 0, "the producer has been ended")
        self._counts[:] = 0
        self._produced = 0
        librdkafka.check("begin_transaction", librdkafka.begin_transaction(self.handle))

    def produce(self, topic: str, partition: int, rows: Int64s) -> None:
        """Queue rows (int64[n, 9], pointers filled in); values stay in the caller's memory until commit or destroy.

        One partition a call: with a partition in each row librdkafka 2.16 adds partition -1 to the transaction.
        """
        count = len(rows)
        if count == 0:
            return
        if topic not in self._topics:
            self._topics[topic] = librdkafka.topic_new(self.handle, topic.encode(), None)
        queued = librdkafka.produce_batch(self._topics[topic], partition, librdkafka.NO_FLAGS, address_of(rows), count)
        self._produced += count
        if queued != count:
            code = next((code for word in rows[:, W_ERROR].tolist() if (code := signed_32(word))), -1)
            text = f"{count - queued} of {count} records for {topic} refused: {error_text(code)}"
            raise ClientError("produce", code, text)

    def commit(self, timeout_ms: int) -> None:
        """Flush, commit, and check that every record queued since begin() was delivered (blocks)."""
        librdkafka.check("commit_transaction", librdkafka.commit_transaction(self.handle, timeout_ms))
        if int(self._counts[0]) != self._produced or self._counts[1]:
            delivered, failed = int(self._counts[0]), int(self._counts[1])
            text = f"{delivered} of {self._produced} records delivered, {failed} failed"
            raise ClientError("commit_transaction", int(self._counts[2]), text)

    def destroy(self) -> None:
        """End the client without ending its transaction; the next owner's init_transactions does that."""
        handle, self.handle = self.handle, 0
        topics, self._topics = self._topics, {}
        if handle:
            for topic in topics.values():
                librdkafka.topic_destroy(topic)
            librdkafka.destroy_flags(handle, librdkafka.NO_FLAGS)
