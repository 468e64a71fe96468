"""Sums of what lies in tiers: command, HTTP and page tell the same of the same hours and files."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from lifecycle.manifest import Tree
from lifecycle.standing import tier_rows
from lifecycle.tier_files import TierFiles, groups_of
from lifecycle.tier_sums import Place, by_place, hot_tier, sum_of
from lifecycle.tier_view import view_of
from lifecycle.tiers import MS_PER_HOUR, Grain, Tier
from schemas.instants import US_PER_MS, format_ms
from tests.core.lifecycle_histories import NOW_MS, ROWS, RULES, files_of, hot_of, hour_of
from tests.core.manifest_histories import history, replayed


def test_a_sum_is_of_hours_and_files_alike() -> None:
    """An hour reaches from its beginning to its end."""
    hours = [hour_of(0, 5), hour_of(0, 3)._replace(first_sequence=-7, rows=1)]
    (file,) = files_of(1, 1).files.values()
    found = sum_of([*hours, file])
    assert (found.segments, found.rows, found.size_bytes) == (3, 2 * ROWS + 1, 106 * ROWS)
    assert (found.first_sequence, found.last_sequence) == (-7, ROWS)
    assert (found.first_ms, found.last_ms) == (file.first_ms, hours[1].end_ms)
    assert (found.end_ms_min, found.end_ms_max) == (file.end_ms, hours[1].end_ms)
    assert sum_of(hours).first_ms == hours[0].end_ms - MS_PER_HOUR


def test_places_are_in_order() -> None:
    """Nearest first, then the shortest, then by partition; what lies in one stays as it came."""
    places = [Place(tier, grain, p) for tier in Tier for grain in Grain for p in (0, 2, 10)]
    placed = [(place, number) for number in range(2) for place in places]
    random.Random(1).shuffle(placed)
    found = by_place(placed)
    assert [place for place, _ in found] == places
    assert all(numbers == [number for at, number in placed if at == place] for place, numbers in found)
    assert by_place([]) == []


@pytest.mark.parametrize(
    ("hours", "tier"), [(-1, Tier.LIVE), (0, Tier.LIVE), (1, Tier.RECENT), (24 * 8, Tier.RECENT), (10**6, Tier.RECENT)]
)
def test_what_is_hot_is_live_or_recent(hours: int, tier: Tier) -> None:
    """However old it is."""
    assert hot_tier(NOW_MS - hours * MS_PER_HOUR, NOW_MS, RULES.ages) is tier


@pytest.mark.parametrize("seed", range(5))
def test_all_who_tell_of_tiers_tell_the_same(seed: int) -> None:
    """The command by tier, grain and partition; HTTP of files alone; the page by tier and store."""
    records, files = history(random.Random(seed), 60), TierFiles()
    for record in records:
        files.apply(record)
    hot = hot_of(2, 30)
    by_partition = {p: [hour for hour in hot.hours if hour.partition == p] for p in range(2)}
    rows = tier_rows(replayed(records), by_partition, RULES, NOW_MS * US_PER_MS)
    archived = tier_rows(replayed(records), {}, RULES, NOW_MS * US_PER_MS)
    names = ("tier", "grain", "partition", "segments", "rows", "size_bytes", "first_sequence", "last_sequence")
    groups = groups_of(files.files.values())
    assert [tuple(row[name] for name in names) for row in archived] == [group[:8] for group in groups]
    assert [(row["from"], row["to"]) for row in archived] == [
        (format_ms(group.first_ms), format_ms(group.last_ms)) for group in groups
    ]
    view = view_of(files, hot, RULES, NOW_MS, 2)
    held = tier_rows(Tree(), by_partition, RULES, NOW_MS * US_PER_MS)
    for name, of_page, of_command in (
        ("hot", [row for row in view.tiers if row.store == "hot"], held),
        ("archive", [row for row in view.tiers if row.store == "archive" and row.segments], archived),
    ):
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for row in of_command:
            for place, column in enumerate(("segments", "rows", "size_bytes")):
                sums[row["tier"]][place] += row[column]
        assert {row.tier: [row.segments, row.rows, row.size_bytes] for row in of_page} == sums, name
    assert sum(row["segments"] for row in rows) == len(hot.hours) + len(files.files)
