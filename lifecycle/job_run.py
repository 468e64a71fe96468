"""A run of a job: it announces itself, tells every few seconds that it lives, and tells its end.

Problem: two jobs of a ledger must not work at once, and nobody starts a second one meaning to end the first. The lease
(`manifest_log`) keeps them from each other; it does so by ending the one that had it. So a run first asks here.

    with JobRun(bootstrap, names.jobs, "seal") as run, ManifestLease(bootstrap, names, run) as lease:
        lease.commit(...)
        run.tell(progress=Progress(3, 12, "files"), did=Did(rows=3_000_000, commits=3))

It writes that it is planned, then reads what stands there: a run for the lease that was heard of within LOST_MS is in
its way, if it was there before, or runs already. All times are the broker's, so no clock of a host matters; and of two
that begin at once the one that wrote later sees the other.

GUARANTEE a run that has ended tells so last: no beat comes behind its end.
HAZARD a beat is a courtesy: a run that stands still for longer than LOST_MS is taken for lost while it lives. What it
does then the fence of the lease refuses.
HAZARD where the jobs topic takes no record a run goes on, and logs `job_beat_failed`: others may take it for lost.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Final, Self

import structlog

from lifecycle.job_log import JobLog
from lifecycle.job_record import LOST_MS, Did, Heard, Job, Progress, State, folded, lives
from lifecycle.told_steps import told_of
from schemas.clock import source as time_source
from schemas.errors import BadInputError, DriftledgerError, UnreachableError
from schemas.instants import MS_PER_S, NS_PER_S, format_ms
from schemas.producer import uuid7

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from lifecycle.job_record import Asked
    from lifecycle.steps import Step

BEAT_S: Final = 5.0
#: How often a run that waits for another looks whether that has ended.
_LOOK_S: Final = 0.5
_UUID_RANDOM_BYTES: Final = 8
_logger = structlog.get_logger()


class JobRunningError(UnreachableError):
    """Another run holds the lease, or asked for it before. Attributes: other, the last that was heard of it."""

    def __init__(self, other: Heard) -> None:
        job = other.job
        super().__init__(
            f"{job.job} runs already: {job.by} (run {job.id}), heard of at {format_ms(other.appended_ms)}. Wait for "
            f"its end; one that died is let go {LOST_MS // MS_PER_S} s after it was heard of last. --take-over ends it"
        )
        self.other = other


class HandedOnError(UnreachableError):
    """A run that was asked for is left to another worker: this one stops, or has lost the lane."""


class JobRun:
    """A run, and a context manager. Raises UnreachableError where its beginning cannot be told.

    lease: whether it is to hold the lease. wait_s: how long it waits for another that holds it. asked: where a worker
    was asked for it. Attributes: job, the last that was told of it; told_ms, when the broker took that. Not for two
    threads at once.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        job: str,
        *,
        lease: bool = True,
        beat_s: float = BEAT_S,
        wait_s: float = 0.0,
        asked: Asked | None = None,
    ) -> None:
        now_us = time_source().now_us()
        identity = str(uuid7(now_us, secrets.token_bytes(_UUID_RANDOM_BYTES)))
        self.job = Job(
            identity, job, State.PLANNED, socket.gethostname(), os.getpid(), now_us, now_us, lease=lease, asked=asked
        )
        self.told_ms = 0
        self._log = JobLog(bootstrap, topic)
        self._beat_s, self._wait_s = beat_s, wait_s
        self._told_ns = 0
        #: Over `job`.
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"job-{job}", daemon=True)
        self._planned: Heard | None = None
        self._begun: Heard | None = None

    def __enter__(self) -> Self:
        try:
            self._planned = self._write()
        except BaseException:
            self._log.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        ended = self.job._replace(ended_us=time_source().now_us(), state=_end_of(error))
        if ended.asked is not None:
            ended = ended._replace(asked=ended.asked._replace(code=_code_of(error)))
        if error is not None:
            remedy = getattr(error, "remedy", None)
            ended = ended._replace(
                error=f"{type(error).__name__}: {error}", remedy=remedy if isinstance(remedy, str) else None
            )
        self.job = ended
        try:
            self._write()
        except UnreachableError as failure:
            _logger.warning("job_end_not_told", job=self.job.job, id=self.job.id, detail=str(failure))
        finally:
            self._log.close()

    def begin(self, *, take_over: bool = False) -> None:
        """From here on it runs, and beats. Raises JobRunningError where another stays in its way, unless take_over."""
        planned = self._planned
        if planned is None or self._begun is not None:
            raise DriftledgerError(f"a run of {self.job.job} begins once, after it was entered")
        if self.job.lease and not take_over:
            clock = time_source()
            until_ns = clock.monotonic_ns() + int(self._wait_s * NS_PER_S)
            while (other := self._in_the_way(planned)) is not None:
                if clock.monotonic_ns() >= until_ns:
                    raise JobRunningError(other)
                self.wait()
                clock.sleep_s(_LOOK_S)
        with self._lock:
            self.job = self.job._replace(state=State.RUNNING)
        self._begun = self._write()
        self._thread.start()

    def wait(self) -> None:
        """Tell again that it is planned, if that was a while ago: who waits lives."""
        if time_source().monotonic_ns() - self._told_ns >= self._beat_s * NS_PER_S:
            self._write()

    def want_lease(self) -> None:
        """From here on it is planned to hold the lease, behind all that were before."""
        with self._lock:
            self.job = self.job._replace(lease=True)
        self._planned = self._write()

    def tell(
        self, *, progress: Progress | None = None, did: Did | None = None, steps: Sequence[Step] | None = None
    ) -> None:
        """What the next beat, and the end, say of how far it is and of what it did.

        steps: for who asked for it, to be told with the end.
        """
        with self._lock:
            job = self.job._replace(progress=progress or self.job.progress, did=did or self.job.did)
            if job.asked is not None and steps is not None:
                job = job._replace(asked=job.asked._replace(told=told_of(steps)))
            self.job = job

    def rival(self) -> Heard | None:
        """The run that began last to run for the lease, after this one did; None while there is none."""
        if self._begun is None:
            return None
        begun = [
            each for each in self._log.behind(self._begun.offset) if _is_beginning(each) and each.job.id != self.job.id
        ]
        return begun[-1] if begun else None

    def _in_the_way(self, planned: Heard) -> Heard | None:
        """Another run that has, or is to have, the lease before this one. Who was taken over has it no more."""
        others = [each for each in self._log.since(planned.appended_ms - LOST_MS) if each.job.id != self.job.id]
        earlier = {each.job.id for each in others if each.offset < planned.offset}
        now_ms = max([self.told_ms, *(each.appended_ms for each in others)])
        holder = next((each for each in reversed(others) if _is_beginning(each)), None)
        before = {each.job.id for each in others if holder is not None and each.offset < holder.offset}
        replaced = before if holder is None else before - {holder.job.id}
        for other in folded(others).values():
            runs = other.job.state is State.RUNNING
            first = other.job.id not in replaced if runs else other.job.id in earlier
            if first and other.job.lease and lives(other, now_ms):
                return other
        return None

    def _beat(self) -> None:
        while not self._ending.wait(self._beat_s):
            with self._lock:
                self.job = self.job._replace(beats=self.job.beats + 1)
            try:
                self._write()
            except UnreachableError as error:
                _logger.warning("job_beat_failed", job=self.job.job, id=self.job.id, detail=str(error))

    def _write(self) -> Heard:
        with self._lock:
            self.job = self.job._replace(at_us=time_source().now_us())
            job = self.job
        heard = self._log.write(job)
        self.told_ms, self._told_ns = heard.appended_ms, time_source().monotonic_ns()
        return heard


def _is_beginning(heard: Heard) -> bool:
    """Of a run for the lease: from there on it has it, and whoever had it before has not."""
    return heard.job.lease and heard.job.state is State.RUNNING and not heard.job.beats


def _end_of(error: BaseException | None) -> State:
    if error is None:
        return State.DONE
    if isinstance(error, JobRunningError | HandedOnError) or not isinstance(error, Exception):
        return State.CANCELLED
    return State.FAILED


def _code_of(error: BaseException | None) -> int:
    """The exit code of who asked, as `streams.cli.main` has it."""
    if error is None:
        return 0
    if isinstance(error, BadInputError):
        return 2
    return 3 if isinstance(error, UnreachableError) else 1
