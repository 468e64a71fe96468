"""What is known of a source's clock, as records of the estimates topic: columns in, keys and JSON values out.

Problem: an estimate is a judge's state after an event; whoever does not run the judge (a page, a
dashboard) needs it told. Told each time it would be a record an event. So it is told

    KNOWN      with the first event after which there is one, also after a source was begun anew
    STEP       with the event that confirms a step
    INTERVAL   with the first event in each interval of authority time that estimate_interval_ms names; of a source
               that sends rarely, after 16 of its mean gaps, but after ten intervals at the latest

    key        the source
    value      the fields of schemas/drift_estimate.v1.avsc as one JSON object, in their order

GUARANTEE the bytes of a record are a function of the partition's DATA entries and DEFINITION settings, and those that
`json.dumps` writes of the same fields, without spaces and with the source's characters as they are.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import address_of, copy, kernel
from streams.estimate import ESTIMATE_COLUMNS, Method, describe
from streams.estimate_kernel import WHY_INTERVAL, WHY_KNOWN, WHY_STEP
from streams.float_text import INT_BYTES_MAX, put_int
from streams.fold import NO_MESSAGES, Messages
from streams.json_text import PIECE_BYTES, TEXT_FACTOR, padded, put_null, put_piece, put_text
from streams.severity import Severity

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Why(enum.IntEnum):
    """What a record is told for."""

    KNOWN = WHY_KNOWN
    STEP = WHY_STEP
    INTERVAL = WHY_INTERVAL


# Columns of what is told: the event's entry, source and authority time, why, then those of an Estimate.
AT_INDEX: Final = 0
SOURCE_ADDRESS: Final = 1
SOURCE_LENGTH: Final = 2
SEQUENCE: Final = 3
AUTHORITY_MS: Final = 4
WHY: Final = 5
_ESTIMATE: Final = 6
TOLD_COLUMNS: Final = _ESTIMATE + ESTIMATE_COLUMNS

# Of an Estimate, by its place there.
_METHOD: Final = _ESTIMATE
_OFFSET: Final = _ESTIMATE + 1
_SEVERITY: Final = _ESTIMATE + 7
_COHERENT: Final = _ESTIMATE + 8
_DISTURBANCES: Final = _ESTIMATE + 9
_STEP_SEQUENCE: Final = _ESTIMATE + 10
_STEP_US: Final = _ESTIMATE + 11

# Pieces between the numbers, and their places.
_WHYS: Final = [b',"why":"%s"' % why.name.encode() for why in Why]
_METHODS: Final = [b',"method":"%s"' % method.name.encode() for method in Method]
_NUMBERS: Final = [
    b',"%s":' % name for name in (b"offset_us", b"bound_us", b"skew_ppb", b"skew_error_ppb", b"samples", b"span_ms")
]
_SEVERITIES: Final = [b',"severity":"%s"' % severity.name.encode() for severity in Severity]
_OTHERS: Final = [
    b'{"partition":', b',"source":', b',"sequence":', b',"authority_timestamp":', b',"coherent_s":',
    b',"disturbances":', b',"step_sequence":', b',"step_us":', b"}",
]  # fmt: skip
_P_METHODS: Final = len(_WHYS)
_P_NUMBERS: Final = _P_METHODS + len(_METHODS)
_P_SEVERITIES: Final = _P_NUMBERS + len(_NUMBERS)
_P_OTHERS: Final = _P_SEVERITIES + len(_SEVERITIES)
_PIECES: Final = [*_WHYS, *_METHODS, *_NUMBERS, *_SEVERITIES, *_OTHERS]
_LENGTHS: Final = np.array([len(piece) for piece in _PIECES], np.int64)
_TABLE: Final = np.frombuffer(padded(_PIECES), np.uint8)
#: Most bytes of a value beside its source: each piece once, and the numbers; the source has two quotes.
_VALUE_BYTES_MAX: Final = int(_LENGTHS.sum()) + TOLD_COLUMNS * INT_BYTES_MAX + 2


@kernel
def tell(
    told: NDArray[np.int64], row: int, clocks: NDArray[np.int64], slot: int, why: int, at_index: int,
    source_address: int, source_length: int, sequence: int, authority_ms: int, true_ms: int,
) -> None:  # fmt: skip
    """A row of what is told: of the source in a slot, after its event. true_ms: of a leader whose clock were right."""
    told[row, AT_INDEX] = at_index
    told[row, SOURCE_ADDRESS] = source_address
    told[row, SOURCE_LENGTH] = source_length
    told[row, SEQUENCE] = sequence
    told[row, AUTHORITY_MS] = authority_ms
    told[row, WHY] = why
    describe(clocks, slot, true_ms, told, row, _ESTIMATE)


def estimate_messages(partition: int, told: NDArray[np.int64]) -> Messages:
    """The records of what is told: int64[n, TOLD_COLUMNS]. The sources' names must be in memory still."""
    if not len(told):
        return NO_MESSAGES
    names = int(told[:, SOURCE_LENGTH].sum())
    memory = np.empty(len(told) * _VALUE_BYTES_MAX + names * (TEXT_FACTOR + 1) + PIECE_BYTES, np.uint8)
    places = np.empty((4, len(told)), np.int64)
    _encode(address_of(_TABLE), _LENGTHS, partition, told, address_of(memory), places)
    return Messages(told[:, AT_INDEX].copy(), places[0], places[1], places[2], places[3], [memory])


@kernel
def _encode(
    table: int, lengths: NDArray[np.int64], partition: int, told: NDArray[np.int64], memory: int,
    places: NDArray[np.int64],
) -> None:  # fmt: skip
    """Write all rows from memory on; places int64[4, n]: key address and length, value address and length."""
    at = memory
    for row in range(told.shape[0]):
        source, length = told[row, SOURCE_ADDRESS], told[row, SOURCE_LENGTH]
        copy(at, source, length)
        places[0, row], places[1, row] = at, length
        at += length
        start = at
        at = put_int(put_piece(at, table, lengths, _P_OTHERS), partition)
        at = put_text(put_piece(at, table, lengths, _P_OTHERS + 1), source, length)
        at = put_int(put_piece(at, table, lengths, _P_OTHERS + 2), told[row, SEQUENCE])
        at = put_int(put_piece(at, table, lengths, _P_OTHERS + 3), told[row, AUTHORITY_MS])
        at = put_piece(at, table, lengths, told[row, WHY] - WHY_KNOWN)
        at = put_piece(at, table, lengths, _P_METHODS + told[row, _METHOD])
        for i in range(_P_SEVERITIES - _P_NUMBERS):
            at = put_int(put_piece(at, table, lengths, _P_NUMBERS + i), told[row, _OFFSET + i])
        at = put_piece(at, table, lengths, _P_SEVERITIES + told[row, _SEVERITY])
        at = put_int(put_piece(at, table, lengths, _P_OTHERS + 4), told[row, _COHERENT])
        at = put_int(put_piece(at, table, lengths, _P_OTHERS + 5), told[row, _DISTURBANCES])
        stepped = told[row, _DISTURBANCES] != 0
        at = put_piece(at, table, lengths, _P_OTHERS + 6)
        at = put_int(at, told[row, _STEP_SEQUENCE]) if stepped else put_null(at)
        at = put_piece(at, table, lengths, _P_OTHERS + 7)
        at = put_int(at, told[row, _STEP_US]) if stepped else put_null(at)
        at = put_piece(at, table, lengths, _P_OTHERS + 8)
        places[2, row], places[3, row] = start, at - start
