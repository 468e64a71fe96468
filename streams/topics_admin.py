"""Topics on a real cluster: found, compared with the table, created.

Problem: what schemas/topics.py wants must be made true, and a ledger must not begin beside a topic that breaks it. So
`create` first looks at all of them, creates nothing when one that exists would be refused, lets the broker validate
what is missing, and only then creates it; it returns when every partition of every topic has a leader that serves it.

GUARANTEE creating again is harmless: what exists is compared, never altered.
GUARANTEE any number of processes may create at once: each topic is created by one of them, and all return.
HAZARD a topic that a user alters by hand stays as it is until somebody runs `check`: a worker checks
settings when it starts, and while it runs only ids and partition counts.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from schemas import clock
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.instants import NS_PER_S
from schemas.topics import FoundTopic, compare, specs, topic_names
from streams.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import TypeVar

    from confluent_kafka import TopicPartitionInfo
    from confluent_kafka.admin import TopicDescription

    from schemas.topics import Difference, TopicSpec
    from streams.log import Isolation
    from streams.settings import Settings

    Answer = TypeVar("Answer")

#: One question to the broker.
REQUEST_TIMEOUT_S: Final = 10
#: A new partition has a leader within milliseconds; a cluster that is busy with an election takes seconds.
LEADER_TIMEOUT_S: Final = 20
_POLL_S: Final = 0.05

_UNREACHABLE: Final = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001 - the client library spells its own errors with an underscore
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)


#: What a new partition answers until its leader has taken office, and any partition during an election.
_NO_LEADER_YET: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)


class PartitionFacts(NamedTuple):
    """One partition as it is now.

    leader: broker id, -1 for none (then the offsets are -1 too). Offsets: the first kept, the end of what is committed,
    the end of the log.
    """

    topic: str
    topic_id: str
    partition: int
    leader: int
    replicas: int
    in_sync: int
    start_offset: int
    stable_end_offset: int
    end_offset: int


class Creation(NamedTuple):
    """What `create` did. created: names; found: the others, as they are; differences: of those."""

    created: list[str]
    found: dict[str, FoundTopic]
    differences: list[Difference]


def specs_of(settings: Settings) -> list[TopicSpec]:
    """The topics of one ledger's settings. Raises BadInputError for names that Kafka would refuse."""
    return specs(
        topic_names(settings.prefix, settings.ledger, settings.input_topic),
        settings.partitions,
        settings.lanes,
        settings.replication_factor,
        settings.max_value_bytes,
    )


