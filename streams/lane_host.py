"""Keeps one lane of this worker alive: opens it, feeds it, closes it, and tries again.

    OPENING --> LIVE --error--> WAITING (backoff, ask the group whether the lane is still ours) --> OPENING
                  +--HaltError--> the partition is recorded halted; OPENING without it
                  +--stale--> a lock came or went: OPENING
    any --stop--> STOPPED

A turn at a time: a batch goes through the channel of a Faust agent (agents.py), which has it committed; the same call
then fetches the next, so that all that came during the commit is in it, and goes on by itself for TURN_S while events
keep coming and nobody wants it to end. Each way through the channel and the loop costs the worker more than the Python
of several small batches; with one for every batch it was half of what a paced worker took. Meanwhile the client reads
ahead on its own threads.

GUARANTEE an assigned lane that is not LIVE, and a halted partition, fail the worker's health.
GUARANTEE no error is swallowed: each becomes a halt record or a logged, counted attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, HaltCode, HaltError
from schemas.instants import NS_PER_S
from streams import metrics
from streams.log import Log
from streams.progress import read_lane, record_halt

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.lane import Committed, Lane
    from streams.rdkafka import Batch

    Result = TypeVar("Result")
    #: What was committed, the batch fetched after it, and what went wrong.
    Turn = tuple["list[Committed]", "Batch | None", BaseException | None]

_BACKOFF_S = (0.1, 0.25, 0.5, 1.0, 2.0)
#: How long a lane goes on by itself: so old may the numbers of health and metrics be.
TURN_S: Final = 0.5
_logger = structlog.get_logger()


class State(enum.StrEnum):
    """What a lane is doing."""

    OPENING = "opening"
    LIVE = "live"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(slots=True)
class Work:
    """What travels to the agent: a fetched batch (None: nothing came) of one opening of a lane."""

    host: LaneHost
    lane: Lane
    batch: Batch | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a host needs of its worker.

    confirmed: does the group still count us in? on_commit: what a turn wrote. on_defect: a host that died of a defect.
    """

    make_lane: Callable[[int], Lane]
    confirmed: Callable[[], bool]
    on_commit: Callable[[int, list[Committed]], None]
    on_defect: Callable[[BaseException], None]
    bootstrap: str
    progress_topic: str
    worker: str


