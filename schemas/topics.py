"""The topics of a ledger: one table, and what must be true of a topic that is found.

Problem: a ledger's guarantees rest on how its topics are configured. A compacted input loses events, a CreateTime topic
lets a producer choose the authority's time, a partition more moves every source, a retention on the ledger deletes the
truth. So the whole contract stands in `TABLE`, creation reads it, and every found topic is compared with it, setting by
setting, each difference with its remedy in words. Nothing here talks to a broker (streams/topics_admin.py does).

    topic           name                           key             partitions  cleanup  kept       record
    input           {prefix}.{ledger} or given     source          N           delete   7 d        Event, in its framing
    control         {prefix}.{ledger}.control      none            N, 1:1      delete   30 d       Control
    sequenced       {prefix}.{ledger}.sequenced    as input        N, 1:1      delete   unlimited  LedgerEntry
    drift_alerts    {prefix}.{ledger}.drift.alerts source          N, 1:1      delete   30 d       DriftAlert
    drift_estimates {prefix}.{ledger}.drift.estimates source       N, 1:1      delete   30 d       DriftEstimate
    aggregates      {prefix}.{ledger}.aggregates   window          N, 1:1      delete   30 d       Aggregate
    dead_letters    {prefix}.{ledger}.dead.letters as input        N, 1:1      delete   30 d       DeadLetter
    progress        {prefix}.{ledger}.progress     fold; halt/p..  one a lane  compact  last       Progress, Halt, ...
    snapshots       {prefix}.{ledger}.snapshots    fold/p/slot/n   one a lane  compact  last       SnapshotHead, chunks
    manifest        {prefix}.{ledger}.manifest     p               1           delete   unlimited  Commit
    jobs            {prefix}.{ledger}.jobs         job; ask/job    1           delete   30 d       Job, Ask

p is a partition, n the number of a chunk or "head"; docs/formats.md says who writes what. halt/p.. is also lock/p, of
Lock, and cut/p, of the Control record of the last CUT. All are LogAppendTime: the broker, not a client, dates their
records. N is fixed when the ledger begins.

GUARANTEE `compare` names every setting of the table that a found topic breaks; a stricter one (a longer retention, more
replicas, a larger limit) is no difference.
HAZARD settings are compared as they are now. Somebody who lowers and restores a retention between two checks has
deleted records without a trace here; the lane finds that from its offsets.
"""

from __future__ import annotations

import enum
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from .errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
#: Kafka's spelling of "for ever" and "any size".
UNLIMITED: Final = -1
#: The longest value that a ledger can be set to keep; a request of that size must fit the clients' queues.
VALUE_BYTES_MAX: Final = 64 * 1_048_576
#: What a request of a lane may be longer than the longest value: the rest of its entry, and as a rule the whole batch,
#: so that it leaves in one request (5,000 entries of 800 bytes).
ENTRY_HEADROOM_BYTES: Final = 4 * 1_048_576
#: Progress is a few hundred bytes a second, and read whole at a lane's start: segments that close within minutes.
_PROGRESS_SEGMENT_BYTES: Final = 8 * 1_048_576
#: Several snapshots of a usual state (tens of megabytes).
_SNAPSHOT_SEGMENT_BYTES: Final = 64 * 1_048_576
_COMPACTED_SEGMENT_MS: Final = 10 * _MINUTE_MS
#: A commit of the manifest is no longer than this: 3,000 files that come (2.5 KB each), 80,000 that go (105 B), or less
#: of both. A year of files by the hour, joined to one, is 8,784 that go.
COMMIT_BYTES_MAX: Final = 8 * 1_048_576
#: What Kafka puts around one record: the batch's header, the record's own, its key.
_FRAME_BYTES: Final = 65_536
_NAME_CHARACTERS_MAX: Final = 249
_NAME_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "._-")


