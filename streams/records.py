"""Input and control records as columns: what the data plane hands to the sequencer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def slice_records(records: Records, start: int, stop: int) -> Records:
    """Rows start to stop - 1 as views."""
    return Records(*(column[start:stop] for column in records))
