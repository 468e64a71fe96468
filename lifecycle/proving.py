"""The entries of an archive made again, from the file alone, and the proof of it.

Problem: what a file holds must not be believed because it says so. So every entry is made again, in bounded memory, and
their chain and Merkle tree are compared with its facts.

    prove              all entries, and nothing else of them
    proved_groups      the same, with what each row group of DATA was made of
    entries_in         what is there, for who compares it on its own
    chain_hashes_in    the hashes of one row group, which are stored nowhere

GUARANTEE an archive that is proved holds the entries of the chain and the Merkle root that its facts say; else it is
DamagedError.
GUARANTEE memory: of a few row groups, whatever the length of an archive.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lifecycle.archive_table import control_of, data_of, is_of
from lifecycle.merkle_kernel import SpanBuilder
from lifecycle.packing import DamagedError
from lifecycle.sealing import behind, columns_of, entries_of, interleaved, of_kind
from schemas.canonical import EntryKind
from schemas.columns import allocate_entries, slice_rows
from streams.sequence import Break, relink, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from lifecycle.archive import ArchiveFile
    from lifecycle.chunks import Rows
    from lifecycle.packing import Texts
    from schemas.columns import Entries
    from streams.sequence import Head


class Proof(NamedTuple):
    """What an archive holds, by its entries."""

    head: Head
    entries: int
    merkle_root: str


def prove(archive: ArchiveFile) -> Proof:
    """Make all entries of an archive again. Raises DamagedError where they are not what its facts say."""
    for _ in proved_groups(archive):
        pass
    facts = archive.facts
    return Proof(facts.head, facts.entries, facts.merkle_root)


class Group(NamedTuple):
    """A row group of DATA, made again: its entries, CONTROL among them, with their hashes, and what they were made of.

    first_index, chain_before: the place that it says it has. names: of sources, then of kinds.
    """

    first_index: int
    chain_before: bytes
    entries: Entries
    rows: Rows
    names: tuple[Texts, Texts]


def proved_groups(archive: ArchiveFile) -> Iterator[Group]:
    """The row groups of DATA of an archive, each valid until the next; at the end the archive is proved.

    Raises DamagedError where its entries are not what its facts say.
    """
    facts, table = archive.facts, archive.table
    spans, head, count = SpanBuilder(facts.first_index - 1), facts.head_before, 0
    for group in _groups_in(archive):
        entries = group.entries
        if (group.first_index, group.chain_before) != (head.index + 1, head.chain_hash):
            raise DamagedError(f"its entries from index {group.first_index} on do not follow index {head.index}")
        head, row, why = verify(head, entries)
        if why is not Break.NONE:
            raise DamagedError(f"entry {int(entries.index[row])} does not follow the one before it: {why.name}")
        spans.add(entries.chain_hash)
        count += entries.index.size
        yield group
    root = spans.span().root().hex()
    found = head, root, spans.span()
    if found != (facts.head, facts.merkle_root, facts.span) or count != facts.entries or not table.is_data.any():
        raise DamagedError(f"its {count} entries end in {head} with Merkle root {root}; it says {facts.head}")


def entries_in(archive: ArchiveFile) -> Iterator[tuple[int, bytes, Entries]]:
    """The entries of each row group of DATA, CONTROL among them, with their hashes; and the place that it says it has.

    Memory: of a few row groups. What is given is valid until the next is asked for.
    """
    for group in _groups_in(archive):
        yield group.first_index, group.chain_before, group.entries


def _groups_in(archive: ArchiveFile) -> Iterator[Group]:
    facts, table = archive.facts, archive.table
    groups = np.flatnonzero(table.is_data).tolist()
    starts = [*table.first_index[groups].tolist(), facts.last_index + 1]
    control = _Control(archive)
    after = facts.head_before.chain_hash
    for group, (first_index, next_index) in zip(groups, pairwise(starts), strict=True):
        chain_before = table.chain_before[group].tobytes() if archive.indexed else after
        rows, sealing, names = data_of(read_group(archive, group))
        data = entries_of(EntryKind.DATA, rows, sealing, columns_of(rows, *names))
        entries = interleaved(data.entries, control.until(next_index))
        after = relink(chain_before, entries)
        yield Group(first_index, chain_before, entries, rows, names)


def read_group(archive: ArchiveFile, group: int) -> pa.Table:
    """A row group, which is of the partition of its archive. Raises DamagedError where it says another."""
    table, partition = archive.read(group), archive.facts.partition
    if not is_of(table, partition):
        raise DamagedError(f"row group {group} has rows that say they are not of partition {partition}")
    return table


def chain_hashes_in(archive: ArchiveFile, group: int) -> NDArray[np.uint8]:
    """uint8[rows, 32]: of the rows of a row group of DATA, made from all entries that are among them."""
    table = archive.table
    later = table.first_index[np.flatnonzero(table.is_data & (table.first_index > table.first_index[group]))]
    next_index = int(later.min()) if later.size else archive.facts.last_index + 1
    rows, sealing, names = data_of(read_group(archive, group))
    data = entries_of(EntryKind.DATA, rows, sealing, columns_of(rows, *names))
    control = _Control(archive)
    control.until(int(table.first_index[group]))
    entries = interleaved(data.entries, control.until(next_index))
    relink(table.chain_before[group].tobytes(), entries)
    return of_kind(entries, EntryKind.DATA).chain_hash


class _Control:
    """CONTROL entries of an archive, in order."""

    def __init__(self, archive: ArchiveFile) -> None:
        self._archive = archive
        self._groups = iter(np.flatnonzero(~archive.table.is_data).tolist())
        #: Entries that were not asked for yet, and what they point into.
        self._left: Entries | None = None
        self._memory: list[Any] = []

    def until(self, index: int) -> Entries:
        """Those before an index that were not given yet; valid until the next call."""
        parts: list[Entries] = []
        self._memory = self._memory[-1:]
        while True:
            if self._left is None:
                group = next(self._groups, None)
                if group is None:
                    break
                numbers, sealing = control_of(read_group(self._archive, group))
                made = entries_of(EntryKind.CONTROL, numbers, sealing, None)
                self._memory.append(made)
                self._left = made.entries
            count = int(np.searchsorted(self._left.index, index))
            parts.append(slice_rows(self._left, 0, count))
            if count < self._left.index.size:
                self._left = slice_rows(self._left, count, self._left.index.size)
                break
            self._left = None
        return behind(parts) if parts else allocate_entries(0)
