"""What a cut decides before it changes anything: which entries need no archive, where judge's state goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lifecycle.cutting import NotCutError, anchor_slot, check_begin, rests_on
from lifecycle.packing import DamagedError
from streams.judge import Judge
from streams.snapshots import Snapshot, pack
from tests.core.manifest_histories import segment

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


def test_what_lies_before_the_first_file_was_pruned_or_the_ledger_has_it_alone() -> None:
    """What is before the ledger needs no archive; nothing rests on files that are not there."""
    files = [segment(0, 21, 30), segment(0, 31, 40)]
    for first_index, pruned_index in ((21, 0), (25, 0), (41, 0), (1, 20), (21, 20)):
        check_begin(0, files, first_index, pruned_index)
        if first_index <= 40:
            assert rests_on(files, first_index, 40, pruned_index) == files
    check_begin(0, [], 1, 0)
    for first_index, pruned_index, missing in ((1, 0, "1 to 20"), (7, 0, "7 to 20"), (1, 10, "11 to 20")):
        with pytest.raises(NotCutError, match=f"partition 0 .* entries {missing} are in no archive.* manifest") as told:
            check_begin(0, files, first_index, pruned_index)
        assert "The manifest topic is lost" in told.value.remedy
        with pytest.raises(DamagedError, match=f"entries {missing.split()[0]} to 40 are in no archive"):
            rests_on(files, first_index, 40, pruned_index)
    assert rests_on(files, 1, 15, 20) == files[:1]
