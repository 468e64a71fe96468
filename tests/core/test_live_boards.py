"""What lanes publish while somebody watches, and that they do nothing while nobody does."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from schemas.clock import SimulatedTime, using
from schemas.topics import topic_names
from streams import live_boards
from streams.board_kernel import B_LAST_SEVERITY
from streams.boards import make_board
from streams.lane import Lane
from streams.lane_part import Part
from streams.live_boards import LiveBoards
from streams.sequence import Head
from streams.settings import Settings
from tests.core.judge_oracle import START_MS
from tests.core.live_lane import LiveLane, Sent

if TYPE_CHECKING:
    from pathlib import Path

    from streams.boards import Board
    from streams.folds import States


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


def _broken(monkeypatch: pytest.MonkeyPatch, broken: list[int]) -> None:
    """Boards of these partitions cannot be made, as long as they are in the list."""

    def fail(partition: int, *rest: Any) -> Board:
        if partition in broken:
            raise IndexError(f"row 7 of {partition}")
        return make_board(partition, *rest)

    monkeypatch.setattr(live_boards, "make_board", fail)


def test_a_board_that_fails_takes_nothing_else_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not shown and said to be not, tried again later each time, and shown once it can be."""
    time, broken, tries = SimulatedTime(), [0], list[float]()
    _broken(monkeypatch, broken)
    with using(time), capture_logs() as logged:
        boards, lane, told = _watched()
        for tick in range(100):
            lane.send(tick % 2, _sent(3, START_MS + tick))
            if len(logged) > len(tries):
                tries.append(tick / 10)
            assert list(boards.boards()) == [1]
            assert boards.missing() == {0: "IndexError('row 7 of 0')"}
            time.sleep_s(0.1)
        assert tries == pytest.approx([0.0, 1.0, 3.0, 8.0])
        assert {(line["event"], line["partition"]) for line in logged} == {("board_failed", 0)}
        assert "row 7 of 0" in logged[0]["trace"]
        assert told
        broken.clear()
        time.sleep_s(10)
        lane.send(0, _sent(3, START_MS + 200))
        assert {p: board.index for p, board in boards.boards().items()} == {0: 153, 1: 150}
        assert boards.missing() == {}
        assert lane.parts[0].index == 153


def test_what_fails_in_a_step_is_no_error_of_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one of whoever is told of news; who begins to watch anew begins with all partitions."""
    boards, lane, _ = _watched()
    lane.send(0, _sent(1, START_MS))
    with monkeypatch.context() as patched:
        patched.setattr(live_boards, "note_rows", lambda *_: 1 // 0)
        lane.send(0, _sent(1, START_MS))
    assert (list(boards.boards()), list(boards.missing())) == ([1], [0])
    boards.unwatch()
    boards.watch()
    assert boards.missing() == {}

    def deaf() -> None:
        raise OSError("nobody there")

    boards.on_news = deaf
    lane.send(0, _sent(1, START_MS))
    boards.drop([0])


def test_a_lane_outlives_its_boards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a real lane calls after each transaction."""
    _broken(monkeypatch, [0])
    boards, judged, _ = _watched()
    settings = Settings(data_dir=tmp_path)
    names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
    lane = Lane(settings, "nowhere:1", names, 0, [0], None, worker="w", live=boards)
    state = cast("States", SimpleNamespace(judge=judged.parts[0].state))
    lane.parts[0] = Part(0, Head(), 0, -1, states=state)
    lane._show()
    assert list(boards.missing()) == [0]


def test_who_leaves_while_events_are_published_leaves_none_behind() -> None:
    """The next one to look at the source would take them for what came since."""
    boards, lane, _ = _watched()
    lane.send(0, _sent(1, START_MS))
    boards.follow(0, 1)

    class Interrupted(dict[tuple[int, int], tuple[Any, ...]]):
        """Somebody leaves just after a lane has looked whether he is there."""

        def get(self, *key: Any) -> Any:
            found = super().get(*key)
            leaving = threading.Thread(target=boards.leave, args=(0, 1))
            leaving.start()
            leaving.join(0.1)
            threads.append(leaving)
            return found

    threads: list[threading.Thread] = []
    boards._events = Interrupted(boards._events)
    lane.send(0, _sent(1, START_MS + 1))
    for thread in threads:
        thread.join()
    assert dict(boards._events) == {}


def test_two_lanes_that_publish_at_once_are_both_heard() -> None:
    """Else a page would take the second for what it has already."""
    others: list[threading.Thread] = []

    class Slow(LiveBoards):
        """The second lane publishes between a look at the version and its rise."""

        @property
        def version(self) -> int:
            """Rises with everything that is published."""
            found = self._version
            if found == 1 and not others:
                others.append(threading.Thread(target=lane.send, args=(1, _sent(1, START_MS))))
                others[0].start()
                others[0].join(0.1)
            return found

        @version.setter
        def version(self, value: int) -> None:
            self._version = value

    boards = Slow()
    lane = LiveLane(2, boards)
    boards.watch()
    boards.version = 1
    lane.send(0, _sent(1, START_MS))
    others[0].join()
    assert boards._version == 3
