"""Where a store is read on from once the first entries of its ledger were cut."""

from __future__ import annotations

import pytest

from lifecycle.chunks import Applied
from lifecycle.resume import resume
from schemas.errors import DriftledgerError
from streams.judge import Judge
from streams.snapshots import Packed, Snapshot, pack

ARCHIVED = Applied(90, 80, 0, 7)


def judge_at(index: int, slot: int) -> Packed:
    """A snapshot of judge."""
    judge = Judge()
    state = judge.dump(judge.new_state(0))
    return pack(Snapshot(judge.name, judge.version, 0, index, bytes(32), state), slot)


def test_what_was_lost_is_read_on_where_the_archives_end() -> None:
    """Judge goes on from its snapshot at the cut, not from a newer one; what is stored needs no archive."""
    snapshots = [judge_at(95, 0), judge_at(50, 2)]
    index, _, state = resume(0, None, snapshots, lambda _: True, 50, lambda: ARCHIVED)
    assert (index, state.last_index, state.applied) == (50, 90, ARCHIVED)
    stored = Applied(60, 55, 3, 7)
    index, _, state = resume(0, stored, snapshots, lambda _: True, 50, lambda: pytest.fail("nobody asked"))
    assert (index, state.last_index, state.applied) == (50, 60, stored)
    index, _, state = resume(0, None, [], lambda _: True)
    assert (index, state.last_index) == (0, 0)


def test_what_is_nowhere_is_refused() -> None:
    """Never a store that leaves older rows out."""
    with pytest.raises(DriftledgerError, match="begins at entry 50, and there is no archive"):
        resume(0, None, [judge_at(50, 2)], lambda _: True, 50, lambda: None)
    with pytest.raises(DriftledgerError, match="archives to entry 40"):
        resume(0, None, [judge_at(50, 2)], lambda _: True, 50, lambda: ARCHIVED._replace(index=40))
    with pytest.raises(DriftledgerError, match="judge has no snapshot from there to entry 90"):
        resume(0, None, [judge_at(95, 0)], lambda _: True, 50, lambda: ARCHIVED)
