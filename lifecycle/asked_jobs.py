"""What a worker does of the jobs that it is asked for: it reads the asks, takes those of its lanes, and runs them.

Problem: an ask says nothing of workers, and every worker of a ledger must see it, for lanes change hands. A topic of
Faust's gives each record to one worker of the group, whoever has the lane; so the worker follows the jobs topic itself,
with all others, and hands what is its own to the agent of jobs, an ask and a lane at a time.

    look     each second: what was asked since is taken, where a lane is owned here. A run is told as planned at once,
             and again while it waits, so who asks knows that it is heard
    run      by the agent, one after the other: seal by the lease, demote and promote of hours by the keeper

GUARANTEE each run that was taken is told to its end, or left to the next owner: as cancelled where this worker stops or
has lost the lane, and by silence where it dies.
GUARANTEE PENDING_MAX runs wait at most; what is more waits in the log.
HAZARD a step that reads no file is ended first when the worker stops; one that does ends there, as if it was cut off.
`look` is for one thread, `run` for another.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from lifecycle.asks import Asks, refusal
from lifecycle.job_log import JobLog
from lifecycle.job_record import Asked, Heard, Progress
from lifecycle.job_run import HandedOnError, JobRun, JobRunningError
from lifecycle.jobs import Jobs
from lifecycle.steps import Job
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, UnreachableError
from schemas.instants import MS_PER_S
from schemas.topics import topic_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lifecycle.asks import Ask, Due
    from lifecycle.jobs import Tell
    from lifecycle.keeper import Keeper
    from lifecycle.owned import OwnedLane
    from lifecycle.steps import Step
    from streams.settings import Settings

#: How often a worker looks whether it is asked for something.
LOOK_S: Final = 1.0
PENDING_MAX: Final = 64
#: For the end of another run that has the lease, which may be of another lane of the same ask.
_WAIT_S: Final = 120.0
_logger = structlog.get_logger()


class AskRefusedError(UnreachableError):
    """An ask that is too old, or in whose way another run stays."""


class Errand(NamedTuple):
    """An ask of a lane that was taken. run: entered, left with `leaving`; partitions: what the ask is about there."""

    due: Due
    run: JobRun
    leaving: contextlib.ExitStack
    partitions: tuple[int, ...]


class AskedJobs:
    """Of a worker. lanes: those that it owns now."""

    def __init__(
        self, settings: Settings, bootstrap: str, keeper: Keeper, lanes: Callable[[], Sequence[OwnedLane]]
    ) -> None:
        self._settings, self._bootstrap, self._keeper, self._lanes = settings, bootstrap, keeper, lanes
        self._topic = topic_names(settings.prefix, settings.ledger, settings.input_topic).jobs
        self._log = JobLog(bootstrap, self._topic)
        self._asks = Asks()
        #: The last offset that was read; None before the first.
        self._offset: int | None = None
        #: Held by `look`, which is not to be cut short.
        self._looking = threading.Lock()
        #: Over what follows.
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], Errand] = {}
        self._running: set[tuple[str, int]] = set()
        self._stopping = threading.Event()

    def look(self) -> list[Errand]:
        """Take what was asked since. Raises UnreachableError, and has taken nothing then."""
        with self._looking:
            return [] if self._stopping.is_set() else self._look()

    def _look(self) -> list[Errand]:
        clock = time_source()
        with self._lock:
            for errand in self._waiting.values():
                errand.run.wait()
        offset = self._log.recent() if self._offset is None else self._offset
        for found in self._log.everything_behind(offset):
            with self._lock:
                self._asks.hear(found, clock.monotonic_ns())
            offset = found.offset
        self._offset = offset
        lanes = self._open_lanes()
        with self._lock:
            busy = self._running | self._waiting.keys()
            due = [each for each in self._asks.due(lanes, clock.monotonic_ns()) if _key(each) not in busy]
        taken: list[Errand] = []
        for each in due[: max(0, PENDING_MAX - len(busy))]:
            try:
                new = self._taken(each, each.heard.ask.within(lanes[each.lane]))
            except UnreachableError as error:  # what was taken is told to be so, hence is run; this one is due still
                if not taken:
                    raise
                _logger.warning("ask_not_taken", ask=each.heard.ask.id, lane=each.lane, detail=str(error))
                break
            if new is not None:
                taken.append(new)
        return taken

    def run(self, errand: Errand, folder: Path) -> None:
        """Do what was asked, and tell its end. folder: the worker's, of its hot stores."""
        key, ask = _key(errand.due), errand.due.heard.ask
        with self._lock:
            self._running.add(key)
            self._waiting.pop(key, None)
        try:
            with errand.leaving:
                self._check_going()
                steps = self._done(errand, folder)
                errand.run.tell(steps=steps)
            _logger.info("asked_job_done", job=ask.job, ask=ask.id, lane=errand.due.lane, steps=len(steps))
        except (DriftledgerError, OSError) as error:
            _logger.warning("asked_job_failed", job=ask.job, ask=ask.id, lane=errand.due.lane, error=str(error))
        finally:
            self._let_go(key, errand.run)

    def close(self) -> None:
        """Take no more: what waits is left to the next owner, and so are the steps that a run has not begun."""
        self._stopping.set()
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for errand in waiting:
            with contextlib.suppress(HandedOnError), errand.leaving:
                self._check_going()
        with self._looking:
            self._log.close()

    def _open_lanes(self) -> dict[int, tuple[int, ...]]:
        """Those that have a hot store here, with their partitions."""
        return {lane.partitions[0] % self._settings.lanes: lane.partitions for lane in self._lanes() if _is_open(lane)}

    def _taken(self, due: Due, partitions: tuple[int, ...]) -> Errand | None:
        """Tell that it is heard; None for what is too old, which is told too."""
        ask = due.heard.ask
        asked = Asked(ask.id, due.lane)
        leaving = contextlib.ExitStack()
        run = leaving.enter_context(
            JobRun(self._bootstrap, self._topic, ask.job, lease=False, wait_s=_wait_s(ask), asked=asked)
        )
        errand = Errand(due, run, leaving, partitions)
        why = refusal(due, run.told_ms)
        if why is None:
            with self._lock:
                self._waiting[_key(due)] = errand
            return errand
        with contextlib.suppress(AskRefusedError), leaving:
            raise AskRefusedError(f"{ask.job} was not run: {why}")
        _logger.warning("asked_job_refused", job=ask.job, ask=ask.id, lane=due.lane, error=why)
        self._let_go(_key(due), run)
        return None

    def _let_go(self, key: tuple[str, int], run: JobRun) -> None:
        """Know of the end before it is read."""
        with self._lock:
            self._asks.hear(Heard(0, 0, run.job), time_source().monotonic_ns())
            self._running.discard(key)

    def _check_going(self) -> None:
        if self._stopping.is_set():
            raise HandedOnError("this worker stops. The next owner of the lane goes on")

    def _done(self, errand: Errand, folder: Path) -> tuple[Step, ...]:
        """Do it; a run in the way that is of no lane of the same ask ends this one."""
        try:
            return self._do(errand, folder)
        except JobRunningError as error:
            asked, ask = error.other.job.asked, errand.due.heard.ask
            if asked is not None and asked.ask == ask.id:
                raise
            raise AskRefusedError(f"another run kept it waiting for {_wait_s(ask):.0f} s: {error}") from error

    def _do(self, errand: Errand, folder: Path) -> tuple[Step, ...]:
        ask, run = errand.due.heard.ask, errand.run
        if errand.due.lane not in self._open_lanes():
            raise HandedOnError(f"lane {errand.due.lane} is not served by this worker any more")

        def tell(step: Step, done: int, of: int) -> None:
            self._check_going()
            run.tell(progress=Progress(done, of, "rows"))
            _logger.info("asked_job_step", job=step.job, partition=step.partition, step=step.what)

        if ask.job is Job.SEAL and not ask.dry_run:
            run.want_lease()
            with Jobs(self._settings, self._bootstrap, pace=self._keeper.pace) as jobs:
                outcome = jobs.run(ask.job, tell, take_over=ask.take_over, partitions=errand.partitions, asked=run)
            return outcome.steps
        run.begin()
        if ask.job is Job.SEAL:
            with Jobs(self._settings, self._bootstrap, pace=self._keeper.pace) as jobs:
                return jobs.planned(ask.job, partitions=errand.partitions)
        steps = self._keeper.move(folder, ask.job, errand.partitions, None if ask.dry_run else tell)
        if not ask.dry_run:
            rows = sum(step.rows for step in steps)
            run.tell(progress=Progress(rows, rows, "rows"), did=run.job.did._replace(rows=rows))
        return (*steps, *self._files(errand, tell)) if ask.job is Job.DEMOTE else steps

    def _files(self, errand: Errand, tell: Tell) -> tuple[Step, ...]:
        """Files of archives that become deep, under the lease, which is asked for only where there are any."""
        ask = errand.due.heard.ask
        with Jobs(self._settings, self._bootstrap, pace=self._keeper.pace) as jobs:
            planned = jobs.planned(ask.job, partitions=errand.partitions)
            steps = tuple(step for step in planned if step.paths)
            if ask.dry_run or not steps:
                return steps
            taken = jobs.run(ask.job, tell, take_over=ask.take_over, partitions=errand.partitions, wait_s=_wait_s(ask))
        return taken.steps


def _key(due: Due) -> tuple[str, int]:
    return due.heard.ask.id, due.lane


def _wait_s(ask: Ask) -> float:
    return max(_WAIT_S, ask.wait_ms / MS_PER_S)


def _is_open(lane: OwnedLane) -> bool:
    """Whether there is a hot store of it."""
    if lane.tier is None:
        return False
    with lane.tier.reading() as store:
        return store is not None
