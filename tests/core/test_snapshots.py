"""The snapshot writer against a producer that fails as Kafka's can; whole snapshots are read back on a broker."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from schemas.clock import SystemTime
from streams import snapshots
from streams.snapshots import Snapshot, SnapshotWriter

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize("first", [_Defect, _Fatal, _Undelivered])
def test_what_fails_once_is_written_the_next_time_with_another_producer(
    monkeypatch: pytest.MonkeyPatch, wait_until: Any, first: type[_Producer]
) -> None:
    """The thread outlives any error, and the slot of a snapshot that failed is used again."""
    writer, kafka = _writer(monkeypatch, first)
    assert writer.offer([_SNAPSHOT])
    wait_until(writer.ready, 10, "free again")
    assert writer.offer([_SNAPSHOT])
    writer.close()
    assert kafka.made[1].keys == ["judge/0/1/0", "judge/0/1/head"]


def test_a_busy_writer_takes_nothing_and_closes_in_time(monkeypatch: pytest.MonkeyPatch, wait_until: Any) -> None:
    """Where the broker is away; what it was given is given up, and its thread ends."""
    monkeypatch.setattr(snapshots, "_CLOSE_TIMEOUT_S", 0.1)
    writer, kafka = _writer(monkeypatch, _Away)
    assert writer.ready()
    assert writer.offer([_SNAPSHOT, _SNAPSHOT])
    assert not writer.ready()
    assert not writer.offer([_SNAPSHOT])
    writer.close()
    wait_until(lambda: "snapshots-0" not in {t.name for t in threading.enumerate()}, 10, "its thread ends")
    assert [producer.keys for producer in kafka.made] == [["judge/0/1/0", "judge/0/1/head"]]


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
    writer.offer([_SNAPSHOT])
    writer.close()
    assert len(kafka.made) == 1
    assert writer._slots == {("judge", 0): 0}