class LaneHost:
    """One owned lane. All methods run on the worker's loop."""

    def __init__(self, number: int, around: Surroundings, channel: Any) -> None:
        self.number = number
        self.state = State.OPENING
        self.lane: Lane | None = None
        self.halted: dict[int, HaltError] = {}
        self.error: str | None = None
        #: By partition: the end of what is in the ledger of its input, as last known; kept while the lane is closed.
        self.positions: dict[int, int] = {}
        self._around, self._channel = around, channel
        self._opening: Lane | None = None
        self._reopen = False
        #: Failures since the last committed turn.
        self._attempt = 0
        #: What lies in the channel; whoever takes it from here, the agent or the end of serving, releases its batch.
        self._offered: Work | None = None
        self._turn: asyncio.Future[Turn] | None = None
        #: The turn is over, or stop() wants attention.
        self._turned = asyncio.Event()
        self._stop = asyncio.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lane-{number}")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to open the lane."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"lane-{self.number}")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Finish the batch in hand, close the lane; one that is being opened is given up."""
        self._stop.set()
        self._turned.set()
        if self._opening is not None:
            self._opening.abandon()
        if self._task is not None:
            await self._task

    def reopen(self) -> None:
        """Close and open again, because something around the lane changed."""
        self._reopen = True

    async def commit(self, work: Work) -> None:
        """Called by the agent for each piece of work, in order; a piece that was taken back is passed over."""
        if self._offered is not work:
            return
        self._offered = None
        self._turn = asyncio.get_running_loop().run_in_executor(
            self._thread, _turn, work.lane, work.batch, lambda: self._stop.is_set() or self._reopen
        )
        self._turn.add_done_callback(lambda _turn: self._turned.set())
        await asyncio.wait([self._turn])  # leaves the turn to serving where Faust cancels the agent

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._around.on_defect(error)

    async def _run(self) -> None:
        while not self._stop.is_set():
            self.state = State.OPENING
            lane = self._opening = self._around.make_lane(self.number)
            _, error = await self._call(lane.open)
            self._opening = None
            if error is None:
                self.error = None
                self.halted = dict(lane.halted)
                self._note(lane)
                _logger.info("lane_open", lane=self.number, partitions=sorted(lane.parts), halted=sorted(lane.halted))
                error = await self._serve(lane)
            elif self._stop.is_set():
                _logger.info("lane_open_abandoned", lane=self.number, error=repr(error))
                error = None
            _, close_error = await self._call(lane.close)
            self.lane = None
            if close_error is not None:
                _logger.warning("lane_close_failed", lane=self.number, error=str(close_error))
            if error is not None:
                await self._recover(error, lane)
                self._attempt += 1
        self.state = State.STOPPED
        self._thread.shutdown(wait=False)

    async def _serve(self, lane: Lane) -> BaseException | None:
        """Feed the lane until it fails, has to reopen, or the host stops."""
        self.lane, self._reopen = lane, False
        self.state = State.LIVE
        batch, error = await self._call(lane.fetch)
        while error is None and not (self._stop.is_set() or self._reopen or lane.stale):
            self._turned.clear()
            self._offered, self._turn = Work(self, lane, batch), None
            await self._channel.put(self._offered)
            batch = None
            await self._turned.wait()
            if self._offered is not None:  # stop() woke us; the agent may be gone, for Faust stops it first
                batch, self._offered = self._offered.batch, None
            elif self._turn is not None:
                await asyncio.wait([self._turn])
                committed, batch, error = self._turn.result()
                if error is None:
                    self._note(lane)
                if committed:
                    self._attempt = 0
                    self._around.on_commit(self.number, committed)
        if batch is not None:
            batch.release()
        if error is None and lane.stale:
            _logger.info("lane_reopens", lane=self.number)
        return error

    def _note(self, lane: Lane) -> None:
        self.positions = {**self.positions, **{part.number: part.position for part in lane.parts.values()}}

    async def _recover(self, error: BaseException, lane: Lane) -> None:
        self.state = State.WAITING
        self.error = str(error)
        metrics.LANE_FAILURES.labels(str(self.number)).inc()
        if not isinstance(error, DriftledgerError):
            _logger.error("lane_defect", lane=self.number, exc_info=error)
        elif not isinstance(error, HaltError):
            _logger.warning("lane_failed", lane=self.number, error=str(error), attempt=self._attempt)
            await self._pause()
        if not await self._confirmed():
            return
        if isinstance(error, HaltError):
            await self._halt(error)
        elif not isinstance(error, DriftledgerError):
            # A defect of ours. The lane's partitions stop: going on over an unknown state would be a guess.
            remedy = "A defect: report it with the worker's log; `driftledger halts lift` tries again"
            for partition in lane.partitions:
                if partition not in lane.halted:  # what is halted already keeps its reason
                    await self._halt(HaltError(partition, HaltCode.LANE_FAILED, repr(error), remedy))
            await self._pause()

    async def _confirmed(self) -> bool:
        """Wait until the group says that the lane is ours: who was replaced halts nothing. False where stopped."""
        while not self._stop.is_set():
            confirmed, _ = await self._call(self._around.confirmed)
            if confirmed:
                return True
            await self._wait(_BACKOFF_S[-1])
        return False

    async def _halt(self, halt: HaltError) -> None:
        """Make it durable, however long that takes: the lane does not open before."""
        _logger.critical(
            "partition_halted", partition=halt.partition, code=halt.code, detail=halt.detail, remedy=halt.remedy
        )
        self.halted[halt.partition] = halt
        while not self._stop.is_set():
            around = self._around
            _, error = await self._call(
                record_halt, around.bootstrap, around.progress_topic, self.number, halt, around.worker
            )
            if error is None:
                return
            _logger.warning("halt_not_recorded", partition=halt.partition, error=str(error))
            await self._wait(_BACKOFF_S[-1])

    async def lifted(self) -> bool:
        """Whether a halt that this host knows has been lifted since."""
        if not self.halted or self._stop.is_set():  # a stopped host has no thread to ask with
            return False
        state, error = await self._call(self._read_lane)
        return error is None and state is not None and set(state.halts) != set(self.halted)

    def _read_lane(self) -> Any:
        log = Log(self._around.bootstrap)
        try:
            return read_lane(log, self._around.progress_topic, self.number)
        finally:
            log.close()

    async def _pause(self) -> None:
        await self._wait(_BACKOFF_S[min(self._attempt, len(_BACKOFF_S) - 1)])

    async def _wait(self, duration_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), duration_s)

    async def _call(
        self, function: Callable[..., Result], *arguments: Any
    ) -> tuple[Result | None, BaseException | None]:
        """Run on the lane's thread; its result or its error."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        await asyncio.wait([future])
        error = future.exception()
        return (None, error) if error is not None else (future.result(), None)


def _turn(lane: Lane, batch: Batch | None, wanted: Callable[[], bool]) -> Turn:
    """On the lane's thread: commit, and fetch what came meanwhile, for TURN_S and as long as something comes.

    wanted: whether the loop waits for the lane.
    """
    clock = time_source()
    until_ns = clock.monotonic_ns() + int(TURN_S * NS_PER_S)
    committed: list[Committed] = []
    try:
        while True:
            one = lane.commit(batch)
            if one is not None:
                committed.append(one)
            batch = lane.fetch()
            if batch is None or wanted() or clock.monotonic_ns() >= until_ns:
                return committed, batch, None
    except Exception as error:  # noqa: BLE001 - handed to serving, which halts or opens the lane again
        return committed, None, error
