"""The routes of a worker over a lane without Kafka, with a fleet whose clocks are wrong in known ways."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from schemas.clock import SystemTime
from schemas.instants import US_PER_MS
from streams.api import Api
from streams.lane_host import State
from streams.live_boards import LiveBoards
from streams.live_requests import LiveRequests
from streams.live_views import LiveViews
from streams.settings import Settings
from tests.core.lifecycle_histories import Told, files_of, hot_of, known_of, run_of
from tests.core.live_lane import LiveLane, Sent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from streams.app import Worker

PARTITIONS: Final = 4
#: By how much a clock is off, in ms; the others are within 40 ms.
KNOWN: Final = {
    "day-ahead": 86_400_000, "fast-7s": 7_000, "fast-2s": 2_000, "slow-2s": -2_000, "slow-7s": -7_000,
    "corrected": 300,
}  # fmt: skip
HOSTILE: Final = (
    "<img src=x onerror=\"document.title='owned'\">", "<script>alert(1)</script>", '=HYPERLINK("x")',
    "\u202eesrever", "a\nb\tc", "'\"`&amp;", "Füllstand/Behälter/" + "lang/" * 30, "__proto__",
)  # fmt: skip
#: How often a lane looks round where nothing comes.
_FETCH_S: Final = 0.05
_HISTORY_S: Final = 90
_system: Final = SystemTime()


@dataclass
class Fleet:
    """Sources by name, with the offset of each in ms; now: until when they have sent."""

    lane: LiveLane
    offsets_ms: dict[str, float]
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    now_ms: int = 0

    def place(self, source: str) -> int:
        """The partition of a source."""
        return sum(source.encode()) % PARTITIONS

    def send(self, at_ms: int, sources: list[str] | None = None) -> None:
        """An event of each, appended about then."""
        chosen: list[list[Sent]] = [[] for _ in range(PARTITIONS)]
        for source in self.offsets_ms if sources is None else sources:
            way_ms = min(self.rng.expovariate(0.2), 80.0)
            offset_us = round((self.offsets_ms[source] - way_ms) * US_PER_MS)
            chosen[self.place(source)].append(Sent(source, offset_us, at_ms))
        for number, events in enumerate(chosen):
            if events:
                self.lane.send(number, events)
        self.now_ms = at_ms

    def begin(self, events: int, over_s: int = _HISTORY_S) -> None:
        """What was before anybody looked: so many events of each, up to now."""
        now_ms = _system.now_us() // US_PER_MS
        for number in range(events):
            self.send(now_ms - over_s * 1_000 + over_s * 1_000 * number // events)


def fleet_of(lane: LiveLane, steady: int, *, hostile: bool = False) -> Fleet:
    """Known ones, and so many whose clocks are right."""
    rng = random.Random(3)
    names: dict[str, float] = dict(KNOWN) if steady < 5_000 else {}
    names |= {f"sensor-{number:05d}": rng.uniform(-40, 40) for number in range(steady)}
    if hostile:
        names |= dict.fromkeys(HOSTILE, 6_000.0)
    return Fleet(lane, names)


class Served:
    """A worker's HTTP, which can be ended and begun again on the same port."""

    def __init__(self, folder: Path, token: str | None = None) -> None:
        self.boards = LiveBoards()
        self.lane = LiveLane(PARTITIONS, self.boards, folder / "lane-0")
        more: dict[str, Any] = {} if token is None else {"http_token": token}
        self._settings = Settings(data_dir=folder, partitions=PARTITIONS, lanes=1, **more)
        self._port = 0
        self.address = ""
        self._api: Api
        self.requests: LiveRequests
        self.facts: dict[str, Any] = {}
        runs = [run_of(number) for number in range(30, 0, -1)]
        self.lifecycle = Told(known_of(files_of(240, PARTITIONS), hot_of(PARTITIONS), runs, partitions=PARTITIONS))

    async def start(self) -> str:
        """Listen; returns the address."""
        parts = {n: SimpleNamespace(number=n, head=part, states=None) for n, part in enumerate(self.lane.parts)}
        lane = SimpleNamespace(parts=parts, hot=self.lane.tier)
        host = SimpleNamespace(state=State.LIVE, error=None, halted={}, lane=lane)
        worker = SimpleNamespace(boards=self.boards, bootstrap="nowhere:1", hosts={0: host}, lag={}, keeper=None)
        api = self._api = Api(cast("Worker", worker), self._port, None, self._settings)
        views = LiveViews(self.boards, self.lane.alerts, self.lane.owned, None, self.lifecycle)
        status = lambda: self.lane.status(**self.facts)  # noqa: E731 - one line
        api._live = self.requests = LiveRequests(views, self.boards, self.lane.alerts, status)
        await api.start()
        self._port, self.address = int(api.address.rsplit(":", 1)[1]), api.address
        return api.address

    def cut(self) -> None:
        """Break all connections, as a proxy does that restarts."""
        runner = self._api._runner
        assert runner is not None
        assert runner.server is not None
        for connection in runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def stop(self) -> None:
        """End."""
        await self._api.stop()


@asynccontextmanager
async def served(folder: Path, token: str | None = None) -> AsyncIterator[Served]:
    """A worker's HTTP."""
    found = Served(folder, token)
    await found.start()

    async def look() -> None:
        while True:
            found.lane.show()
            await asyncio.sleep(_FETCH_S)

    idle = asyncio.create_task(look())
    try:
        yield found
    finally:
        idle.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await idle
        await found.stop()
        found.lane.close()


@asynccontextmanager
async def sending(fleet: Fleet, every_s: float = 0.25, most: int = 400) -> AsyncIterator[None]:
    """Events of some sources all the time."""

    async def run() -> None:
        names = list(fleet.offsets_ms)
        while True:
            await asyncio.sleep(every_s)
            some = names if len(names) <= most else fleet.rng.sample(names, most)
            fleet.send(_system.now_us() // US_PER_MS, some)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
