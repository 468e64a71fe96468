"""The entries of a partition wherever they are: what is archived from archives, what came since from the ledger.

Problem: who folds over all that ever happened must not notice that the first entries of the ledger were cut. An archive
gives its entries back as they were, so they are read from there, and all later ones from the ledger.

    archives   [1 ........ 400][401 ........ 900]
    ledger               (cut) [600 .............. 1200]
    read        a  a  a  a  a  a  a  a  a     l  l  l

GUARANTEE entries follow one another by index without a gap, and by their chain hashes from archive to archive:
ArchiveFileDamagedError names a file that says otherwise, DriftledgerError an index that neither has. A file that a job
removes meanwhile is looked up anew. Where the data directory has no archives, those of the manifest lie elsewhere: what
the ledger has is read there, and of what it has no more that error is raised.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from lifecycle.archived_chunks import ArchiveFileDamagedError, archives_at
from lifecycle.file_tree import FileLostError, FileTree, root_of
from lifecycle.manifest import Tree
from lifecycle.packing import DamagedError
from lifecycle.proving import entries_in
from lifecycle.verifying import open_segment
from schemas.columns import slice_rows
from schemas.errors import DriftledgerError
from streams.ledger_reader import first_index
from streams.restore import entries_between

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.archived_chunks import Manifest
    from lifecycle.manifest import Segment
    from schemas.columns import Entries
    from streams.ledger_reader import Tail
    from streams.queries import Ledger


class _NoManifest:
    """Of a ledger without archives."""

    tree = Tree()

    def refresh(self) -> Tree:
        """Nothing."""
        return self.tree


class AllEntries:
    """Of one ledger, with the archives that its settings say, unless others are given. For one thread."""

    def __init__(self, ledger: Ledger, archives: tuple[FileTree, Manifest] | None = None) -> None:
        self._ledger = ledger
        self._files, self._manifest = _archives_of(ledger) if archives is None else archives
        self._manifest.refresh()

    def begins(self, partition: int) -> int:
        """The first index from which on all entries are there, up to the ledger's end."""
        first = first_index(self._ledger.log, self._ledger.names.sequenced, partition)
        for segment in reversed(self._manifest.tree.parts.get(partition, ())):
            if segment.facts.last_index + 1 >= first:
                first = min(first, segment.facts.first_index)
        return first

    def read(self, partition: int, tail: Tail, first: int, last: int) -> Iterator[Entries]:
        """Entries with first <= index <= last, as batches; each is valid until the next is asked for.

        tail: the ledger's last entry, or an earlier one. Raises HaltError where the ledger is broken.
        """
        at = first
        for entries in self._archived(partition, first, last):
            yield entries
            at = int(entries.index[-1]) + 1
        if at > last:
            return
        names, log = self._ledger.names, self._ledger.log
        begins = first_index(log, names.sequenced, partition)
        if at < begins:
            raise DriftledgerError(
                f"partition {partition} of the ledger begins at entry {begins}, entries {at} to {begins - 1} are in no "
                f"archive below {self._ledger.settings.data_dir}. Give this process the data directory, or the "
                "archive_uri, that has the archives, or run `driftledger lifecycle status`"
            )
        yield from entries_between(log, self._ledger.bootstrap, names.sequenced, partition, tail, at, last)

    def _archived(self, partition: int, first: int, last: int) -> Iterator[Entries]:
        """Of archives, as far as these follow one another."""
        at, lost = first, False
        while at <= last:
            segment = _holding(self._manifest.tree, partition, at)
            if segment is None:
                return
            try:
                for entries in _entries_of(self._files, segment):
                    low, high = np.searchsorted(entries.index, [at, last + 1]).tolist()
                    if low < high:
                        yield slice_rows(entries, low, high)
                        at, lost = int(entries.index[high - 1]) + 1, False
                    if high < entries.index.size:
                        return
            except FileLostError as error:
                if lost:
                    if not self._files.root.is_dir():
                        return
                    raise ArchiveFileDamagedError(segment, str(error)) from error
                self._manifest.refresh()
                lost = True


def _archives_of(ledger: Ledger) -> tuple[FileTree, Manifest]:
    settings, name = ledger.settings, ledger.names.manifest
    found = archives_at(settings, ledger.log, name)
    return (FileTree(root_of(settings.data_dir, name), name), _NoManifest()) if found is None else found


def _holding(tree: Tree, partition: int, index: int) -> Segment | None:
    """The file that has that entry."""
    for segment in tree.parts.get(partition, ()):
        if segment.facts.first_index <= index <= segment.facts.last_index:
            return segment
    return None


def _entries_of(files: FileTree, segment: Segment) -> Iterator[Entries]:
    """All of a file, whose chain is that which the manifest says."""
    facts = segment.facts
    index, chain = facts.first_index, bytes.fromhex(facts.chain_before)
    try:
        with contextlib.ExitStack() as stack:
            archive, _ = stack.enter_context(open_segment(files, segment))
            for first, before, entries in entries_in(archive):
                if (first, before) != (index, chain):
                    raise DamagedError(f"its entries from index {first} on do not follow index {index - 1}")  # noqa: TRY301
                yield entries
                index, chain = int(entries.index[-1]) + 1, entries.chain_hash[-1].tobytes()
            if (index, chain) != (facts.last_index + 1, bytes.fromhex(facts.chain_after)):
                raise DamagedError(f"its entries end at index {index - 1} with another chain hash")  # noqa: TRY301
    except FileLostError:
        raise
    except DamagedError as error:
        raise ArchiveFileDamagedError(segment, str(error)) from error
