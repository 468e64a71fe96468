"""Values into one topic through librdkafka's C API, each delivery noted without the GIL.

Problem: confluent-kafka calls Python for each delivery, and takes the GIL for it. Beside lanes, and a thread that
encodes events, that hand-over costs more than everything else about the event. Here rows of pointers go in, and a
callback in machine code writes what became of each into the arrays of its batch.

GUARANTEE every row that was sent settles: delivered, refused or timed out. GUARANTEE rows of one key keep their order,
and none is doubled by a retry (idempotent).
HAZARD a topic that is not there is told late: librdkafka hopes for it half a minute.
HAZARD memory is not copied: a batch and what it points to must live until it has settled, which `wait` sees to.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from schemas.errors import UnreachableError
from schemas.instants import MS_PER_S
from schemas.memory import address_of, c_function, load_i64, store_i64
from schemas.producer import CONNECT_TIMEOUT_S, QUEUE_EVENTS_MAX, QUEUE_KBYTES_MAX
from streams import librdkafka
from streams.librdkafka import (
    ERROR_PURGED,
    INT32_MASK,
    MESSAGE_WORDS,
    POINTER,
    W_ERROR,
    W_KEY,
    W_KEY_LENGTH,
    W_OFFSET,
    W_PRIVATE,
    W_VALUE,
    W_VALUE_LENGTH,
    error_of,
    partition_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Int64s = NDArray[np.int64]

#: A batch is answered at its last acknowledgement, so waiting for fuller requests only delays; 1 ms costs none.
_LINGER_MS: Final = 1
#: librdkafka's statistics are the only place that says whether there is a producer id.
_STATISTICS_MS: Final = 100
_POLL_MS: Final = 100
#: For what was purged to be told.
_PURGE_S: Final = 1.0
#: librdkafka's largest: what is too long is for the broker to say, which knows the topic's limit.
_MESSAGE_BYTES_MAX: Final = 1_000_000_000
#: int64 words of what is noted of a row: the error, 0 for none; partition; offset; where its batch counts.
_NOTE_WORDS: Final = 4
N_ERROR, N_PARTITION, N_OFFSET, _N_COUNT = range(_NOTE_WORDS)

_StatisticsCallback = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, ctypes.c_char_p, ctypes.c_size_t, POINTER)


def _note(_client: Any, message: int, _opaque: Any) -> None:
    """A delivery. Called by the one thread that polls, so counting needs no lock."""
    note = load_i64(message + 8 * W_PRIVATE)
    store_i64(note + 8 * N_ERROR, error_of(message))
    store_i64(note + 8 * N_PARTITION, partition_of(message))
    store_i64(note + 8 * N_OFFSET, load_i64(message + 8 * W_OFFSET))
    count = load_i64(note + 8 * _N_COUNT)
    store_i64(count, load_i64(count) + 1)


_NOTE_KEEP, _NOTE_CALLBACK = c_function(_note, "int64", "int64", "int64")


class Batch:
    """Rows under way: their memory, and what became of them."""

    def __init__(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        rows = len(values)
        self._keys, self._values = b"".join(keys), b"".join(values)
        self._count = np.zeros(1, np.int64)
        self._expected = -1
        self._settled = threading.Event()
        self._notes = np.zeros((rows, _NOTE_WORDS), np.int64)
        self._notes[:, _N_COUNT] = address_of(self._count)
        self.messages = np.zeros((rows, MESSAGE_WORDS), np.int64)
        _point(self.messages, W_KEY, W_KEY_LENGTH, self._keys, keys)
        _point(self.messages, W_VALUE, W_VALUE_LENGTH, self._values, values)
        self.messages[:, W_PRIVATE] = address_of(self._notes) + 8 * _NOTE_WORDS * np.arange(rows)

    def wait(self) -> Int64s:
        """Wait until every row has settled; int64[rows, 4], columns N_ERROR, N_PARTITION, N_OFFSET."""
        self._settled.wait()
        return self._notes

    def expect(self, rows: int) -> None:
        """So many were queued; the others have their error in `messages`."""
        if rows < len(self.messages):
            errors = _signed_32_of(self.messages[:, W_ERROR])
            self._notes[errors != 0, N_ERROR] = errors[errors != 0]
        self._expected = rows
        self.end_if_settled()

    def lose(self, error: int) -> None:
        """Nothing was queued."""
        self._notes[:, N_ERROR] = error
        self._settled.set()

    def end_if_settled(self) -> bool:
        """Whether every row has; who waits goes on."""
        if int(self._count[0]) == self._expected:
            self._settled.set()
        return self._settled.is_set()


def _signed_32_of(words: Int64s) -> Int64s:
    return (words & INT32_MASK).astype(np.uint32).astype(np.int32).astype(np.int64)


def _point(messages: Int64s, address: int, length: int, memory: bytes, parts: Sequence[bytes]) -> None:
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    messages[:, length] = lengths
    messages[:, address] = address_of(np.frombuffer(memory, np.uint8)) + np.cumsum(lengths) - lengths


class EventSender:
    """A producer of one topic, and the thread that serves its deliveries. Any number of threads may send."""

    def __init__(self, bootstrap: str, topic: str, delivery_timeout_s: float) -> None:
        """Wait until values can leave: an event that is dated after it does not look late because of the connection.

        Raises UnreachableError.
        """
        self._identified = threading.Event()
        self._draining = threading.Event()
        self._closed = threading.Event()
        self._pending: list[Batch] = []
        #: Guards what is pending; notified when nothing is.
        self._settled = threading.Condition()
        self._statistics = _StatisticsCallback(self._look_for_id)
        conf = librdkafka.configure(
            {
                "bootstrap.servers": bootstrap,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "acks": "all",
                "enable.idempotence": "true",
                "linger.ms": _LINGER_MS,
                "message.timeout.ms": int(delivery_timeout_s * MS_PER_S),
                "message.max.bytes": _MESSAGE_BYTES_MAX,
                "queue.buffering.max.messages": QUEUE_EVENTS_MAX,
                "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
                "statistics.interval.ms": _STATISTICS_MS,
            }
        )
        librdkafka.conf_set_dr_msg_cb(conf, _NOTE_CALLBACK)
        librdkafka.conf_set_stats_cb(conf, ctypes.cast(self._statistics, POINTER))
        self._handle = librdkafka.open_client(librdkafka.PRODUCER, conf)
        self._topic = librdkafka.topic_new(self._handle, topic.encode(), None)
        self._poller = threading.Thread(target=self._poll, name="put-deliveries", daemon=True)
        self._poller.start()
        if not self._identified.wait(min(delivery_timeout_s, CONNECT_TIMEOUT_S)):
            self.close()
            raise UnreachableError(f"Kafka at {bootstrap} does not answer. Send the events again when it does")

    def send(self, batch: Batch) -> None:
        """Queue a batch, or lose it where nothing is taken any more; waits while the queue is full."""
        if self._draining.is_set():
            batch.lose(ERROR_PURGED)
            return
        with self._settled:
            self._pending.append(batch)
        rows = len(batch.messages)
        queued = librdkafka.produce_batch(
            self._topic, librdkafka.ANY_PARTITION, librdkafka.WAIT_WHILE_FULL, address_of(batch.messages), rows
        )
        batch.expect(queued)

    def drain(self, within_s: float) -> None:
        """Queue nothing any more; what is not delivered within that time is lost.

        It waits for the thread that polls: librdkafka's flush would serve deliveries on this one too.
        """
        self._draining.set()
        if not self._wait_settled(within_s):
            librdkafka.purge(self._handle, librdkafka.PURGE_ALL)
            self._wait_settled(_PURGE_S)

    def close(self) -> None:
        """End the client; nobody may be sending."""
        self._closed.set()
        self._poller.join()
        librdkafka.topic_destroy(self._topic)
        librdkafka.destroy_flags(self._handle, librdkafka.NO_FLAGS)

    def _wait_settled(self, within_s: float) -> bool:
        with self._settled:
            return self._settled.wait_for(lambda: not self._pending, within_s)

    def _poll(self) -> None:
        while not self._closed.is_set():
            librdkafka.poll(self._handle, _POLL_MS)
            with self._settled:
                self._pending = [batch for batch in self._pending if not batch.end_if_settled()]
                if not self._pending:
                    self._settled.notify_all()

    def _look_for_id(self, _client: int, statistics: bytes, length: int, _opaque: int) -> int:
        if not self._identified.is_set() and orjson.loads(statistics[:length])["eos"]["idemp_state"] == "Assigned":
            self._identified.set()
        return 0