class TopicNames(NamedTuple):
    """The eleven topics of a ledger."""

    input: str
    control: str
    sequenced: str
    drift_alerts: str
    drift_estimates: str
    aggregates: str
    dead_letters: str
    progress: str
    snapshots: str
    manifest: str
    jobs: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """What folds write to, in the transaction of their entries."""
        return self.drift_alerts, self.drift_estimates, self.aggregates, self.dead_letters


class Cleanup(enum.StrEnum):
    """Kafka's cleanup.policy."""

    DELETE = "delete"
    COMPACT = "compact"


class Count(enum.StrEnum):
    """What a topic has one partition for."""

    PARTITION = "partition"
    LANE = "lane"
    #: It has one.
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class Topic:
    """A row of the table."""

    role: str
    key: str
    record: str
    count: Count = Count.PARTITION
    cleanup: Cleanup = Cleanup.DELETE
    #: What the topic is created with.
    retention_ms: int = UNLIMITED
    #: Less than this is a difference; above it the operator is free.
    retention_ms_min: int = UNLIMITED
    #: Takes whole batches of a lane in one request, the longest value among them.
    holds_batches: bool = False
    #: Its longest record, where that is not Kafka's own limit for a topic.
    record_bytes_max: int | None = None
    #: The user's own topic: its size and durability are the user's choice.
    foreign: bool = False
    #: Given at creation and not compared: these cost, they do not lose.
    segment_bytes: int | None = None

    def name(self, prefix: str, ledger: str) -> str:
        """Name of our topic; the preset name of the input."""
        return f"{prefix}.{ledger}" if self.foreign else f"{prefix}.{ledger}.{self.role.replace('_', '.')}"


