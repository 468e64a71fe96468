"""The snapshot writer against a producer that fails as Kafka's can; whole snapshots are read back on a broker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import lz4.frame
import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from schemas.clock import SystemTime
from streams import snapshots
from streams.fold import FoldError
from streams.log import Bounds
from streams.snapshots import Offered, Snapshot, SnapshotWriter, pack, read_snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streams.log import Log
    from streams.snapshots import Packed

_SNAPSHOT = Snapshot("judge", 1, 0, 7, bytes(32), b"state")


class _Producer:
    """Takes everything; a test replaces what it wants to fail."""

    def __init__(self, _settings: dict[str, Any]) -> None:
        self.keys: list[str] = []
        self.taken: list[Callable[[Any, Any], None]] = []

    def produce(self, _topic: str, _value: bytes, key: str, _partition: int, on_delivery: Any) -> None:
        """Queue it."""
        self.keys.append(key)
        self.taken.append(on_delivery)

    def flush(self, _timeout_s: float) -> int:
        """Deliver all of it."""
        for delivered in self.taken:
            delivered(None, None)
        self.taken = []
        return 0


class _Kafka:
    """Makes the producers: the first from `first`, the others good ones."""

    def __init__(self, first: type[_Producer]) -> None:
        self._first = first
        self.made: list[_Producer] = []

    def __call__(self, settings: dict[str, Any]) -> _Producer:
        self.made.append((_Producer if self.made else self._first)(settings))
        return self.made[-1]


class _Defect(_Producer):
    def produce(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("anything")


class _Fatal(_Producer):
    def produce(self, *_: Any, **__: Any) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))


class _Undelivered(_Producer):
    def flush(self, _timeout_s: float) -> int:
        for delivered in self.taken:
            delivered(KafkaError(KafkaError._MSG_TIMED_OUT), None)
        return 0


class _Away(_Producer):
    def flush(self, timeout_s: float) -> int:
        SystemTime().sleep_s(timeout_s)
        return len(self.taken)


def _writer(monkeypatch: pytest.MonkeyPatch, first: type[_Producer]) -> tuple[SnapshotWriter, _Kafka]:
    kafka = _Kafka(first)
    monkeypatch.setattr(snapshots, "Producer", kafka)
    return SnapshotWriter("nowhere:1", "t", 0), kafka


def _offer(writer: SnapshotWriter, *taken: Snapshot) -> bool:
    return writer.offer(lambda: Offered(list(taken or [_SNAPSHOT])))


def _never() -> Offered:
    raise AssertionError("taken though it is not its turn")


@pytest.mark.parametrize("first", [_Defect, _Fatal, _Undelivered])
def test_what_fails_once_is_written_the_next_time_with_another_producer(
    monkeypatch: pytest.MonkeyPatch, wait_until: Any, first: type[_Producer]
) -> None:
    """The thread outlives any error, and the slot of a snapshot that failed is used again."""
    writer, kafka = _writer(monkeypatch, first)
    assert _offer(writer)
    wait_until(lambda: _offer(writer), 10, "its turn again")
    writer.close()
    assert kafka.made[1].keys == ["judge/0/1/0", "judge/0/1/head"]


def test_a_busy_writer_takes_nothing_and_closes_in_time(monkeypatch: pytest.MonkeyPatch, wait_until: Any) -> None:
    """Where the broker is away; what it was given is given up, and its thread ends."""
    monkeypatch.setattr(snapshots, "_CLOSE_TIMEOUT_S", 0.1)
    writer, kafka = _writer(monkeypatch, _Away)
    other = SnapshotWriter("nowhere:1", "t", 1)
    assert _offer(writer, _SNAPSHOT, _SNAPSHOT)
    for busy in (writer, other):
        assert not busy.offer(_never)
    writer.close()
    wait_until(lambda: not writer._thread.is_alive(), 10, "its thread ends")
    assert _offer(other)
    other.close()
    assert [producer.keys for producer in kafka.made] == [["judge/0/1/0", "judge/0/1/head"]] * 2


def test_who_takes_nothing_or_fails_gives_the_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that others write."""
    writer, kafka = _writer(monkeypatch, _Producer)
    assert not writer.offer(lambda: None)
    with pytest.raises(ZeroDivisionError):
        writer.offer(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert _offer(writer)
    writer.close()
    assert len(kafka.made) == 1


def test_a_large_state_has_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Than the time a small one is given up after."""
    monkeypatch.setattr(snapshots, "_DELIVERY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(snapshots, "_BYTES_PER_S", 1)

    class Slow(_Producer):
        rounds = 3

        def flush(self, timeout_s: float) -> int:
            self.rounds -= 1
            SystemTime().sleep_s(0.01)
            return self.rounds or super().flush(timeout_s)

    writer, kafka = _writer(monkeypatch, Slow)
    assert _offer(writer)
    writer.close()
    assert len(kafka.made) == 1
    assert writer._slots == {("judge", 0): 0}


# --------------------------------------------------------------------------------------------------------- what stands


class _Record:
    def __init__(self, offset: int, key: str, value: bytes) -> None:
        self._offset, self._key, self._value = offset, key, value

    def offset(self) -> int:
        """Its place."""
        return self._offset

    def key(self) -> bytes:
        """In bytes."""
        return self._key.encode()

    def value(self) -> bytes:
        """As it was written."""
        return self._value


class _Topic:
    """One partition of a snapshots topic."""

    def __init__(self) -> None:
        self.records: list[_Record] = []

    def append(self, key: str, value: bytes) -> None:
        """At its end."""
        self.records.append(_Record(len(self.records), key, value))

    def write(self, packed: Packed) -> None:
        """All of it."""
        for key, value in packed.records():
            self.append(key, value)

    def bounds(self, _topic: str, _partition: int) -> Bounds:
        """Nothing was deleted."""
        return Bounds(0, len(self.records), len(self.records))

    def scan(self, _topic: str, _partition: int, begin: int, end: int) -> Iterator[_Record]:
        """In order."""
        yield from self.records[begin:end]

    def read(self, *wanted: Any) -> list[Packed]:
        """As a lane or a reader does."""
        return read_snapshots(cast("Log", self), "t", 0, *wanted)


@pytest.mark.parametrize(
    ("wanted", "folds", "partitions"),
    [
        ((), {"judge", "derive", "store"}, {1, 11}),
        ((("judge", "store"), 1), {"judge", "store"}, {1}),
        ((("derive",),), {"derive"}, {1, 11}),
        ((None, 11), {"judge", "derive", "store"}, {11}),
    ],
)
def test_a_reader_gets_what_it_asks_for_and_nothing_is_unpacked_before(
    monkeypatch: pytest.MonkeyPatch, wanted: tuple[Any, ...], folds: set[str], partitions: set[int]
) -> None:
    """Newest first; what is of others is not even looked at, whole or not."""
    topic = _Topic()
    for fold in ("judge", "derive", "store"):
        for partition in (1, 11):
            for index in (7, 8):
                topic.write(pack(replace(_SNAPSHOT, fold=fold, partition=partition, index=index), index % 2))
    topic.append("other/2/0/head", b"no head")
    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(lz4.frame, "decompress", lambda _data: pytest.fail("nobody asked for a state"))
        found = topic.read(*wanted)
    assert {packed.fold for packed in found} == folds
    assert {packed.partition for packed in found} == partitions
    assert [packed.index for packed in found] == sorted([7, 8] * (len(found) // 2), reverse=True)
    assert len(found) == 2 * len(folds) * len(partitions)
    assert all(packed.unpack() == _SNAPSHOT.state for packed in found)
    assert [line["slot"] for line in lines] == ([] if wanted else ["other/2/0"])


@pytest.mark.parametrize(
    "changes", [{"chunks": [b"no frame"]}, {"chunks": []}, {"length": 4}, {"state_hash": bytes(32)}]
)
def test_what_is_damaged_is_told_when_it_is_unpacked(changes: dict[str, Any]) -> None:
    """With its place, once for each try; so is a state that its fold refuses."""
    packed = pack(_SNAPSHOT, 1)
    damaged = replace(packed, **changes)
    with pytest.raises(FoldError):
        damaged.unpack()

    def refuse(_data: bytes) -> int:
        raise FoldError("not of mine")

    with capture_logs() as lines:
        assert (packed.loaded(len), packed.is_whole()) == (len(_SNAPSHOT.state), True)
        assert (damaged.loaded(len), damaged.is_whole(), packed.loaded(refuse)) == (None, False, None)
    assert [(line["event"], line["slot"], line["index"]) for line in lines] == 3 * [
        ("snapshot_unusable", "judge/0/1", 7)
    ]


@pytest.mark.parametrize("index", [8, 9])
@pytest.mark.parametrize(("held", "first"), [([0], 1), ([1], 0), ([0, 1], 1), ([1, 0], 0)])
def test_a_writer_begins_with_the_slot_of_what_may_go(
    monkeypatch: pytest.MonkeyPatch, held: list[int], first: int, index: int
) -> None:
    """Whatever the index is; what it may not lose is named first."""
    kafka = _Kafka(_Producer)
    monkeypatch.setattr(snapshots, "Producer", kafka)
    others = [pack(replace(_SNAPSHOT, **other), first) for other in ({"partition": 1}, {"fold": "derive"})]
    writer = SnapshotWriter("nowhere:1", "t", 0, [*others, *(pack(_SNAPSHOT, slot) for slot in held)])
    assert _offer(writer, replace(_SNAPSHOT, index=index), replace(_SNAPSHOT, index=index + 1))
    writer.close()
    heads = [key for key in kafka.made[0].keys if key.endswith("head")]
    assert heads == [f"judge/0/{first}/head", f"judge/0/{1 - first}/head"]


def test_starts_that_all_die_half_way_leave_the_newest_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many, at whatever index."""
    topic = _Topic()

    class Dying(_Producer):
        def produce(self, *arguments: Any, **_: Any) -> None:
            _, value, key, _ = arguments
            if key.endswith("head"):
                raise KafkaException(KafkaError(KafkaError._FATAL))
            topic.append(key, value)

    monkeypatch.setattr(snapshots, "Producer", Dying)
    for index, slot in ((5, 0), (6, 1)):
        topic.write(pack(replace(_SNAPSHOT, index=index), slot))
    with capture_logs():
        for index in (7, 8, 9, 10):
            writer = SnapshotWriter("nowhere:1", "t", 0, topic.read())
            assert _offer(writer, replace(_SNAPSHOT, index=index))
            writer.close()
            assert [(packed.index, packed.is_whole()) for packed in topic.read()] == [(6, True)]
