"""Cuts of a ledger, as records and as what is noted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from schemas.codec import Framing
from streams.control import encode_control, read_control
from streams.cuts import Cut, covers, cut_in, cut_of
from streams.progress import read_lane
from tests.core.test_control import BODIES, GENESIS
from tests.core.test_progress import Records

if TYPE_CHECKING:
    from streams.log import Log

CUT = Cut(
    before_index=5,
    before_sequence=3,
    chain_hash=bytes(range(32)),
    archives=2,
    first_index=1,
    last_index=9,
    merkle_root=bytes(32),
    job="j",
    genesis={name: GENESIS[name] for name in ("topic", "topic_id", "partitions", "lanes", "base_offset")},
    framing=Framing.JSON,
)


def test_what_is_said_is_read() -> None:
    """As a control record; no other is a cut."""
    value = CUT.encode("job j", "proved")
    assert cut_of(value) == CUT
    assert cut_in(*read_control(value)) == CUT
    assert cut_in("Verify", BODIES["Verify"]) is None
    with pytest.raises(ValueError, match="no cut"):
        cut_of(encode_control("Verify", BODIES["Verify"], "ada", "because"))


def test_a_ledger_begins_where_a_cut_says_or_before() -> None:
    """A run may have been ended before anything was deleted; without a cut it begins with GENESIS."""
    assert [covers(CUT, index) for index in (0, 1, 2, 5, 6)] == [False, True, True, True, False]
    assert [covers(None, index) for index in (1, 2)] == [True, False]


def test_the_last_cut_of_a_partition_is_noted() -> None:
    """Beside everything else on the progress topic; what cannot be read is none."""
    log = Records()
    later = CUT._replace(before_index=8)
    log.records = [
        (b"cut/0", CUT.encode("a", "b")),
        (b"cut/2", CUT.encode("a", "b")),
        (b"cut/0", later.encode("a", "b")),
        (b"cut/3", b"no cut"),
        (b"cut/4", encode_control("Verify", BODIES["Verify"], "ada", "because")),
        (b"cut/x", CUT.encode("a", "b")),
    ]
    state = read_lane(cast("Log", log), "progress", 0)
    assert state.cuts == {0: later, 2: CUT}
    assert (state.folds, state.halts, state.locks) == ({}, {}, [])
