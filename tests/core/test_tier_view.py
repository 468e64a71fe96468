"""What pages are told of tiers: sums that are those of files and hours, and blocks that leave none out."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import orjson
import pytest

from lifecycle import ageing
from lifecycle.ageing import COLD
from lifecycle.tier_files import TierFiles
from lifecycle.tier_view import BLOCKS_MAX, LINES_MAX, POINTS_MAX, Away, Hot, place, view_of
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Tier
from tests.core.lifecycle_histories import NOW_MS, ROWS, RULES, files_of, hot_of, hour_of


def test_of_nothing_there_is_an_empty_picture() -> None:
    """A ledger that has just begun."""
    view = view_of(TierFiles(), Hot(), RULES, NOW_MS, 4)
    assert [(row.tier, row.store, row.segments, row.rows) for row in view.tiers] == [
        ("live", "hot", 0, 0), ("recent", "hot", 0, 0), ("historical", "archive", 0, 0), ("deep", "archive", 0, 0),
    ]  # fmt: skip
    assert list(view.strips) == ["hot", "historical", "deep"]
    assert not any(view.strips.values())
    assert (view.hot, view.away, view.moved) == ((), (), ())
    orjson.dumps(view.facts())


@pytest.mark.parametrize(("count", "partitions"), [(60, 1), (60, 4), (10_000, 4), (10_000, 100), (60_000, 1_000)])
def test_no_file_is_left_out_and_blocks_are_bounded(count: int, partitions: int) -> None:
    """However many there are, and however many partitions."""
    files, hot = files_of(count, partitions), hot_of(min(partitions, 8))
    view = view_of(files, hot, RULES, NOW_MS, partitions)
    assert sum(map(len, view.strips.values())) <= BLOCKS_MAX
    counted = Counter(file.tier.value for file in files.files.values())
    for name in (Tier.HISTORICAL.value, Tier.DEEP.value):
        some = [file for file in files.files.values() if file.tier.value == name]
        blocks = view.strips[name]
        assert sum(block.segments for block in blocks) == counted[name]
        assert sum(block.rows for block in blocks) == sum(file.rows for file in some)
        assert max((block.line for block in blocks), default=0) < LINES_MAX
        starts = {block.start_s for block in blocks}
        assert starts <= {file.start_ms // 1_000 for file in some}
    assert sum(block.segments for block in view.strips["hot"]) == len(hot.hours)
    rows = {(row.tier.value, row.store): row for row in view.tiers}
    assert rows["historical", "archive"].segments == counted["historical"]
    assert sum(row.size_bytes for row in view.tiers if row.store == "archive") == 26 * ROWS * len(files.files)
    assert len(orjson.dumps(view.facts())) < 400_000


def test_few_files_are_a_block_each() -> None:
    """Nothing is joined that has room."""
    files = files_of(60, 4)
    view = view_of(files, hot_of(4), RULES, NOW_MS, 4)
    assert [block.segments for name in ("historical", "deep", "hot") for block in view.strips[name]] == [1] * (
        60 + 4 * 168
    )


def test_who_has_few_keeps_them_where_others_are_joined() -> None:
    """A week of hours beside a hundred years of days."""
    view = view_of(files_of(36_500, 1), hot_of(1), RULES, NOW_MS, 1)
    assert [block.segments for block in view.strips["hot"]] == [1] * 168
    assert len(view.strips["historical"]) + len(view.strips["deep"]) <= BLOCKS_MAX - 168


def test_hours_are_live_and_then_recent_with_their_entropy() -> None:
    """S is that of `ageing`, also of those that were read, and of those that are away."""
    hours = [hour_of(0, n, n % 3) for n in range(100)]
    away = Away(hours[-1].end_ms - MS_PER_DAY, hours[98].heat, 0)
    never = away._replace(end_ms=away.end_ms - MS_PER_DAY, heat=COLD)
    view = view_of(TierFiles(), Hot(hours, [away, never]), RULES, NOW_MS, 1)
    scores = {
        hour.end_ms // 1_000: round(
            ageing.entropy(hour.end_ms * 1_000, hour.heat, NOW_MS * 1_000, RULES.ageing.half_life_us), 2
        )
        for hour in hours
    }
    assert {point.end_s: point.least for point in view.hot} == scores
    assert all(point.least == point.most for point in view.hot)
    assert [point.end_s for point in view.away] == [away.end_ms // 1_000]
    live, recent = view.tiers[:2]
    assert (live.segments, recent.segments) == (1, 99)
    assert recent.entropy_max == max(scores.values())
    assert (view.limits["leave_bits"], view.limits["return_bits"]) == (8.0, 0.0)
    assert recent.oldest_ms == hours[-1].end_ms - MS_PER_HOUR


def test_hours_that_moved_are_among_what_was_moved() -> None:
    """Those that left by when they did, those that came back likewise; one that never moved is none."""
    back = hour_of(0, 300)._replace(moved_us=(NOW_MS - MS_PER_HOUR) * 1_000)
    left = Away(NOW_MS - 300 * MS_PER_HOUR, COLD, (NOW_MS - 2 * MS_PER_HOUR) * 1_000)
    view = view_of(TierFiles(), Hot([back, hour_of(0, 3)], [left, left._replace(moved_us=0)]), RULES, NOW_MS, 1)
    assert [(each.move, each.files, each.rows) for each in view.moved] == [("demote", 1, 0), ("promote", 1, ROWS)]


def test_points_are_bounded() -> None:
    """Neighbours are one where there are too many."""
    view = view_of(TierFiles(), Hot([hour_of(0, n) for n in range(5_000)]), RULES, NOW_MS, 1)
    assert len(view.hot) <= POINTS_MAX
    assert sum(point.hours for point in view.hot) == 5_000


def test_the_axis_is_told_from_now_back() -> None:
    """Each tenfold age is as far from the one before."""
    now_s = NOW_MS // 1_000
    begins_s = now_s - 10**8
    places = [place(now_s - 10**power, now_s, begins_s) for power in (5, 6, 7, 8)]
    assert place(now_s + 5, now_s, begins_s) == place(now_s, now_s, begins_s) == 0.0
    assert places[-1] == 1.0
    steps = [b - a for a, b in pairwise(places)]
    assert max(steps) - min(steps) < 0.01
