"""librdkafka through its C API: the few calls a lane needs, and nothing else.

Problem: confluent-kafka makes a Python object of every record, which costs more than the ledger's whole work on it.
The same librdkafka, the one inside the confluent-kafka wheel, also hands out arrays of pointers. This module binds
the calls for that: assign and fetch, one pass that turns pointers into columns (`Records`), and a transactional
producer that takes rows of pointers back.

GUARANTEE a batch's memory is valid from `fetch` until `release`; every delivery of a producer is counted by a
callback that runs without the GIL.
GUARANTEE after any error the producer is unusable: the caller destroys it, makes a new one and reads the tail.
There is no abort here on purpose.
HAZARD a wrong pointer kills the process. So: argument types are declared, memory is owned by the batch that names
it, and the contract tests compare what is read here with confluent-kafka's own answers.
HAZARD header names are read up to their first NUL byte, as librdkafka hands them out.
HAZARD a handle does not survive fork().

Struct layouts and constants are those of rdkafka.h (librdkafka 2.x keeps them ABI stable).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import confluent_kafka
import numpy as np
from numba import carray, cfunc, types  # type: ignore[attr-defined]

from schemas.clock import source as time_source
from schemas.errors import DriftledgerError
from schemas.memory import JIT, address_of, bind, bytes_at, copy, kernel, load_i64, load_u8, store_u8
from streams.records import Records, allocate_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

#: int64 words of one rd_kafka_message_t: err, topic, partition, payload, len, key, key_len, offset, private.
MESSAGE_WORDS = 9
W_ERROR, W_TOPIC, W_PARTITION, W_VALUE, W_VALUE_LENGTH, W_KEY, W_KEY_LENGTH, W_OFFSET, W_PRIVATE = range(MESSAGE_WORDS)

ERROR_PARTITION_EOF = -191
ERROR_TRANSPORT = -195
ERROR_ALL_BROKERS_DOWN = -187
ERROR_TIMED_OUT = -185
#: With auto.offset.reset=error: there is no record at the wanted offset, or none of the wanted leader epoch.
ERROR_NO_SUCH_OFFSET = -140

TIMESTAMP_LOG_APPEND = 2
_CONF_OK = 0
_PRODUCER, _CONSUMER = 0, 1
_NO_FLAGS = 0  # neither COPY nor FREE: the value's memory stays ours, and is read until the delivery is known
_DESTROY_NO_CONSUMER_CLOSE = 0x8
_ERROR_TEXT_BYTES = 512
_NS_PER_MS = 1_000_000
_INT32_MASK = 0xFFFF_FFFF
_SIGN_32 = 0x8000_0000


class ClientError(DriftledgerError):
    """An error librdkafka returned.

    Attributes: code: of rd_kafka_resp_err_t, negative for the client's own; partition: -1 where none in particular.
    """

    def __init__(self, call: str, code: int, text: str, *, partition: int = -1) -> None:
        super().__init__(f"{call} failed: {text} (code {code})")
        self.code = code
        self.partition = partition


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(folder.glob("librdkafka*.so*")) + sorted(folder.glob("librdkafka*.dylib"))
    if not found:
        message = f"no librdkafka in {folder}: install confluent-kafka from a wheel (pip install confluent-kafka)"
        raise DriftledgerError(message)
    return ctypes.CDLL(str(found[0]))


_lib = _library()
_P, _I32, _I64, _S = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_char_p


def _call(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, "rd_kafka_" + name)
    function.restype = result
    function.argtypes = list(arguments)
    return function


_conf_new = _call("conf_new", _P)
_conf_set = _call("conf_set", ctypes.c_int, _P, _S, _S, ctypes.c_char_p, ctypes.c_size_t)
_conf_set_log_cb = _call("conf_set_log_cb", None, _P, _P)
_conf_set_dr_msg_cb = _call("conf_set_dr_msg_cb", None, _P, _P)
_conf_set_opaque = _call("conf_set_opaque", None, _P, _P)
_conf_destroy = _call("conf_destroy", None, _P)
_new = _call("new", _P, ctypes.c_int, _P, ctypes.c_char_p, ctypes.c_size_t)
_destroy_flags = _call("destroy_flags", None, _P, ctypes.c_int)
_err2str = _call("err2str", _S, ctypes.c_int)
_topic_new = _call("topic_new", _P, _P, _S, _P)
_topic_destroy = _call("topic_destroy", None, _P)
_list_new = _call("topic_partition_list_new", _P, ctypes.c_int)
_list_add = _call("topic_partition_list_add", _P, _P, _S, _I32)
_list_set_offset = _call("topic_partition_list_set_offset", ctypes.c_int, _P, _S, _I32, _I64)
_list_destroy = _call("topic_partition_list_destroy", None, _P)
_set_leader_epoch = _call("topic_partition_set_leader_epoch", None, _P, _I32)
_assign = _call("assign", ctypes.c_int, _P, _P)
_queue_get_consumer = _call("queue_get_consumer", _P, _P)
_queue_destroy = _call("queue_destroy", None, _P)
_consume_queue = _call("consume_queue", _P, _P, ctypes.c_int)
_consume_batch_queue = _call("consume_batch_queue", ctypes.c_ssize_t, _P, ctypes.c_int, _P, ctypes.c_size_t)
_produce_batch = _call("produce_batch", ctypes.c_int, _P, _I32, ctypes.c_int, _P, ctypes.c_int)
_init_transactions = _call("init_transactions", _P, _P, ctypes.c_int)
_begin_transaction = _call("begin_transaction", _P, _P)
_commit_transaction = _call("commit_transaction", _P, _P, ctypes.c_int)
_error_code = _call("error_code", ctypes.c_int, _P)
_error_string = _call("error_string", _S, _P)
_error_destroy = _call("error_destroy", None, _P)


def _address(name: str) -> int:
    return int(ctypes.cast(getattr(_lib, "rd_kafka_" + name), _P).value or 0)


_message_timestamp = bind("driftledger_timestamp", _address("message_timestamp"), "int64", "int64", "int64")
_message_leader_epoch = bind("driftledger_leader_epoch", _address("message_leader_epoch"), "int32", "int64")
_message_headers = bind("driftledger_headers", _address("message_headers"), "int32", "int64", "int64")
_header_get_all = bind(
    "driftledger_header", _address("header_get_all"), "int32", "int64", "int64", "int64", "int64", "int64"
)
_message_destroy = bind("driftledger_message_destroy", _address("message_destroy"), "void", "int64")


@kernel
def _partition_of(message: int) -> int:
    partition: int = load_i64(message + 8 * W_PARTITION) & _INT32_MASK
    return partition


@kernel
def _signed_32(word: int) -> int:
    """The C int in the lower half of a word."""
    low = word & _INT32_MASK
    return low - (_INT32_MASK + 1) if low & _SIGN_32 else low


@kernel
def _error_of(message: int) -> int:
    error: int = _signed_32(load_i64(message + 8 * W_ERROR))
    return error


@kernel
def _store_be32(target: int, value: int) -> None:
    store_u8(target, value >> 24)
    store_u8(target + 1, value >> 16)
    store_u8(target + 2, value >> 8)
    store_u8(target + 3, value)


@kernel
def _gather_headers(message: int, target: int, room: int, scratch: int) -> int:
    """Write a message's headers in canonical form; returns their bytes, 0 for none, -1 where room is too small."""
    if _message_headers(message, scratch) != 0:
        return 0
    headers = load_i64(scratch)
    count = 0
    used = 4
    while _header_get_all(headers, count, scratch + 8, scratch + 16, scratch + 24) == 0:
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
    """Pointers to columns, grouped by slot. Returns -1, or the row of an error, or -2 where the arena is too small."""
    starts[:] = 0
    for i in range(messages.size):
        message = messages[i]
        error = _error_of(message)
        if error == 0:
            starts[slots[_partition_of(message)]] += 1
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
        error = _error_of(message)
        if error not in (0, ERROR_PARTITION_EOF):
            continue  # "not now": the client goes on by itself
        slot = slots[_partition_of(message)]
        offset = load_i64(message + 8 * W_OFFSET)
        if error != 0:
            positions[slot] = max(positions[slot], offset)
            continue
        row = ends[slot]
        ends[slot] += 1
        positions[slot] = max(positions[slot], offset + 1)
        records.offset[row] = offset
        records.timestamp_ms[row] = _message_timestamp(message, scratch)
        records.timestamp_type[row] = load_i64(scratch) & _INT32_MASK
        records.leader_epoch[row] = _message_leader_epoch(message)
        value = load_i64(message + 8 * W_VALUE)
        key = load_i64(message + 8 * W_KEY)
        records.value_address[row] = value
        records.value_length[row] = load_i64(message + 8 * W_VALUE_LENGTH) if value != 0 else -1
        records.key_address[row] = key
        records.key_length[row] = load_i64(message + 8 * W_KEY_LENGTH) if key != 0 else -1
        length = _gather_headers(message, arena + used, arena_bytes - used, scratch)
        if length < 0:
            return -2
        records.headers_address[row] = arena + used if length else 0
        records.headers_length[row] = length
        used += length
    return -1


