"""Events as bytes, made by the hundred thousand without a Python object for any of them.

An event is 80 bytes of single-object Avro, every field at a fixed place, so a chunk is one array into which columns are
stored:

    0    10        11     27   28       40      48    49     53   54      62   63        77    78      79
    +----+---------+------+----+--------+-------+-----+------+----+-------+----+---------+-----+-------+----------+
    | C3 | len 16  | id   | 12 | source | local | len | kind | 1  | value | 14 | payload | hlc | causes| exchange |
    +----+---------+------+----+--------+-------+-----+------+----+-------+----+---------+-----+-------+----------+

The ids are a bijection of a counter, so none comes twice; the local time takes eight bytes from 1978 to 3100. The key
is the source, and a source keeps to the partition that Kafka's murmur2 gives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from schemas.codec import single_object_prefix
from schemas.topics import partition_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUE_BYTES: Final = 80
SOURCE_BYTES: Final = 12
#: A row of `EventFactory.rows`: the key, then the value.
ROW_BYTES: Final = SOURCE_BYTES + VALUE_BYTES
KIND: Final = b"temp"
PAYLOAD: Final = b'{"unit":"degC"'  # 14 bytes: opaque to everybody here

#: Where fields begin in a value.
EVENT_ID_AT, SOURCE_AT, LOCAL_AT, VALUE_AT, PAYLOAD_AT = 11, 28, 40, 54, 63
LOCAL_BYTES: Final = 8
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
_MADE_AT_ONCE: Final = 4_096
_YELLOW_US: Final = (1_500_000, 4_500_000)
_RED_US: Final = (6_000_000, 60_000_000)


def template(payload: bytes) -> NDArray[np.uint8]:
    """An event whose fields are yet to be written, but for kind and payload (of 63 bytes at most)."""

    def prefixed(content: bytes) -> bytes:
        return bytes([2 * len(content)]) + content

    value = b"".join(
        (
            single_object_prefix("Event"),
            prefixed(bytes(16)),
            prefixed(bytes(SOURCE_BYTES)),
            bytes(LOCAL_BYTES),
            prefixed(KIND),
            b"\x02" + bytes(8),  # the second branch of the union: a number
            prefixed(payload),
            bytes(3),  # no hlc, no causes, no exchange
        )
    )
    return np.frombuffer(value, np.uint8)


_TEMPLATE: Final = template(PAYLOAD)


def _source_names(count: int, partitions: int) -> list[NDArray[np.uint8]]:
    """For each partition the names of its sources, as rows."""
    names = [b"sensor-%05d" % number for number in range(count)]
    homes = [partition_for(name, partitions) for name in names]
    rows = np.frombuffer(b"".join(names), np.uint8).reshape(count, SOURCE_BYTES)
    return [rows[np.flatnonzero(np.array(homes) == partition)] for partition in range(partitions)]


class _Unstamped(NamedTuple):
    """Events without their local time; offsets_us: what each is to be stamped with, less the moment it is sent."""

    rows: NDArray[np.uint8]
    offsets_us: NDArray[np.int64]


class EventFactory:
    """Makes the events of a run. off_percent: of them are stamped by a clock that is off, half YELLOW and half RED.

    They are made some thousands at a time and stamped when they are asked for: whoever sends a few of them every five
    milliseconds shall not take a tenth of a core from what is measured.
    """

    def __init__(self, sources: int, partitions: int, off_percent: float, seed: int = 1) -> None:
        self._sources = _source_names(sources, partitions)
        self._off = off_percent / 100
        self._random = np.random.default_rng(seed)
        self._made = 0
        self._kept = [self._make(partition, 0) for partition in range(partitions)]

    def rows(self, partition: int, count: int, now_us: int) -> NDArray[np.uint8]:
        """So many events of a partition's sources, stamped now; uint8[count, ROW_BYTES], each key and value."""
        kept = self._kept[partition]
        if len(kept.rows) < count:
            kept = self._make(partition, max(count, _MADE_AT_ONCE))
        self._kept[partition] = _Unstamped(kept.rows[count:], kept.offsets_us[count:])
        made, offsets_us = kept.rows[:count], kept.offsets_us[:count]
        stamps = now_us + (offsets_us if self._off else offsets_us[:1])
        made[:, SOURCE_BYTES + LOCAL_AT : SOURCE_BYTES + LOCAL_AT + LOCAL_BYTES] = eight_byte_varint(stamps)
        return made

    def _make(self, partition: int, count: int) -> _Unstamped:
        names = self._sources[partition]
        made = np.empty((count, ROW_BYTES), np.uint8)
        values = made[:, SOURCE_BYTES:]
        values[:] = _TEMPLATE
        chosen = names[self._random.integers(0, len(names), count)]
        made[:, :SOURCE_BYTES] = chosen
        values[:, SOURCE_AT : SOURCE_AT + SOURCE_BYTES] = chosen
        numbers = np.arange(self._made, self._made + count, dtype=np.uint64)
        values[:, EVENT_ID_AT : EVENT_ID_AT + 16] = hex_digits(mix(numbers))
        measured = (self._random.random(count) * 100).astype("<f8")
        values[:, VALUE_AT : VALUE_AT + 8] = measured.view(np.uint8).reshape(count, 8)
        self._made += count
        return _Unstamped(made, self._offsets_us(count))

    def _offsets_us(self, count: int) -> NDArray[np.int64]:
        offsets = np.zeros(count, np.int64)
        if not self._off:
            return offsets
        draw = self._random.random(count)
        sign = self._random.integers(0, 2, count) * 2 - 1
        for low, high, (least, most) in (
            (0.0, self._off / 2, _YELLOW_US),
            (self._off / 2, self._off, _RED_US),
        ):
            hit = (low <= draw) & (draw < high)
            offsets[hit] = (sign * self._random.integers(least, most, count))[hit]
        return offsets


def mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finisher: a bijection that looks like chance."""
    mixed: Any = numbers
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray(mixed, np.uint64)


def hex_digits(numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Sixteen hexadecimal digits each."""
    content = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)
    digits = np.empty((numbers.size, 16), np.uint8)
    digits[:, 0::2] = _HEX[content >> 4]
    digits[:, 1::2] = _HEX[content & 15]
    return digits


def eight_byte_varint(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Avro's zigzag varint of numbers whose varint takes eight bytes."""
    zigzag = numbers << 1
    shifts = np.arange(LOCAL_BYTES, dtype=np.int64) * 7
    groups = (zigzag[:, None] >> shifts) & 0x7F
    groups[:, :-1] |= 0x80
    return groups.astype(np.uint8)
