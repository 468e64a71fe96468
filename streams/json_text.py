"""JSON text, written by kernels: strings and null, and the pieces that stand between the numbers of many records.

Problem: records of one kind differ in their numbers and in a key; a dict and a call of `json.dumps` for each would take
longer than everything that led to them.

GUARANTEE what is written is byte for byte what `json.dumps` writes without spaces and with characters as they are: so
equal records are equal bytes.
HAZARD texts are taken for UTF-8 unseen: decoding the events has checked them (schemas/columns.py).
HAZARD a piece is copied whole, whatever is used of it: memory must have PIECE_BYTES beyond the longest text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import copy, kernel, load_u8, store_u8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Bytes of a piece, copied whole: two vector registers.
PIECE_BYTES: Final = 32
#: A byte of a text is six of JSON at most, "\u001f".
TEXT_FACTOR: Final = 6

_QUOTE, _BACKSLASH, _ZERO, _UNICODE = (ord(character) for character in '"\\0u')
_NULL: Final = int.from_bytes(b"null", "little")
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


def _escapes() -> NDArray[np.uint8]:
    """What stands behind the backslash for each byte of a text, 0 for a byte that stands as it is."""
    escapes = np.zeros(256, np.uint8)
    escapes[:32] = _UNICODE
    for byte, letter in zip(b'\b\t\n\f\r"\\', b'btnfr"\\', strict=True):
        escapes[byte] = letter
    return escapes


_ESCAPES: NDArray[np.uint8] = _escapes()


def padded(pieces: Sequence[bytes]) -> bytes:
    """Pieces as `put_piece` takes them. Raises ValueError for one that is too long."""
    if any(len(piece) > PIECE_BYTES for piece in pieces):
        raise ValueError(f"a piece has {max(map(len, pieces))} bytes; {PIECE_BYTES} at most")
    return b"".join(piece.ljust(PIECE_BYTES) for piece in pieces)


@kernel
def put_piece(target: int, table: int, lengths: NDArray[np.int64], place: int) -> int:
    """The piece of that place in the table at an address; returns the address after it."""
    copy(target, table + place * PIECE_BYTES, PIECE_BYTES)
    return target + int(lengths[place])


@kernel
def put_text(target: int, source: int, length: int) -> int:
    """UTF-8 as JSON text with its quotes; returns the address after it."""
    store_u8(target, _QUOTE)
    target += 1
    for i in range(length):
        byte = load_u8(source + i)
        letter = int(_ESCAPES[byte])
        if letter:
            store_u8(target, _BACKSLASH)
            store_u8(target + 1, letter)
            target += 2
            if letter == _UNICODE:
                store_u8(target, _ZERO)
                store_u8(target + 1, _ZERO)
                store_u8(target + 2, _ZERO + (byte >> 4))
                store_u8(target + 3, int(_HEX[byte & 15]))
                target += 4
        else:
            store_u8(target, byte)
            target += 1
    store_u8(target, _QUOTE)
    return target + 1


@kernel
def put_null(target: int) -> int:
    """The word null; returns the address after it."""
    for i in range(4):
        store_u8(target + i, _NULL >> (8 * i))
    return target + 4
