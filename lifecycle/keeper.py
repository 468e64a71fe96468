"""What a worker does for its data while it goes on: follows the archive, moves hours, runs jobs that are due.

Problem: what is hot is the worker's alone, and its operators shall not have to ask for what rules say. So each worker
looks now and then: hours that are archived and not read leave its stores, those that are read much come back; and it
runs the jobs that have something to do, where no other has the lease.

GUARANTEE an hour leaves the hot tier only once the manifest says that all of it is archived, and the file was there and
whole as far as its index says when it left.
GUARANTEE what one job or one partition fails of keeps no other from being done.
HAZARD a worker that is killed before its store is flushed may have noted a move that the store lost: the hour is where
it was, whole, and may move again after stay_hours.
HAZARD a turn works in the worker's process, beside its lanes: a job takes a core for a second a million rows.
HAZARD a worker that stops does not wait long for a turn that ends slowly: what is cut off then is told as lost.
For any thread; hours of one partition are moved at a time, whoever asks for it. Jobs keep nobody waiting, and who only
asks what is due waits for nobody.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from lifecycle.archive_files import files_of
from lifecycle.archived_chunks import ArchivedChunks
from lifecycle.chunk_codec import encode_column, encode_header, encode_readings
from lifecycle.chunks import ROW_COLUMNS, ChunkAwayError, ChunkBytes, Column
from lifecycle.file_tree import FileTreeUnavailableError
from lifecycle.hot_database import HotStoreUnavailableError
from lifecycle.hot_hours import hours_of
from lifecycle.job_run import HandedOnError, JobRunningError
from lifecycle.jobs import RUN_HERE, Jobs
from lifecycle.manifest_log import LeaseLostError, ManifestLog
from lifecycle.pace import Pace
from lifecycle.packing import DamagedError
from lifecycle.plans import plan
from lifecycle.rules_reader import read_rules
from lifecycle.steps import HotHour, Job, Known
from lifecycle.tier_view import Away, Hot
from lifecycle.tiered import MissingChunkError, Tiered, is_of
from lifecycle.usage import Usage
from schemas.clock import source as time_source
from schemas.errors import DriftledgerError, UnreachableError
from schemas.topics import topic_names
from streams.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lifecycle.chunks import Header, Line
    from lifecycle.hot_store import HotStore
    from lifecycle.hot_tier import HotTier
    from lifecycle.jobs import Tell
    from lifecycle.owned import OwnedLane
    from lifecycle.rules import Configuration
    from lifecycle.steps import Step
    from lifecycle.usage import Used
    from streams.settings import Settings

#: Chunks that are brought back together: some MB each.
_CHUNKS_AT_ONCE: Final = 8
#: What does not answer for one partition, or for what is written, may well do so for the next.
_OF_ONE_PLACE: Final = (MissingChunkError, FileTreeUnavailableError, HotStoreUnavailableError)
_logger = structlog.get_logger()


class TurnFailedError(DriftledgerError):
    """Some of what was due in a turn failed, and all else is done. Attributes: failures, each in words."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__("; ".join(failures))
        self.failures = tuple(failures)


class _NotServedError(HandedOnError):
    """The store of a partition is not here, or is another by now."""


