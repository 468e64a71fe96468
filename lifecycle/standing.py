"""How a ledger's data stands: bytes, segments, age and entropy by tier, kind of period and partition.

What is hot is counted by its hours, what is archived by its files; both are segments. What is in both is told twice:
it takes room twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lifecycle.ageing import COLD, entropy
from lifecycle.tier_files import file_of
from lifecycle.tier_sums import Place, by_place, hot_tier, sum_of
from lifecycle.tiers import MS_PER_DAY, Grain
from schemas.instants import MS_PER_S, US_PER_MS, format_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.manifest import Tree
    from lifecycle.rules import Configuration
    from lifecycle.steps import HotHour
    from lifecycle.tier_sums import Lying


def tier_rows(
    tree: Tree, hours: Mapping[int, Sequence[HotHour]], rules: Configuration, now_us: int
) -> list[dict[str, Any]]:
    """A row for each tier, grain and partition that has anything, nearest first. hours: those that are held.

    An archive counts as never read: what is read of it is known by its hours.
    """
    now_ms, half_life_us = now_us // US_PER_MS, rules.ageing.half_life_us

    def scored(each: Lying, heat: float) -> tuple[Lying, float]:
        return each, entropy(each.end_ms * US_PER_MS, heat, now_us, half_life_us)

    lying = [
        (Place(hot_tier(hour.end_ms, now_ms, rules.ages), Grain.HOURLY, hour.partition), scored(hour, hour.heat))
        for each in hours.values()
        for hour in each
    ]
    files = map(file_of, tree.segments())
    lying += [(Place(file.tier, file.grain, file.partition), scored(file, COLD)) for file in files]
    return [_row(place, group, now_ms) for place, group in by_place(lying)]


def _row(place: Place, group: list[tuple[Lying, float]], now_ms: int) -> dict[str, Any]:
    entropies = [bits for _, bits in group]
    found = sum_of([each for each, _ in group])
    least, most = min(entropies), max(entropies)
    youngest_ms, oldest_ms = now_ms - found.end_ms_max, now_ms - found.end_ms_min
    return place._asdict() | {
        "segments": found.segments,
        "rows": found.rows,
        "size_bytes": found.size_bytes,
        "age": _age(youngest_ms, oldest_ms),
        "age_s_min": youngest_ms // MS_PER_S,
        "age_s_max": oldest_ms // MS_PER_S,
        "entropy": f"{least:.2f} to {most:.2f}",
        "entropy_min": round(least, 3),
        "entropy_max": round(most, 3),
        "first_sequence": found.first_sequence,
        "last_sequence": found.last_sequence,
        "from": format_ms(found.first_ms),
        "to": format_ms(found.last_ms),
    }


def _age(least_ms: int, greatest_ms: int) -> str:
    """For people; what still goes on has none."""
    least, greatest = (f"{max(0, ms) / MS_PER_DAY:,.1f}" for ms in (least_ms, greatest_ms))
    return f"{greatest} days" if least == greatest else f"{least} to {greatest} days"
