"""The keeper of a lane, with lanes that do as they are told; no broker."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

from structlog.testing import capture_logs

from schemas.clock import SystemTime
from schemas.errors import DriftledgerError, HaltCode, HaltError, UnreachableError
from streams import lane_host
from streams.lane_host import LaneHost, State, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import pytest

    from streams.lane import Lane

_COMMITTED = cast("Any", object())


class _Batch:
    def release(self) -> None:
        """Nothing is held."""


class _Part:
    def __init__(self, number: int, position: int) -> None:
        self.number, self.position = number, position


class _Lane:
    """Opens at once, never has input, commits nothing."""

    stale = False

    def __init__(self) -> None:
        self.partitions = [0, 2]
        self.parts: dict[int, _Part] = {}
        self.halted: dict[int, HaltError] = {}
        self.abandoned = threading.Event()

    def open(self) -> None:
        """Its own."""
        self.parts = {p: _Part(p, 5) for p in self.partitions if p not in self.halted}

    def abandon(self) -> None:
        """Wanted no more."""
        self.abandoned.set()

    def fetch(self) -> None:
        """Nothing comes."""
        SystemTime().sleep_s(0.001)

    def commit(self, _batch: None) -> Any:
        """Nothing to write."""

    def close(self) -> None:
        """Nothing to end."""


class _Channel:
    """An agent that takes each piece at once."""

    def __init__(self) -> None:
        self._tasks: set[Any] = set()

    async def put(self, work: Any) -> None:
        """Have it committed."""
        task = asyncio.ensure_future(work.host.commit(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _host(
    make: Callable[[], Any],
    committed: list[int] | None = None,
    confirmed: Callable[[], bool] = lambda: True,
    channel: _Channel | None = None,
) -> LaneHost:
    def defect(error: BaseException) -> None:
        raise error

    around = Surroundings(
        make_lane=lambda _number: cast("Lane", make()),
        confirmed=confirmed,
        on_commit=lambda lane, turn: None if committed is None else committed.extend([lane] * len(turn)),
        on_defect=defect,
        bootstrap="nowhere:1",
        progress_topic="t.progress",
        worker="worker",
    )
    return LaneHost(0, around, channel or _Channel())


def _run(scenario: Coroutine[Any, Any, None]) -> list[Any]:
    with capture_logs() as lines:
        asyncio.run(asyncio.wait_for(scenario, 20))
    return [line["event"] for line in lines]


async def _until(predicate: Callable[[], object]) -> None:
    while not predicate():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0.002)


def test_a_lane_whose_locks_changed_is_opened_again() -> None:
    """Once it says so, with nothing of it used any more, and nothing counted as a failure."""
    lanes: list[_Lane] = []

    def make() -> _Lane:
        lanes.append(_Lane())
        return lanes[-1]

    async def scenario() -> None:
        host = _host(make)
        host.start()
        await _until(lambda: host.state is State.LIVE)
        lanes[0].stale = True
        await _until(lambda: len(lanes) > 1 and host.state is State.LIVE)
        assert host.lane is cast("Lane", lanes[1])
        assert host.error is None
        await host.stop()

    assert _run(scenario()) == ["lane_open", "lane_reopens", "lane_open"]


def test_a_stop_gives_up_a_lane_that_is_being_opened() -> None:
    """At once, and without calling it a failure."""
    opening = threading.Event()

    class Endless(_Lane):
        def open(self) -> None:
            opening.set()
            assert self.abandoned.wait(15)
            raise DriftledgerError("given up")

    async def scenario() -> None:
        host = _host(Endless)
        host.start()
        await _until(opening.is_set)
        await host.stop()
        assert host.state is State.STOPPED

    assert _run(scenario()) == ["lane_open_abandoned"]


def _failing(commits: list[bool], made: list[_Lane]) -> type[_Lane]:
    """Lanes that fail at commit where the list says False, and for ever when it has ended."""

    class Failing(_Lane):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def commit(self, _batch: None) -> Any:
            if not commits or not commits.pop(0):
                for part in self.parts.values():
                    part.position += 100
                raise UnreachableError("no answer")
            for part in self.parts.values():
                part.position += 1
            return _COMMITTED

    return Failing


def test_the_pauses_grow_until_a_turn_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a lane is no success; and what is behind a failed commit is no position."""
    monkeypatch.setattr(lane_host, "_BACKOFF_S", (0.01, 0.02, 0.03, 60.0))
    made: list[_Lane] = []
    committed: list[int] = []

    async def scenario() -> None:
        host = _host(_failing([False, False, False, True], made), committed)
        host.start()
        await _until(lambda: committed)
        await _until(lambda: len(made) == 7 and host.state is State.WAITING)
        assert host.positions == {0: 5, 2: 5}
        await host.stop()

    with capture_logs() as lines:
        asyncio.run(asyncio.wait_for(scenario(), 20))
    assert [line["attempt"] for line in lines if line["event"] == "lane_failed"] == [0, 1, 2, 0, 1, 2, 3]


