"""The producer helper: what it writes, and what becomes of events that cannot be delivered."""

from __future__ import annotations

import itertools
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import given
from hypothesis import strategies as st

from schemas.clock import SimulatedTime, SkewedTime, Step, SystemTime
from schemas.codec import Framing, decode
from schemas.errors import BadInputError
from schemas.instants import NS_PER_S
from schemas.producer import Delivery, DeliveryError, EventProducer, uuid7
from schemas.topics import partition_for

if TYPE_CHECKING:
    from confluent_kafka import Message

PARTITIONS = 4
NOWHERE = "127.0.0.1:1"
NOON_US = 1_800_000_000_000_000


@pytest.fixture
def topic(kafka: Any, prefix: str) -> str:
    """A topic of its own, dated by the broker."""
    name = f"{prefix}.events"
    client = AdminClient({"bootstrap.servers": kafka.bootstrap})
    config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "100000"}
    for future in client.create_topics([NewTopic(name, PARTITIONS, 1, config=config)], operation_timeout=10).values():
        future.result()
    return name


def records(bootstrap: str, topic: str, count: int) -> list[Message]:
    """That many records of all partitions, each partition in order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    found: list[Message] = []
    while len(found) < count:
        batch = consumer.consume(count - len(found), 10)
        assert batch, f"{len(found)} of {count} records came"
        assert all(message.error() is None for message in batch)
        found += batch
    consumer.close()
    return found


def test_an_event_arrives_as_it_was_sent(kafka: Any, topic: str) -> None:
    """Every field, keyed by its source, framed as a single object."""
    with EventProducer(kafka.bootstrap, topic) as producer:
        sent = producer.send(
            source="pumpe-ä",
            kind="pressure",
            value=4.5,
            payload=b"\x00\xff",
            event_id="e1",
            local_timestamp_us=-(2**63),
            hlc=2**63 - 1,
            causes=[{"partition": 1, "sequence": 2}],
            exchange={"partition": 0, "offset": 1, "sent_us": 2, "acked_us": 3, "appended_ms": 4},
        )
    assert sent == "e1"
    (record,) = records(kafka.bootstrap, topic, 1)
    assert record.key() == "pumpe-ä".encode()
    assert decode("Event", record.value() or b"") == {
        "event_id": "e1",
        "source": "pumpe-ä",
        "local_timestamp": -(2**63),
        "kind": "pressure",
        "value": 4.5,
        "payload": b"\x00\xff",
        "hlc": 2**63 - 1,
        "causes": [{"partition": 1, "sequence": 2}],
        "exchange": {"partition": 0, "offset": 1, "sent_us": 2, "acked_us": 3, "appended_ms": 4},
    }


def test_an_event_without_id_and_time_gets_both_from_the_time_source(kafka: Any, topic: str) -> None:
    """So a simulated source is wrong in its time and in its ids alike."""
    own = SkewedTime(SimulatedTime(NOON_US * 1_000), Step(by_ns=86_400_000_000_000))
    with EventProducer(kafka.bootstrap, topic, time_source=own, framing=Framing.JSON) as producer:
        sent = producer.send(source="s", kind="k")
    event = decode("Event", records(kafka.bootstrap, topic, 1)[0].value() or b"", Framing.JSON)
    assert event["event_id"] == sent
    assert event["local_timestamp"] == NOON_US + 86_400_000_000
    assert uuid.UUID(sent).int >> 80 == (NOON_US + 86_400_000_000) // 1_000
    assert (event["value"], event["payload"], event["exchange"]) == (None, b"", None)


class Watched(SystemTime):
    """The machine's time, and whether a producer could send at once each time it was read."""

    def __init__(self) -> None:
        self.producer: EventProducer | None = None
        self.reads: list[tuple[int, bool]] = []

    def now_us(self) -> int:
        """Read and noted."""
        now_us = super().now_us()
        assert self.producer is not None
        self.reads.append((now_us, self.producer._identified))
        return now_us


def test_an_event_is_dated_when_it_can_leave(kafka: Any, topic: str) -> None:
    """Not before there is a connection: an honest clock would look slow."""
    watched = Watched()
    with EventProducer(kafka.bootstrap, topic, time_source=watched) as producer:
        watched.producer = producer
        producer.send(source="s", kind="k")
    event = decode("Event", records(kafka.bootstrap, topic, 1)[0].value() or b"")
    assert (event["local_timestamp"], True) in watched.reads


