"""The index of an archive, made again from the archive alone.

Problem: an index answers most questions, so one that is lost or damaged must come back as it was. All of it follows
from the entries, judge's verdicts among them and where chunks begin, and these stand in the archive. So the pass that
proves an archive also has the rows of each chunk in hand; what the hot tier's fold says of these is said of them again.

GUARANTEE what is given is, byte for byte, the index that was written beside the archive, of an archive that is as it
was written. Where the entries are not those of its chain and Merkle root, or a page has not its checksum, or chunks are
not where they can be, it is DamagedError.
HAZARD what stands about the pages of a column has no checksum without the index: where that is damaged and nothing is
read otherwise for it, the new index has the checksum of what is there. Who knows the SHA-256 of the file compares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lifecycle.archive import opened_alone
from lifecycle.archive_index import Blob, encode
from lifecycle.chunk_codec import encode_header, encode_readings
from lifecycle.chunk_facts import columns_of, header_of, readings_in
from lifecycle.chunks import ROWS, Applied
from lifecycle.packing import DamagedError, Texts
from lifecycle.proving import proved_groups

if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from numpy.typing import NDArray

    from lifecycle.archive import ArchiveFile
    from lifecycle.chunks import Rows
    from lifecycle.proving import Group

_TEXTS: Final = ("event_id", "payload")


def index_again(data: BinaryIO, name: str) -> bytes:
    """The bytes of the index of an archive of that name, which is closed afterwards. Raises DamagedError."""
    with opened_alone(name, data) as archive:
        table, chunks = archive.table, _Chunks(archive)
        blobs: list[Blob] = []
        for group in proved_groups(archive):
            _put_hashes(archive, group)
            blobs += chunks.within(group)
        if len(blobs) != table.first_sequence.size:
            raise DamagedError(f"its footer says that it has {table.first_sequence.size} chunks, not {len(blobs)}")
    sized = table._replace(
        header_bytes=np.array([len(blob.header) for blob in blobs], np.int64),
        readings_bytes=np.array([len(blob.readings) for blob in blobs], np.int64),
    )
    return encode(sized, blobs)


def _put_hashes(archive: ArchiveFile, group: Group) -> None:
    """The chain hashes before those row groups, of CONTROL too, that go back to an entry of this one."""
    table, entries = archive.table, group.entries
    places = table.first_index - group.first_index
    for place in np.flatnonzero((places >= 0) & (places < entries.index.size)).tolist():
        before = int(places[place]) - 1
        table.chain_before[place] = (
            np.frombuffer(group.chain_before, np.uint8) if before < 0 else entries.chain_hash[before]
        )


class _Chunks:
    """What an index has of the chunks of an archive, made row group by row group."""

    def __init__(self, archive: ArchiveFile) -> None:
        facts = archive.facts
        self._partition = facts.partition
        self._sequences = np.append(archive.table.first_sequence, facts.last_sequence + 1)
        self._indexes = np.append(archive.chunk_index, facts.last_index + 1)
        self._order_ms = facts.order_ms

    def within(self, group: Group) -> list[Blob]:
        """Of the chunks of a row group, which comes behind the one before. Raises DamagedError."""
        rows, found = group.rows, []
        first, end = int(rows.sequence[0]), int(rows.sequence[-1]) + 1
        low, high = np.searchsorted(self._sequences, (first, end)).tolist()
        if self._sequences[low] != first or self._sequences[high] != end:
            raise DamagedError(f"its footer has no chunks that are sequences {first} to {end - 1}")
        readings = [reading for _, reading in readings_in(group.entries, 0)]
        for chunk in range(low, high):
            start, stop = (int(sequence) - first for sequence in self._sequences[chunk : chunk + 2])
            first_index, next_index = self._indexes[chunk : chunk + 2].tolist()
            if stop - start > ROWS or not first_index <= rows.index[start] <= rows.index[stop - 1] < next_index:
                raise DamagedError(f"its footer says that entries {first_index} to {next_index - 1} are a chunk")
            before = Applied(first_index - 1, first + start - 1, 0, self._order_ms)
            part, names = _cut(rows, start, stop, group.names)
            among = [
                reading._replace(sequence=first + int(np.searchsorted(rows.index, reading.index)) - 1)
                for reading in readings
                if first_index <= reading.index < next_index
            ]
            header = header_of(self._partition, before, part, len(among), next_index - 1, *names)
            packed = encode_readings(self._partition, header.first_sequence, columns_of(among)) if among else b""
            found.append(Blob(header.first_sequence, encode_header(header), packed))
            self._order_ms = max(self._order_ms, int(part.authority_ms.max()))
        return found


def _cut(
    rows: Rows, start: int, stop: int, names: tuple[Texts, Texts]
) -> tuple[Rows, tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
    """Rows start to stop - 1 without their texts, which no header tells of, and the names that their codes mean."""
    columns: dict[str, Any] = {
        name: column[start:stop].copy() for name, column in rows._asdict().items() if name not in _TEXTS
    }
    columns["source"], sources = _in_order(columns["source"], names[0])
    columns["kind"], kinds = _in_order(columns["kind"], names[1])
    return rows._replace(**columns), (sources, kinds)


def _in_order(codes: NDArray[np.int32], names: Texts) -> tuple[NDArray[np.int32], tuple[bytes, ...]]:
    """Codes by the order in which names appear, as a chunk has them, and the names."""
    used, places = np.unique(codes, return_index=True)
    table = np.full(len(names.offsets), -1, np.int32)  # the last one is that of no name
    known: dict[bytes, int] = {}
    for code in used[np.argsort(places)].tolist():
        if code >= 0:
            table[code] = known.setdefault(names.at(code), len(known))
    return table[codes], tuple(known)
