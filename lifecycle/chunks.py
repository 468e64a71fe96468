"""Chunks: some thousand consecutive rows of a partition as checksummed columns, and a header that sums them up.

Problem: every event must stay queryable at the rate at which events come, and a query must read little more than it
answers from. So rows are kept by column, each column a section of its own; and the header holds what most queries
ask for, by source, kind and minute, so that they read no rows at all.

A chunk holds consecutive sequences of one partition, at most ROWS, and ends

- at a sequence that ROWS divides,
- before the first row with which the running maximum of authority time passes into another UTC hour,
- before the first row with which event ids and payloads would pass TEXT_BYTES, or what their entries hold as it was
  sent: values that are there, whether they can be read or not, keys and headers. A chunk of one row may be larger.

So its borders are functions of the entries alone. Entries that are no rows (CONTROL) belong to the chunk that is being
filled, and count nothing; first_index to last_index of a partition's chunks are contiguous like first_sequence to
last_sequence.

These are the types and the borders; what they are as bytes is in `chunk_codec`.
HAZARD other columns or other borders are another layout there.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.errors import DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from lifecycle.packing import Texts

#: Rows of a full chunk: columns of 64 KiB, so that a query of one source reads little, and a header per 8,192 events.
ROWS: Final = 8192
#: Bytes of event ids and payloads: bounds the memory of rows that are not sealed, and of a query's decoding. And of
#: values, keys and headers: a job has those of a chunk in hand, and an archive keeps whole what its columns do not give
#: back, which is every value that cannot be read and some that can.
TEXT_BYTES: Final = 16 * 1024 * 1024

HASH_BYTES: Final = 32
#: `local_us_min` and `local_us_max`, and those of corrected time, of a chunk without a readable row.
NO_LOCAL: Final = (0, -1)


class StoreDamagedError(DriftledgerError):
    """What is stored is not what was written: the store is discarded, and rebuilt from the ledger."""


class ChunkDamagedError(StoreDamagedError):
    """Part of a chunk is not what was written. Attributes: partition, first_sequence, part, detail."""

    def __init__(self, partition: int, first_sequence: int, part: str, detail: str) -> None:
        super().__init__(
            f"{part} of the chunk at sequence {partition}:{first_sequence} is damaged: {detail}. The store is not "
            "served; it is rebuilt from the ledger"
        )
        self.partition = partition
        self.first_sequence = first_sequence
        self.part = part
        self.detail = detail


class ChunkAwayError(UnreachableError):
    """A chunk lies elsewhere, as it should: nothing is damaged. Attributes: partition, first_sequence."""

    def __init__(self, partition: int, first_sequence: int) -> None:
        super().__init__(
            f"the chunk at sequence {partition}:{first_sequence} is not in the hot store, which does not miss it. Read "
            "it from its archive"
        )
        self.partition = partition
        self.first_sequence = first_sequence


class Rows(NamedTuple):
    """n DATA rows of a partition, in order; counted are those with fault NONE and neither DUPLICATE nor CONFLICT."""

    sequence: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.index, which nobody asks rows for
    input_offset: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    local_us: NDArray[np.int64]  # 0 where unreadable
    value: NDArray[np.float64]  # NaN where none
    has_value: NDArray[np.uint8]
    severity: NDArray[np.uint8]  # judge_kernel.NO_SEVERITY where not judged
    flags: NDArray[np.uint8]  # judge_kernel.Flag
    fault: NDArray[np.uint8]  # schemas.faults.Fault
    source: NDArray[np.int32]  # code: place in the chunk's sources, -1 where unreadable
    kind: NDArray[np.int32]  # code: place in the chunk's kinds, -1 where unreadable
    event_id: Texts
    payload: Texts
    chain_hash: NDArray[np.uint8]  # [n, 32]
    hlc: NDArray[np.int64]
    has_hlc: NDArray[np.uint8]
    cause: NDArray[np.uint8]  # causes.Cause
    offset_us: NDArray[np.int64]  # estimate of the source's clock after the row; 0 where there is none
    bound_us: NDArray[np.int64]  # -1 where there is none


class Readings(NamedTuple):
    """ANCHOR, VERIFY and LOCK entries among the rows: the drift log's readings that are no events.

    See `drift_entries`.
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # as in Rows
    sequence: NDArray[np.int64]  # of the last row before it
    authority_ms: NDArray[np.int64]
    asserted_us: NDArray[np.int64]
    reading: NDArray[np.uint8]  # ReadingCode
    source: Texts
    chain_hash: NDArray[np.uint8]  # [n, 32]


