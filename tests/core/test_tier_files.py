"""Files as they are shown are those of the manifest's own tree, whatever was moved; what was moved is told whole."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from lifecycle.manifest import ManifestError, Move
from lifecycle.tier_files import TierFiles, file_of, groups_of
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR
from tests.core.manifest_histories import commit, history, replayed, segment

DAY_US = MS_PER_DAY * 1_000


@pytest.mark.parametrize("seed", range(20))
def test_the_files_are_those_of_the_tree(seed: int) -> None:
    """After each commit; and sums by tier, grain and partition are those of the files one by one."""
    records, files = history(random.Random(seed), 60), TierFiles()
    for number, record in enumerate(records, 1):
        files.apply(record)
        tree = replayed(records[:number])
        wanted = {each.path: file_of(each) for segments in tree.parts.values() for each in segments}
        assert (files.files, files.commit) == (wanted, number)
    counted = Counter((file.tier, file.grain, file.partition) for file in files.files.values())
    groups = groups_of(files.files.values())
    assert {group[:3]: group.files for group in groups} == counted
    assert sum(group.rows for group in groups) == sum(file.rows for file in files.files.values())
    for group in groups:
        some = [file for file in files.files.values() if (file.tier, file.grain, file.partition) == group[:3]]
        assert (group.first_sequence, group.last_ms) == (
            min(file.first_sequence for file in some),
            max(file.last_ms for file in some),
        )


def test_a_commit_that_is_missing_is_an_error() -> None:
    """Rather than a picture with a hole."""
    files = TierFiles()
    with pytest.raises(ManifestError, match="commit 2 does not follow 0"):
        files.apply(commit(2, Move.SEAL, 0, [segment(0, 1, 3)], []))


def test_ten_years_of_moves_are_less_than_a_thousand_sums() -> None:
    """Of hours, of days, of months, the longer ago the longer; none is lost."""
    files, begin, count = TierFiles(), 1, 10 * 365 * 4
    for number in range(1, count + 1):
        record = commit(number, Move.SEAL, 0, [segment(0, begin, begin + 1, edition=number)], [])
        files.apply(record._replace(at_us=number * DAY_US // 4))
        files.files.clear()
        begin += 2
        assert len(files._moved) <= 1_001
    moved = files.moved()
    assert len(moved) < 300
    assert sum(each.commits for each in moved) == sum(each.files for each in moved) == count
    ages = [(moved[-1].at_ms - each.at_ms) for each in moved]
    apart = [older - newer for older, newer in pairwise(ages)]
    assert min(apart) >= MS_PER_HOUR
    assert max(apart) <= 31 * MS_PER_DAY


def test_what_moved_is_told_by_what_came_or_else_went() -> None:
    """Of a join what it made, of a prune what it took."""
    files = TierFiles()
    one, two = segment(0, 1, 3), segment(0, 4, 6)
    whole = segment(0, 1, 6, edition=2)
    files.apply(commit(1, Move.SEAL, 0, [one, two], []))
    files.apply(commit(2, Move.COMPACT, 0, [whole], [one, two]))
    files.apply(commit(3, Move.PRUNE, 0, [], [whole]))
    told = {each.move: (each.files, each.rows, each.size_bytes) for each in files.moved()}
    assert told == {"seal": (2, 4, 600), "compact": (1, 4, 600), "prune": (1, 4, 600)}
