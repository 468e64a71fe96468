"""Questions to Kafka's logs: bounds, last record, a scan, the facts of a topic.

What a lane asks before it may write and what a command asks to answer from the ledger; one record at a time,
through confluent-kafka. The data itself goes through streams/rdkafka.py.

GUARANTEE `last` and `scan` return only what a read_committed consumer sees, past aborted records and markers.
HAZARD while a transaction is open on a partition its committed tail beyond that is invisible: `bounds` tells
(stable_end below end), and an owner waits.
HAZARD AdminClient.list_offsets may end the process (librdkafka 2.16.0): where the client does not know a partition's
leader, the caller's thread and the client's own hold the same request for an instant, and the one that is done frees
it. So offsets are asked for through consumers, whose calls wait for the leader in the caller's thread.
HAZARD an AdminClient answers in a thread of its own, where Python may come to collect garbage. If it is in that itself
the process ends, for it may not be ended there. So whoever has one lets go of it, and it is in no cycle of references:
a future that has failed has its error, that has the frames it came through, and these the future and the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from schemas.clock import source as time_source
from schemas.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Literal

    from confluent_kafka import Message

    Isolation = Literal["read_committed", "read_uncommitted"]

#: How long one question to the broker may take.
REQUEST_TIMEOUT_S = 10.0
#: The largest that librdkafka takes for a message or an answer: the brokers' limits decide, not the client's. A record
#: compressed with zstd may become so large too.
CLIENT_BYTES_MAX = 1_000_000_000
_GROWTH = 4
_SCAN_ROWS = 500
#: What a broker that is up answers about a topic or a partition that it does not have.
_UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)  # noqa: SLF001


class Bounds(NamedTuple):
    """Offsets of a partition: the first kept, the end of what is committed, the end of the log."""

    start: int
    stable_end: int
    end: int


class TopicFacts(NamedTuple):
    """What a ledger must not change under us."""

    topic_id: str
    partitions: int


class Log:
    """Reads from one cluster. Not for two threads at once."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin: AdminClient | None = None
        self._consumers: dict[Isolation, Consumer] = {}
        #: Topics whose leaders the reader has been told of.
        self._known: set[str] = set()

    def cluster_id(self) -> str:
        """Kafka's id of the cluster."""
        return str(
            self._ask(lambda: self._client().describe_cluster(request_timeout=REQUEST_TIMEOUT_S).result()).cluster_id
        )

    def topic(self, name: str) -> TopicFacts | None:
        """Id and partition count, None where there is no such topic."""
        futures = self._client().describe_topics(TopicCollection([name]), request_timeout=REQUEST_TIMEOUT_S)
        try:
            found = futures[name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                error.__traceback__ = None  # the future has it, and its frames have the client
                return None
            raise self._unreachable(error) from error
        return TopicFacts(str(found.topic_id), len(found.partitions))

    def bounds(self, topic: str, partition: int) -> Bounds:
        """Where the log of a partition starts and ends."""
        place = (topic, partition)
        start = self._offset_of(place, OFFSET_BEGINNING)
        stable = self._offset_of(place, OFFSET_END, "read_committed")
        return Bounds(start, stable, max(stable, self._offset_of(place, OFFSET_END)))

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """End of the log (not only of what is committed) of each partition, in one request."""
        return self.offsets_since(topic, partitions, OFFSET_END)

    def offsets_since(self, topic: str, partitions: Iterable[int], instant_ms: int) -> dict[int, int]:
        """Of each partition the first record appended at that instant or later, -1 for none; in one request."""
        places = [(topic, partition) for partition in partitions]
        found = self._ask(lambda: self.offsets(places, instant_ms), topic)
        return {partition: offset for (_, partition), offset in found.items()}

    def offsets(
        self, places: Iterable[tuple[str, int]], at: int, isolation: Isolation = "read_uncommitted"
    ) -> dict[tuple[str, int], int]:
        """Of each topic and partition the first offset at an instant in ms, OFFSET_BEGINNING or OFFSET_END.

        One request to each leader. Raises KafkaException where one of them has no answer.
        """
        wanted = [TopicPartition(topic, partition, at) for topic, partition in places]
        if not wanted:
            return {}
        found = self._consumer(isolation).offsets_for_times(wanted, REQUEST_TIMEOUT_S)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return {(place.topic, place.partition): int(place.offset) for place in found}

    def retention_ms(self, topic: str) -> int:
        """How long a topic keeps a record, -1 for ever."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        futures = self._client().describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)
        return int(self._ask(futures[resource].result, topic)["retention.ms"].value)

    def last(self, topic: str, partition: int) -> Message | None:
        """The last committed record, None for an empty partition; reads backwards in growing steps."""
        bounds = self.bounds(topic, partition)
        back = 1
        while bounds.stable_end > bounds.start:
            begin = max(bounds.start, bounds.stable_end - back)
            found = None
            for message in self.scan(topic, partition, begin, bounds.stable_end):
                found = message
            if found is not None or begin == bounds.start:
                return found
            back *= _GROWTH
        return None

    def first(self, topic: str, partition: int) -> Message | None:
        """The first committed record that is still kept, None for an empty partition."""
        bounds = self.bounds(topic, partition)
        return next(self.scan(topic, partition, bounds.start, bounds.stable_end), None)

    def scan(self, topic: str, partition: int, begin: int, end: int) -> Iterator[Message]:
        """Committed records with begin <= offset < end, in order."""
        if begin >= end:
            return
        consumer = self._consumer("read_committed")
        if topic not in self._known:  # else the client looks for its leader a second later
            self._ask(lambda: consumer.list_topics(topic, REQUEST_TIMEOUT_S))
            self._known.add(topic)
        consumer.assign([TopicPartition(topic, partition, begin)])
        try:
            while True:
                first = consumer.poll(REQUEST_TIMEOUT_S)
                if first is None:
                    text = f"{topic}[{partition}] sent nothing for {REQUEST_TIMEOUT_S:.0f} s: is the broker up?"
                    raise UnreachableError(text)
                for message in (first, *consumer.consume(_SCAN_ROWS, 0)):
                    error = message.error()
                    if error is None:
                        if offset_of(message) >= end:
                            return
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                        return
                    elif not error.retriable() and error.code() != KafkaError._TRANSPORT:  # noqa: SLF001
                        raise UnreachableError(f"{topic}[{partition}]: {error.str()}")
        finally:
            self._leave(consumer)

    def close(self) -> None:
        """End the clients; a question after that begins others."""
        self._admin = None
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()
        self._known.clear()

    def _consumer(self, isolation: Isolation) -> Consumer:
        if isolation not in self._consumers:
            self._consumers[isolation] = Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "driftledger-reader",  # never joined: assign() only, nothing committed
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "isolation.level": isolation,
                    "auto.offset.reset": "error",
                    "fetch.wait.max.ms": 10,
                    "check.crcs": True,
                    "receive.message.max.bytes": CLIENT_BYTES_MAX,
                    "log_level": 0,
                }
            )
        return self._consumers[isolation]

    def _leave(self, consumer: Consumer) -> None:
        if consumer in self._consumers.values():  # else an error closed it meanwhile
            consumer.unassign()

    def _offset_of(self, place: tuple[str, int], at: int, isolation: Isolation = "read_uncommitted") -> int:
        [offset] = self._ask(lambda: self.offsets([place], at, isolation), place[0]).values()
        return int(offset)

    def _ask(self, question: Callable[[], Any], topic: str | None = None) -> Any:
        """topic: what it is about, if it is about one."""
        try:
            return question()
        except KafkaException as error:
            raise self._unreachable(error, topic) from error

    def _client(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})
        return self._admin

    def _unreachable(self, error: KafkaException, topic: str | None = None) -> UnreachableError:
        # They keep what they knew of leaders for minutes, and a broker that came back refuses that: new ones ask again.
        self.close()
        if topic is not None and error.args[0].code() in _UNKNOWN:
            return UnreachableError(
                f"topic {topic} does not exist, or has fewer partitions than are asked for. Run `driftledger topics "
                "create` with the same --ledger"
            )
        return UnreachableError(f"Kafka at {self._bootstrap} did not answer: {error.args[0].str()}. Is it up?")


def offset_of(message: Message) -> int:
    """The offset of a consumed message; the client's types say that it may be missing."""
    return int(message.offset() or 0)


def wait_stable(log: Log, topic: str, partition: int, timeout_ms: int) -> bool:
    """Wait until no transaction is open on a partition; False where one still is after the timeout."""
    clock = time_source()
    deadline_ns = clock.monotonic_ns() + timeout_ms * 1_000_000
    while True:
        bounds = log.bounds(topic, partition)
        if bounds.stable_end == bounds.end:
            return True
        if clock.monotonic_ns() >= deadline_ns:
            return False
        clock.sleep_s(0.05)
