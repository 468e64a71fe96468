"""What a worker shows of itself, without a broker."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import ClientSession
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from lifecycle.job_run import HandedOnError
from schemas.errors import HaltCode, HaltError, UnreachableError
from streams import app as module
from streams import metrics
from streams.alert_kernel import FIRST
from streams.api import Api, health, page_status
from streams.app import Worker, build
from streams.guardian import Guard
from streams.guardian_kernel import GUARD_STATE
from streams.lane_host import State
from streams.lane_part import Part
from streams.live_boards import LiveBoards
from streams.locks import Lock
from streams.sequence import Head
from streams.settings import Settings
from tests.core.live_lane import LiveLane

if TYPE_CHECKING:
    from pathlib import Path

    from streams.folds import States
    from streams.lane_host import LaneHost
    from streams.log import Log
    from streams.ownership import Ownership


class _Log:
    """100 offsets in each partition; everything is kept for ever."""

    def ends(self, _topic: str, partitions: Any) -> dict[int, int]:
        """Of the input."""
        return dict.fromkeys(partitions, 100)

    def retention_ms(self, _topic: str) -> int:
        """For ever."""
        return -1


class _Host:
    def __init__(self, positions: dict[int, int]) -> None:
        self.state, self.lane, self.error, self.halted = State.LIVE, None, None, dict[int, Any]()
        self.positions = positions


class _Member:
    runs = True


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Not started."""
    monkeypatch.setattr(module, "deployment", lambda *_: None)
    app = build(Settings(data_dir=tmp_path), "nowhere:1")
    return cast("Worker", app.boot_strategy.worker)  # type: ignore[attr-defined]