#: In the order of TopicNames.
TABLE: Final = (
    Topic("input", "source", "Event", foreign=True, retention_ms=7 * _DAY_MS, retention_ms_min=_DAY_MS),
    Topic(
        "control",
        "none; addressed by partition",
        "Control",
        retention_ms=30 * _DAY_MS,
        retention_ms_min=30 * _DAY_MS,
    ),
    Topic("sequenced", "as input", "LedgerEntry", holds_batches=True),
    Topic(
        "drift_alerts",
        "source",
        "DriftAlert",
        holds_batches=True,
        retention_ms=30 * _DAY_MS,
        retention_ms_min=30 * _DAY_MS,
    ),
    Topic(
        "drift_estimates",
        "source",
        "DriftEstimate",
        holds_batches=True,
        retention_ms=30 * _DAY_MS,
        retention_ms_min=30 * _DAY_MS,
    ),
    Topic(
        "aggregates",
        "DEFINITION/START/KEY",
        "Aggregate",
        holds_batches=True,
        retention_ms=30 * _DAY_MS,
        retention_ms_min=30 * _DAY_MS,
    ),
    Topic(
        "dead_letters",
        "as input",
        "DeadLetter",
        holds_batches=True,
        retention_ms=30 * _DAY_MS,
        retention_ms_min=30 * _DAY_MS,
    ),
    Topic(
        "progress",
        "fold; halt, lock or cut/PARTITION",
        "Progress, Halt, Lock, Control",
        count=Count.LANE,
        cleanup=Cleanup.COMPACT,
        segment_bytes=_PROGRESS_SEGMENT_BYTES,
    ),
    Topic(
        "snapshots",
        "fold/partition/slot/chunk",
        "SnapshotHead, chunks",
        count=Count.LANE,
        cleanup=Cleanup.COMPACT,
        segment_bytes=_SNAPSHOT_SEGMENT_BYTES,
    ),
    Topic("manifest", "partition", "Commit", count=Count.LEDGER, record_bytes_max=COMMIT_BYTES_MAX),
    Topic(
        "jobs",
        "job; ask/JOB",
        "Job, Ask",
        count=Count.LEDGER,
        retention_ms=30 * _DAY_MS,
        retention_ms_min=30 * _DAY_MS,
    ),
)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as a deployment wants it: what it is created with and compared against."""

    name: str
    topic: Topic
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as the broker describes it. config: every effective setting, defaults included."""

    name: str
    topic_id: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A found topic breaks the table.

    refused: going on could lose, double or renumber events, so no lane starts; otherwise it is a risk to know of.
    """

    topic: str
    setting: str
    wanted: str
    found: str
    remedy: str
    refused: bool

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, must be {self.wanted}. {self.remedy}"


def topic_names(prefix: str, ledger: str, input_topic: str = "") -> TopicNames:
    """Names of a ledger's topics; without input_topic the preset's. Raises BadInputError for one Kafka would refuse."""
    names = TopicNames(*(topic.name(prefix, ledger) for topic in TABLE))
    names = names._replace(input=input_topic or names.input)
    for name in names:
        if len(name) > _NAME_CHARACTERS_MAX or not name or not _NAME_CHARACTERS.issuperset(name):
            raise BadInputError(
                f"{name!r} is no topic name: Kafka allows 1 to {_NAME_CHARACTERS_MAX} letters, digits, dots, hyphens "
                "and underscores. Choose another prefix, ledger or input topic"
            )
    return names


def specs(
    names: TopicNames, partitions: int, lanes: int, replication_factor: int, max_value_bytes: int
) -> list[TopicSpec]:
    """The topics of a ledger, in the order of the table."""
    counts = {Count.PARTITION: partitions, Count.LANE: lanes, Count.LEDGER: 1}
    return [
        TopicSpec(
            name,
            topic,
            counts[topic.count],
            replication_factor,
            _config(topic, replication_factor, max_value_bytes),
        )
        for name, topic in zip(names, TABLE, strict=True)
    ]


def _config(topic: Topic, replication_factor: int, max_value_bytes: int) -> dict[str, str]:
    config = {
        "cleanup.policy": topic.cleanup.value,
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(topic.retention_ms),
        "retention.bytes": str(UNLIMITED),
        # A majority: what is acknowledged survives the loss of the others, and one of three may be away.
        "min.insync.replicas": str(replication_factor // 2 + 1),
        "unclean.leader.election.enable": "false",
    }
    if topic.holds_batches or topic.foreign:
        config["max.message.bytes"] = str(max_value_bytes + ENTRY_HEADROOM_BYTES)
    if topic.record_bytes_max is not None:
        config["max.message.bytes"] = str(topic.record_bytes_max + _FRAME_BYTES)
    if topic.segment_bytes is not None:
        config["segment.bytes"] = str(topic.segment_bytes)
        config["segment.ms"] = str(_COMPACTED_SEGMENT_MS)
        config["min.cleanable.dirty.ratio"] = "0.1"
    return config


def compare(spec: TopicSpec, found: FoundTopic | None) -> list[Difference]:
    """What of a found topic (None: there is none) breaks the table; empty where it is as it must be."""
    if found is None:
        remedy = "Run `driftledger topics create`; if the topic held data before, restore it from a copy first"
        return [Difference(spec.name, "topic", "there", "missing", remedy, refused=True)]
    differences = [
        *_compare_partitions(spec, found),
        *_compare_setting(
            spec, found, "cleanup.policy", "It must never be another: what the other policy removed is gone"
        ),
        *_compare_setting(
            spec,
            found,
            "message.timestamp.type",
            "Records appended until then carry their producers' time as the authority's",
        ),
        *_compare_retention(spec, found),
    ]
    if spec.topic.holds_batches or spec.topic.record_bytes_max is not None:
        differences += _compare_least(spec, found, "max.message.bytes", refused=True)
    if not spec.topic.foreign:
        differences += _compare_durability(spec, found)
    return differences


def _compare_partitions(spec: TopicSpec, found: FoundTopic) -> list[Difference]:
    if found.partitions == spec.partitions:
        return []
    if spec.topic.count is Count.LEDGER:
        remedy = "It has one in each ledger, and Kafka lowers no count: begin a new ledger under another name"
    else:
        setting = "lanes" if spec.topic.count is Count.LANE else "partitions"
        remedy = (
            f"Counts are fixed when the ledger begins. If it began with {found.partitions}, set {setting} = "
            f"{found.partitions} (driftledger.toml or DRIFTLEDGER_{setting.upper()}); if the topic was changed since, "
            "begin a new ledger under another name"
        )
    return [Difference(spec.name, "partitions", str(spec.partitions), str(found.partitions), remedy, refused=True)]


def _compare_setting(spec: TopicSpec, found: FoundTopic, key: str, consequence: str) -> list[Difference]:
    wanted, value = spec.config[key], found.config[key]
    if value == wanted:
        return []
    return [Difference(spec.name, key, wanted, value, f"{_alter(spec.name, key, wanted)}. {consequence}", refused=True)]


def _compare_retention(spec: TopicSpec, found: FoundTopic) -> list[Difference]:
    if spec.topic.cleanup is Cleanup.COMPACT:
        return []
    limits = [("retention.ms", spec.topic.retention_ms_min)]
    if not spec.topic.foreign:
        limits.append(("retention.bytes", UNLIMITED))
    return [
        Difference(
            spec.name,
            key,
            "unlimited (-1)" if least == UNLIMITED else f"at least {least}",
            found.config[key],
            f"{_alter(spec.name, key, str(least))}. What is older or beyond it is deleted",
            refused=spec.topic.retention_ms == UNLIMITED,
        )
        for key, least in limits
        if not _keeps(int(found.config[key]), least)
    ]


def _keeps(limit: int, least: int) -> bool:
    """Whether a limit keeps at least what is wanted; every negative limit is none."""
    return limit < 0 or 0 <= least <= limit


def _compare_least(spec: TopicSpec, found: FoundTopic, key: str, *, refused: bool) -> list[Difference]:
    wanted, value = spec.config[key], found.config[key]
    if int(value) >= int(wanted):
        return []
    return [Difference(spec.name, key, f"at least {wanted}", value, _alter(spec.name, key, wanted), refused=refused)]


def _compare_durability(spec: TopicSpec, found: FoundTopic) -> list[Difference]:
    differences = []
    if found.replication_factor < spec.replication_factor:
        wanted, value = f"at least {spec.replication_factor}", str(found.replication_factor)
        remedy = f"Add replicas of {spec.name} with kafka-reassign-partitions.sh, or lower replication_factor"
        differences.append(Difference(spec.name, "replication factor", wanted, value, remedy, refused=False))
    differences += _compare_least(spec, found, "min.insync.replicas", refused=False)
    unclean = "unclean.leader.election.enable"
    if found.config[unclean] != "false":
        remedy = f"{_alter(spec.name, unclean, 'false')}. An unclean election drops acknowledged records"
        differences.append(Difference(spec.name, unclean, "false", found.config[unclean], remedy, refused=False))
    return differences


def _alter(topic: str, key: str, value: str) -> str:
    return f"Run kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {key}={value}"


#: Java's Utils.murmur2: seed, multiplier and shift.
_SEED: Final = 0x9747_B28C
_MULTIPLIER: Final = 0x5BD1_E995
_SHIFT: Final = 24
_MASK_32: Final = 0xFFFF_FFFF


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (org.apache.kafka.common.utils.Utils), as an unsigned 32-bit number."""
    state = _SEED ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MULTIPLIER & _MASK_32
        word = (word ^ word >> _SHIFT) * _MULTIPLIER & _MASK_32
        state = state * _MULTIPLIER & _MASK_32 ^ word
    if whole < len(data):
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK_32
    state = (state ^ state >> 13) * _MULTIPLIER & _MASK_32
    return state ^ state >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition that Java's producers, and librdkafka's murmur2 partitioners, put a key on.

    Raises BadInputError when partitions is below 1.
    """
    if partitions < 1:
        raise BadInputError(f"a topic of {partitions} partitions takes no record: it must have at least 1")
    return (murmur2(key) & 0x7FFF_FFFF) % partitions
