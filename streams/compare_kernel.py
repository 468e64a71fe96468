"""Ledger entries against the input records they claim to be: one merge of two logs, in their order.

Problem: the chain proves that nobody changed the ledger since it was written, not that it was written from this input.
The input, while it is kept, proves that: it has its own offsets and times, given by the broker. So both are walked
together, the way two sorted lists are merged, and whatever does not meet its twin is named.

GUARANTEE a record and an entry agree only if length, SHA-256 of the value, key, headers in canonical form and append
time are the same, and the entry's sequence is one more than that of the record before.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from schemas.canonical import EntryKind
from schemas.memory import kernel, load_u8, sha256_final, sha256_init, sha256_update

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from schemas.columns import Entries
    from streams.records import Records

_DATA: Final = int(EntryKind.DATA)
_HASH_BYTES: Final = 32
#: Instead of a rank: take the next entry's sequence for granted.
UNKNOWN_RANK: Final = -1


class Met(enum.IntEnum):
    """Why `compare_input` came back, with the rows it stands at."""

    #: All entries were compared.
    ENTRIES_DONE = 0
    #: The next entry needs a record beyond those given.
    RECORDS_DONE = 1
    #: The record has no entry.
    HOLE = 2
    #: The entry has no record.
    NO_RECORD = 3
    VALUE = 4
    KEY = 5
    HEADERS = 6
    TIME = 7
    RANK = 8


_ENTRIES_DONE, _RECORDS_DONE, _HOLE, _NO_RECORD, _VALUE, _KEY, _HEADERS, _TIME, _RANK = (int(met) for met in Met)


@kernel
def _same(left: int, left_length: int, right: int, right_length: int) -> bool:
    """Whether two pieces of memory hold the same bytes; a length below 1 has none."""
    if left_length != right_length:
        return False
    for i in range(left_length):  # noqa: SIM110 - numba compiles no generator in all()
        if load_u8(left + i) != load_u8(right + i):
            return False
    return True


@kernel
def compare_input(
    records: Records,
    record: int,
    records_end: bool,  # noqa: FBT001 - kernels take positions
    entries: Entries,
    row: int,
    input_start: int,
    numbers: NDArray[np.int64],
    context: int,
    digest: NDArray[np.uint8],
    digest_at: int,
) -> tuple[int, int, int]:
    """Merge from a record and a row on; returns (record, row, Met), both not yet passed.

    records_end: no record follows those given. input_start: entries of earlier offsets have nothing to be compared
    with. numbers: int64[3], the sequence of the last record (UNKNOWN_RANK: none yet), entries compared, entries passed
    because their records are gone; added to.
    """
    while row < entries.kind.size:
        offset = entries.input_offset[row]
        if entries.kind[row] != _DATA:
            row += 1
            continue
        if offset < input_start:
            numbers[2] += 1
            row += 1
            continue
        if record >= records.offset.size:
            return record, row, _NO_RECORD if records_end else _RECORDS_DONE
        if records.offset[record] < offset:
            return record, row, _HOLE
        if records.offset[record] > offset:
            return record, row, _NO_RECORD
        length = records.value_length[record]
        if length != entries.value_length[row]:
            return record, row, _VALUE
        if length >= 0:
            sha256_init(context)
            sha256_update(context, records.value_address[record], length)
            sha256_final(digest_at, context)
            for i in range(_HASH_BYTES):
                if digest[i] != entries.value_hash[row, i]:
                    return record, row, _VALUE
        if not _same(
            records.key_address[record], records.key_length[record], entries.key_address[row], entries.key_length[row]
        ):
            return record, row, _KEY
        if not _same(
            records.headers_address[record],
            records.headers_length[record],
            entries.headers_address[row],
            entries.headers_length[row],
        ):
            return record, row, _HEADERS
        if records.timestamp_ms[record] != entries.authority_ms[row]:
            return record, row, _TIME
        if numbers[0] >= 0 and entries.sequence[row] != numbers[0] + 1:
            return record, row, _RANK
        numbers[0] = entries.sequence[row]
        numbers[1] += 1
        record += 1
        row += 1
    return record, row, _ENTRIES_DONE
