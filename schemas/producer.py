"""Events into the input of a ledger, so that they can be judged well.

Problem: what a ledger can say about a source depends on how its events arrive. librdkafka's default partitioner is not
Java's, so one source written by two languages lands on two partitions; an event without an id cannot be recognised when
it is sent twice; a delivery nobody looks at is a loss nobody sees. `EventProducer` does these things right and nothing
else: key = source, partitioner murmur2_random, acks=all, idempotent, an id and a local time where none are given, every
delivery counted.

    with EventProducer("localhost:9092", "driftledger.events") as producer:
        producer.send(source="pump-7", kind="pressure", value=4.2)

GUARANTEE every event that `send` took is delivered or reported: `flush` and `close` raise DeliveryError, which names
the first failure and counts all. GUARANTEE events of one source keep their order, and none is doubled by a retry of
this producer. GUARANTEE memory is bounded: a full queue makes `send` wait, and what cannot be delivered within
delivery_timeout_s fails and leaves the queue.
HAZARD a delivery that failed by time-out may yet be in the log: sending it again (with the same event_id) is right, the
ledger recognises the duplicate. An event sent again with a new id is a new event.
GUARANTEE an event that this process dates does not look late because of the connection: before the first one `send`
waits, CONNECT_TIMEOUT_S at most, for the producer id. librdkafka asks for it by a timer of half a second, and holds all
records back until then. What is left is the connection to a partition's leader: some ms, once each.
GUARANTEE of sources whose events this process dates, an event each ten seconds carries an acknowledged round trip of an
earlier one (see `round_trips`), so that a judge knows their clock from both sides. For that a thread of the producer
waits for acknowledgements, from the first such event on: read later, they would bound the clock no better than a guess.
HAZARD without local_timestamp_us the event is dated by this process at `send`, before it waits in the queue. An event
that is older than that must carry its own time; so must one that is sent while the broker may be away.
HAZARD it asks nobody whether a partition or a source is locked: Kafka knows of no locks, they stand with the ledger.
One that halts "sequence" keeps these events out of the ledger all the same. Whom the lock of a source must stop puts
events through a worker (POST /put), or asks `streams.gate` before each.
HAZARD not across fork: a child process makes its own producer.
"""

from __future__ import annotations

import secrets
import threading
import uuid
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Producer

from . import clock as clocks
from .codec import Framing, encode
from .errors import DriftledgerError
from .instants import NS_PER_S, US_PER_MS
from .round_trips import RoundTrip, RoundTrips

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from confluent_kafka import Message

    from .clock import TimeSource

#: Long enough for a broker to restart and a leader to be elected.
DELIVERY_TIMEOUT_S: Final = 30.0
#: Several tries of librdkafka to get a producer id; it needs half a second or a whole one on a broker that is there.
CONNECT_TIMEOUT_S: Final = 5.0
#: librdkafka's statistics are the only place that says whether there is a producer id.
_STATISTICS_MS: Final = 100
#: What may wait in memory: enough to fill a round trip at 100 k events/s, small beside a worker.
QUEUE_EVENTS_MAX: Final = 100_000
QUEUE_KBYTES_MAX: Final = 65_536
#: Interval at which a waiting send or flush serves deliveries, and can be interrupted.
_POLL_S: Final = 0.1
#: librdkafka's largest: what is too long is for the broker to say, which knows the topic's limit.
_MESSAGE_BYTES_MAX: Final = 1_000_000_000
#: A broker is waited for in true time, whatever dates the events.
_system: Final = clocks.SystemTime()

#: Answers that are about the record and not about the cluster.
_REFUSALS: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
    }
)


class Delivery(NamedTuple):
    """What became of one event. error: None when it is in the log, at offset, dated by the broker with appended_ms.

    appended_ms: -1 where the topic keeps the time of the record instead, as no input of a ledger does.
    """

    event_id: str
    source: str
    partition: int
    offset: int
    appended_ms: int
    error: KafkaError | None

    @property
    def refused(self) -> bool:
        """Whether the broker will never take this event, as it is; any other failure may pass."""
        return self.error is not None and self.error.code() in _REFUSALS


class DeliveryError(DriftledgerError):
    """Some events did not reach the input, or are not known to have.

    Attributes: failed (how many), first (the Delivery that failed first). Send them again, with their event_id.
    """

    def __init__(self, topic: str, failed: int, first: Delivery) -> None:
        reason = first.error.str() if first.error else "unknown"
        super().__init__(
            f"{failed} events were not delivered to {topic}; the first, {first.event_id} of source {first.source}: "
            f"{reason}. Send them again with the same event_id"
        )
        self.failed = failed
        self.first = first