def _fetch_error(message: int) -> ClientError:
    """What a message says that is no record; its value, if any, is a text."""
    code, partition = _error_of(message), _partition_of(message)
    words = (ctypes.c_int64 * MESSAGE_WORDS).from_address(message)
    text, length = words[W_VALUE], words[W_VALUE_LENGTH]
    detail = bytes_at(text, length).decode(errors="replace") if text and length > 0 else error_text(code)
    return ClientError("fetch", code, detail, partition=partition)


@kernel
def _release(messages: Int64s) -> None:
    for i in range(messages.size):
        _message_destroy(messages[i])


def warm_kernels() -> None:
    """Compile the kernels of this module, or load them from the cache."""
    none = np.zeros(0, np.int64)
    scratch = np.zeros(64, np.uint8)
    _gather(none, none, none, none, none, allocate_records(0), address_of(scratch), scratch.size, address_of(scratch))
    _release(none)


def _configure(settings: Mapping[str, str | int]) -> int:
    conf = _conf_new()
    text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
    for name, value in settings.items():
        if _conf_set(conf, name.encode(), str(value).encode(), text, _ERROR_TEXT_BYTES) != _CONF_OK:
            _conf_destroy(conf)
            raise ClientError(f"setting {name}={value}", -1, text.value.decode())
    _conf_set_log_cb(conf, None)  # what matters comes back as an error of a call
    return int(conf)