class Read(NamedTuple):
    """A column of a chunk. values: an array, Texts, or of READINGS Readings; nbytes: how many were read for it."""

    values: Any
    nbytes: int


class ReadingCode(enum.IntEnum):
    """What a reading is, by number; the numbers are part of the format."""

    ANCHOR = 1
    VERIFY = 2
    LOCK = 3
    RELEASE = 4


class Stats(NamedTuple):
    """Of counted rows: one line for each (source, kind, local_minute, authority_minute), ascending by them.

    Minutes are floor(local_us / 60e6) and floor(authority_ms / 60e3). values: the finite values among count rows;
    minimum, maximum and sum are of them, -0.0 taken as 0.0, minimum NaN where there are none. The three doubles of a
    line of sum add up exactly to the true sum, unless exact is 0: then only the rows can tell it.
    """

    source: NDArray[np.int32]
    kind: NDArray[np.int32]
    local_minute: NDArray[np.int64]
    authority_minute: NDArray[np.int64]
    count: NDArray[np.int64]  # type: ignore[assignment] # hides tuple.count
    values: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    sum: NDArray[np.float64]  # [g, 3]
    exact: NDArray[np.uint8]


class Header(NamedTuple):
    """What a chunk holds.

    order_ms: the running maximum of authority_ms over the partition's rows before the chunk, INT64_MIN before the
    first. local_us_min and local_us_max: over readable rows, NO_LOCAL where there are none; so corrected_us_min and
    corrected_us_max, with authority time in place of that of rows without an estimate. warned: rows with WARNED.
    """

    partition: int
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int
    counted: int
    warned: int
    readings: int
    authority_ms_min: int
    authority_ms_max: int
    order_ms: int
    local_us_min: int
    local_us_max: int
    corrected_us_min: int
    corrected_us_max: int
    sources: tuple[bytes, ...]
    kinds: tuple[bytes, ...]
    stats: Stats


class ChunkBytes(NamedTuple):
    """A chunk as it is stored: header, and the section of each column, READINGS only where there are any."""

    first_sequence: int
    header: bytes
    sections: Mapping[Column, bytes]


class Line(NamedTuple):
    """A chunk's place. number: of the partition's chunks since sequence 1; held: 1, or 0 for away."""

    number: int
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int
    held: int


class Applied(NamedTuple):
    """Up to where a partition's entries are in chunks.

    index: last_index of the last chunk, sequence: its last_sequence; chunks: how many there were since sequence 1;
    order_ms: the running maximum of authority_ms after it.
    """

    index: int  # type: ignore[assignment] # as in Rows
    sequence: int
    chunks: int
    order_ms: int


#: Nothing is in chunks yet.
NOTHING: Final = Applied(0, 0, 0, -(2**63))


class Column(enum.IntEnum):
    """A section of a chunk, by number; the numbers are part of the format and of the keys."""

    SEQUENCE = 1
    INDEX = 2
    INPUT_OFFSET = 3
    AUTHORITY_MS = 4
    LOCAL_US = 5
    VALUE = 6
    HAS_VALUE = 7
    SEVERITY = 8
    FLAGS = 9
    FAULT = 10
    SOURCE = 11
    KIND = 12
    EVENT_ID = 13
    PAYLOAD = 14
    CHAIN_HASH = 15
    HLC = 16
    HAS_HLC = 17
    READINGS = 18
    CAUSE = 19
    OFFSET_US = 20
    BOUND_US = 21


#: The columns of Rows, in their order.
ROW_COLUMNS: Final = tuple(Column[name.upper()] for name in Rows._fields)
