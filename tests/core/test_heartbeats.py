"""Heartbeats go on after an error that ends a producer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from schemas.topics import topic_names
from streams import heartbeats
from streams.heartbeats import Heart

if TYPE_CHECKING:
    import pytest


class _Producer:
    """The first one takes nothing, for a fatal error."""

    made = 0

    def __init__(self, _settings: dict[str, Any]) -> None:
        type(self).made += 1
        self._dead = self.made == 1

    def produce(self, _topic: str, _value: bytes, partition: int, on_delivery: Any) -> None:
        """Queue it."""
        del on_delivery
        if self._dead:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        _beaten.append(partition)

    def flush(self, _timeout_s: float) -> int:
        """All is delivered."""
        return 0


class _Log:
    def __init__(self, _bootstrap: str) -> None:
        pass

    def ends(self, _topic: str, partitions: list[int]) -> dict[int, int]:
        """Empty ones."""
        return dict.fromkeys(partitions, 0)


_beaten: list[int] = []


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
