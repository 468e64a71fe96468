"""Input and control records as columns: what the data plane hands to the sequencer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from schemas.canonical import LABELS_BYTES_MAX, omitted_labels
from schemas.columns import decode_entries
from schemas.memory import address_of, bytes_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from schemas.columns import Entries, Scratch

    Int64s = NDArray[np.int64]


class Records(NamedTuple):
    """Input records as columns, grouped by partition, offsets rising within each; n rows in use.

    All int64 unless said: offset, timestamp_ms, timestamp_type (2 = log append time), leader_epoch (-1 unknown),
    value_address (0 for null), value_length (-1 for null), key_address, key_length (likewise), headers_address and
    headers_length of the canonical headers (0 where there are none).
    """

    offset: Int64s
    timestamp_ms: Int64s
    timestamp_type: Int64s
    leader_epoch: Int64s
    value_address: Int64s
    value_length: Int64s
    key_address: Int64s
    key_length: Int64s
    headers_address: Int64s
    headers_length: Int64s


def allocate_records(rows: int) -> Records:
    """Zeroed columns for that many rows."""
    return Records(*np.zeros((len(Records._fields), rows), np.int64))


def decode_records(records: Records, rows: int, entries: Entries, scratch: Scratch) -> int:
    """The first rows of records of the ledger topic as entries; returns what `decode_entries` does."""
    return decode_entries(
        records.value_address[:rows],
        records.value_length[:rows],
        records.key_address[:rows],
        records.key_length[:rows],
        entries,
        scratch,
    )


class Bounded(NamedTuple):
    """Records as the ledger takes them, and the memory that their stand-ins lie in."""

    records: Records
    memory: NDArray[np.uint8] | None


def bound_labels(records: Records) -> Bounded:
    """Put the hash in place of a key and headers that are together larger than an entry may hold (canonical.py)."""
    lengths = np.maximum(records.key_length, 0) + records.headers_length
    rows = np.flatnonzero(lengths > LABELS_BYTES_MAX).tolist()
    if not rows:
        return Bounded(records, None)
    stand_ins = []
    for row in rows:
        headers = bytes_at(int(records.headers_address[row]), int(records.headers_length[row]))
        length = int(records.key_length[row])
        key = bytes_at(int(records.key_address[row]), length) if length >= 0 else None
        stand_ins.append(omitted_labels(headers, key))
    memory = np.frombuffer(b"".join(stand_ins), np.uint8)
    bounded = records._replace(
        key_address=records.key_address.copy(),
        key_length=records.key_length.copy(),
        headers_address=records.headers_address.copy(),
        headers_length=records.headers_length.copy(),
    )
    bounded.key_address[rows], bounded.key_length[rows] = 0, -1
    at = address_of(memory)
    for row, stand_in in zip(rows, stand_ins, strict=True):
        bounded.headers_address[row], bounded.headers_length[row] = at, len(stand_in)
        at += len(stand_in)
    return Bounded(bounded, memory)


def slice_records(records: Records, start: int, stop: int) -> Records:
    """Rows start to stop - 1 as views."""
    return Records(*(column[start:stop] for column in records))
