"""Heartbeats go on after an error that ends a producer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from schemas.topics import topic_names
from streams import heartbeats
from streams.control import decode_control
from streams.heartbeats import Heart

if TYPE_CHECKING:
    import pytest


class _Producer:
    """The first one takes nothing, for a fatal error."""

    made = 0

    def __init__(self, _settings: dict[str, Any]) -> None:
        type(self).made += 1
        self._dead = self.made == 1

    def produce(self, _topic: str, value: bytes, partition: int, on_delivery: Any) -> None:
        """Queue it, and acknowledge it."""
        if self._dead:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        _beaten.append(partition)
        _bodies.append(decode_control(value)[1])
        on_delivery(None, _Delivered(partition))

    def flush(self, _timeout_s: float) -> int:
        """All is delivered."""
        return 0


class _Delivered:
    """A record that the broker has appended, at 7,000 and the number of heartbeats so far."""

    def __init__(self, partition: int) -> None:
        self.partition = lambda: partition
        self.timestamp = lambda: (1, 7_000 + len(_bodies))


class _Log:
    def __init__(self, _bootstrap: str) -> None:
        pass

    def ends(self, _topic: str, partitions: list[int]) -> dict[int, int]:
        """Of five records each."""
        return dict.fromkeys(partitions, 5)


_beaten: list[int] = []
_bodies: list[dict[str, Any]] = []


def test_a_fatal_error_costs_one_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one has a new producer, and keeps it."""
    monkeypatch.setattr(heartbeats, "Producer", _Producer)
    monkeypatch.setattr(heartbeats, "Log", _Log)
    heart = Heart("nowhere:1", topic_names("p", "l", "p.events"), "worker")
    heart.beat([0, 1])
    assert _beaten == []
    heart.beat([0, 1])
    heart.beat([1])
    assert _beaten == [0, 1, 1]
    assert _Producer.made == 2


def test_a_heartbeat_tells_the_round_trip_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its append time as a proof; of a partition whose input is kept back it proves nothing, and names no end."""
    monkeypatch.setattr(_Producer, "made", 1)
    monkeypatch.setattr(heartbeats, "Producer", _Producer)
    monkeypatch.setattr(heartbeats, "Log", _Log)
    _bodies.clear()
    heart = Heart("nowhere:1", topic_names("p", "l", "p.events"), "worker")
    heart.beat([0])
    heart.beat([0], locked=[0])
    heart.beat([0])
    assert [body["predecessor_appended_ms"] for body in _bodies] == [None, None, 7_002]
    assert [body["input_end_offset"] for body in _bodies] == [5, 0, 5]
    first, *trips = [body["round_trip"] for body in _bodies]
    assert first is None
    assert [trip["appended_ms"] for trip in trips] == [7_001, 7_002]
    for trip, before, after in zip(trips, _bodies, _bodies[1:], strict=False):
        assert before["worker_us"] <= trip["acked_us"] <= after["worker_us"]