class Keeper:
    """Of a worker. lanes: those that it owns now."""

    def __init__(self, settings: Settings, bootstrap: str, lanes: Callable[[], Sequence[OwnedLane]]) -> None:
        self._settings, self._bootstrap, self._lanes = settings, bootstrap, lanes
        self._names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._log = Log(bootstrap)
        self._files = files_of(settings, self._names.manifest, self._log.cluster_id)
        self._manifest = ManifestLog(self._log, self._names.manifest)
        self._clock = time_source()
        self._rules = read_rules(self._files.root)
        self._usage = Usage()
        self._stopping = threading.Event()
        #: At which jobs that this worker runs read and write files.
        self.pace = Pace(settings.lifecycle_bytes_per_s, self._check_going)
        #: Held for the length of a turn.
        self._turning = threading.Lock()
        #: Held by who moves hours of a partition, or writes how hours are used.
        self._moving = threading.Lock()
        self.archives = ArchivedChunks(self._files, self._manifest)

    def note(self, partition: int, first_sequences: Iterable[int]) -> None:
        """A question that read rows of the chunks that begin there. For any thread."""
        self._usage.note(partition, first_sequences, self._clock.now_us(), self._rules.ageing.half_life_us)

    def hot(self) -> Hot:
        """The hours that are hot now, and those that are not and were read or moved. For any thread.

        Raises DriftledgerError where a store cannot be read now.
        """
        hours, away = list[HotHour](), list[Away]()
        for lane in self._lanes():
            if lane.tier is not None:
                for partition in lane.partitions:
                    used = self._usage.of(partition)
                    found = held_hours(lane.tier, partition, used)
                    ends = {hour.end_ms for hour in found}
                    hours += found
                    away += [Away(end_ms, *each) for end_ms, each in used.items() if end_ms not in ends]
        return Hot(hours, away)

    def turn(self, folder: Path) -> None:
        """Look once, and do what is due. folder: the worker's, of its hot stores.

        What fails is logged and keeps nothing else from being done, but for hours of which a file was found damaged:
        these stay. Raises TurnFailedError behind it all, HandedOnError once the keeper is to stop, and DriftledgerError
        or OSError where nothing can be done at all.
        """
        with self._turning:
            rules = self._begin(folder)
            failures: list[str] = []
            doubted = self._run_jobs(failures)
            self._check_going()
            self.archives.refresh()
            held = [partition for lane in self._lanes() if lane.tier is not None for partition in lane.partitions]
            for partition, job in itertools.product(held, (Job.DEMOTE, Job.PROMOTE)):
                due = partial(self._move_here, rules, partition, job, doubted)
                if not self._tried(failures, job, due, partition):
                    break
            self._save(rules)
        if failures:
            raise TurnFailedError(failures)

    def move(self, folder: Path, job: Job, partitions: Collection[int], tell: Tell | None) -> tuple[Step, ...]:
        """Hours of these partitions that are due for a job, DEMOTE or PROMOTE: moved, in order; returns the steps.

        folder: as of `turn`. tell: is told each before it is done; without it nothing is done. Raises HandedOnError
        where a partition is not owned, DriftledgerError, OSError.
        """
        done: list[Step] = []
        rules = self._begin(folder)
        alone: contextlib.AbstractContextManager[object] = contextlib.nullcontext() if tell is None else self._moving
        for partition in sorted(partitions):
            with alone:
                done += self._move_due(rules, partition, job, tell)
        if tell is not None:
            self._save(rules)
        return tuple(done)

    def stop(self) -> None:
        """Have who moves or runs something end it soon, and begin nothing more. Returns at once."""
        self._stopping.set()

    def close(self) -> None:
        """Stop, and let go of files and client; returns when no turn is under way any more."""
        self.stop()
        with self._turning, self._moving:
            self.archives.close(self._log.close)

    def _begin(self, folder: Path) -> Configuration:
        self._check_going()
        self._rules = read_rules(self._files.root)
        self._usage.keep_in(folder / f"{self._names.manifest}.usage.json")
        self.archives.refresh()
        return self._rules

    def _save(self, rules: Configuration) -> None:
        with self._moving:
            self._usage.save(self._clock.now_us(), rules.ageing.half_life_us, rules.ageing.stay_us)

    def _check_going(self) -> None:
        if self._stopping.is_set():
            raise HandedOnError("this worker stops. What is due is done in a turn of the next")

    @contextlib.contextmanager
    def _store_of(self, partition: int) -> Iterator[HotStore]:
        """The store of a partition, kept open meanwhile: not for long, for the next cannot be opened before."""
        tier = next((lane.tier for lane in self._lanes() if partition in lane.partitions), None)
        with contextlib.nullcontext() if tier is None else tier.reading() as store:
            if store is None:
                raise _NotServedError(f"partition {partition} is not served by this worker any more")
            yield store

    def _tried(self, failures: list[str], job: str, do: Callable[[], None], partition: int | None = None) -> bool:
        """Do a part of a turn. What it fails of is logged and noted, as text: an error has frames, and these clients.

        False where somebody does not answer whom the other parts would ask too. Raises HandedOnError.
        """
        try:
            do()
        except HandedOnError:
            raise
        except (DriftledgerError, OSError) as error:
            remedy = getattr(error, "remedy", None)
            _logger.warning("lifecycle_job_failed", job=job, partition=partition, error=str(error), remedy=remedy)
            failures.append(f"{job}: {error}")
            return not isinstance(error, UnreachableError) or isinstance(error, _OF_ONE_PLACE)
        return True

    def _run_jobs(self, failures: list[str]) -> list[Step]:
        """Those that are due, where no other run has the lease; returns steps that met a damaged file."""
        due = set[Job]()
        doubted: list[Step] = []
        with Jobs(self._settings, self._bootstrap, pace=self.pace) as jobs:

            def look() -> None:
                planned = jobs.planned(cuts=False)
                due.update(step.job for step in planned if step.job is not Job.DEMOTE or step.paths)

            if not self._tried(failures, "plan", look):
                return doubted
            for job in RUN_HERE:
                run = partial(self._run_job, jobs, job, doubted)
                if job in due and not self._tried(failures, job, run):
                    break
        return doubted

    def _run_job(self, jobs: Jobs, job: Job, doubted: list[Step]) -> None:
        begun: list[Step] = []

        def tell(step: Step, _done: int, _of: int) -> None:
            self._check_going()
            begun.append(step)

        try:
            outcome = jobs.run(job, tell)
        except (JobRunningError, LeaseLostError):  # another does it
            return
        except DamagedError:
            doubted += begun[-1:]
            raise
        _logger.info("job_done", job=job, id=outcome.id, **outcome.did._asdict())

    def _hours(self, store: HotStore, partition: int) -> list[HotHour]:
        """Those whose rows there are; of what was let go of and pruned since there is nothing to be moved."""
        tiered = Tiered(store, self.archives)
        begins = tiered.begins(partition)
        lines = [line for line in store.lines(partition) if line.held or line.first_sequence >= begins]

        def header(sequence: int) -> Header:
            with contextlib.suppress(ChunkAwayError):
                return store.header(partition, sequence)
            return tiered.headers(partition, sequence, 1)[0]

        hours = hours_of(partition, lines, header, store.bytes_per_row(), self._usage.of(partition))
        self._usage.know(partition, hours)
        return hours

    def _move_here(self, rules: Configuration, partition: int, job: Job, doubted: Sequence[Step]) -> None:
        """Of a turn; nothing where the partition went meanwhile, or is not to be served yet."""
        with contextlib.suppress(_NotServedError), self._moving:
            self._move_due(rules, partition, job, lambda *_: self._check_going(), doubted)

    def _move_due(
        self,
        rules: Configuration,
        partition: int,
        job: Job,
        tell: Tell | None,
        doubted: Sequence[Step] = (),
    ) -> list[Step]:
        """Move the hours that are due for a job, and tell each before; without tell only say which are.

        doubted: steps whose hours do not leave.
        """
        with self._store_of(partition) as store:
            hours = self._hours(store, partition)
        known = Known(self._manifest.tree, {partition: hours}, {}, {})
        steps = [step for step in plan(known, rules, self._clock.now_us(), job) if not step.paths]
        if job is Job.DEMOTE:
            steps = [step for step in steps if not any(map(partial(_overlap, step), doubted))]
        if tell is None:
            return steps
        moved: list[Step] = []
        for step in steps:
            tell(step, sum(each.rows for each in moved), sum(each.rows for each in steps))
            hour = next(hour for hour in hours if hour.first_index == step.first_index)
            if self._move(step, hour):
                self._usage.moved(partition, hour.end_ms, self._clock.now_us())
                moved.append(step)
        if moved and job is Job.DEMOTE:
            with self._store_of(partition) as store:
                store.reclaim()
        return moved

    def _move(self, step: Step, hour: HotHour) -> bool:
        """Chunks of an hour that are to move, never the last of the partition; False where there are none."""
        partition = step.partition
        with self._store_of(partition) as store:
            lines = [line for line in store.lines(partition) if hour.first_index <= line.first_index <= hour.last_index]
            applied = store.applied(partition)
            firsts = [line.first_sequence for line in lines if applied is None or line.last_sequence < applied.sequence]
            if step.job is Job.PROMOTE:
                firsts = [line.first_sequence for line in lines if not line.held]
            if step.job is Job.DEMOTE and firsts:
                for line in lines[: len(firsts)]:  # what is not there is an error before anything is let go of
                    self._check_archived(partition, line)
                store.send_away(partition, firsts)
        if step.job is Job.PROMOTE:
            for start in range(0, len(firsts), _CHUNKS_AT_ONCE):
                self._bring_back(store, partition, firsts[start : start + _CHUNKS_AT_ONCE])
        if firsts:
            _logger.info(
                "hour_moved", job=step.job, partition=partition, period=hour.period, rows=hour.rows, why=step.why
            )
        return bool(firsts)

    def _check_archived(self, partition: int, line: Line) -> None:
        """That a chunk is in an archive, or was in one that is pruned. Raises DriftledgerError."""
        found = self.archives.headers(partition, line.first_sequence, 1)
        if not (found and is_of(found[0], line)) and line.last_sequence >= self.archives.first_sequence(partition):
            raise DriftledgerError(
                f"the chunk at sequence {partition}:{line.first_sequence} is in no archive, though its hour is said to "
                "be. It stays hot: run `driftledger lifecycle run verify`"
            )

    def _bring_back(self, store: HotStore, partition: int, firsts: Sequence[int]) -> None:
        """Chunks that begin there; what they are read from may be slow, so the store is kept open only behind it."""
        chunks = list(chunks_in(self.archives, partition, firsts))
        self.pace.take(sum(len(each) for chunk in chunks for each in chunk.sections.values()))
        with self._store_of(partition) as now:
            if now is not store:
                raise _NotServedError(f"the hot store of partition {partition} is another by now")
            store.bring_back(partition, chunks)


