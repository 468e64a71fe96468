"""Merkle trees of RFC 6962 over a partition: leaf i is what stands at place i, and any range of places has few hashes.

    leaf    SHA-256(0x00 || data)
    node    SHA-256(0x01 || left || right)
    root    of no leaf SHA-256(""), of one its leaf; of n the node of the roots of the first k and of the others, k the
            greatest power of two below n

A Span is a range of places as the roots of the largest subtrees of the partition's tree that lie in it. So the spans
of neighbouring ranges join to that of both without their leaves, and that of places 0 to n - 1 has RFC 6962's root.

GUARANTEE a Span of n places has at most 2 log2(n) hashes, and is the same however it was put together.
Plain Python on the standard library, as `canonical`; the oracle of the kernel that archives use.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """Of a leaf."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of what stands above two hashes."""
    return hashlib.sha256(_NODE + left + right).digest()


class Span(NamedTuple):
    """Places begin to end - 1. nodes: (level, hash) from the left; one of level k is over 2^k places."""

    begin: int = 0
    end: int = 0
    nodes: tuple[tuple[int, bytes], ...] = ()

    def with_leaf(self, data: bytes) -> Span:
        """One place more."""
        return self.joined(Span(self.end, self.end + 1, ((0, leaf_hash(data)),)))

    def joined(self, after: Span) -> Span:
        """With the places after it. Raises ValueError where these do not follow."""
        if after.begin != self.end:
            raise ValueError(f"places {after.begin} to {after.end - 1} do not follow {self.begin} to {self.end - 1}")
        nodes, at = list(self.nodes), self.end
        for level, node in after.nodes:
            at += 1 << level
            over, root = level, node
            # A right child whose left one ends the range, too: the two are their parent.
            while nodes and nodes[-1][0] == over and (at >> over) & 1 == 0:
                root = node_hash(nodes.pop()[1], root)
                over += 1
            nodes.append((over, root))
        return Span(self.begin, after.end, tuple(nodes))

    def root(self) -> bytes:
        """One hash for all: from place 0 on that of RFC 6962; else its subtrees are joined from the right likewise."""
        if not self.nodes:
            return hashlib.sha256(b"").digest()
        *before, (_, root) = self.nodes
        for _, left in reversed(before):
            root = node_hash(left, root)
        return root


def span_of(begin: int, leaves: Iterable[bytes]) -> Span:
    """Of these leaves at places from begin on."""
    span = Span(begin, begin)
    for data in leaves:
        span = span.with_leaf(data)
    return span