def _lags() -> dict[str, float]:
    lines = generate_latest(metrics.REGISTRY).decode().splitlines()
    found = [line for line in lines if line.startswith("driftledger_input_lag{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def test_the_lag_of_a_closed_lane_is_shown_and_that_of_another_worker_is_not(worker: Worker) -> None:
    """A host without a lane still knows where its partitions stood."""
    log = cast("Log", _Log())
    hosts = {0: _Host({0: 90, 2: 40}), 1: _Host({1: 100})}
    worker.hosts = cast("dict[int, LaneHost]", hosts)
    worker._look(log)
    assert _lags() == {"0": 10.0, "1": 0.0, "2": 60.0}
    del hosts[0]
    worker._look(log)
    assert _lags() == {"1": 0.0}
    del hosts[1]
    worker._look(log)
    assert _lags() == {}


async def _pages(worker: Worker, *paths: str) -> list[tuple[int, str]]:
    api = Api(worker, 0)
    await api.start()
    assert api._runner is not None
    host, port = api._runner.addresses[0][:2]
    found = []
    async with ClientSession(f"http://{host}:{port}") as client:
        for path in paths:
            async with client.get(path) as answer:
                found.append((answer.status, await answer.text()))
    await api.stop()
    return found


def test_the_first_page_names_the_others(worker: Worker) -> None:
    """Whoever knows only the port finds the rest; no metric has a second series that tells when it was made."""
    metrics.DEAD.labels("EMPTY")
    index, measured, unknown = asyncio.run(_pages(worker, "/", "/metrics", "/elsewhere"))
    assert index == (200, "/health\n/metrics\n")
    assert measured[0] == 200
    assert "driftledger_dead_letters_total" in measured[1]
    assert "_created" not in measured[1]
    assert unknown == (404, '{"error":"there is no \'/elsewhere\'. GET / lists the paths"}\n')


def test_what_a_path_is_not_for_is_said(worker: Worker) -> None:
    """As every other error: a line of JSON."""
    api = Api(worker, 0)

    async def posted() -> tuple[int, str | None, str]:
        await api.start()
        try:
            async with ClientSession(api.address) as client, client.post("/health") as answer:
                return answer.status, answer.headers.get("Allow"), await answer.text()
        finally:
            await api.stop()

    status, allow, text = asyncio.run(posted())
    assert (status, allow) == (405, "GET, HEAD")
    assert text == '{"error":"/health is not for POST. Send GET, HEAD"}\n'


def test_an_answer_in_json_is_a_line(worker: Worker) -> None:
    """So that a shell's prompt stands below it."""
    [(_, text)] = asyncio.run(_pages(worker, "/health"))
    assert json.loads(text)["worker"] == worker.worker_id
    assert text.endswith("}\n")


def test_a_worker_is_healthy_without_lanes_but_not_without_its_membership(worker: Worker) -> None:
    """Another worker may own all lanes; a group nobody asks hands out none."""
    assert not health(worker)["healthy"]
    member = _Member()
    worker._ownership = cast("Ownership", member)
    assert health(worker)["healthy"]
    member.runs = False
    assert not health(worker)["healthy"]
    assert health(worker)["member"] is False


def test_a_worker_that_cannot_say_where_it_is_says_so_later(worker: Worker, tmp_path: Path) -> None:
    """A data folder that refuses the file, as a full disk does, keeps no lane from its work."""
    (tmp_path / "workers").write_text("no folder")
    worker._announce()
    assert worker._announced is None
    (tmp_path / "workers").unlink()
    worker._announce()
    assert worker._announced is not None
    assert worker._announced.exists()


def test_the_page_is_told_of_each_partition(worker: Worker, tmp_path: Path) -> None:
    """How far it is and what waits; a halted one has no row, but stands above them."""
    running = {"w": SimpleNamespace(version=1, suspended=None), "x": SimpleNamespace(version=2, suspended="too much")}
    lock = Lock(2, None, ("put",), 7, 1_790_000_000_000, 3, "ann", "service")
    locks = {2: {None: lock}, 0: {}}
    states = {
        p: SimpleNamespace(derive=SimpleNamespace(running=running), judge=SimpleNamespace(locks=locks[p]))
        for p in locks
    }
    parts = {p: Part(p, Head(index=20 + p, sequence=10 + p), 30 + p, 0, p, cast("Any", states[p])) for p in (2, 0)}
    hosts: dict[int, Any] = {0: _Host({0: 90, 2: 40})}
    hosts[0].lane = SimpleNamespace(parts=parts, hot=None)
    hosts[0].halted = {1: HaltError(1, HaltCode.INPUT_CUT, "gone", "restore it")}
    worker.hosts = cast("dict[int, LaneHost]", hosts)
    worker._look(cast("Log", _Log()))
    facts = page_status(worker, Settings(data_dir=tmp_path))
    assert [(row["partition"], row["sequence"], row["input_lag"]) for row in facts["rows"]] == [
        (0, 10, 10),
        (2, 12, 60),
    ]
    assert {row["suspended"] for row in facts["rows"]} == {"x"}
    assert facts["rows"][0]["locked"] is None
    assert "locked since" in facts["rows"][1]["locked"]
    assert (facts["halted"], facts["served"], facts["partitions"]) == (1, 2, 4)
    assert facts["halts"] == [{"partition": 1, "code": "INPUT_CUT", "detail": "gone", "remedy": "restore it"}]
    assert set(facts["rows"][0]) == set(LiveLane(1, LiveBoards()).status()["rows"][0])


def _lane(*partitions: dict[str, str | None]) -> Any:
    """With these windows in each of its partitions: why each is suspended, None for one that works."""
    parts = {}
    for number, windows in enumerate(partitions):
        running = {name: SimpleNamespace(suspended=why) for name, why in windows.items()}
        states = SimpleNamespace(derive=SimpleNamespace(running=running), judge=SimpleNamespace(locks={}))
        parts[number] = SimpleNamespace(number=number, states=states)
    parts[len(parts)] = SimpleNamespace(number=len(parts), states=None)  # of a lane without folds
    return SimpleNamespace(parts=parts)


def _suspended(worker: Worker) -> dict[str, float]:
    ((_, page),) = asyncio.run(_pages(worker, "/metrics"))
    found = [line for line in page.splitlines() if line.startswith("driftledger_suspended_partitions{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def test_what_is_suspended_shows_for_as_long_as_it_is(worker: Worker) -> None:
    """Also in a worker that did not suspend it itself; of windows and partitions that went, nothing stays."""
    hosts = {0: _Host({}), 1: _Host({}), 2: _Host({})}
    worker.hosts = cast("dict[int, LaneHost]", hosts)
    assert _suspended(worker) == {}
    hosts[0].lane = _lane({"a": None, "b": "too much"}, {"a": None, "b": "too much"})
    hosts[1].lane = _lane({"a": "too much", "b": "too much", "c": None})
    assert _suspended(worker) == {"a": 1, "b": 3, "c": 0}
    hosts[1].lane = _lane({"a": None, "b": "too much"})
    assert _suspended(worker) == {"a": 0, "b": 3}
    del hosts[0]
    assert _suspended(worker) == {"a": 0, "b": 1}
    hosts[1].lane = None
    assert _suspended(worker) == {}


def _part(number: int, *locks: Lock) -> Part:
    """Of a lane that is open."""
    judge = SimpleNamespace(locks={lock.scope: lock for lock in locks}, guard=Guard())
    states = SimpleNamespace(derive=SimpleNamespace(running={}), judge=judge)
    return Part(number, Head(), 0, -1, states=cast("States", states))


WHOLE = Lock(1, None, ("sequence", "put"), 9, 0, -40, "ada", "it is set")


def test_what_is_locked_is_told_and_makes_no_worker_ill(worker: Worker) -> None:
    """In health and metrics; heartbeats of a partition whose input is kept back are told apart."""
    host = _Host({})
    parts = {0: _part(0), 1: _part(1, WHOLE), 2: _part(2, WHOLE._replace(halts=("put",)), WHOLE._replace(scope="s"))}
    host.lane = cast("Any", SimpleNamespace(parts=parts, hot=None))
    worker.hosts = cast("dict[int, LaneHost]", {0: host})
    worker._ownership = cast("Ownership", _Member())
    facts = health(worker)
    assert facts["healthy"]
    told = facts["lanes"][0]["partitions"]
    assert [part["locked"] for part in told] == [False, True, False]
    assert [len(part["locks"]) for part in told] == [0, 1, 2]
    assert told[1]["locks"][0]["told"].startswith("partition 1 is locked since 1970-01-01T00:00:00.000Z by ada because")
    assert worker.locked_partitions() == [1]
    ((_, page),) = asyncio.run(_pages(worker, "/metrics"))
    found = [line for line in page.splitlines() if line.startswith("driftledger_locks{")]
    assert found == [f'driftledger_locks{{partition="{p}"}} {float(n)}' for p, n in ((0, 0), (1, 1), (2, 2))]


def test_the_guardian_locks_once_for_each_alarm(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again where Kafka did not take it, and for the next alert; never for another worker, or where it may not."""
    part = _part(2)
    assert part.states is not None
    part.states.judge.guard.columns[GUARD_STATE] = 6
    part.states.judge.guard.columns[FIRST] = 40
    part.states.judge.guard.worker = "another"
    host = _Host({})
    host.lane = cast("Any", SimpleNamespace(parts={2: part}, hot=None))
    worker.hosts = cast("dict[int, LaneHost]", {0: host})
    written: list[tuple[int, str]] = []
    errors = [UnreachableError("Kafka is away")]

    def engage(partition: int, reason: str) -> None:
        written.append((partition, reason))
        if errors:
            raise errors.pop()

    monkeypatch.setattr(worker._alarm_locks, "engage", engage)

    async def commit(times: int) -> None:
        tasks: list[Any] = []
        monkeypatch.setattr(worker, "add_future", lambda future: tasks.append(asyncio.ensure_future(future)))
        for _ in range(times):
            worker._committed(0, [])
        await asyncio.gather(*tasks)

    asyncio.run(commit(2))
    assert written == []
    worker._settings = worker._settings.model_copy(update={"guardian_locks": True})
    asyncio.run(commit(2))
    assert written == []
    part.states.judge.guard.worker = worker.worker_id
    asyncio.run(commit(2))
    assert [partition for partition, _ in written] == [2]
    asyncio.run(commit(2))
    assert [partition for partition, _ in written] == [2, 2]
    asyncio.run(commit(2))
    assert len(written) == 2
    part.states.judge.guard.columns[FIRST] = 90
    asyncio.run(commit(1))
    assert len(written) == 3
    assert written[-1][1].endswith("(RED) since 1970-01-01T00:00:00.000Z, index 2:90")


def test_a_worker_that_is_not_to_look_at_its_data_does_not_look(worker: Worker) -> None:
    """Nor does it ask the time again and again meanwhile: whoever keeps it has ended."""
    worker._settings = worker._settings.model_copy(update={"lifecycle_interval_s": 0})

    async def keep() -> None:
        await asyncio.wait_for(Worker._keep(worker), 5)

    asyncio.run(keep())


def test_what_the_disk_refuses_a_turn_keeps_no_lane_from_its_work(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and tried again; a turn that ends because the worker stops is no failure."""
    errors: list[Exception] = [OSError("no room"), HandedOnError("it stops")]

    def turn(folder: Path) -> None:
        assert folder == tmp_path
        error = errors.pop(0)
        if not errors:
            worker._stopped.set()
        raise error

    async def soon(_: float) -> None:
        await asyncio.sleep(0)

    worker.keeper = cast("Any", SimpleNamespace(turn=turn))
    worker._slot = cast("Any", SimpleNamespace(folder=tmp_path))
    monkeypatch.setattr(worker, "sleep", soon)
    with capture_logs() as lines:
        asyncio.run(Worker._keep(worker))
    assert [(line["event"], line["error"]) for line in lines] == [("lifecycle_failed", "no room")]