def _overlap(one: Step, other: Step) -> bool:
    """Whether two steps are about the same entries."""
    return (
        one.partition == other.partition and one.first_index <= other.last_index and other.first_index <= one.last_index
    )


def held_hours(tier: HotTier, partition: int, used: Mapping[int, Used]) -> list[HotHour]:
    """Of the chunks that a store holds: what it let go of is not looked at."""
    with tier.reading() as store:
        if store is None:
            return []
        lines = [line for line in store.lines(partition) if line.held]
        while True:
            try:
                return hours_of(partition, lines, partial(store.header, partition), store.bytes_per_row(), used)
            except ChunkAwayError:  # sent away since its line was read
                before, lines = lines, [line for line in store.lines(partition) if line.held]
                if len(lines) >= len(before):
                    raise


def chunks_in(archives: ArchivedChunks, partition: int, first_sequences: Sequence[int]) -> Iterator[ChunkBytes]:
    """Archived chunks as the hot tier stores them."""
    for first in first_sequences:
        header = archives.headers(partition, first, 1)[0]
        sections = {}
        for column in ROW_COLUMNS:
            values = archives.column(partition, first, column, header.rows).values
            sections[column] = encode_column(partition, first, column, values)
        if header.readings:
            readings = archives.column(partition, first, Column.READINGS, header.readings).values
            sections[Column.READINGS] = encode_readings(partition, first, readings)
        yield ChunkBytes(first, encode_header(header), sections)
