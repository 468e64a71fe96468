"""How a ledger's data stands: bytes, segments, age and entropy by tier, kind of period and partition.

What is hot is counted by its hours, what is archived by its files; both are segments. What is in both is told twice:
it takes room twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lifecycle.ageing import COLD, entropy
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of
from schemas.instants import MS_PER_S, US_PER_MS, format_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.manifest import Segment, Tree
    from lifecycle.rules import Configuration
    from lifecycle.steps import HotHour


@dataclass(frozen=True, slots=True)
class Lying:
    """A segment as it lies. ended_ms: of its period, by authority time; entropy: S, in bits, see `ageing`."""

    tier: Tier
    grain: Grain
    partition: int
    rows: int
    size_bytes: int
    first_sequence: int
    last_sequence: int
    first_ms: int
    last_ms: int
    ended_ms: int
    entropy: float


def of_hour(hour: HotHour, rules: Configuration, now_us: int) -> Lying:
    """An hour whose rows are in the hot tier."""
    is_live = now_us // US_PER_MS - hour.end_ms < rules.ages.live_hours * MS_PER_HOUR
    return Lying(
        Tier.LIVE if is_live else Tier.RECENT,
        Grain.HOURLY,
        hour.partition,
        hour.rows,
        hour.size_bytes,
        hour.first_sequence,
        hour.last_sequence,
        hour.end_ms - MS_PER_HOUR,
        hour.end_ms,
        hour.end_ms,
        entropy(hour.end_ms * US_PER_MS, hour.heat, now_us, rules.ageing.half_life_us),
    )


def of_file(file: Segment, rules: Configuration, now_us: int) -> Lying:
    """An archive, which counts as never read: what is read of it is known by its hours."""
    facts = file.facts
    end_ms = bounds_of(max(facts.order_ms, facts.authority_ms_max), file.grain)[1]
    return Lying(
        file.tier,
        file.grain,
        facts.partition,
        facts.rows,
        file.size_bytes,
        facts.first_sequence,
        facts.last_sequence,
        facts.authority_ms_min,
        facts.authority_ms_max,
        end_ms,
        entropy(end_ms * US_PER_MS, COLD, now_us, rules.ageing.half_life_us),
    )


def tier_rows(
    tree: Tree, hours: Mapping[int, Sequence[HotHour]], rules: Configuration, now_us: int
) -> list[dict[str, Any]]:
    """A row for each tier, grain and partition that has anything, nearest first. hours: those that are held."""
    lying = [of_hour(hour, rules, now_us) for each in hours.values() for hour in each]
    lying += [of_file(file, rules, now_us) for file in tree.segments()]
    places = {tier: place for place, tier in enumerate(Tier)}
    grains = {grain: place for place, grain in enumerate(Grain)}
    lying.sort(key=lambda each: (places[each.tier], grains[each.grain], each.partition, each.first_sequence))
    groups = groupby(lying, key=lambda each: (each.tier, each.grain, each.partition))
    return [_row(list(group), now_us // US_PER_MS) for _, group in groups]


def _row(group: list[Lying], now_ms: int) -> dict[str, Any]:
    first = group[0]
    ages_ms = [now_ms - each.ended_ms for each in group]
    entropies = [each.entropy for each in group]
    return {
        "tier": first.tier,
        "grain": first.grain,
        "partition": first.partition,
        "segments": len(group),
        "rows": sum(each.rows for each in group),
        "size_bytes": sum(each.size_bytes for each in group),
        "age": _age(min(ages_ms), max(ages_ms)),
        "age_s_min": min(ages_ms) // MS_PER_S,
        "age_s_max": max(ages_ms) // MS_PER_S,
        "entropy": f"{min(entropies):.2f} to {max(entropies):.2f}",
        "entropy_min": round(min(entropies), 3),
        "entropy_max": round(max(entropies), 3),
        "first_sequence": first.first_sequence,
        "last_sequence": group[-1].last_sequence,
        "from": format_ms(min(each.first_ms for each in group)),
        "to": format_ms(max(each.last_ms for each in group)),
    }


def _age(least_ms: int, greatest_ms: int) -> str:
    """For people; what still goes on has none."""
    least, greatest = (f"{max(0, ms) / MS_PER_DAY:,.1f}" for ms in (least_ms, greatest_ms))
    return f"{greatest} days" if least == greatest else f"{least} to {greatest} days"
