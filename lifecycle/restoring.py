"""Archives made again that are lost or damaged: from the ledger, and from the hot tier or the folds that filled it.

Problem: an archive has the ledger's entries and judge's verdicts on them. The ledger has the former as long as it is
not cut; the latter are in the hot tier while it holds the hour, and follow from the ledger otherwise, for folds are
pure. So a file comes back as it was, or it is said which sequences are gone with it.

GUARANTEE what is made again ends, and begins, with the chain hashes and the Merkle root that the manifest has of it.
HAZARD without the hot tier judge goes on from its newest snapshot before the file, without one from the beginning of
the ledger: about a second for a million entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.chunks import Applied, ChunkBytes
from lifecycle.file_tree import FileLostError
from lifecycle.steps import Job, Step, of_files
from lifecycle.store import Store
from lifecycle.verifying import digest_of
from schemas.errors import DriftledgerError
from streams.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lifecycle.archive_facts import Facts
    from lifecycle.file_tree import FileTree
    from lifecycle.hot_store import HotStore
    from lifecycle.manifest import Segment, Tree
    from schemas.columns import Entries
    from streams.judge import JudgeState


class UnrestorableError(DriftledgerError):
    """Nothing has the entries of a file any more.

    Attributes: path, partition, first_sequence, last_sequence, remedy.
    """

    remedy = "Put a good copy of it in its place"

    def __init__(self, segment: Segment, detail: str) -> None:
        facts = segment.facts
        super().__init__(
            f"{segment.path}, which has sequences {facts.first_sequence} to {facts.last_sequence} of partition "
            f"{facts.partition}, cannot be made again: {detail}. {self.remedy}"
        )
        self.path, self.partition = segment.path, facts.partition
        self.first_sequence, self.last_sequence = facts.first_sequence, facts.last_sequence


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
