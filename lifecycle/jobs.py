"""Jobs as they are run: what is known is gathered, planned over (`plans`) and done step by step (`job_steps`).

Problem: an operator must be able to ask what a job would do, get just that when it is run, end it at any moment and run
it again. So a run plans under the lease, on what is committed, and does one step after the other; it keeps nothing of
its own but what it tells of itself.

GUARANTEE a run ends what one before it left half done: its orphans are removed before the first step (by reindex,
which looks at them first, behind the last).
GUARANTEE who holds no lease changes no file; what is pruned, or cut from the ledger, was proved in the same run.
HAZARD who lost it learns so by a look before each removal of what others left (`tidying`), and at each commit
(`job_steps`).
HAZARD hours are those of the hot stores on this machine, as of their last flush. A partition whose store is elsewhere
has none here: nothing of it is sealed.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.archive_files import files_of
from lifecycle.cutting import Cutting, check_begin, oldest_needed, proved, rests_on
from lifecycle.hot_hours import hours_of
from lifecycle.job_record import Did, Progress
from lifecycle.job_run import JobRun
from lifecycle.job_steps import Place, Work, compact, move, prune, seal
from lifecycle.manifest import Move
from lifecycle.manifest_log import ManifestLease, read_manifest
from lifecycle.mending import Reindex
from lifecycle.pace import Pace, PacedTree
from lifecycle.packing import DamagedError
from lifecycle.plans import plan
from lifecycle.restoring import Sources, UnrestorableError, damaged_in, make_again
from lifecycle.rules import LedgerRetention
from lifecycle.rules_reader import read_rules
from lifecycle.steps import Job, Known, Ledger, Step, of_files
from lifecycle.stores_here import StoresHere, usage_of
from lifecycle.tidying import tidy
from lifecycle.verifying import verify
from schemas.clock import source as time_source
from schemas.errors import BadInputError
from schemas.topics import topic_names
from streams.definitions import JUDGE
from streams.ledger_reader import read_tail
from streams.log import Log
from streams.queries import Ledger as LedgerQueries
from streams.snapshots import read_snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from lifecycle.chunks import ChunkBytes
    from lifecycle.hot_store import HotStore
    from lifecycle.manifest import Segment, Tree
    from lifecycle.rules import Configuration
    from lifecycle.steps import HotHour
    from lifecycle.usage import Usage
    from streams.ledger_reader import Tail
    from streams.settings import Settings

    #: Is told each step before it is done, and how many rows are done of how many.
    Tell = Callable[[Step, int, int], None]

#: Those that are run from anywhere. What changes the hot tier is asked of the worker that has it.
RUN_HERE: Final = (Job.SEAL, Job.COMPACT, Job.DEMOTE, Job.PRUNE, Job.CUT, Job.VERIFY, Job.REINDEX, Job.RESTORE)


class Outcome(NamedTuple):
    """Of a run. id: of it, as in the history; tidied: files that an earlier one had left."""

    id: str
    steps: tuple[Step, ...]
    did: Did
    tidied: int


class Jobs:
    """Of one ledger. A context manager; for one thread.

    Methods raise BadInputError for rules that cannot be, UnreachableError, DamagedError, ChainError, LeaseLostError,
    UnrestorableError.
    """

    def __init__(
        self,
        settings: Settings,
        bootstrap: str,
        at: Callable[[str], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        """at: see `cutting.Cutting`. pace: at which files are read and written, none for as fast as may be."""
        self._settings, self._bootstrap, self._at = settings, bootstrap, at
        self._names = topic_names(settings.prefix, settings.ledger, settings.input_topic)
        self._log = Log(bootstrap)
        files = files_of(settings, self._names.manifest, self._log.cluster_id)
        self.files = PacedTree(files, pace or Pace())
        self._stores = StoresHere(settings, self._log, bootstrap)
        self._now_us = time_source().now_us

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stores.close()
        self._log.close()

    def tree(self) -> Tree:
        """The archive as it is committed now."""
        return read_manifest(self._bootstrap, self._names)

    def rules(self) -> Configuration:
        """Those of the archive's root."""
        return read_rules(self.files.root)

    def planned(
        self, only: Job | None = None, *, cuts: bool = True, partitions: Collection[int] | None = None
    ) -> tuple[Step, ...]:
        """What there is to do; what is to be pruned, cut, or entered again, is taken for proved.

        Of verify: all files, where it is what is asked for, and else none. cuts: also what of the ledger could go, by
        its snapshots. partitions: only those. Raises BadInputError for promote, of which only a worker knows, and
        NotCutError where cut alone is asked for, as of `run`.
        """
        if only is Job.PROMOTE:
            raise BadInputError(
                "which hours are to come back follows from what was read, which the worker that let go of them knows. "
                "Have it asked: `driftledger lifecycle run promote --dry-run`"
            )
        tree = self.tree()
        if only is Job.VERIFY:
            return _within(_verifications(tree), partitions)
        if only is Job.REINDEX:
            return _within(Reindex(self.files, tree, self._stores.begins).steps(), partitions)
        if only is Job.RESTORE:
            return _within(damaged_in(self.files, tree), partitions)
        proofs = _assumed(tree) if only in (None, Job.PRUNE, Job.CUT) else {}
        known = self._known(tree, proofs, partitions, cuts=cuts and only in (None, Job.CUT))
        rules = self.rules()
        if only is Job.CUT:
            _check_begins(known, rules)
        return _within(plan(known, rules, self._now_us(), only), partitions)

    def run(
        self,
        job: Job,
        tell: Tell,
        *,
        take_over: bool = False,
        partitions: Collection[int] | None = None,
        wait_s: float = 0.0,
        asked: JobRun | None = None,
    ) -> Outcome:
        """Do all steps of a job.

        partitions: only those (None: all). wait_s: for the end of another run. asked: the run to do it as, which was
        entered and is to hold the lease; who entered it leaves it. Raises NotCutError, see `cutting`.
        """
        if job not in RUN_HERE:
            raise BadInputError(f"{job} changes what a worker holds. Have the worker do it: it does so by the rules")
        rules = self.rules()
        if job is Job.REINDEX and partitions is not None:
            raise BadInputError("reindex is of all partitions: run it without --partition")
        with (
            self._entered(job, wait_s, asked) as run,
            ManifestLease(self._bootstrap, self._names, run, take_over=take_over) as lease,
        ):
            buffer_bytes = self._settings.lifecycle_buffer_bytes
            work = Work(self.files, lease, run.job.id, self._now_us, rules.codec, buffer_bytes)
            if job is Job.REINDEX:
                return self._reindex(work, run, tell)
            tidied = tidy(work, self._stores.begins)
            proofs = self._proved(lease.tree, rules, job, partitions)
            steps = self._due(job, lease.tree, proofs, rules, partitions)
            did, lost, damaged = self._do_all(work, run, job, steps, tell)
            if job is Job.RESTORE:  # what had entries of a damaged file may go now
                tidied += tidy(work, self._stores.begins)
            if lost:
                raise UnrestorableError(*lost)
            if damaged:
                raise DamagedError("; ".join(damaged))
        return Outcome(run.job.id, steps, did, tidied)

    def _do_all(
        self, work: Work, run: JobRun, job: Job, steps: Sequence[Step], tell: Tell
    ) -> tuple[Did, list[tuple[Segment, str]], list[str]]:
        """What was done; of verify and restore also what is wrong with files: the others are done all the same."""
        total, did = sum(step.rows for step in steps), Did()
        lost: list[tuple[Segment, str]] = []
        damaged: list[str] = []
        for step in steps:
            tell(step, did.rows, total)
            before = work.lease.tree
            try:
                self._do(work, step)
            except UnrestorableError as error:
                lost += error.lost
                continue
            except DamagedError as error:
                if job is not Job.VERIFY:
                    raise
                damaged.append(str(error))
                continue
            did = _done(did, step, _added_bytes(before, work.lease.tree, step.partition))
            run.tell(progress=Progress(did.rows, total, "rows"), did=did)
        return did, lost, damaged

    def _due(
        self,
        job: Job,
        tree: Tree,
        proofs: Mapping[str, int],
        rules: Configuration,
        partitions: Collection[int] | None,
    ) -> tuple[Step, ...]:
        """What a run of a job does, which holds the lease."""
        if job is Job.VERIFY:
            return _within(_verifications(tree), partitions)
        if job is Job.RESTORE:
            return _within(damaged_in(self.files, tree), partitions)
        steps = plan(self._known(tree, proofs, partitions, cuts=job is Job.CUT), rules, self._now_us(), job)
        return tuple(step for step in _within(steps, partitions) if job is not Job.DEMOTE or step.paths)

    def _reindex(self, work: Work, run: JobRun, tell: Tell) -> Outcome:
        """Files that the manifest does not name are looked at before those are removed that it can do without."""
        reindex, did = Reindex(self.files, work.lease.tree, self._stores.begins), Did()
        reindex.prove(work)
        steps, before = reindex.steps(), work.lease.tree.commit
        total = sum(step.rows for step in steps)
        damaged: list[str] = []
        for step in steps:
            tell(step, did.rows, total)
            try:
                reindex.do(work, step.paths[0])
            except DamagedError as error:  # the others are mended all the same
                damaged.append(str(error))
            commits = work.lease.tree.commit - before
            did = did._replace(rows=did.rows + step.rows, added=commits, commits=commits)
            run.tell(progress=Progress(did.rows, total, "rows"), did=did)
        tidied = tidy(work, self._stores.begins)
        if damaged:
            raise DamagedError("; ".join(damaged))
        return Outcome(run.job.id, steps, did, tidied)

    def held_here(self, partitions: Collection[int]) -> tuple[set[int], set[int]]:
        """Of some partitions those whose hot store is on this machine, and those that have a ledger and none here."""
        tails = {partition: read_tail(self._log, self._names.sequenced, partition) for partition in partitions}
        here = {
            each for each, tail in tails.items() if tail is not None and self._stores.newest(each, tail) is not None
        }
        return here, {each for each, tail in tails.items() if tail is not None} - here

    def _entered(self, job: Job, wait_s: float, asked: JobRun | None) -> contextlib.AbstractContextManager[JobRun]:
        if asked is not None:
            return contextlib.nullcontext(asked)
        return JobRun(self._bootstrap, self._names.jobs, job, wait_s=wait_s)

    def _do(self, work: Work, step: Step) -> None:
        segments = {segment.path: segment for segment in work.lease.tree.segments()}
        files = [segments[path] for path in step.paths]
        place = None if step.grain is None else Place(step.tier, step.grain, step.period)
        match step.job:
            case Job.SEAL if place is not None:
                self._seal(work, step, place)
            case Job.COMPACT if place is not None:
                compact(work, place, files)
            case Job.DEMOTE if place is not None:
                move(work, Move.DEMOTE, place, files[0])
            case Job.PRUNE:
                prune(work, step.partition, files)
            case Job.CUT:
                self._cut(work, step)
            case Job.VERIFY:
                verify(self.files, files[0])
            case Job.RESTORE:
                make_again(work, files[0], self._sources(step.partition))

    def _cut(self, work: Work, step: Step) -> None:
        files = work.lease.tree.parts.get(step.partition, ())
        with LedgerQueries(self._settings, self._bootstrap) as ledger:
            pruned_index = work.lease.tree.pruned_index(step.partition, step.first_index)
            rested = rests_on(files, step.first_index, step.last_index, pruned_index)
            cutting = Cutting(ledger, self.files, work.job, self._at)
            cutting.cut(step.partition, rested, step.last_index, files[-1].facts.last_index)

    def _seal(self, work: Work, step: Step, place: Place) -> None:
        tail = read_tail(self._log, self._names.sequenced, step.partition)
        store = self._stores.newest(step.partition, tail)
        if tail is None or store is None:
            raise BadInputError(f"the hot store of partition {step.partition} is gone. Run the job again")
        entries = self._stores.entries(step.partition, tail, step.first_index, step.last_index)
        seal(work, step.partition, place, self._chunks(store, step), entries)

    def _sources(self, partition: int) -> Sources:
        """What files of a partition are made again of."""
        lane, names = partition % self._settings.lanes, self._names
        tail = partial(read_tail, self._log, names.sequenced, partition)
        return Sources(
            self._stores, tail, partial(read_snapshots, self._log, names.snapshots, lane, (JUDGE,), partition)
        )

    def _proved(self, tree: Tree, rules: Configuration, job: Job, partitions: Collection[int] | None) -> dict[str, int]:
        """Files that would be pruned, or that a cut would rest on, if they were proved; proved now."""
        if job not in (Job.PRUNE, Job.CUT):
            return {}
        known = self._known(tree, _assumed(tree), partitions, cuts=job is Job.CUT)
        if job is Job.CUT:
            _check_begins(known, rules)
        steps = _within(plan(known, rules, self._now_us(), job), partitions)
        proofs: dict[str, int] = {}
        for step in steps:
            files = tree.parts.get(step.partition, ())
            if job is Job.PRUNE:
                rested = [segment for segment in files if segment.path in step.paths]
            else:  # the newest that is proved says how much stays
                rested = [segment for segment in files if segment.facts.last_index >= step.first_index]
            proofs |= proved(self.files, rested, self._now_us)
        return proofs

    def _known(self, tree: Tree, proofs: Mapping[str, int], partitions: Collection[int] | None, *, cuts: bool) -> Known:
        hours, ledgers = {}, {}
        for partition in range(self._settings.partitions) if partitions is None else sorted(partitions):
            tail = read_tail(self._log, self._names.sequenced, partition)
            if tail is None:
                continue
            first_index = self._stores.begins(partition)
            needed = self._needed(tree, partition, tail) if cuts else first_index
            pruned_index = tree.pruned_index(partition, first_index)
            ledgers[partition] = Ledger(first_index, tail.head.index, needed, pruned_index)
            store = self._stores.newest(partition, tail)
            if store is not None:
                hours[partition] = self._hours(partition, store)
        return Known(tree, hours, ledgers, proofs)

    def _needed(self, tree: Tree, partition: int, tail: Tail) -> int:
        end = tree.end(partition)
        if end is None:  # nothing is archived
            return 1
        with LedgerQueries(self._settings, self._bootstrap) as ledger:
            return oldest_needed(ledger, partition, tail, end.facts.last_index)

    def _hours(self, partition: int, store: HotStore, usage: Usage | None = None) -> list[HotHour]:
        """Of chunks that are held: what is away is archived."""
        lines = [line for line in store.lines(partition) if line.held]
        used = None if usage is None else usage.of(partition)
        return hours_of(
            partition, lines, lambda sequence: store.header(partition, sequence), store.bytes_per_row(), used
        )

    def hot_hours(self) -> dict[int, list[HotHour]]:
        """By partition: the hours that the hot stores on this machine hold, as they are used."""
        found = {}
        for partition in range(self._settings.partitions):
            store = self._stores.newest(partition, read_tail(self._log, self._names.sequenced, partition))
            if store is not None:
                found[partition] = self._hours(partition, store, usage_of(store, self._names.manifest))
        return found

    def _chunks(self, store: HotStore, step: Step) -> Iterator[ChunkBytes]:
        """Those of the entries of a step."""
        for line in store.lines(step.partition):
            if line.first_index >= step.first_index and line.last_index <= step.last_index:
                chunk = store.chunk(step.partition, line.first_sequence)
                self.files.take(len(chunk.header) + sum(map(len, chunk.sections.values())))
                yield chunk


