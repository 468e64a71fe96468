"""Merkle spans of thousands of leaves at a time; `schemas.merkle` is the plain twin, and says what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from schemas.memory import (
    SHA256_CONTEXT_BYTES,
    address_of,
    copy,
    kernel,
    sha256_final,
    sha256_init,
    sha256_update,
    store_u8,
)
from schemas.merkle import Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HASH_BYTES: Final = 32
#: Two subtrees of each size, of places below 2^63.
_NODES_MAX: Final = 128


class SpanBuilder:
    """A Span that grows at its right end. begin: its first place."""

    def __init__(self, begin: int) -> None:
        self._begin = self._end = begin
        self._levels = np.zeros(_NODES_MAX, np.int64)
        self._hashes = np.zeros((_NODES_MAX, _HASH_BYTES), np.uint8)
        self._numbers = np.array([0], np.int64)
        self._context = np.empty(SHA256_CONTEXT_BYTES, np.uint8)
        self._block = np.zeros(1 + 2 * _HASH_BYTES, np.uint8)

    def add(self, leaves: NDArray[np.uint8]) -> None:
        """uint8[n, 32]: of the next n places."""
        leaves = np.ascontiguousarray(leaves)
        _add(
            self._end, address_of(leaves), len(leaves), self._levels, address_of(self._hashes), self._numbers,
            address_of(self._context), address_of(self._block),
        )  # fmt: skip
        self._end += len(leaves)

    def span(self) -> Span:
        """What it is now."""
        depth = int(self._numbers[0])
        nodes = [(int(self._levels[each]), self._hashes[each].tobytes()) for each in range(depth)]
        return Span(self._begin, self._end, tuple(nodes))


@kernel
def _hash(prefix: int, block: int, length: int, context: int, digest: int) -> None:
    """Of a prefix byte, which stands before the rest of the block."""
    store_u8(block, prefix)
    sha256_init(context)
    sha256_update(context, block, length)
    sha256_final(digest, context)


@kernel
def _add(
    place: int, leaves: int, count: int, levels: NDArray[np.int64], hashes: int, numbers: NDArray[np.int64],
    context: int, block: int,
) -> None:  # fmt: skip
    """numbers: how many nodes there are."""
    depth = numbers[0]
    for row in range(count):
        copy(block + 1, leaves + row * _HASH_BYTES, _HASH_BYTES)
        _hash(0, block, 1 + _HASH_BYTES, context, hashes + depth * _HASH_BYTES)
        levels[depth] = 0
        depth += 1
        at, level = place + row + 1, 0
        while depth > 1 and levels[depth - 2] == level and (at >> level) & 1 == 0:
            copy(block + 1, hashes + (depth - 2) * _HASH_BYTES, 2 * _HASH_BYTES)
            _hash(1, block, 1 + 2 * _HASH_BYTES, context, hashes + (depth - 2) * _HASH_BYTES)
            depth -= 1
            level += 1
            levels[depth - 1] = level
    numbers[0] = depth
