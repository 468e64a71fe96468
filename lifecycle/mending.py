"""What the job reindex does: indices of archives made again, and files entered into a manifest that lost them.

Problem: an index may be lost or damaged, and so may be the topic of the manifest. Both follow from the archives, but
nothing may be served, or removed, on the word of a file alone. So each archive is proved, entry by entry, before what
is made of it has a name; and a manifest is written only where what is there is one range of entries for each partition.

    begin      which indices are not those of the manifest, which files it does not name and which of these it should
    prove      all that are to be entered; one that is damaged is left out, and the choice made anew
    do         a step a file, in the order of entries: its index is published; then, where it is to be entered, a commit

GUARANTEE nothing is removed, and nothing is committed before all that is to be is proved.
GUARANTEE run again after it was cut off, it goes on: what was entered by then is the beginning of what is there.
HAZARD when a file came to its place is not known any more: it counts as moved now.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from lifecycle.archive import facts_at
from lifecycle.archive_index import Index
from lifecycle.chunk_codec import decode_header
from lifecycle.file_tree import FileLostError
from lifecycle.found_files import Found, UnchainedArchivesError, chosen, unchained
from lifecycle.job_steps import Place, segment_in, spans_of, written
from lifecycle.layout import index_of, place_in
from lifecycle.manifest import Commit, Move
from lifecycle.packing import DamagedError
from lifecycle.reindexing import index_again
from lifecycle.steps import Job, Step, of_files
from lifecycle.verifying import digest_of, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lifecycle.file_tree import FileTree
    from lifecycle.job_steps import Work
    from lifecycle.manifest import Segment, Tree

_NO_INDEX: Final = "its index is not what was written: it is made again"
_UNKNOWN: Final = "the manifest does not name it: it is entered"


class Reindex:
    """What is to be done to a tree of files, of which a manifest knows these. ledger_begins: as of `tidying.tidy`.

    Raises UnchainedArchivesError where files are there that the manifest can neither know nor do without.
    """

    def __init__(self, files: FileTree, tree: Tree, ledger_begins: Callable[[int], int]) -> None:
        self._files, self._tree, self._ledger_begins = files, tree, ledger_begins
        self._wrong = [each for each in tree.segments() if not self._has_index(each)]
        self._found = _found(files, tree)
        #: Indices of files that were proved, which have no name yet.
        self._made: dict[str, Path] = {}
        self._taken = self._choose()

    def steps(self) -> tuple[Step, ...]:
        """One for each file, in the order in which they are done."""
        return (
            *(of_files(Job.REINDEX, [segment], _NO_INDEX) for segment in self._wrong),
            *(_step(file) for file in self._taken),
        )

    def prove(self, work: Work) -> None:
        """Prove what is to be entered. Raises UnchainedArchivesError where there is no range without what is not."""
        while file := next((file for file in self._taken if file.path not in self._made), None):
            try:
                content = index_again(self._files.open_checked(file.path), file.place.name)
            except DamagedError as error:
                self._found[self._found.index(file)] = file._replace(facts=None, detail=str(error))
                self._taken = self._choose()
            else:
                self._made[file.path] = written(work, file.place.tier, content)

    def do(self, work: Work, path: str) -> None:
        """The step of that file. Raises DamagedError where an archive is not what the manifest says."""
        wrong = next((segment for segment in self._wrong if segment.path == path), None)
        if wrong is not None:
            mend_index(work, wrong)
        else:
            self._enter(work, next(file for file in self._taken if file.path == path))

    def _enter(self, work: Work, file: Found) -> None:
        index_file, place = self._made[file.path], file.place
        if file.facts is None:
            raise DamagedError(f"{file.path} is damaged: {file.detail}")
        with index_file.open("rb") as content:
            index = Index(content)
            blobs = [index.blob(chunk) for chunk in range(index.chunks)]
        headers = [decode_header(place.partition, blob.first_sequence, blob.header) for blob in blobs]
        where, spans = Place(place.tier, place.grain, place.period), spans_of(headers)
        with self._files.open_checked(file.path) as data:
            segment = segment_in(work, file.path, where, data, index_file, file.facts, spans)
        work.files.replace(index_file, index_of(file.path))
        number = work.lease.tree.commit + 1
        work.lease.commit(Commit(number, Move.SEAL, work.job, place.partition, segment.moved_us, (segment,), ()))

    def _choose(self) -> list[Found]:
        """What is to be entered, of all partitions."""
        taken: list[Found] = []
        left: list[Found] = []
        for partition, group in groupby(self._found, lambda file: file.place.partition):
            files, end = list(group), self._tree.ends.get(partition)
            behind = [file for file in files if end is None or file.place.last_index > end.index]
            some = chosen(behind, end)
            taken += some
            left += unchained(behind, some, end, self._ledger_begins(partition))
        if left:
            raise UnchainedArchivesError(left)
        return taken

    def _has_index(self, segment: Segment) -> bool:
        try:
            with self._files.open_checked(index_of(segment.path)) as content:
                return digest_of(content) == segment.index_sha256
        except FileLostError:
            return False


def mend_index(work: Work, segment: Segment) -> None:
    """Make the index of a file again. Raises DamagedError, which names it, where the file is not what was written."""
    try:
        with work.files.open_checked(segment.path) as data:
            if digest_of(data) != segment.sha256:
                raise DamagedError("its bytes are not those that were written")  # noqa: TRY301 - named below
            content = index_again(data, place_in(segment.path).name)
        fresh = written(work, segment.tier, content)
        if sha256_of(fresh) != segment.index_sha256:
            raise DamagedError("the index that is made of it is not the one that was written")  # noqa: TRY301 - as above
    except DamagedError as error:
        facts = segment.facts
        raise DamagedError(
            f"{segment.path} (partition {facts.partition}, sequences {facts.first_sequence} to {facts.last_sequence}) "
            f"is damaged: {error}. `driftledger lifecycle run restore` makes it again"
        ) from error
    work.files.replace(fresh, index_of(segment.path))


def _found(files: FileTree, tree: Tree) -> list[Found]:
    """The archives that a manifest does not name, by partition and first index."""
    found = []
    for path in files.orphans(tree):
        try:
            place = place_in(path)
        except ValueError:  # an index, or nobody's
            continue
        try:
            with files.open_checked(path) as data:
                facts = facts_at(place.name, data)
            if facts[:3] != place[-3:]:
                raise DamagedError("it says of itself what its name does not")  # noqa: TRY301 - kept below
            found.append(Found(path, place, facts))
        except DamagedError as error:
            found.append(Found(path, place, None, str(error)))
    return sorted(found, key=lambda file: (file.place.partition, file.place.first_index, file.path))


def _step(file: Found) -> Step:
    place, facts = file.place, file.facts
    return Step(
        Job.REINDEX,
        place.partition,
        place.period,
        place.tier,
        place.grain,
        (file.path,),
        place.first_index,
        place.last_index,
        0 if facts is None else facts.rows,
        0,
        0.0,
        _UNKNOWN,
    )