def _within(steps: Iterable[Step], partitions: Collection[int] | None) -> tuple[Step, ...]:
    """Those of some partitions, None for all."""
    return tuple(step for step in steps if partitions is None or step.partition in partitions)


def _check_begins(known: Known, rules: Configuration) -> None:
    """Raises NotCutError where a ledger would be cut, and has entries that no archive has and no prune has dropped."""
    if rules.ledger is LedgerRetention.KEEP:
        return
    for partition, ledger in known.ledgers.items():
        files = known.tree.parts.get(partition, ())
        check_begin(partition, files, ledger.first_index, ledger.pruned_index)


def _verifications(tree: Tree) -> tuple[Step, ...]:
    """Of all files."""
    return tuple(of_files(Job.VERIFY, [segment], "all files were asked for") for segment in tree.segments())


def _assumed(tree: Tree) -> dict[str, int]:
    """As if all files were proved: of what is pruned, or what a cut rests on, a run does so first."""
    return {segment.path: segment.moved_us for segment in tree.segments()}


def _added_bytes(before: Tree, after: Tree, partition: int) -> int:
    """What files of a partition take that came to be there."""
    known = {segment.path for segment in before.parts.get(partition, ())}
    return sum(segment.size_bytes for segment in after.parts.get(partition, ()) if segment.path not in known)


def _done(did: Did, step: Step, bytes_out: int = 0) -> Did:
    """With one step more."""
    adds = step.job in (Job.SEAL, Job.COMPACT, Job.DEMOTE, Job.RESTORE)
    drops = 0 if step.job in (Job.SEAL, Job.VERIFY) else len(step.paths)
    return did._replace(
        rows=did.rows + step.rows,
        bytes_in=did.bytes_in + step.size_bytes,
        bytes_out=did.bytes_out + bytes_out,
        added=did.added + adds,
        dropped=did.dropped + drops,
        commits=did.commits + (step.job not in (Job.CUT, Job.VERIFY, Job.RESTORE)),
    )
