"""The membership against a group client that does as it is told; the real one is in tests/broker."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from schemas.clock import SystemTime
from schemas.errors import DriftledgerError
from schemas.topics import topic_names
from streams import ownership
from streams.ownership import Ownership
from streams.settings import Settings


class _Consumer:
    """Assigns lanes at the first poll, revokes them at the end."""

    lanes: tuple[int, ...] = (0,)

    def __init__(self, _settings: dict[str, Any]) -> None:
        self._callbacks: dict[str, Any] = {}
        self._partitions = [TopicPartition("t", lane) for lane in self.lanes]
        self._assigned = False
        self.closed = False

    def subscribe(self, _topics: list[str], **callbacks: Any) -> None:
        """Join."""
        self._callbacks = callbacks

    def poll(self, _timeout_s: float) -> None:
        """Nothing but the assignment."""
        SystemTime().sleep_s(0.001)
        if not self._assigned:
            self._assigned = True
            self._callbacks["on_assign"](self, self._partitions)

    def close(self) -> None:
        """Leave."""
        self.closed = True
        self._callbacks["on_revoke"](self, self._partitions)

    def list_topics(self, topic: str, _timeout_s: float) -> Any:
        """Eight partitions."""
        described = type("Topic", (), {"partitions": dict.fromkeys(range(8))})
        return type("Metadata", (), {"topics": {topic: described}})

    def assignment(self) -> list[TopicPartition]:
        """What was assigned."""
        return self._partitions

    def incremental_assign(self, _partitions: Any) -> None:
        """Take them."""

    def incremental_unassign(self, _partitions: Any) -> None:
        """Give them."""

    def pause(self, _partitions: Any) -> None:
        """Read nothing."""

    def commit(self, **_: Any) -> None:
        """Take any offset."""


def _nothing(_lanes: list[int]) -> None:
    pass


def _member(monkeypatch: pytest.MonkeyPatch, consumer: type[_Consumer], **callbacks: Any) -> Ownership:
    monkeypatch.setattr(ownership, "Consumer", consumer)
    given = {"on_assigned": _nothing, "on_revoked": _nothing, "on_lost": _nothing, "on_failed": lambda _error: None}
    names = topic_names("p", "l", "p.events")
    member = Ownership(Settings(lanes=4), "nowhere:1", names, positions=dict, **{**given, **callbacks})
    member.start()
    return member


class _Foreign(_Consumer):
    lanes = (1, 5)


def _refuse(_lanes: list[int]) -> None:
    raise KeyError(1)


@pytest.mark.parametrize(
    ("consumer", "assigned", "error"),
    [(_Consumer, _refuse, KeyError), (_Foreign, _nothing, DriftledgerError)],
)
def test_what_ends_the_membership_is_told(
    monkeypatch: pytest.MonkeyPatch, consumer: type[_Consumer], assigned: Any, error: type[Exception]
) -> None:
    """And the group is left, so that another worker gets the lanes."""
    told: list[Exception] = []
    failed, left = threading.Event(), threading.Event()

    def on_failed(found: Exception) -> None:
        told.append(found)
        failed.set()

    def on_revoked(_lanes: list[int]) -> None:
        left.set()

    member = _member(monkeypatch, consumer, on_assigned=assigned, on_failed=on_failed, on_revoked=on_revoked)
    assert failed.wait(10)
    assert not member.runs
    assert left.wait(10)
    member.stop()
    assert [type(found) for found in told] == [error]
    if error is DriftledgerError:
        assert "p.l.progress has 8 partitions, one for each lane, but lanes=4" in str(told[0])


def test_who_asks_while_lanes_are_taken_back_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No: a lane that waited for the answer would keep the group waiting."""
    monkeypatch.setattr(ownership, "_CONFIRM_TIMEOUT_S", 60.0)
    answers: list[bool] = []

    def on_revoked(_lanes: list[int]) -> None:
        asking = threading.Thread(target=lambda: answers.append(member.confirmed()))
        asking.start()
        asking.join(10)

    member = _member(monkeypatch, _Consumer, on_revoked=on_revoked)
    assert member.runs
    assert member.confirmed()
    member.stop()
    assert not member.runs
    assert answers == [False]
