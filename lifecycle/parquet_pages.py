"""The pages of a column of a row group, looked at before anybody makes room for what they say.

Problem: Parquet's reader takes memory for as many bytes, values and names as the header of a page claims, up to two
gigabytes each, and decompresses what a few kilobytes become. A checksum helps against accidents, not against a file
that somebody made. So the headers are read by themselves first: they must fill the column from its first byte to its
last, have as many values as the row group has rows, and become no more bytes than the footer says, and than any column
can.

    page      header in Thrift's compact protocol, then as many bytes as that says
    header    1 kind, 2 bytes before and 3 after compression, 5, 7, 8 by its kind: first how many values it has

GUARANTEE `check_pages` takes no memory but for what it is given, and raises DamagedError for whatever is not such.
Source: parquet.thrift of Apache Parquet 2.11, and Thrift's compact protocol.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lifecycle.archive_table import ROWS_MAX
from lifecycle.packing import DamagedError

#: Texts of one column are counted by 32 bits.
TEXTS_BYTES_MAX: Final = 2**31 - 1
#: ROWS_MAX values of 32 bytes, their levels, and as many names.
VALUES_BYTES_MAX: Final = 16 * 1024 * 1024

_DATA, _NAMES, _DATA_2 = 0, 2, 3
_KIND, _RAW, _PACKED = 1, 2, 3
#: Fields that have, as their first, how many values there are.
_COUNTED: Final = (5, 7, 8)
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
#: Of 16, 32 and 64 bits.
_NUMBERS: Final = (4, 5, 6)
_DEPTH_MAX: Final = 8
_VARINT_BITS_MAX: Final = 64


class Page(NamedTuple):
    """What a header says. begins: where the bytes behind it do."""

    kind: int
    raw_bytes: int
    packed_bytes: int
    values: int
    begins: int


def check_pages(content: bytes, rows: int, raw_bytes: int, raw_bytes_max: int) -> None:
    """That these are the pages of a column of so many rows. raw_bytes: decompressed, with headers, as its footer says.

    Raises DamagedError.
    """
    if not 0 <= raw_bytes <= raw_bytes_max:
        raise DamagedError(f"its footer says that a column has {raw_bytes} bytes, where {raw_bytes_max} can be")
    at = values = raw = 0
    while at < len(content):
        page = page_at(content, at)
        raw += page.begins - at + page.raw_bytes
        at = page.begins + page.packed_bytes
        if page.kind in (_DATA, _DATA_2):
            values += page.values
        elif page.kind == _NAMES and page.values > ROWS_MAX:
            raise DamagedError(f"a page says that it has {page.values} names")
        if at > len(content) or raw > raw_bytes or values > rows:
            raise DamagedError(
                f"a page says that it has {page.packed_bytes} bytes, {page.raw_bytes} once they are decompressed, and "
                f"{page.values} values, which its column of {rows} rows has not"
            )
    if values != rows:
        raise DamagedError(f"the pages of a column have {values} values of {rows} rows")


def page_at(content: bytes, at: int) -> Page:
    """The page whose header begins there. Raises DamagedError."""
    reader = _Reader(content, at)
    try:
        found = reader.struct(0)
    except IndexError as error:
        raise DamagedError(f"the header of a page at {at} of its column has no end") from error
    kind, raw, packed = (found.get((name, 0), -1) for name in (_KIND, _RAW, _PACKED))
    values = next((found[name, 1] for name in _COUNTED if (name, 1) in found), 0)
    if min(kind, raw, packed, values) < 0:
        raise DamagedError(f"a page says that it is of kind {kind} and has {packed} bytes, {raw} and {values} values")
    return Page(kind, raw, packed, values, reader.at)


class _Reader:
    """Thrift's compact protocol. Methods raise IndexError where the bytes end."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self.at = content, at

    def struct(self, depth: int) -> dict[tuple[int, int], int]:
        """Its numbers, by field, and of the first field of structs in it by theirs and 1."""
        found: dict[tuple[int, int], int] = {}
        name = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            name = name + step if step else _signed(self._varint())
            if kind in _NUMBERS:
                found[name, 0] = _signed(self._varint())
            elif kind == _STRUCT:
                inner = self._deeper(depth)
                if (1, 0) in inner:
                    found[name, 1] = inner[1, 0]
            else:
                self._skip(kind, depth)
        return found

    def _deeper(self, depth: int) -> dict[tuple[int, int], int]:
        if depth == _DEPTH_MAX:
            raise DamagedError("the header of a page has structs in structs in structs")
        return self.struct(depth + 1)

    def _skip(self, kind: int, depth: int) -> None:
        """A value that nobody asks for; a truth value that is a field stands in its head."""
        if kind in (_TRUE, _FALSE):
            return
        if kind == _BYTE:
            self._byte()
        elif kind in _NUMBERS:
            self._varint()
        elif kind == _DOUBLE:
            self._pass(8)
        elif kind == _BINARY:
            self._pass(self._varint())
        elif kind == _STRUCT:
            self._deeper(depth)
        else:  # no header of a page has any
            raise DamagedError(f"the header of a page has a value of kind {kind}")

    def _pass(self, size: int) -> None:
        self.at += size
        if self.at > len(self._content):
            raise IndexError

    def _byte(self) -> int:
        found = self._content[self.at]
        self.at += 1
        return found

    def _varint(self) -> int:
        value = shift = 0
        while shift < _VARINT_BITS_MAX:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the bit that says that more follows
                return value
            shift += 7
        raise DamagedError("the header of a page has a number of more than 64 bits")


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
