"""What a cut decides before it changes anything: where judge's state goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lifecycle.cutting import anchor_slot
from streams.judge import Judge
from streams.snapshots import Snapshot, pack

if TYPE_CHECKING:
    from streams.snapshots import Packed


def snapshots_at(indexes: dict[int, int], damaged: int | None = None) -> list[Packed]:
    """Judge's snapshots, newest first: by slot after which entry each stands."""
    judge = Judge()
    found = [
        pack(Snapshot(judge.name, judge.version, 0, index, bytes(32), b"state"), slot)
        for slot, index in indexes.items()
    ]
    found = [replace(each, chunks=[b"junk"]) if each.slot.endswith(f"/{damaged}") else each for each in found]
    return sorted(found, key=lambda packed: packed.index, reverse=True)


def test_what_the_ledger_begins_with_is_not_written_over() -> None:
    """Cut after cut, and behind a run that wrote judge's state and deleted nothing; lanes' snapshots do not count."""
    lanes = {0: 900, 1: 90}
    assert anchor_slot(snapshots_at(lanes), 1) in (2, 3)
    for stays, other in ((2, 3), (3, 2)):
        assert anchor_slot(snapshots_at({**lanes, stays: 100}), 100) == other
        assert anchor_slot(snapshots_at({**lanes, stays: 200, other: 100}), 200) == other
        assert anchor_slot(snapshots_at({**lanes, stays: 200, other: 300}), 200) == other


def test_one_that_is_damaged_is_written_over() -> None:
    """Nothing is judged from it; the older one may be of use."""
    for stays, other in ((2, 3), (3, 2)):
        assert anchor_slot(snapshots_at({stays: 100, other: 200}, damaged=other), 200) == other
