"""Reading Avro's primitives at an address, for the column kernels.

A reader returns (value, next position). A negative next position is a fault, negated: positions are addresses, which
are positive, so one comparison separates the two and no kernel needs an exception.

GUARANTEE nothing at or beyond `end` is read, whatever the bytes say; lengths are compared with what is left, never
added to a position first, so no length can wrap an address.
"""

from __future__ import annotations

from .faults import Fault
from .memory import kernel, load_i64, load_u8

TRUNCATED = int(Fault.TRUNCATED)
BAD_VARINT = int(Fault.BAD_VARINT)
BAD_LENGTH = int(Fault.BAD_LENGTH)
BAD_UNION = int(Fault.BAD_UNION)
BAD_UTF8 = int(Fault.BAD_UTF8)

#: Nine bytes of seven bits fill 63; the tenth may bring one more.
_LAST_SHIFT = 63
_INT32_MIN = -(1 << 31)
_INT32_MAX = (1 << 31) - 1
#: The top bit of each of eight bytes, as an int64.
_HIGH_BITS = -0x7F7F7F7F7F7F7F80


@kernel
def read_long(position: int, end: int) -> tuple[int, int]:
    """A zigzag varint of at most 64 bits. Spellings longer than needed are accepted, as every Avro library does."""
    low = 0
    shift = 0
    while position < end:
        byte = load_u8(position)
        position += 1
        if shift == _LAST_SHIFT:
            if byte > 1:
                return 0, -BAD_VARINT
            return ((low >> 1) + (byte << 62)) ^ -(low & 1), position
        low |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - no continuation bit
            return (low >> 1) ^ -(low & 1), position
        shift += 7
    return 0, -TRUNCATED


@kernel
def read_int(position: int, end: int) -> tuple[int, int]:
    """A varint whose value must fit 32 bits."""
    value, following = read_long(position, end)
    if following > 0 and (value < _INT32_MIN or value > _INT32_MAX):
        return 0, -BAD_VARINT
    return value, following


@kernel
def read_branch(position: int, end: int) -> tuple[int, int]:
    """The branch of a union of null (0) and one other type (1)."""
    branch, following = read_long(position, end)
    if following > 0 and (branch < 0 or branch > 1):
        return 0, -BAD_UNION
    return branch, following


@kernel
def read_length(position: int, end: int, limit: int, over_limit: int) -> tuple[int, int]:
    """The length of a bytes or string whose content is all there; `over_limit` is the fault for more than `limit`."""
    length, start = read_long(position, end)
    if start < 0:
        return 0, start
    if length < 0:
        return 0, -BAD_LENGTH
    if length > limit:
        return 0, -over_limit
    if length > end - start:
        return 0, -TRUNCATED
    return length, start


@kernel
def is_utf8(position: int, length: int, end: int) -> bool:  # noqa: C901, PLR0912 - a branch for each row of the table
    """Whether the bytes are UTF-8 as Python's strict decoder has it: no overlong form, no surrogate, at most U+10FFFF.

    `end` bounds what may be read: ASCII is tested eight bytes at a time, the last word reaching past the string where
    the record goes on.
    """
    stop = position + length
    while position < stop:
        left = stop - position
        if end - position >= 8:  # noqa: PLR2004 - bytes of a word
            word = load_i64(position) & _HIGH_BITS
            if left < 8:  # noqa: PLR2004
                word &= (1 << (8 * left)) - 1
            if word == 0:
                position += 8
                continue
        lead = load_u8(position)
        if lead < 0x80:  # noqa: PLR2004
            position += 1
            continue
        # Table 3-7 of the Unicode standard: how many bytes follow, and the range of the first of them.
        lowest, highest = 0x80, 0xBF
        if 0xC2 <= lead <= 0xDF:  # noqa: PLR2004
            following = 1
        elif 0xE0 <= lead <= 0xEF:  # noqa: PLR2004
            following = 2
            if lead == 0xE0:  # noqa: PLR2004
                lowest = 0xA0
            elif lead == 0xED:  # noqa: PLR2004
                highest = 0x9F
        elif 0xF0 <= lead <= 0xF4:  # noqa: PLR2004
            following = 3
            if lead == 0xF0:  # noqa: PLR2004
                lowest = 0x90
            elif lead == 0xF4:  # noqa: PLR2004
                highest = 0x8F
        else:
            return False
        if following >= left:
            return False
        second = load_u8(position + 1)
        if second < lowest or second > highest:
            return False
        for k in range(2, following + 1):
            if load_u8(position + k) & 0xC0 != 0x80:  # noqa: PLR2004 - 10xxxxxx
                return False
        position += following + 1
    return True


@kernel
def read_text(position: int, end: int, limit: int, over_limit: int) -> tuple[int, int]:
    """As read_length, and the content is UTF-8."""
    length, start = read_length(position, end, limit, over_limit)
    if start > 0 and not is_utf8(start, length, end):
        return 0, -BAD_UTF8
    return length, start
