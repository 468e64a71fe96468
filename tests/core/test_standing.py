"""How data stands: what lies in which tier, how old it is, and its entropy, which reads lower."""

from __future__ import annotations

from lifecycle.ageing import COLD, after_read
from lifecycle.manifest import Tree
from lifecycle.rules import parse
from lifecycle.standing import tier_rows
from lifecycle.steps import HotHour
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier
from schemas.instants import US_PER_MS

DAY = 20_483  # 2026-01-30
NOW_MS = DAY * MS_PER_DAY + 12 * MS_PER_HOUR
NOW_US = NOW_MS * US_PER_MS
RULES = parse({})


def hour(partition: int, ago: int, heat: float = COLD) -> HotHour:
    """One that ended so many hours ago."""
    end_ms = NOW_MS - ago * MS_PER_HOUR
    first = 1 + 100 * (1_000 - ago)
    return HotHour(partition, "", first, first + 99, first, first + 99, 100, 2_000, True, end_ms, heat, 0)  # noqa: FBT003


def test_hours_are_live_or_recent() -> None:
    """By their age, each partition for itself, in bits of the half-life."""
    rows = tier_rows(Tree(), {1: [hour(1, 48), hour(1, 24), hour(1, 0)], 0: [hour(0, 21)]}, RULES, NOW_US)
    assert [(row["tier"], row["partition"], row["segments"], row["rows"], row["size_bytes"]) for row in rows] == [
        (Tier.LIVE, 1, 1, 100, 2_000),
        (Tier.RECENT, 0, 1, 100, 2_000),
        (Tier.RECENT, 1, 2, 200, 4_000),
    ]
    assert all(row["grain"] is Grain.HOURLY for row in rows)
    live, other, two = rows
    assert (live["age_s_min"], live["age"]) == (0, "0.0 days")
    assert (two["age_s_min"], two["age_s_max"], two["age"]) == (86_400, 172_800, "1.0 to 2.0 days")
    assert (other["entropy_min"], other["entropy_max"], other["entropy"]) == (1.0, 1.0, "1.00 to 1.00")
    assert two["entropy_max"] == round(48 / 21, 3)
    assert (two["from"], two["to"]) == ("2026-01-28T11:00:00.000Z", "2026-01-29T12:00:00.000Z")
    assert tier_rows(Tree(), {}, RULES, NOW_US) == []


def test_reads_lower_the_entropy() -> None:
    """Of an hour, and so of the least of its row."""
    half_life_us = RULES.ageing.half_life_us
    cold = hour(0, 100)
    heat = after_read(COLD, cold.end_ms * US_PER_MS, NOW_US, half_life_us)
    [row] = tier_rows(Tree(), {0: [hour(0, 100, heat), hour(0, 100)]}, RULES, NOW_US)
    assert row["entropy_max"] == round(100 / 21, 3)
    assert row["entropy_min"] < 0.1
