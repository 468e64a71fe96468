"""The worker: a Faust application that owns lanes and keeps them alive.

`driftledger worker` runs it; `faust -A streams.app worker` too, with the same settings. Faust is the host: its
loop, its services, its channels between a lane's host and its agent, its ordinary agents. Truth is not in it:
sequences, progress and offsets are the lanes' own, and nothing of Faust's acknowledgement, tables or exactly-once
mode is relied on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from mode import Service

from lifecycle.asked_jobs import LOOK_S, PENDING_MAX, AskedJobs
from lifecycle.hot_database import HotStoreUnavailableError
from lifecycle.job_run import HandedOnError
from lifecycle.keeper import Keeper
from lifecycle.slots import claim_slot
from schemas.clock import source as time_source
from schemas.codec import Framing
from schemas.errors import DriftledgerError, HaltError, UnreachableError
from schemas.topics import TopicNames, topic_names
from streams import heap, metrics
from streams.address import announce, withdraw
from streams.admission import deployment
from streams.agents import Turn, alert_agent, job_agent, lane_agent
from streams.alarm_locks import AlarmLocks
from streams.api import Api, owned_lanes
from streams.broker import reach
from streams.faust_app import bare_app, start_with
from streams.folds import Configured
from streams.gate import Gate
from streams.heartbeats import Heart
from streams.input_lag import InputLag
from streams.lane import Lane
from streams.lane_host import LaneHost, State, Surroundings
from streams.live_boards import LiveBoards
from streams.log import Log
from streams.ownership import Ownership
from streams.put import Puts
from streams.settings_file import load
from streams.topics_admin import TopicsAdmin, specs_of
from streams.warm import warm
from streams.warning_log import WarningLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import faust

    from lifecycle.slots import Slot
    from streams.admission import Deployment
    from streams.guardian import Alarm
    from streams.lane import Committed
    from streams.settings import Settings
    from streams.transactions import Point

_WATCH_INTERVAL_S = 5.0
_WARNINGS_INTERVAL_S = 0.5
_GIVE_BACK_INTERVAL_S = 60.0
#: How long a worker that stops waits for what it moves, or runs, to end.
_KEEPER_END_S = 2.0
_logger = structlog.get_logger()


def check_topics(settings: Settings, bootstrap: str) -> None:
    """What every worker asks before it starts. Raises DriftledgerError."""
    refused = [d for d in TopicsAdmin(bootstrap).check(specs_of(settings)) if d.refused]
    missing = [d.topic for d in refused if d.setting == "topic"]
    wrong = list(dict.fromkeys(d.topic for d in refused if d.setting != "topic"))
    if not refused:
        return
    told = [f"not as it must be: {', '.join(wrong)}"] if wrong else []
    told += [f"missing: {', '.join(missing)}"] if missing else []
    remedy = "topics check` says what is wrong and what to do" if wrong else "topics create` makes what is missing"
    raise DriftledgerError(f"the topics do not fit the ledger; {'; '.join(told)}. `{settings.command} {remedy}")


class Worker(Service):
    """The lanes of this process.

    Attributes for health: worker_id, hosts by lane number, unreachable (what the broker did not answer, if it did not),
    lag by partition, boards (what a page shows).
    """

    def __init__(
        self, app: faust.App, settings: Settings, bootstrap: str, *, at: Callable[[Point], None] | None = None
    ) -> None:
        super().__init__(loop=app.loop, beacon=app.beacon)
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}"
        self.hosts: dict[int, LaneHost] = {}
        self.unreachable: str | None = None
        self.boards = LiveBoards()
        self.bootstrap = bootstrap
        self._settings = settings
        self.names: TopicNames = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._at = at
        self._configured = Configured(settings.judge(), settings.windows)
        self._channels = {number: lane_agent(app, number) for number in range(settings.lanes)}
        self._warnings = WarningLog()
        self._input_lag = InputLag(self.names.input)
        self._alarm_locks = AlarmLocks(bootstrap, self.names.control, self.worker_id, settings.lock_halts)
        self._ownership: Ownership | None = None
        #: The data directory of the hot tiers; None where nothing is kept hot.
        self._slot: Slot | None = None
        gate = Gate(bootstrap, self.names.progress, settings.partitions, settings.lanes)
        puts = Puts(bootstrap, settings.input_topic, Framing(settings.framing), gate)
        #: None where nothing is kept hot.
        self.keeper = Keeper(settings, bootstrap, lambda: owned_lanes(self, settings)) if settings.hot_store else None
        #: None likewise.
        self.asked = (
            None
            if self.keeper is None
            else AskedJobs(settings, bootstrap, self.keeper, lambda: owned_lanes(self, settings))
        )
        self._jobs = job_agent(app, PENDING_MAX)
        self._api = Api(self, settings.http_port, puts, settings)
        self._announced: Path | None = None

    async def on_start(self) -> None:
        """Compile, then join: a worker that holds a lane while it compiles would only delay."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, warm)
        self._claim_slot()
        gc.freeze()  # what is loaded stays: a full collection would go through all of it while a lane waits
        await self._api.start()
        self._announce()

        def lost(lanes: list[int]) -> None:
            loop.call_soon_threadsafe(partial(self._lose, lanes))

        self._ownership = Ownership(
            self._settings,
            self.bootstrap,
            self.names,
            on_assigned=lambda lanes: asyncio.run_coroutine_threadsafe(self._take(lanes), loop).result(),
            on_revoked=lambda lanes: asyncio.run_coroutine_threadsafe(self._leave(lanes), loop).result(),
            on_lost=lost,
            on_failed=lambda error: loop.call_soon_threadsafe(self._end_of_membership, error),
            positions=self._live_positions,
        )
        self._ownership.start()

    async def on_stop(self) -> None:
        """Leave the group, which revokes and closes the lanes, then close the rest."""
        if self.keeper is not None:
            self.keeper.stop()  # it ends while the lanes do
        if self._announced is not None:
            withdraw(self._announced)
        if self.asked is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.asked.close)
        if self._ownership is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._ownership.stop)
        await self._leave(list(self.hosts))
        self._warnings.write(time_source().monotonic_ns())
        await self._api.stop()
        if self.keeper is not None:
            closing = asyncio.get_running_loop().run_in_executor(None, self.keeper.close)
            await asyncio.wait([closing], timeout=_KEEPER_END_S)
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def _claim_slot(self) -> bool:
        """Take a data directory for the hot tiers; what refuses one keeps no lane from its work. True for a new one."""
        if not self._settings.hot_store or self._slot is not None:
            return False
        try:
            self._slot = claim_slot(self._settings.data_dir)
        except HotStoreUnavailableError as error:
            _logger.warning("hot_store_unavailable", error=str(error))
        return self._slot is not None

    def _announce(self) -> None:
        """Say where this worker can be asked; what refuses the file keeps no lane from its work."""
        if self._announced is not None:
            return
        try:
            self._announced = announce(self._settings, self.worker_id, self._api.address)
        except OSError as error:
            _logger.warning("worker_not_announced", error=str(error))

    @property
    def lag(self) -> dict[int, int]:
        """By partition: input offsets to come, as read last."""
        return self._input_lag.offsets

    def halts(self) -> dict[int, HaltError]:
        """Halted partitions of the lanes owned here."""
        return {partition: halt for host in self.hosts.values() for partition, halt in host.halted.items()}

    def is_member(self) -> bool:
        """Whether the group is being asked for lanes; one that owns none is a member too."""
        return self._ownership is not None and self._ownership.runs

    def live_partitions(self) -> list[int]:
        """Partitions that this worker can sequence now."""
        return sorted(p for host in self.hosts.values() if host.lane for p in host.lane.parts)

    def locked_partitions(self) -> list[int]:
        """Of those, whose input a lock keeps back."""
        lanes = [host.lane for host in self.hosts.values() if host.lane]
        return sorted(part.number for lane in lanes for part in list(lane.parts.values()) if part.locked)

    # ----------------------------------------------------------------------------------------------------- background

    @Service.task
    async def _heartbeats(self) -> None:
        interval_s = self._settings.heartbeat_interval_ms / 1_000
        if not interval_s:
            return
        heart = Heart(self.bootstrap, self.names, self.worker_id)
        loop = asyncio.get_running_loop()
        while not self.should_stop:
            future = loop.run_in_executor(None, heart.beat, self.live_partitions(), self.locked_partitions())
            await asyncio.wait([future])
            error = future.exception()
            if error is not None:
                self._expect(error, "heartbeats_missed")
            await self.sleep(interval_s)
        await loop.run_in_executor(None, heart.close)

    @Service.task
    async def _watch(self) -> None:
        """See what no lane is told of: changed topics, a halt lifted by an operator; and measure the lag."""
        loop = asyncio.get_running_loop()
        log = Log(self.bootstrap)
        while not self.should_stop:
            await self.sleep(_WATCH_INTERVAL_S)
            metrics.HALTED.set(len(self.halts()))
            metrics.LIVE.set(sum(host.state is State.LIVE for host in self.hosts.values()))
            future = loop.run_in_executor(None, self._look, log)
            await asyncio.wait([future])
            error = future.exception()
            self.unreachable = str(error) if isinstance(error, UnreachableError) else None
            if isinstance(error, HaltError):
                now = None  # a topic is missing: the lanes find out which, and halt
            elif error is not None:
                self._expect(error, "watch_failed")
                continue
            else:
                now = future.result()
            await loop.run_in_executor(None, self._announce)
            claimed = await loop.run_in_executor(None, self._claim_slot)
            for host in list(self.hosts.values()):
                then = host.lane.deployment if host.lane else None
                if claimed or (then is not None and then != now) or await host.lifted():
                    _logger.info("lane_reopens", lane=host.number)
                    host.reopen()
        await loop.run_in_executor(None, log.close)

    @Service.task
    async def _log_warnings(self) -> None:
        """What waits is written also where nothing comes any more."""
        while not self.should_stop:
            await self.sleep(_WARNINGS_INTERVAL_S)
            self._warnings.write(time_source().monotonic_ns())

    @Service.task
    async def _give_back(self) -> None:
        while not self.should_stop:
            await self.sleep(_GIVE_BACK_INTERVAL_S)
            await asyncio.get_running_loop().run_in_executor(None, heap.give_back)

    @Service.task
    async def _keep(self) -> None:
        """Move data by the rules; what keeps it from being moved keeps no lane from its work."""
        interval_s = self._settings.lifecycle_interval_s
        if self.keeper is None or not interval_s:
            return
        loop = asyncio.get_running_loop()
        while not self.should_stop:
            await self.sleep(interval_s)
            if self._slot is None:
                continue
            future = loop.run_in_executor(None, self.keeper.turn, self._slot.folder)
            await asyncio.wait([future])
            error = future.exception()
            if isinstance(error, OSError):
                _logger.warning("lifecycle_failed", error=str(error))
            elif error is not None and not isinstance(error, HandedOnError):
                self._expect(error, "lifecycle_failed")

    @Service.task
    async def _take_asks(self) -> None:
        """Hand what operators ask of this worker to the agent of jobs."""
        loop = asyncio.get_running_loop()
        while not self.should_stop and self.asked is not None:
            await self.sleep(LOOK_S)
            if self._slot is None:
                continue
            future = loop.run_in_executor(None, self.asked.look)
            await asyncio.wait([future])
            error = future.exception()
            if error is not None:
                self._expect(error, "asks_not_read")
                continue
            for errand in future.result():
                await self._jobs.put(Turn(partial(self.asked.run, errand, self._slot.folder)))

    def _look(self, log: Log) -> Deployment:
        now = deployment(log, self.names, 0)
        self._input_lag.measure(log, self._positions())
        return now

    # ------------------------------------------------------------------------------------------------------ ownership

    async def _take(self, lanes: list[int]) -> None:
        for number in lanes:
            around = Surroundings(
                make_lane=self._make_lane,
                confirmed=self._confirmed,
                on_commit=self._committed,
                on_defect=self._defect,
                bootstrap=self.bootstrap,
                progress_topic=self.names.progress,
                worker=self.worker_id,
            )
            self.hosts[number] = LaneHost(number, around, self._channels[number])
            self.hosts[number].start()

    def _end_of_membership(self, error: Exception) -> None:
        _logger.critical("membership_ended", error=str(error) if isinstance(error, DriftledgerError) else repr(error))
        self._defect(error)

    def _defect(self, error: BaseException) -> None:
        self.add_future(self.crash(error))

    def _confirmed(self) -> bool:
        return self._ownership is not None and self._ownership.confirmed()

    def _lose(self, lanes: list[int]) -> None:
        """The group has given the lanes away already: stop them without keeping it waiting."""
        self.add_future(self._leave(lanes))

    async def _leave(self, lanes: list[int]) -> None:
        leaving = [self.hosts.pop(number) for number in lanes if number in self.hosts]
        await asyncio.gather(*(host.stop() for host in leaving))

    def _make_lane(self, number: int) -> Lane:
        partitions = range(number, self._settings.partitions, self._settings.lanes)
        more = {} if self._at is None else {"at": self._at}
        return Lane(
            self._settings, self.bootstrap, self.names, number, partitions, self._configured, worker=self.worker_id,
            hot_folder=None if self._slot is None else self._slot.folder, live=self.boards, warnings=self._warnings,
            **more,
        )  # fmt: skip

    def _positions(self) -> dict[int, int]:
        """By partition; also called from other threads, while lanes come and go.

        Of a closed lane or a halted partition the last one known. One that this process never opened is not here: where
        its input stands is read when it opens.
        """
        return {p: position for host in list(self.hosts.values()) for p, position in host.positions.items()}

    def _live_positions(self) -> dict[int, int]:
        hosts = [host for host in list(self.hosts.values()) if host.lane is not None]
        return {p: position for host in hosts for p, position in host.positions.items()}

    def _committed(self, lane: int, committed: list[Committed]) -> None:
        metrics.observe(lane, committed)
        if self._settings.guardian_locks:
            self._answer_alarms(lane)

    def _answer_alarms(self, number: int) -> None:
        """Lock the partitions of a lane for which the guardian finds this worker's clock RED."""
        host = self.hosts.get(number)
        parts = [] if host is None or host.lane is None else list(host.lane.parts.values())
        for partition, alarm in self._alarm_locks.due(parts):
            self.add_future(self._lock_partition(partition, alarm))

    async def _lock_partition(self, partition: int, alarm: Alarm) -> None:
        """Engage a lock in the guardian's name; tried again with the next transaction where Kafka does not take it."""
        _logger.critical("guardian_locks", partition=partition, reason=alarm.reason)
        future = asyncio.get_running_loop().run_in_executor(None, self._alarm_locks.engage, partition, alarm.reason)
        await asyncio.wait([future])
        error = future.exception()
        if error is not None:
            self._alarm_locks.failed(partition)
            self._expect(error, "lock_not_written")

    def _expect(self, error: BaseException, event: str) -> None:
        """Log what a broker that is away explains; raise what it does not."""
        if not isinstance(error, DriftledgerError):
            raise error
        _logger.warning(event, error=str(error))


def build(settings: Settings, bootstrap: str, *, at: Callable[[Point], None] | None = None) -> faust.App:
    """The application of one ledger's worker. at: called at named points of each transaction; tests kill there."""
    app = bare_app(settings, bootstrap)
    worker = Worker(app, settings, bootstrap, at=at)
    alert_agent(app, worker.names)
    start_with(app, worker)
    return app


def __getattr__(name: str) -> Any:
    """`app`, made when asked for (`faust -A streams.app`), so that importing this module reaches for no broker.

    What keeps it from being made ends the process with one line, for Faust would show a traceback.
    """
    if name == "app":
        try:
            settings = load()
            bootstrap = reach(settings)
            check_topics(settings, bootstrap)
        except DriftledgerError as error:
            raise SystemExit(f"driftledger: {error}") from error
        globals()["app"] = build(settings, bootstrap)
        return globals()["app"]
    raise AttributeError(name)