def test_events_that_it_dates_tell_acknowledged_round_trips_of_their_source(
    kafka: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of an earlier event, read when its acknowledgement came though nothing was sent meanwhile.

    Of two sources, one of which has a clock of its own.
    """
    every_us, time = 500_000, SystemTime()
    monkeypatch.setattr("schemas.round_trips.EXCHANGE_EVERY_US", every_us)
    ahead_us = {"s0": 3_000_000, "s1": -2_000_000}
    clocks = {source: SkewedTime(time, Step(by_ns=by_us * 1_000)) for source, by_us in ahead_us.items()}
    with EventProducer(kafka.bootstrap, topic, time_source=clocks["s0"]) as producer:
        for n in range(24):
            producer.send(source=f"s{n % 2}", kind="k", event_id=str(n), clock=clocks["s1"] if n % 2 else None)
            time.sleep_s(0.1)
        producer.send(source="s0", kind="k", local_timestamp_us=0, event_id="dated by another clock")
    found = {decode("Event", r.value() or b"")["event_id"]: r for r in records(kafka.bootstrap, topic, 25)}
    at = {(r.partition(), r.offset()): decode("Event", r.value() or b"") for r in found.values()}
    # Were an answer read with the next event only, none would seem to take less than 100 ms.
    told = [event for event in at.values() if event["exchange"] is not None]
    assert len(told) >= 6
    for source in ahead_us:
        instants = sorted(event["local_timestamp"] for event in told if event["source"] == source)
        assert all(later - sooner >= every_us for sooner, later in itertools.pairwise(instants))
    assert min(event["exchange"]["acked_us"] - event["exchange"]["sent_us"] for event in told) < 90_000
    for event in told:
        trip = event["exchange"]
        earlier = at[trip["partition"], trip["offset"]]
        assert (earlier["source"], earlier["local_timestamp"]) == (event["source"], trip["sent_us"])
        assert found[earlier["event_id"]].timestamp()[1] == trip["appended_ms"]
        assert trip["sent_us"] - trip["appended_ms"] * 1_000 - 1_000 <= ahead_us[event["source"]]
        assert ahead_us[event["source"]] <= trip["acked_us"] - trip["appended_ms"] * 1_000
    assert at[found["dated by another clock"].partition(), found["dated by another clock"].offset()]["exchange"] is None


def test_the_connection_is_waited_for_once_and_only_by_events_without_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no broker answers, `send` is not held up by each event anew."""
    monkeypatch.setattr("schemas.producer.CONNECT_TIMEOUT_S", 2)
    producer = EventProducer(NOWHERE, "any", delivery_timeout_s=2)
    time = SystemTime()

    def waited_s(local_timestamp_us: int | None = None) -> float:
        begun_ns = time.monotonic_ns()
        producer.send(source="s", kind="k", local_timestamp_us=local_timestamp_us)
        return (time.monotonic_ns() - begun_ns) / NS_PER_S

    assert waited_s(0) < 1.5
    assert 1.5 < waited_s() < 5
    assert waited_s() < 1.5
    assert not producer.connect()
    with pytest.raises(DeliveryError, match="3 events were not delivered"):
        producer.close()


def test_every_delivery_is_counted_and_told(kafka: Any, topic: str) -> None:
    """Where each event is and when the broker dated it; a source's own in order, on the partition Java would take."""
    deliveries: list[Delivery] = []
    sources = [f"source-{n}" for n in range(20)]
    with EventProducer(kafka.bootstrap, topic, linger_ms=50) as producer:
        for n in range(1_000):
            producer.send(source=sources[n % 20], kind="k", value=n, event_id=str(n), on_delivery=deliveries.append)
    assert (producer.delivered, producer.failed) == (1_000, 0)
    assert sorted(int(d.event_id) for d in deliveries) == list(range(1_000))
    assert all(d.error is None and not d.refused and d.appended_ms > 0 for d in deliveries)
    found = records(kafka.bootstrap, topic, 1_000)
    where = {
        decode("Event", r.value() or b"")["event_id"]: (r.partition(), r.offset(), r.timestamp()[1]) for r in found
    }
    assert where == {d.event_id: (d.partition, d.offset, d.appended_ms) for d in deliveries}
    for source in sources:
        own = [d for d in deliveries if d.source == source]
        assert {d.partition for d in own} == {partition_for(source.encode(), PARTITIONS)}
        by_offset = sorted(own, key=lambda delivery: delivery.offset)
        assert [int(d.event_id) for d in by_offset] == sorted(int(d.event_id) for d in own)


@pytest.mark.parametrize(
    "wrong",
    [{"source": ""}, {"source": "x" * 257}, {"local_timestamp_us": 2**63}, {"value": "4"}, {"payload": "text"}],
)
def test_an_event_that_cannot_be_encoded_is_refused_at_once(wrong: dict[str, Any]) -> None:
    """Nothing is queued, and the producer goes on; no broker is needed to say so."""
    producer = EventProducer(NOWHERE, "any")
    with pytest.raises(BadInputError):
        producer.send(**{"source": "s", "kind": "k", **wrong})
    producer.close()
    assert (producer.delivered, producer.failed) == (0, 0)


def test_what_cannot_be_delivered_is_raised_with_the_first_and_the_number() -> None:
    """At flush and at close, each failure once."""
    producer = EventProducer(NOWHERE, "any", delivery_timeout_s=0.3)
    for n in range(3):
        producer.send(source=f"s{n}", kind="k", event_id=f"e{n}")
    with pytest.raises(DeliveryError, match="3 events were not delivered to any; the first, e0 of source s0") as raised:
        producer.flush()
    assert raised.value.failed == 3
    assert raised.value.first.error is not None
    assert raised.value.first.error.code() == KafkaError._MSG_TIMED_OUT
    assert not raised.value.first.refused
    producer.send(source="s3", kind="k", event_id="e3")
    with pytest.raises(DeliveryError, match="1 events were not delivered to any; the first, e3"):
        producer.close()
    assert (producer.delivered, producer.failed) == (0, 4)
    producer.close()


def test_a_failure_inside_the_block_is_not_hidden_by_undelivered_events() -> None:
    """Those are noted on it."""
    producer = EventProducer(NOWHERE, "any", delivery_timeout_s=0.3)
    producer.send(source="s", kind="k")
    with pytest.raises(ZeroDivisionError) as raised, producer:
        _ = 1 // producer.delivered
    assert "1 events were not delivered" in raised.value.__notes__[0]


def test_a_full_queue_makes_send_wait_and_loses_nothing(
    kafka: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten at a time here."""
    monkeypatch.setattr("schemas.producer.QUEUE_EVENTS_MAX", 10)
    with EventProducer(kafka.bootstrap, topic) as producer:
        for n in range(500):
            producer.send(source="s", kind="k", event_id=str(n))
    assert producer.delivered == 500
    found = records(kafka.bootstrap, topic, 500)
    assert [decode("Event", r.value() or b"")["event_id"] for r in found] == [str(n) for n in range(500)]


def test_an_event_that_the_topic_does_not_take_is_refused_alone(kafka: Any, topic: str) -> None:
    """The others arrive; the refusal is about the event, not about the cluster."""
    deliveries: list[Delivery] = []
    producer = EventProducer(kafka.bootstrap, topic, client_config={"compression.type": "none"})
    for n, size in enumerate((10, 150_000, 10)):
        producer.send(source="s", kind="k", payload=bytes(size), event_id=str(n), on_delivery=deliveries.append)
        producer._drain()
    with pytest.raises(DeliveryError, match="1 events were not delivered"):
        producer.close()
    assert [(d.event_id, d.refused) for d in deliveries] == [("0", False), ("1", True), ("2", False)]
    assert len(records(kafka.bootstrap, topic, 2)) == 2


@given(instant_us=st.integers(-(2**63), 2**63 - 1), random=st.binary(min_size=8, max_size=8))
def test_ids_are_valid_for_any_clock(instant_us: int, random: bytes) -> None:
    """Version 7, RFC 9562 variant, whatever the time source says."""
    made = uuid7(instant_us, random)
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


@given(st.lists(st.tuples(st.integers(0, 2**57), st.binary(min_size=8, max_size=8)), min_size=2, max_size=6))
def test_ids_sort_by_time(made: list[tuple[int, bytes]]) -> None:
    """To the microsecond."""
    ordered = sorted(dict(made).items())
    ids = [uuid7(instant, random) for instant, random in ordered]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
