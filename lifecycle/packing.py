"""Columns as bytes: integers as byte planes of small differences, texts with their lengths apart, LZ4 where it helps.

Problem: LZ4 finds repeated bytes and nothing else. Timestamps and counters repeat none until they are differences, and
those do only once their idle upper bytes stand together. So integers become differences to the one before (where that
makes them narrower), less the least of them, in as few bytes as the widest needs, plane by plane. A column that rises
evenly, or is the same throughout, takes no bytes a row.

    ints       flags u8, width u8, first i64, base i64, length u32, planes
    bytes      flags u8, raw u32, length u32, content
    texts      ints of the lengths, bytes; with flag UUID each text is a UUID in lower case, spelled by 16 bytes

GUARANTEE what is read is what was packed, or DamagedError; memory is taken for as much as the reader asked for, never
for what the bytes claim. All arithmetic is modulo 2^64, so any int64 can follow any other.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import lz4.block
import numpy as np

from schemas.errors import DriftledgerError
from schemas.memory import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DELTA: Final = 1
_LZ4: Final = 2
_UUID: Final = 4

_INTS: Final = struct.Struct("<BBqqI")
_BYTES: Final = struct.Struct("<BII")
#: Below this LZ4 has nothing to find: it needs twelve bytes at the end as they are.
_LZ4_LEAST: Final = 32
#: A byte of a block stands for so many at most.
_LZ4_RATIO_MAX: Final = 255
_WIDTH_MAX: Final = 8
_MASK: Final = 2**64 - 1
UUID_BYTES: Final = 16
_UUID_CHARACTERS: Final = 36
_DASH: Final = ord("-")
_NO_DIGIT: Final = 255
#: The value of a hexadecimal digit in lower case.
_DIGITS: Final = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_CHARACTERS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


class DamagedError(DriftledgerError):
    """Bytes are not what was packed; whoever knows what they were of says it, and the remedy."""


class Texts(NamedTuple):
    """n byte strings: offsets int32[n + 1], text i is content[offsets[i] : offsets[i + 1]]."""

    offsets: NDArray[np.int32]
    content: NDArray[np.uint8]

    def at(self, row: int) -> bytes:
        """One of them."""
        return self.content[self.offsets[row] : self.offsets[row + 1]].tobytes()

    def strings(self) -> tuple[bytes, ...]:
        """All of them."""
        content = self.content.tobytes()
        return tuple(content[start:end] for start, end in pairwise(self.offsets.tolist()))


def texts_of(strings: list[bytes]) -> Texts:
    """A column of them."""
    offsets = np.zeros(len(strings) + 1, np.int32)
    np.cumsum([len(string) for string in strings], out=offsets[1:])
    return Texts(offsets, np.frombuffer(b"".join(strings), np.uint8))


def pack_ints(values: NDArray[np.int64]) -> bytes:
    """Any integers, one dimension."""
    if not values.size:
        return _INTS.pack(0, 0, 0, 0, 0)
    plain = values.view(np.uint64)
    least = int(values.min())
    width = _width(int(values.max()) - least)
    flags, first, rest, base = 0, 0, plain, least
    if width > 1:
        steps = plain[1:] - plain[:-1]
        signed = steps.view(np.int64)
        step = int(signed.min())
        narrow = _width(int(signed.max()) - step)
        if narrow < width:
            flags, first, rest, base, width = _DELTA, int(values[0]), steps, step, narrow
    planes = b""
    if width:
        lifted = rest - np.uint64(base & _MASK)
        planes = lifted.view(np.uint8).reshape(-1, _WIDTH_MAX).T[:width].tobytes()
    flag, planes = _squeezed(planes)
    return _INTS.pack(flags | flag, width, first, base, len(planes)) + planes


def pack_texts(texts: Texts) -> bytes:
    """Byte strings; content beside them is not packed."""
    lengths = np.diff(texts.offsets).astype(np.int64)
    rows = lengths.size
    content = texts.content[texts.offsets[0] : texts.offsets[-1]]
    flag = 0
    if rows and content.size == rows * _UUID_CHARACTERS and (lengths == _UUID_CHARACTERS).all():
        short = np.empty(rows * UUID_BYTES, np.uint8)
        if shorten_uuids(content, short, _DIGITS):
            flag, content = _UUID, short.reshape(rows, UUID_BYTES).T
    squeeze, packed = _squeezed(content.tobytes())
    return pack_ints(lengths) + _BYTES.pack(flag | squeeze, content.size, len(packed)) + packed


def text_bytes(packed: bytes, start: int = 0) -> int:
    """What byte strings that `pack_texts` has packed there take, as far as they say. Raises DamagedError."""
    try:
        length = _INTS.unpack_from(packed, start)[-1]
        flags, raw, _ = _BYTES.unpack_from(packed, start + _INTS.size + length)
    except struct.error as error:
        raise DamagedError(f"no texts: {error}") from error
    return int(raw) * _UUID_CHARACTERS // UUID_BYTES if flags & _UUID else int(raw)


class Reader:
    """Takes packed columns off bytes, one after the other. Every method raises DamagedError."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._content = memoryview(content)
        self._at = 0

    def ints(self, rows: int) -> NDArray[np.int64]:
        """So many integers."""
        flags, width, first, base, length = _INTS.unpack(self._take(_INTS.size))
        delta = bool(flags & _DELTA) and rows > 0
        count = rows - 1 if delta else rows
        if width > _WIDTH_MAX or flags & ~(_DELTA | _LZ4):
            raise DamagedError(f"integers of flags {flags} and width {width}")
        planes = _expanded(self._take(length), width * count, packed=bool(flags & _LZ4))
        values = np.empty(rows, np.uint64)
        lifted = values[rows - count :]
        join_planes(np.frombuffer(planes, np.uint8), lifted)
        if base:
            lifted += np.uint64(base & _MASK)
        if delta:
            values[0] = first & _MASK
            add_up(values)
        return values.view(np.int64)

    def doubles(self, rows: int) -> NDArray[np.float64]:
        """So many doubles, to the bit."""
        return self.ints(rows).view(np.float64)

    def texts(self, rows: int, most: int) -> Texts:
        """So many byte strings, of together at most so many bytes."""
        lengths = self.ints(rows)
        flags, raw, length = _BYTES.unpack(self._take(_BYTES.size))
        if flags & ~(_LZ4 | _UUID) or raw > most:
            raise DamagedError(f"{raw} bytes of texts with flags {flags}, where at most {most} can be")
        if rows and (int(lengths.min()) < 0 or int(lengths.max()) > most):
            raise DamagedError("a text has a length that none can have")
        offsets = np.zeros(rows + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        content = np.frombuffer(_expanded(self._take(length), raw, packed=bool(flags & _LZ4)), np.uint8)
        if flags & _UUID:
            if raw != rows * UUID_BYTES:
                raise DamagedError(f"{rows} UUIDs in {raw} bytes")
            short, content = content, np.empty(rows * _UUID_CHARACTERS, np.uint8)
            spell_uuids(np.ascontiguousarray(short.reshape(UUID_BYTES, rows).T).reshape(-1), content, _CHARACTERS)
        if int(offsets[-1]) != content.size:
            raise DamagedError(f"texts of {content.size} bytes whose lengths add up to {offsets[-1]}")
        return Texts(offsets.astype(np.int32), content)

    def raw(self, length: int) -> bytes:
        """So many bytes as they are."""
        return bytes(self._take(length))

    def end(self) -> None:
        """That nothing is left."""
        if self._at != len(self._content):
            raise DamagedError(f"{len(self._content) - self._at} bytes more than were packed")

    def _take(self, length: int) -> memoryview:
        taken = self._content[self._at : self._at + length]
        if len(taken) != length:
            raise DamagedError(f"ends {length - len(taken)} bytes early")
        self._at += length
        return taken


@kernel
def join_planes(planes: NDArray[np.uint8], values: NDArray[np.uint64]) -> None:
    """values[i] = the integer whose bytes stand at i, n + i, 2 n + i and so on, the lowest first, of n values."""
    count = values.size
    values[:] = 0
    for plane in range(planes.size // max(count, 1)):
        shift = np.uint64(8 * plane)
        for i in range(count):
            values[i] |= np.uint64(planes[plane * count + i]) << shift


@kernel
def add_up(values: NDArray[np.uint64]) -> None:
    """values[i] = the sum of those up to it, modulo 2^64; there is at least one."""
    total = int(values[0])
    for i in range(1, values.size):
        total = (total + int(values[i])) & _MASK
        values[i] = total


@kernel
def shorten_uuids(content: NDArray[np.uint8], short: NDArray[np.uint8], digits: NDArray[np.uint8]) -> bool:
    """Texts of 36 bytes as UUIDs of 16; False where one is none, or is spelled otherwise than they are spelled here."""
    for row in range(short.size // 16):
        at = 36 * row
        for byte in range(16):
            if byte in (4, 6, 8, 10):
                if content[at] != _DASH:
                    return False
                at += 1
            high, low = digits[content[at]], digits[content[at + 1]]
            if max(high, low) == _NO_DIGIT:
                return False
            short[16 * row + byte] = 16 * high + low
            at += 2
    return True


@kernel
def spell_uuids(short: NDArray[np.uint8], content: NDArray[np.uint8], characters: NDArray[np.uint8]) -> None:
    """What `shorten_uuids` was given."""
    for row in range(short.size // 16):
        at = 36 * row
        for byte in range(16):
            if byte in (4, 6, 8, 10):
                content[at] = _DASH
                at += 1
            content[at] = characters[short[16 * row + byte] >> 4]
            content[at + 1] = characters[short[16 * row + byte] & 15]
            at += 2


def _width(spread: int) -> int:
    """Bytes that hold 0 to spread."""
    return (spread.bit_length() + 7) // 8


def _squeezed(raw: bytes) -> tuple[int, bytes]:
    """The flag and the bytes that are stored."""
    if len(raw) < _LZ4_LEAST:
        return 0, raw
    packed = lz4.block.compress(raw, store_size=False)
    return (_LZ4, packed) if len(packed) < len(raw) else (0, raw)


def _expanded(stored: memoryview, raw: int, *, packed: bool) -> bytes | memoryview:
    """The bytes that were squeezed, which are `raw` ones."""
    if not packed:
        if len(stored) != raw:
            raise DamagedError(f"{len(stored)} bytes, where {raw} were stored")
        return stored
    if raw > _LZ4_RATIO_MAX * len(stored):
        raise DamagedError(f"an LZ4 block of {len(stored)} bytes cannot become {raw}")
    try:
        content: bytes = lz4.block.decompress(stored, uncompressed_size=raw)
    except lz4.block.LZ4BlockError as error:
        raise DamagedError(f"no LZ4 block of {raw} bytes: {error}") from error
    if len(content) != raw:
        raise DamagedError(f"an LZ4 block of {len(content)} bytes, where {raw} were packed")
    return content
