"""Events into the input topic: all at once behind a gate, or at a pace.

Problem of catch-up: a worker that finds a full topic begins while it still opens its other lanes, and one that is warm
follows the loader instead of catching up. So the first record of each partition belongs to a transaction that stays
open while the rest is loaded: read_committed consumers see nothing behind it. The lanes open, compile and idle; the
commit of that transaction is the starting gun. Inputs whose local times are to span ten minutes are filled side by
side, and so measured within minutes of each other.

GUARANTEE what is loaded is known: count and SHA-256 of keys and values, in order, for each partition; and the topic
holds exactly that many offsets, or NotLoadedError is raised.
HAZARD events are stamped a moment before they are sent; on a machine so busy that they wait for a second they are no
longer GREEN. The share that was is part of the figures.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import typer
from confluent_kafka import KafkaException, Producer

from benchmarks.events import ROW_BYTES, SOURCE_BYTES, VALUE_BYTES, EventFactory
from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.instants import MS_PER_S
from schemas.memory import address_of
from streams import librdkafka
from streams.librdkafka import MESSAGE_WORDS, W_KEY, W_KEY_LENGTH, W_VALUE, W_VALUE_LENGTH
from streams.log import Log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

#: Sent for a partition at once; what waits in the client stays near this, so that stamps are fresh when appended.
CHUNK_EVENTS: Final = 10_000
_WAITING_EVENTS_MAX: Final = 40_000
#: Kafka's own limit: a gate opens by itself then. Loading takes seconds, or as long as local times are to span.
GATE_TIMEOUT_S: Final = 900
_REQUEST_TIMEOUT_S: Final = 30
_TICK_S: Final = 0.005
#: Of a load that is spread over time.
_CHUNKS_A_SECOND: Final = 4
_TELL_EVERY_S: Final = 60
_NS_PER_S: Final = 1_000_000_000

_time = SystemTime()
_outq_len = librdkafka.declare("outq_len", librdkafka.INT, librdkafka.POINTER)


class NotLoadedError(DriftledgerError):
    """The input does not hold what was sent."""


class Loaded(NamedTuple):
    """What the input holds: events and SHA-256 (hex) of each partition. seconds: how long sending took."""

    counts: list[int]
    digests: list[str]
    seconds: float

    @property
    def events(self) -> int:
        """In all partitions."""
        return sum(self.counts)


class _Loader:
    """Sends chunks and remembers what went where. No object is made for an event: pointers go to librdkafka."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, factory: EventFactory) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._factory = factory
        self._counts = [0] * partitions
        self._digests = [hashlib.sha256() for _ in range(partitions)]
        self._began_ns = _time.monotonic_ns()
        conf = librdkafka.configure(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": "true",
                "compression.type": "lz4",
                "linger.ms": 5,
                "batch.num.messages": CHUNK_EVENTS,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._client = librdkafka.open_client(librdkafka.PRODUCER, conf)
        self._handle = librdkafka.topic_new(self._client, topic.encode(), None)

    def make(self, partition: int, count: int) -> NDArray[np.uint8]:
        """Events stamped now, as `EventFactory.rows`; they count as sent."""
        rows = self._factory.rows(partition, count, _time.now_us())
        self._counts[partition] += count
        self._digests[partition].update(rows.data)
        return rows

    def send(self, partition: int, count: int) -> None:
        """Queue events stamped now, and wait while the broker has too many still to take."""
        rows = self.make(partition, count)
        messages = np.zeros((count, MESSAGE_WORDS), np.int64)
        messages[:, W_KEY] = address_of(rows) + np.arange(count) * ROW_BYTES
        messages[:, W_KEY_LENGTH] = SOURCE_BYTES
        messages[:, W_VALUE] = messages[:, W_KEY] + SOURCE_BYTES
        messages[:, W_VALUE_LENGTH] = VALUE_BYTES
        taken = librdkafka.produce_batch(self._handle, partition, librdkafka.COPY, address_of(messages), count)
        if taken != count:
            raise NotLoadedError(f"{count - taken} of {count} events were refused by the client: its queue is full")

        while _outq_len(self._client) > _WAITING_EVENTS_MAX:
            _time.sleep_s(_TICK_S)

    def finish(self) -> Loaded:
        """Wait for all deliveries, end the client, and compare with the topic."""
        librdkafka.flush(self._client, _REQUEST_TIMEOUT_S * MS_PER_S)
        librdkafka.topic_destroy(self._handle)
        librdkafka.destroy_flags(self._client, librdkafka.NO_FLAGS)
        seconds = (_time.monotonic_ns() - self._began_ns) / _NS_PER_S
        log = Log(self._bootstrap)
        try:
            ends = log.ends(self._topic, range(len(self._counts)))
        finally:
            log.close()
        held = [ends[partition] for partition in range(len(self._counts))]
        if held != self._counts:
            raise NotLoadedError(
                f"{self._topic} ends at {held}, but {self._counts} events were sent. Is the disk full?"
            )
        return Loaded(self._counts, [digest.hexdigest() for digest in self._digests], seconds)


class Preload:
    """Events that lie in the topic unseen until `release`."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, factory: EventFactory) -> None:
        self._topic, self._partitions = topic, partitions
        self._loader = _Loader(bootstrap, topic, partitions, factory)
        self._gate = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": f"{topic}.gate",
                "transaction.timeout.ms": GATE_TIMEOUT_S * MS_PER_S,
                "log_level": 0,
            }
        )

    def send(self, partition: int, count: int) -> None:
        """Queue events behind the gate, stamped now."""
        self._loader.send(partition, count)

    def finish(self) -> Loaded:
        """Wait until the topic holds what was sent."""
        return self._loader.finish()

    def release(self) -> None:
        """Let everybody see them."""
        try:
            self._gate.commit_transaction(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise NotLoadedError(f"the events stay unseen: {error.args[0].str()}") from error

    def close(self) -> None:
        """Let nobody see what follows: the first event of each partition is sent, and its transaction stays open."""
        try:
            self._gate.init_transactions(_REQUEST_TIMEOUT_S)
            self._gate.begin_transaction()
            for partition in range(self._partitions):
                first = self._loader.make(partition, 1).tobytes()
                self._gate.produce(self._topic, first[SOURCE_BYTES:], first[:SOURCE_BYTES], partition)
            left = self._gate.flush(_REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise NotLoadedError(f"{self._topic} cannot be loaded: {error.args[0].str()}") from error
        if left:
            raise NotLoadedError(f"{self._topic} takes no record within {_REQUEST_TIMEOUT_S} s. Is Kafka up?")


def load(preloads: Sequence[Preload], events: int, partitions: int, spread_s: int) -> list[Loaded]:
    """Close the gates and fill each topic with so many events, evenly over its partitions and over spread_s."""
    for preload in preloads:
        preload.close()
    began_ns, chunk = _time.monotonic_ns(), CHUNK_EVENTS
    if spread_s:
        chunk = min(chunk, max(1, events // partitions // (spread_s * _CHUNKS_A_SECOND)))
    left = [events // partitions + (p < events % partitions) - 1 for p in range(partitions)]
    tell_s = _TELL_EVERY_S
    while any(left):
        due_s = spread_s * (1 - sum(left) / events)
        if due_s >= tell_s:
            typer.echo(f"filling the input: {tell_s} of {spread_s} s", err=True)
            tell_s += _TELL_EVERY_S
        while (_time.monotonic_ns() - began_ns) / _NS_PER_S < due_s:
            _time.sleep_s(_TICK_S)
        for partition, rest in enumerate(left):
            if count := min(rest, chunk):
                for preload in preloads:
                    preload.send(partition, count)
                left[partition] -= count
    return [preload.finish() for preload in preloads]


def pace(
    bootstrap: str, topic: str, partitions: int, sources: int, rate: int, seconds: int, result: Connection
) -> None:
    """Send rate events per second for so many seconds, stamped as they are queued; then send Loaded to `result`.

    The entry point of a process. Falling behind is made up for at once, so the number of events is exact.
    """
    factory = EventFactory(sources, partitions, 0)
    loader = _Loader(bootstrap, topic, partitions, factory)
    began_ns = _time.monotonic_ns()
    total, sent = rate * seconds, [0] * partitions
    while sum(sent) < total:
        due = min((_time.monotonic_ns() - began_ns) * rate // _NS_PER_S, total)
        for partition in range(partitions):
            count = due // partitions + (partition < due % partitions) - sent[partition]
            if count > 0:
                loader.send(partition, count)
                sent[partition] += count
        _time.sleep_s(_TICK_S)
    result.send(loader.finish())
    result.close()
