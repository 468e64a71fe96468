"""What lanes publish while somebody watches, and that they do nothing while nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.clock import SimulatedTime, using
from streams import live_boards
from streams.board_kernel import B_LAST_SEVERITY
from streams.live_boards import LiveBoards
from tests.core.judge_oracle import START_MS
from tests.core.live_lane import LiveLane, Sent

if TYPE_CHECKING:
    import pytest

    from streams.boards import Board


def _sent(count: int, at_ms: int, source: str = "s") -> list[Sent]:
    return [Sent(f"{source}{number}", 0, at_ms) for number in range(count)]


def _watched() -> tuple[LiveBoards, LiveLane, list[int]]:
    boards, told = LiveBoards(), list[int]()
    boards.on_news = lambda: told.append(boards.version)
    boards.watch()
    return boards, LiveLane(2, boards), told


def test_while_nobody_watches_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane only looks whether somebody does."""

    def make(*_: object) -> Board:
        raise AssertionError

    monkeypatch.setattr(live_boards, "make_board", make)
    boards = LiveBoards()
    LiveLane(1, boards).send(0, _sent(3, START_MS))
    assert (boards.boards(), boards.version) == ({}, 0)


def test_who_begins_to_watch_an_idle_lane_sees_it_at_once() -> None:
    """Nothing need come first."""
    boards = LiveBoards()
    lane = LiveLane(2, boards)
    lane.send(1, _sent(3, START_MS))
    boards.watch()
    lane.show()
    assert {p: len(board.rows) for p, board in boards.boards().items()} == {0: 0, 1: 3}


def test_a_board_is_made_twice_a_second_at_most() -> None:
    """And the last change is never left out, once a lane looks again."""
    time = SimulatedTime()
    with using(time):
        boards, lane, told = _watched()
        lane.send(0, _sent(3, START_MS))
        for number in range(4):
            time.sleep_s(0.1)
            lane.send(0, _sent(1, START_MS + number, "more"))
        assert boards.boards()[0].index == 3
        time.sleep_s(0.1)
        lane.show()
        assert boards.boards()[0].index == 7
        version = boards.version
        time.sleep_s(10)
        lane.show()
    assert boards.version == version
    assert told == sorted(told)


def test_events_of_a_source_that_is_looked_at_come_in_order_and_are_bounded() -> None:
    """Those since it is looked at; of others none are kept."""
    boards, lane, _ = _watched()
    lane.send(0, _sent(2, START_MS))
    boards.follow(0, 2)
    boards.follow(0, 2)
    for batch in range(30):
        lane.send(0, [Sent(f"s{number % 2}", 1_000, START_MS + batch) for number in range(30)])
    events = boards.events(0, 2)
    assert len(events) == live_boards.EVENTS_MAX
    assert [event.sequence for event in events] == sorted({event.sequence for event in events})
    assert events[-1].sequence == lane.parts[0].sequence
    assert boards.events(0, 1) == ()
    boards.leave(0, 2)
    assert boards.events(0, 2)
    boards.leave(0, 2)
    lane.send(0, _sent(2, START_MS + 99))
    assert boards.events(0, 2) == ()


def test_a_lane_that_closes_takes_its_boards_along() -> None:
    """Another worker has them now."""
    boards, lane, told = _watched()
    lane.send(0, _sent(2, START_MS))
    news = len(told)
    boards.drop([0])
    assert list(boards.boards()) == [1]
    assert len(told) == news + 1


def test_what_was_seen_is_forgotten_when_nobody_watches() -> None:
    """Who comes later sees no event of before: it may be days old."""
    boards, lane, _ = _watched()
    lane.send(0, _sent(2, START_MS))
    boards.unwatch()
    assert boards.boards() == {}
    boards.watch()
    lane.show()
    board = boards.boards()[0]
    assert (board.rows[:, B_LAST_SEVERITY] == -1).all()
