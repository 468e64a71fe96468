"""The rows that every store is given: drawn piece by piece, the same each time, whatever their number.

Fifty sources report one after the other in no order, a row each five milliseconds, on four partitions. A row is a
sequence (of its partition, from 1 on), two timestamps, a source and a value; to us it comes as an event, with an id.

    local_us       grid of five milliseconds, and up to as much behind: no two rows share a millisecond
    authority_ms   the broker's, 20 to 24 ms later than the grid: it never goes back
    value          0 to 100 in steps of 2^-46: as any double, and a sum of them is a whole number of steps

So the true sum is known to the bit, and nobody's rounding is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from benchmarks.events import (
    EVENT_ID_AT,
    LOCAL_AT,
    LOCAL_BYTES,
    PAYLOAD,
    PAYLOAD_AT,
    SOURCE_AT,
    SOURCE_BYTES,
    VALUE_AT,
    eight_byte_varint,
    hex_digits,
    mix,
    template,
)
from schemas.topics import partition_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SOURCES: Final = 50
PARTITIONS: Final = 4
#: 2026-10-01 00:00 UTC.
START_US: Final = 1_790_812_800_000_000
SPACING_US: Final = 5_000
#: Steps in one: values are exact doubles, and have all their bits from 64 on.
UNITS: Final = 2**46
#: Made at once.
PIECE_ROWS: Final = 1 << 18
NAMES: Final = tuple(b"sensor-%05d" % number for number in range(SOURCES))
_VALUE_MAX: Final = 100
_DELAY_MS: Final = 20
_US_PER_MS: Final = 1_000
_ID_BYTES: Final = 16
_SEED: Final = 1
_SOURCE_DRAW, _ROW_DRAW, _PAYLOAD_DRAW = range(3)
_NAME_ROWS: Final = np.frombuffer(b"".join(NAMES), np.uint8).reshape(SOURCES, SOURCE_BYTES)
_HOMES: Final = np.array([partition_for(name, PARTITIONS) for name in NAMES], np.int64)
#: Of 63 bytes, two digits of which are a battery's charge and two a signal's strength.
LONG_PAYLOAD: Final = b'{"unit":"degC","battery":00,"rssi":-00,"fw":"2.14.3","up":true}'
_BATTERY_AT, _SIGNAL_AT = LONG_PAYLOAD.index(b"00,"), LONG_PAYLOAD.index(b"-00") + 1
_BATTERY_ROWS: Final = 400_000


class Piece(NamedTuple):
    """Consecutive rows, ascending by time. first: the number of the first, from 0 on.

    source: place in NAMES; units: the value in steps; sequence: within its partition.
    """

    first: int
    local_us: NDArray[np.int64]
    authority_ms: NDArray[np.int64]
    source: NDArray[np.int64]
    units: NDArray[np.int64]
    partition: NDArray[np.int64]
    sequence: NDArray[np.int64]

    @property
    def value(self) -> NDArray[np.float64]:
        """As a double, exactly."""
        return self.units / np.float64(UNITS)

    def part(self, start: int, stop: int) -> Piece:
        """Rows start to stop - 1 of it."""
        return Piece(self.first + start, *(column[start:stop] for column in self[1:]))

    def of(self, partition: int) -> NDArray[np.int64]:
        """Its rows of a partition."""
        return np.flatnonzero(self.partition == partition)


class Rows:
    """So many rows."""

    def __init__(self, count: int) -> None:
        self.count = count
        counts = [
            np.bincount(_HOMES[_sources(piece, size)], minlength=PARTITIONS) for piece, size in enumerate(_sizes(count))
        ]
        #: Of each piece, how many rows of each partition are before it.
        self._before = np.cumsum([np.zeros(PARTITIONS, np.int64), *counts], axis=0)

    def per_partition(self) -> list[int]:
        """How many rows each partition has."""
        return [int(number) for number in self._before[-1]]

    def pieces(self) -> Iterator[Piece]:
        """All rows."""
        for piece in range(len(self._before) - 1):
            yield self._piece(piece)

    def between(self, first: int, stop: int) -> Piece:
        """Rows first to stop - 1, by their numbers."""
        found = [
            piece.part(max(first - piece.first, 0), max(min(stop - piece.first, piece.source.size), 0))
            for piece in map(self._piece, range(first // PIECE_ROWS, -(-stop // PIECE_ROWS)))
        ]
        return Piece(first, *(np.concatenate(columns) for columns in zip(*(piece[1:] for piece in found), strict=True)))

    def _piece(self, piece: int) -> Piece:
        first = piece * PIECE_ROWS
        size = min(PIECE_ROWS, self.count - first)
        random = _random(piece, _ROW_DRAW)
        grid_us = START_US + np.arange(first, first + size, dtype=np.int64) * SPACING_US
        source = _sources(piece, size)
        partition = _HOMES[source]
        sequence = np.empty(size, np.int64)
        for number in range(PARTITIONS):
            of = partition == number
            sequence[of] = self._before[piece, number] + np.arange(1, np.count_nonzero(of) + 1)
        return Piece(
            first,
            local_us=grid_us + random.integers(0, SPACING_US, size),
            authority_ms=grid_us // _US_PER_MS + _DELAY_MS + random.integers(0, SPACING_US // _US_PER_MS, size),
            source=source,
            units=random.integers(0, _VALUE_MAX * UNITS, size),
            partition=partition,
            sequence=sequence,
        )


def row_at(number: int) -> int:
    """The microsecond before which there is no row from that number on, and behind which none before it."""
    return START_US + number * SPACING_US


def event_bytes(piece: Piece, rows: NDArray[np.int64], *, long_payload: bool) -> NDArray[np.uint8]:
    """Those rows as events: uint8[n, SOURCE_BYTES + length of a value], each key and value.

    long_payload: of 63 bytes of JSON that differ, instead of 14 that do not.
    """
    payload = LONG_PAYLOAD if long_payload else PAYLOAD
    form = template(payload)
    made = np.empty((rows.size, SOURCE_BYTES + form.size), np.uint8)
    values = made[:, SOURCE_BYTES:]
    values[:] = form
    names = _NAME_ROWS[piece.source[rows]]
    made[:, :SOURCE_BYTES] = names
    values[:, SOURCE_AT : SOURCE_AT + SOURCE_BYTES] = names
    numbers = (piece.first + rows).astype(np.uint64)
    values[:, EVENT_ID_AT : EVENT_ID_AT + _ID_BYTES] = hex_digits(mix(numbers))
    values[:, LOCAL_AT : LOCAL_AT + LOCAL_BYTES] = eight_byte_varint(piece.local_us[rows])
    values[:, VALUE_AT : VALUE_AT + 8] = piece.value[rows].astype("<f8").view(np.uint8).reshape(rows.size, 8)
    if long_payload:
        content = values[:, PAYLOAD_AT : PAYLOAD_AT + len(payload)]
        # A battery of each source that goes empty and is changed, a signal that changes with each row.
        charge = 99 - ((numbers.astype(np.int64) + piece.source[rows] * _BATTERY_ROWS // SOURCES) // 4_000) % 100
        _put_digits(content[:, _BATTERY_AT : _BATTERY_AT + 2], charge)
        signal = _random(piece.first // PIECE_ROWS, _PAYLOAD_DRAW).integers(40, 95, piece.source.size)[rows]
        _put_digits(content[:, _SIGNAL_AT : _SIGNAL_AT + 2], signal)
    return made


def _put_digits(into: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
    """Two digits a row."""
    into[:, 0] = ord("0") + numbers // 10
    into[:, 1] = ord("0") + numbers % 10


def _sizes(count: int) -> list[int]:
    return [min(PIECE_ROWS, count - first) for first in range(0, count, PIECE_ROWS)]


def _sources(piece: int, size: int) -> NDArray[np.int64]:
    return _random(piece, _SOURCE_DRAW).integers(0, SOURCES, size)


def _random(piece: int, draw: int) -> np.random.Generator:
    return np.random.default_rng([_SEED, piece, draw])