class EventProducer:
    """Sends events to one topic. Also a context manager: closed on exit. For one thread at a time."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        framing: Framing = Framing.SINGLE_OBJECT,
        time_source: TimeSource | None = None,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: float = 5,
        client_config: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect in the background; `connect` waits for it.

        framing: what the ledger's setting says. time_source: dates events and ids; the process's own unless given.
        client_config: librdkafka settings for the connection (security, client.id); they cannot undo what the
        guarantees rest on, nor have the statistics. Raises KafkaException for a setting that librdkafka refuses.
        """
        self.topic = topic
        self.framing = framing
        self.delivered = 0
        self.failed = 0
        self._closed = False
        self._identified = False
        self._waited = False
        self._connect_timeout_s = min(delivery_timeout_s, CONNECT_TIMEOUT_S)
        self._reported = 0
        self._first_failure: Delivery | None = None
        #: Deliveries in the order in which they became known, for the next send, flush or close to tell.
        self._known: deque[tuple[Delivery, Callable[[Delivery], None] | None]] = deque()
        self._trips = RoundTrips()
        self._trips_lock = threading.Lock()
        self._waiter: threading.Thread | None = None
        self._raised: Exception | None = None
        self._time = time_source or clocks.source()
        self._producer = Producer(
            {
                "log_level": 0,
                "compression.type": "lz4",
                **(client_config or {}),
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": linger_ms,
                "message.timeout.ms": int(delivery_timeout_s * 1_000),
                "message.max.bytes": _MESSAGE_BYTES_MAX,
                "queue.buffering.max.messages": QUEUE_EVENTS_MAX,
                "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
                "statistics.interval.ms": _STATISTICS_MS,
                "stats_cb": self._look_for_id,
            }
        )

    def connect(self) -> bool:
        """Wait until an event can leave as soon as it is sent; whether that is so.

        At most CONNECT_TIMEOUT_S, or delivery_timeout_s where that is shorter. Where it is not so, `send` takes events
        all the same: they leave, or fail, later.
        """
        self._waited = True
        deadline_ns = _system.monotonic_ns() + int(self._connect_timeout_s * NS_PER_S)
        try:
            self._producer.list_topics(self.topic, self._connect_timeout_s)
        except KafkaException:
            return False
        while not self._identified and _system.monotonic_ns() < deadline_ns:
            self._producer.poll(_POLL_S)
        return self._identified

    def send(
        self,
        *,
        source: str,
        kind: str,
        value: float | None = None,
        payload: bytes = b"",
        event_id: str | None = None,
        local_timestamp_us: int | None = None,
        clock: TimeSource | None = None,
        hlc: int | None = None,
        causes: Sequence[Mapping[str, int]] = (),
        exchange: Mapping[str, int] | None = None,
        on_delivery: Callable[[Delivery], None] | None = None,
    ) -> str:
        """Queue one event and return its id; waits while the queue is full.

        source: whose clock stamped it, 1 to 256 bytes of UTF-8. event_id: unique within its source; a UUIDv7 unless
        given. local_timestamp_us: when it was made, by the source's clock; now unless given. clock: of this source, in
        a process that speaks for several: it dates the event and its round trip; the producer's own unless given.
        causes: {partition, sequence} of events this one knew of. exchange: the acknowledged round trip of an earlier
        event of this source (schemas/event.v1.avsc); of events that are dated here it comes by itself. on_delivery is
        called within a later send, flush or close, once.

        Raises BadInputError, and queues nothing, when the event cannot be encoded; DeliveryError when this producer has
        failed for good.
        """
        time = clock or self._time
        now_us = time.now_us()
        identity = event_id if event_id is not None else str(uuid7(now_us, secrets.token_bytes(8)))
        dated = local_timestamp_us is None
        told = self._round_trip(source, now_us) if exchange is None and dated else exchange
        event = {
            "event_id": identity,
            "source": source,
            "local_timestamp": now_us if local_timestamp_us is None else local_timestamp_us,
            "kind": kind,
            "value": value,
            "payload": payload,
            "hlc": hlc,
            "causes": [dict(cause) for cause in causes],
            "exchange": None if told is None else dict(told),
        }
        encoded = encode("Event", event, self.framing)
        if dated and not self._waited:
            self.connect()
            now_us = time.now_us()
            encoded = encode("Event", event | {"local_timestamp": now_us}, self.framing)
        if dated and self._waiter is None:
            self._waiter = threading.Thread(
                target=_wait_for_deliveries, args=(weakref.ref(self),), name="acknowledgements", daemon=True
            )
            self._waiter.start()

        def delivered(error: KafkaError | None, message: Message) -> None:
            delivery = _delivery_of(identity, source, error, message)
            if dated and delivery.appended_ms >= 0:
                trip = RoundTrip(delivery.partition, delivery.offset, now_us, time.now_us(), delivery.appended_ms)
                with self._trips_lock:
                    self._trips.acknowledged(source, trip)
            self._known.append((delivery, on_delivery))

        while True:
            try:
                self._producer.produce(self.topic, encoded, source.encode(), on_delivery=delivered)
            except BufferError:
                self._poll(_POLL_S)
            except KafkaException as error:
                self._fail(Delivery(identity, source, -1, -1, -1, error.args[0]))
                self._raise_failures()
            else:
                self._poll(0)
                return identity

    def flush(self) -> None:
        """Wait until every event is delivered or has failed. Raises DeliveryError if any failed since the last one."""
        self._drain()
        self._raise_failures()

    def close(self) -> None:
        """Flush and let go of the connection; nothing can be sent afterwards. Raises DeliveryError as flush does."""
        if not self._closed:
            self._drain()
            self._closed = True
            waiter = self._waiter
            if waiter is not None:
                waiter.join()
            self._producer.close()
        self._raise_failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del kind, traceback
        try:
            self.close()
        except DeliveryError as error:
            if raised is None:
                raise
            raised.add_note(str(error))

    def _look_for_id(self, statistics: str) -> None:
        if not self._identified:
            self._identified = orjson.loads(statistics)["eos"]["idemp_state"] == "Assigned"

    def _drain(self) -> None:
        while self._producer.flush(_POLL_S):
            self._tell()
        self._tell()

    def _poll(self, timeout_s: float) -> None:
        self._producer.poll(timeout_s)
        self._tell()

    def _tell(self) -> None:
        """Count what became known, and say so to who asked."""
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        while self._known:
            delivery, on_delivery = self._known.popleft()
            if delivery.error is None:
                self.delivered += 1
            else:
                self._fail(delivery)
            if on_delivery is not None:
                on_delivery(delivery)

    def _round_trip(self, source: str, now_us: int) -> dict[str, int] | None:
        with self._trips_lock:
            return self._trips.to_tell(source, now_us)

    def _wait(self) -> bool:
        """Wait for deliveries; whether there may be more. What a callback of client_config raises is kept."""
        try:
            self._producer.poll(_POLL_S)
        except Exception as error:  # noqa: BLE001 - the next send, flush or close raises it
            self._raised, self._waiter = error, None
        return self._raised is None and not self._closed

    def _fail(self, delivery: Delivery) -> None:
        self.failed += 1
        if self._first_failure is None:
            self._first_failure = delivery

    def _raise_failures(self) -> None:
        if self._first_failure is not None:
            failed, first = self.failed - self._reported, self._first_failure
            self._reported, self._first_failure = self.failed, None
            raise DeliveryError(self.topic, failed, first)


