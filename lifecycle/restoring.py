"""Archives made again that are lost or damaged: from the ledger, and from the hot tier or the folds that filled it.

Problem: an archive has the ledger's entries and judge's verdicts on them. The ledger has the former as long as it is
not cut; the latter are in the hot tier while it holds the hour, and follow from the ledger otherwise, for folds are
pure. So a file comes back as it was, or it is said which sequences are gone with it; and where the hot tier is damaged
the folds are asked.

GUARANTEE what is made again ends, and begins, with the chain hashes and the Merkle root that the manifest has of it.
HAZARD without the hot tier judge goes on from its newest snapshot before the file, without one from the beginning of
the ledger: about a second for a million entries.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from lifecycle.archiving import ChainError
from lifecycle.chunks import Applied, ChunkBytes, StoreDamagedError
from lifecycle.file_tree import FileLostError
from lifecycle.hot_database import HotStoreUnavailableError
from lifecycle.job_steps import restore
from lifecycle.leftovers import mend_of_leftovers
from lifecycle.packing import DamagedError
from lifecycle.steps import Job, Step, of_files
from lifecycle.store import Store
from lifecycle.verifying import digest_of
from schemas.errors import DriftledgerError, HaltError
from streams.fold import FoldError
from streams.judge import Judge
from streams.restore import restore as restore_judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lifecycle.archive_facts import Facts
    from lifecycle.file_tree import FileTree
    from lifecycle.hot_store import HotStore
    from lifecycle.job_steps import Work
    from lifecycle.manifest import Segment, Tree
    from lifecycle.stores_here import StoresHere
    from schemas.columns import Entries
    from streams.judge import JudgeState
    from streams.ledger_reader import Tail
    from streams.snapshots import Packed

_logger = structlog.get_logger()


class Sources(NamedTuple):
    """Of a partition. stores: hot stores and the ledger; tail: asked for the ledger's, None where it has no entry.

    snapshots: asked for judge's.
    """

    stores: StoresHere
    tail: Callable[[], Tail | None]
    snapshots: Callable[[], Iterable[Packed]]


class UnrestorableError(DriftledgerError):
    """Files that cannot be made again: nothing has their entries any more, or what has them is not what was written.

    Attributes: lost, each file and what is in the way; remedy.
    """

    remedy = "Put a good copy of each in its place"

    def __init__(self, *lost: tuple[Segment, str]) -> None:
        told = "; ".join(_told(segment.path, segment.facts, why) for segment, why in lost)
        super().__init__(f"{told}. {self.remedy}")
        self.lost = lost


def _told(path: str, facts: Facts, why: str) -> str:
    return (
        f"{path}, which has sequences {facts.first_sequence} to {facts.last_sequence} of partition {facts.partition}, "
        f"cannot be made again: {why}"
    )


def damaged_in(files: FileTree, tree: Tree) -> tuple[Step, ...]:
    """A step for each file that is not there, or not what the manifest says: all are read."""
    steps = []
    for segment in tree.segments():
        try:
            with files.open_checked(segment.path) as content:
                why = "" if digest_of(content) == segment.sha256 else "its bytes are not those that were written"
        except FileLostError:
            why = "it is not there"
        if why:
            steps.append(of_files(Job.RESTORE, [segment], why))
    return tuple(steps)


def make_again(work: Work, segment: Segment, sources: Sources) -> None:
    """One file, of what lies there without a name in the manifest, or else of these.

    Raises UnrestorableError, also where what has the entries of this file is broken: that of others may be whole.
    """
    try:
        if not mend_of_leftovers(work, segment):
            _make_of(work, segment, sources)
    except (DamagedError, ChainError, FoldError, HaltError) as error:
        raise UnrestorableError((segment, str(error))) from error


def _make_of(work: Work, segment: Segment, sources: Sources) -> None:
    facts, stores, tail = segment.facts, sources.stores, sources.tail()
    partition, first_index, last_index = facts.partition, facts.first_index, facts.last_index
    if tail is None or stores.begins(partition) > first_index or tail.head.index < last_index:
        raise UnrestorableError((segment, "the ledger does not have its entries any more"))
    read = partial(stores.entries, partition, tail)
    store = stores.newest(partition, tail)
    try:
        chunks = None if store is None else held_chunks(store, facts)
        if chunks is not None:
            restore(work, segment, chunks, read(first_index, last_index))
            return
    except (StoreDamagedError, HotStoreUnavailableError, DamagedError, ChainError) as error:
        _logger.warning("hot_store_passed_over", partition=partition, error=str(error))
    try:
        judged = restore_judge(Judge(), partition, sources.snapshots(), first_index - 1, read)
    except HaltError as error:
        why = f"the hot tier does not hold it whole, and the ledger not all that is before it ({error})"
        raise UnrestorableError((segment, why)) from error
    chunks = folded_chunks(facts, judged, read(first_index, tail.head.index))
    restore(work, segment, chunks, read(first_index, last_index))


def held_chunks(store: HotStore, facts: Facts) -> Iterator[ChunkBytes] | None:
    """The chunks of a file, where the hot tier holds all of them."""
    lines = [
        line
        for line in store.lines(facts.partition)
        if facts.first_index <= line.first_index and line.last_index <= facts.last_index
    ]
    if not lines or not all(line.held for line in lines):
        return None
    if (lines[0].first_index, lines[-1].last_index) != (facts.first_index, facts.last_index):
        return None
    return (store.chunk(facts.partition, line.first_sequence) for line in lines)


def folded_chunks(facts: Facts, judged: JudgeState, batches: Iterable[Entries]) -> Iterator[ChunkBytes]:
    """The chunks of a file, by the folds: as the hot tier had them.

    judged: judge's state before the first entry of the file; batches: from that on, behind its last, for it is the row
    behind a chunk that may end it.
    """
    judge, fold = Judge(), Store()
    before = Applied(facts.first_index - 1, facts.first_sequence - 1, 0, facts.order_ms)
    state = fold.new_state(facts.partition, before)
    for entries in batches:
        for chunk in fold.step(state, entries, judge.step(judged, entries)):
            if chunk.first_index > facts.last_index:
                return
            yield ChunkBytes(chunk.first_sequence, chunk.header, chunk.sections)
        if state.applied.index >= facts.last_index:
            return