def _open(kind: int, conf: int) -> int:
    text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
    handle = _new(kind, conf, text, _ERROR_TEXT_BYTES)
    if not handle:
        _conf_destroy(conf)
        raise ClientError("opening a client", -1, text.value.decode())
    return int(handle)


def error_text(code: int) -> str:
    """librdkafka's words for an error code."""
    return str(_err2str(code).decode())


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
        self._handle = _open(_CONSUMER, _configure({"enable.partition.eof": "true", **settings}))
        self._queue = _queue_get_consumer(self._handle)
        self._slots = np.zeros(0, np.int64)
        self._positions = np.zeros(0, np.int64)
        self._scratch = np.zeros(64, np.uint8)
        self._arena_bytes = 4096

    def assign(self, topic: str, positions: Iterable[tuple[int, int, int]]) -> None:
        """Read from (partition, offset, leader epoch or -1) on; with an epoch a truncated log is an error."""
        wanted = list(positions)
        partitions = _list_new(len(wanted))
        self._slots = np.zeros(max((p for p, _, _ in wanted), default=-1) + 1, np.int64)
        self._positions = np.array([offset for _, offset, _ in wanted], np.int64)
        for slot, (partition, offset, epoch) in enumerate(wanted):
            self._slots[partition] = slot
            row = _list_add(partitions, topic.encode(), partition)
            _list_set_offset(partitions, topic.encode(), partition, offset)
            if epoch >= 0:
                _set_leader_epoch(row, epoch)
        code = _assign(self._handle, partitions)
        _list_destroy(partitions)
        if code != 0:
            raise ClientError("assign", code, error_text(code))

    def fetch(self, rows_max: int, wait_ms: int, until_ns: int = 0) -> Batch | None:
        """Wait up to wait_ms for the first record, then take what is there, and what comes until an instant.

        until_ns: of the monotonic clock.

        Returns None where nothing came. The caller releases the batch. Raises ClientError for anything but the end of
        a partition or a broker that is away for a while.
        """
        first = _consume_queue(self._queue, wait_ms)
        if not first:
            return None
        pointers = np.zeros(rows_max, np.int64)
        pointers[0] = first
        more = 0
        if rows_max > 1:
            linger_ms = max(0, until_ns - time_source().monotonic_ns()) // _NS_PER_MS
            more = _consume_batch_queue(self._queue, linger_ms, address_of(pointers) + 8, rows_max - 1)
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
            if state != -2:  # noqa: PLR2004 - see _gather
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
            _queue_destroy(self._queue)
            _destroy_flags(self._handle, _DESTROY_NO_CONSUMER_CLOSE)
            self._handle = 0