def _wait_for_deliveries(producer: weakref.ref[EventProducer]) -> None:
    """So that an acknowledgement is read when it comes, not when the next event is sent; while there is a producer."""
    while True:
        there = producer()
        if there is None or not there._wait():  # noqa: SLF001 - a method but for what it must not keep alive
            return
        del there


def _delivery_of(event_id: str, source: str, error: KafkaError | None, message: Message) -> Delivery:
    partition, offset = message.partition(), message.offset()
    kind, appended_ms = message.timestamp()
    return Delivery(
        event_id,
        source,
        -1 if partition is None else partition,
        -1 if offset is None or error is not None else offset,
        appended_ms if error is None and kind == TIMESTAMP_LOG_APPEND_TIME else -1,
        error,
    )


def uuid7(instant_us: int, random: bytes) -> uuid.UUID:
    """A UUID that sorts by time (RFC 9562, version 7, sub-millisecond time by its method 3).

    instant_us: microseconds since 1970-01-01 UTC; outside 48 bits of milliseconds (before 1970, after 10889) it wraps.
    random: 8 bytes, of which 62 bits are used.
    """
    milliseconds, microseconds = divmod(instant_us, US_PER_MS)
    high = (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | microseconds * 4_096 // US_PER_MS
    low = int.from_bytes(random, "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    return uuid.UUID(int=high << 64 | low)