class TopicsAdmin:
    """Questions and orders about topics to one cluster.

    Every method raises UnreachableError when the cluster does not answer within REQUEST_TIMEOUT_S, DriftledgerError
    when it refuses.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def find(self, names: Sequence[str]) -> dict[str, FoundTopic | None]:
        """Each topic as the cluster describes it, None for one that does not exist."""
        described = self._describe(names)
        there = [name for name, description in described.items() if description is not None]
        configs = self._configs(there)
        return {
            name: None
            if description is None or name not in configs  # it may go between the two questions
            else FoundTopic(
                name,
                str(description.topic_id),
                len(description.partitions),
                min(len(partition.replicas) for partition in description.partitions),
                configs[name],
            )
            for name, description in described.items()
        }

    def check(self, wanted: Sequence[TopicSpec]) -> list[Difference]:
        """All differences of the topics from what is wanted, in order."""
        found = self.find([spec.name for spec in wanted])
        return [difference for spec in wanted for difference in compare(spec, found[spec.name])]

    def create(self, wanted: Sequence[TopicSpec]) -> Creation:
        """Create what is missing, unless something that exists would be refused: then nothing.

        Raises BadInputError when the cluster cannot hold a topic as it is wanted (more replicas than brokers).
        """
        found, missing = self._split(wanted)
        differences = _differences(wanted, found)
        if not missing or any(difference.refused for difference in differences):
            return Creation([], found, differences)
        self._order(missing, validate_only=True)
        created = self._order(missing, validate_only=False)
        self._wait_for_leaders([spec.name for spec in wanted])
        others, _ = self._split([spec for spec in missing if spec.name not in created])
        return Creation(created, found | others, differences + _differences(missing, others))

    def partitions(self, names: Sequence[str]) -> list[PartitionFacts]:
        """Every partition of the topics that exist, in order."""
        described = {name: topic for name, topic in self._describe(names).items() if topic is not None}
        places = [(name, p.id) for name, topic in described.items() for p in topic.partitions if _leader(p) >= 0]
        with closing(Log(self._bootstrap)) as log:
            starts = self._offsets(log, places, OFFSET_BEGINNING)
            stable_ends = self._offsets(log, places, OFFSET_END, "read_committed")
            ends = self._offsets(log, places, OFFSET_END)
        return [
            PartitionFacts(
                name,
                str(topic.topic_id),
                p.id,
                _leader(p),
                len(p.replicas),
                len(p.isr),
                starts.get((name, p.id), -1),
                stable_ends.get((name, p.id), -1),
                ends.get((name, p.id), -1),
            )
            for name, topic in described.items()
            for p in topic.partitions
        ]

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Have a partition begin at an offset: what stands before it is gone for ever."""
        futures = self._admin.delete_records(
            [TopicPartition(topic, partition, offset)],
            request_timeout=REQUEST_TIMEOUT_S,
            operation_timeout=REQUEST_TIMEOUT_S,
        )
        for future in futures.values():
            self._answer(f"{topic}[{partition}]", future)

    # ------------------------------------------------------------------------------------------------------ questions

    def _split(self, wanted: Sequence[TopicSpec]) -> tuple[dict[str, FoundTopic], list[TopicSpec]]:
        """Those that exist, by name, and those that do not."""
        found = self.find([spec.name for spec in wanted])
        there = {name: topic for name, topic in found.items() if topic is not None}
        return there, [spec for spec in wanted if spec.name not in there]

    def _describe(self, names: Sequence[str]) -> dict[str, TopicDescription | None]:
        futures = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_TIMEOUT_S)
        return {name: self._if_there(name, future) for name, future in futures.items()}

    def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        futures = self._admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
        answers = {resource.name: self._if_there(resource.name, future) for resource, future in futures.items()}
        return {
            name: {key: entry.value or "" for key, entry in entries.items()}
            for name, entries in answers.items()
            if entries is not None
        }

    def _offsets(
        self, log: Log, places: Sequence[tuple[str, int]], at: int, isolation: Isolation = "read_uncommitted"
    ) -> dict[tuple[str, int], int]:
        """An offset of each partition; waits for partitions whose leader has not taken office yet."""
        time = clock.source()
        deadline_ns = time.monotonic_ns() + LEADER_TIMEOUT_S * NS_PER_S
        while True:
            try:
                return log.offsets(places, at, isolation)
            except KafkaException as error:
                if error.args[0].code() not in _NO_LEADER_YET or time.monotonic_ns() > deadline_ns:
                    topics = ", ".join(sorted({topic for topic, _ in places}))
                    raise self._failed(f"the offsets of {topics}", error) from error
            log.close()  # what it knew of leaders
            time.sleep_s(_POLL_S)

    # --------------------------------------------------------------------------------------------------------- orders

    def _order(self, missing: Sequence[TopicSpec], *, validate_only: bool) -> list[str]:
        """Names that the cluster created (or would) for us; not those that another process was faster with."""
        topics = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=spec.replication_factor,
                config=dict(spec.config),
            )
            for spec in missing
        ]
        futures: Mapping[str, Future[None]] = self._admin.create_topics(
            topics, request_timeout=REQUEST_TIMEOUT_S, operation_timeout=REQUEST_TIMEOUT_S, validate_only=validate_only
        )
        created = []
        for name, future in futures.items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._failed(f"topic {name}", error) from error
            else:
                created.append(name)
        return created

    def _wait_for_leaders(self, names: Sequence[str]) -> None:
        time = clock.source()
        deadline_ns = time.monotonic_ns() + LEADER_TIMEOUT_S * NS_PER_S
        while True:
            described = self._describe(names)
            waiting = [
                name
                for name, topic in described.items()
                if topic is None or any(_leader(partition) < 0 for partition in topic.partitions)
            ]
            if not waiting:
                break
            if time.monotonic_ns() > deadline_ns:
                raise UnreachableError(
                    f"{', '.join(waiting)}: created, without a leader after {LEADER_TIMEOUT_S} s. Are all brokers up?"
                )
            time.sleep_s(_POLL_S)
        # That a leader is named does not mean that it serves: one that answers does.
        places = [(name, p.id) for name, topic in described.items() if topic is not None for p in topic.partitions]
        with closing(Log(self._bootstrap)) as log:
            self._offsets(log, places, OFFSET_END)

    # --------------------------------------------------------------------------------------------------------- errors

    def _if_there(self, name: str, future: Future[Answer]) -> Answer | None:
        """What is answered about a topic, None where there is none of that name."""
        try:
            return future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._failed(f"topic {name}", error) from error
            error.__traceback__ = None  # the future has it, and its frames have the client: see `log`
            return None

    def _answer(self, what: str, future: Future[Answer]) -> Answer:
        try:
            return future.result()
        except KafkaException as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: KafkaException) -> DriftledgerError:
        cause = error.args[0]
        said = cause.str().rstrip(". ")
        if cause.code() in _UNREACHABLE | _NO_LEADER_YET:
            return UnreachableError(f"Kafka at {self._bootstrap} did not answer about {what}: {said}. Is it up?")
        if cause.code() == KafkaError.INVALID_REPLICATION_FACTOR:
            return BadInputError(f"{what}: {said}. Start more brokers, or lower replication_factor")
        if cause.code() in (KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_CONFIG):
            return BadInputError(f"{what}: {said}. Change the setting it names")
        return DriftledgerError(f"Kafka at {self._bootstrap} refused {what}: {said}")


def _differences(wanted: Sequence[TopicSpec], found: Mapping[str, FoundTopic]) -> list[Difference]:
    return [d for spec in wanted if spec.name in found for d in compare(spec, found[spec.name])]


def _leader(partition: TopicPartitionInfo) -> int:
    """Broker id of the leader; the client says None, or a node without an address, where there is none."""
    return int(getattr(partition.leader, "id", -1))