def _count_delivery(_client: Any, message: Any, counts: Any) -> None:
    """For every record: counts[0] delivered, counts[1] failed, counts[2] the last error. Runs without the GIL."""
    words = carray(message, (MESSAGE_WORDS,))
    totals = carray(counts, (3,))
    error = _signed_32(words[W_ERROR])
    if error == 0:
        totals[0] += 1
    else:
        totals[1] += 1
        totals[2] = error


def _callback() -> tuple[Any, int]:
    """The C function of _count_delivery: what keeps it alive, and its address."""
    if JIT:
        words = types.CPointer(types.int64)  # type: ignore[no-untyped-call]
        compiled = cfunc(types.void(types.voidptr, words, words), cache=True)(_count_delivery)
        return compiled, int(compiled.address or 0)
    pointer = ctypes.POINTER(ctypes.c_int64)
    interpreted = ctypes.CFUNCTYPE(None, _P, pointer, pointer)(_count_delivery)
    return interpreted, int(ctypes.cast(interpreted, _P).value or 0)


_DELIVERY_KEEP, _DELIVERY_CALLBACK = _callback()


class NativeProducer:
    """A transactional producer that takes rows of rd_kafka_message_t and counts every delivery."""

    def __init__(self, settings: Mapping[str, str | int], transactional_id: str) -> None:
        conf = _configure({**settings, "transactional.id": transactional_id})
        self._counts = np.zeros(3, np.int64)
        _conf_set_dr_msg_cb(conf, _DELIVERY_CALLBACK)
        _conf_set_opaque(conf, address_of(self._counts))
        self._handle = _open(_PRODUCER, conf)
        self._topics: dict[str, int] = {}
        self._produced = 0

    def init_transactions(self, timeout_ms: int) -> None:
        """Fence any earlier owner of the transactional id and end its open transaction (blocks)."""
        self._check("init_transactions", _init_transactions(self._handle, timeout_ms))

    def begin(self) -> None:
        """Begin a transaction."""
        self._counts[:] = 0
        self._produced = 0
        self._check("begin_transaction", _begin_transaction(self._handle))

    def produce(self, topic: str, partition: int, rows: Int64s) -> None:
        """Queue rows (int64[n, 9], pointers filled in); values stay in the caller's memory until commit or destroy.

        One partition a call: with a partition in each row librdkafka 2.16 adds partition -1 to the transaction.
        """
        count = len(rows)
        if count == 0:
            return
        if topic not in self._topics:
            self._topics[topic] = _topic_new(self._handle, topic.encode(), None)
        queued = _produce_batch(self._topics[topic], partition, _NO_FLAGS, address_of(rows), count)
        self._produced += count
        if queued != count:
            code = next((code for word in rows[:, W_ERROR].tolist() if (code := _signed_32(word))), -1)
            text = f"{count - queued} of {count} records for {topic} refused: {error_text(code)}"
            raise ClientError("produce", code, text)

    def commit(self, timeout_ms: int) -> None:
        """Flush, commit, and check that every record queued since begin() was delivered (blocks)."""
        self._check("commit_transaction", _commit_transaction(self._handle, timeout_ms))
        if int(self._counts[0]) != self._produced or self._counts[1]:
            delivered, failed = int(self._counts[0]), int(self._counts[1])
            text = f"{delivered} of {self._produced} records delivered, {failed} failed"
            raise ClientError("commit_transaction", int(self._counts[2]), text)

    def destroy(self) -> None:
        """End the client without ending its transaction; the next owner's init_transactions does that."""
        if self._handle:
            for topic in self._topics.values():
                _topic_destroy(topic)
            _destroy_flags(self._handle, 0)
            self._handle = 0

    def _check(self, call: str, error: int | None) -> None:
        if not error:
            return
        code = _error_code(error)
        text = _error_string(error).decode()
        _error_destroy(error)
        raise ClientError(call, code, text)