def test_a_lane_goes_on_by_itself_while_events_come() -> None:
    """Batch after batch, for one way through the agent's channel; each commit counts, also those before a failure."""

    class Busy(_Lane):
        ways, batches = 0, 3

        def fetch(self) -> Any:
            self.batches -= 1
            return object() if self.batches >= 0 else super().fetch()

        def commit(self, batch: Any) -> Any:
            if batch is None:
                return None
            if self.batches == 0 and made.index(self) == 0:
                raise UnreachableError("no answer")
            return _COMMITTED

    class Counting(_Channel):
        async def put(self, work: Any) -> None:
            work.lane.ways += work.batch is not None
            await super().put(work)

    made: list[Any] = []
    committed: list[int] = []

    def make() -> Any:
        made.append(Busy())
        return made[-1]

    async def scenario() -> None:
        host = _host(make, committed, channel=Counting())
        host.start()
        await _until(lambda: len(committed) == 5)
        await host.stop()
        assert [lane.ways for lane in made] == [1, 1]

    assert _run(scenario()) == ["lane_open", "lane_failed", "lane_open"]


def test_a_stop_does_not_wait_for_the_end_of_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the wish to open again: with events without end a turn would last for ever here."""
    monkeypatch.setattr(lane_host, "TURN_S", 3_600)

    class Endless(_Lane):
        turns = False

        def fetch(self) -> Any:
            SystemTime().sleep_s(0.001)
            return cast("Any", _Batch())

        def commit(self, _batch: Any) -> Any:
            self.turns = True
            return _COMMITTED

    committed: list[int] = []
    made: list[Any] = []

    def make() -> Any:
        made.append(Endless())
        return made[-1]

    async def scenario() -> None:
        host = _host(make, committed)
        host.start()
        await _until(lambda: made and made[0].turns)
        host.reopen()
        await _until(lambda: len(made) == 2 and made[1].turns)
        await host.stop()

    assert _run(scenario()) == ["lane_open", "lane_open"]
    assert committed


def test_a_defect_leaves_the_reason_of_what_was_halted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the lane's other partitions are recorded halted for it."""
    recorded: list[HaltError] = []
    monkeypatch.setattr(lane_host, "record_halt", lambda _b, _t, _lane, halt, _worker: recorded.append(halt))
    cut = HaltError(2, HaltCode.INPUT_CUT, "records are gone", "restore them")

    class Defective(_Lane):
        def open(self) -> None:
            self.halted = {2: cut} | {halt.partition: halt for halt in recorded}
            if not recorded:
                raise ZeroDivisionError
            super().open()

    async def scenario() -> None:
        host = _host(Defective)
        host.start()
        await _until(lambda: host.state is State.LIVE)
        assert {p: halt.code for p, halt in host.halted.items()} == {0: HaltCode.LANE_FAILED, 2: HaltCode.INPUT_CUT}
        await host.stop()

    _run(scenario())
    assert [(halt.partition, halt.code) for halt in recorded] == [(0, HaltCode.LANE_FAILED)]


def test_who_may_have_been_replaced_halts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw a ledger that another owner wrote on: it asks the group first, and looks again."""
    recorded: list[HaltError] = []
    monkeypatch.setattr(lane_host, "record_halt", lambda _b, _t, _lane, halt, _worker: recorded.append(halt))
    monkeypatch.setattr(lane_host, "_BACKOFF_S", (0.01,))
    asked: list[bool] = []

    class Late(_Lane):
        def open(self) -> None:
            raise HaltError(0, HaltCode.LEDGER_TAIL_LOST, "the end is gone", "restore it")

    def confirmed() -> bool:
        asked.append(False)
        return False

    async def scenario() -> None:
        host = _host(Late, confirmed=confirmed)
        host.start()
        await _until(lambda: len(asked) > 3)
        await host.stop()

    _run(scenario())
    assert recorded == []
