"""Merkle spans: against the definition of RFC 6962, and however they were put together."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from lifecycle.merkle_kernel import SpanBuilder
from schemas.merkle import Span, leaf_hash, node_hash, span_of


def root_of(leaves: list[bytes]) -> bytes:
    """As section 2.1 of RFC 6962 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    return node_hash(root_of(leaves[:cut]), root_of(leaves[cut:]))


def test_from_the_first_place_on_it_is_the_root_of_rfc_6962() -> None:
    """For every length up to 130."""
    leaves = [bytes([number]) * 7 for number in range(130)]
    for length in range(131):
        assert span_of(0, leaves[:length]).root() == root_of(leaves[:length])


@pytest.mark.parametrize("seed", range(20))
def test_spans_join_to_that_of_the_whole(seed: int) -> None:
    """Cut anywhere, begun anywhere, joined in any order; by the kernel in any portions, too."""
    rng = random.Random(seed)
    begin, length = rng.randrange(300), rng.randrange(1, 300)
    leaves = [rng.randbytes(32) for _ in range(length)]
    expected = span_of(begin, leaves)
    parts, builder = [], SpanBuilder(begin)
    at = 0
    while at < length:
        size = rng.randrange(1, 40)
        parts.append(span_of(begin + at, leaves[at : at + size]))
        builder.add(np.frombuffer(b"".join(leaves[at : at + size]), np.uint8).reshape(-1, 32))
        at += size
    while len(parts) > 1:
        place = rng.randrange(len(parts) - 1)
        parts[place : place + 2] = [parts[place].joined(parts[place + 1])]
    assert parts[0] == expected
    assert builder.span() == expected
    assert len(expected.nodes) <= 2 * length.bit_length()


def test_what_does_not_follow_is_refused() -> None:
    """A gap, an overlap."""
    span = span_of(0, [b"a", b"b"])
    for begin in (1, 3):
        with pytest.raises(ValueError, match="do not follow"):
            span.joined(span_of(begin, [b"c"]))
    assert span.joined(Span(2, 2)) == span
