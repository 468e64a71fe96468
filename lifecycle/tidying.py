"""What runs that were cut off have left, removed: files that the manifest does not name.

Problem: a step that dies before its commit leaves files that never counted, and one that dies behind it such that count
no more; but a manifest that has lost something leaves files that are all there is. So a file goes only where its name
says that it never was one, or where its entries were pruned, or are in files of the manifest, which are read for it.
Entries before the first that a commit ever had in a file were not pruned: the manifest was made again without them.

GUARANTEE what is not explained is an error, and then nothing is removed.
HAZARD a run that stands still between the look for another, right before each removal, and that removal may remove what
the other has published meanwhile: `lifecycle run verify` names it, `restore` makes it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.file_tree import FileLostError
from lifecycle.found_files import is_of_seal
from lifecycle.layout import is_fresh, place_of
from lifecycle.verifying import digest_of
from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lifecycle.file_tree import FileTree
    from lifecycle.job_steps import Work
    from lifecycle.layout import Place
    from lifecycle.manifest import Segment, Tree


class UnknownArchivesError(DriftledgerError):
    """Files that the manifest does not name, and that no job that was cut off left. Attributes: paths, remedy."""

    remedy = (
        "Restore the topic of the manifest from a copy, or run `driftledger lifecycle run reindex`, which has it made "
        "again from these files; where they lie before all that it names, delete the topic and create it first. A file "
        "that is none of this ledger's is to be moved out of the root"
    )

    def __init__(self, paths: Sequence[str]) -> None:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        super().__init__(
            f"{paths[0]}{more}: the manifest does not name it and does not have its entries in another file, and no "
            f"job that was cut off leaves it like that. Nothing was removed. {self.remedy}"
        )
        self.paths = tuple(paths)


def tidy(work: Work, ledger_begins: Callable[[int], int]) -> int:
    """Remove what runs that were cut off have left; returns how many files.

    ledger_begins: the first index that the ledger still has of a partition. What goes holds entries that were pruned,
    or that are in files of the manifest: these are read then, and where one is lost or damaged what has its entries
    stays.
    So does what a seal left, until the next ones have made it again. Raises UnknownArchivesError, and removes nothing,
    for a file that none of this explains: then it is the manifest that has lost something. Raises LeaseLostError, and
    removes no more, where another run has begun meanwhile.
    """
    left: list[str] = []
    unknown: list[str] = []
    tree, whole = work.lease.tree, _Whole(work.files)
    for path in work.files.orphans(tree):
        if is_fresh(path):
            left.append(path)
            continue
        try:
            place = place_of(path)
        except ValueError:  # whose it is nobody knows
            continue
        end, begin = tree.ends.get(place.partition), tree.begins.get(place.partition, place.first_index)
        end_index = 0 if end is None else end.index
        if place.first_index < begin:  # no commit ever had that in a file: nothing says that it was pruned
            unknown.append(path)
        elif place.last_index <= end_index:
            if all(whole.is_whole(segment) for segment in _with_entries_of(tree, place)):
                left.append(path)
        elif not is_of_seal(place, end_index) or ledger_begins(place.partition) > end_index + 1:
            unknown.append(path)
    if unknown:
        raise UnknownArchivesError(unknown)
    for path in left:
        work.lease.held()  # reading them took its time: another run may have made an archive of what is left here
        work.files.remove(path)
    return len(left)


class _Whole:
    """Which files of a tree are what was written, each read once."""

    def __init__(self, files: FileTree) -> None:
        self._files = files
        self._known: dict[str, bool] = {}

    def is_whole(self, segment: Segment) -> bool:
        """Whether it is there, with the SHA-256 that the manifest has of it."""
        if segment.path not in self._known:
            try:
                with self._files.open_checked(segment.path) as content:
                    self._known[segment.path] = digest_of(content) == segment.sha256
            except FileLostError:
                self._known[segment.path] = False
        return self._known[segment.path]


def _with_entries_of(tree: Tree, place: Place) -> Iterator[Segment]:
    """The files of a tree that have entries of another."""
    for segment in tree.parts.get(place.partition, ()):
        if segment.facts.first_index <= place.last_index and place.first_index <= segment.facts.last_index:
            yield segment
