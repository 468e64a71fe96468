"""What of a ledger lies where, for people: tiers with what they hold, a picture of it, and how hot hours age.

Problem: ten thousand files and years of hours are more than a browser should be sent, and a picture has two thousand
dots across. So all is summed here: neighbours that would be less than a dot wide together are one block, and never are
there more than BLOCKS_MAX.

    tiers      a row for each tier and place: segments (files; of the hot tier hours), rows, bytes, oldest and newest
    blocks     a strip for each: what is hot, and the archives of each tier; of a strip a line for each partition
    entropy    of hours: S, beside the limit above which an hour leaves and the one below which it comes back

The axis is age, told from now back, each tenfold as wide as the one before (`place`): hours, days, months and years
then are about as wide as each other, as files are.

GUARANTEE the same input has the same view. GUARANTEE no file is left out: a block says how many it stands for.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.ageing import COLD, entropy
from lifecycle.tier_files import Moved
from lifecycle.tier_sums import hot_tier, sum_of
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier
from schemas.instants import MS_PER_S, US_PER_MS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from lifecycle.rules import Configuration
    from lifecycle.steps import HotHour
    from lifecycle.tier_files import File, TierFiles
    from lifecycle.tier_sums import Lying

BLOCKS_MAX: Final = 4_000
#: Lines of a strip: of more partitions several neighbours share one.
LINES_MAX: Final = 16
#: Points of the entropy of hours, and hours that are away and were read, those that are read most.
POINTS_MAX: Final = 1_000
#: The part of the axis that is a dot, from where on more is joined.
_DOT: Final = 1 / 2_000
#: Beyond the whole axis.
_WHOLE: Final = 4.0
_GRAINS: Final = tuple(Grain)
#: Where data lies: of RocksDB, or of files.
_HOT, _ARCHIVE = "hot", "archive"


class Away(NamedTuple):
    """An hour that is not hot, and was read or moved. heat: see `ageing`; moved_us: when it left."""

    end_ms: int
    heat: float
    moved_us: int


class Hot(NamedTuple):
    """What is hot of the partitions of one worker."""

    hours: Sequence[HotHour] = ()
    away: Sequence[Away] = ()


class TierRow(NamedTuple):
    """A tier and place. segments: hours, or files, of each grain; oldest_ms, newest_ms: of its entries.

    entropy_min, entropy_max: of its hours, in bits; None of files, which have none.
    """

    tier: Tier
    store: str
    segments: int
    rows: int
    size_bytes: int
    oldest_ms: int
    newest_ms: int
    grains: dict[str, int]
    entropy_min: float | None = None
    entropy_max: float | None = None


class Block(NamedTuple):
    """Neighbours of a line and a grain. start_s, end_s: of their periods; grain: its place among Grain."""

    line: int
    start_s: int
    end_s: int
    grain: int
    segments: int
    rows: int
    size_bytes: int


class Point(NamedTuple):
    """Hours that end then, of all partitions. least, most: of their entropy, in bits, to hundredths."""

    end_s: int
    least: float
    most: float
    hours: int


@dataclass(frozen=True, slots=True)
class TierView:
    """As of now_ms. begins_s: the oldest that there is; lines: of a strip; partitions: so many share each of them."""

    now_ms: int
    tiers: tuple[TierRow, ...]
    begins_s: int
    lines: int
    partitions: int
    strips: dict[str, tuple[Block, ...]]
    moved: tuple[Moved, ...]
    hot: tuple[Point, ...]
    away: tuple[Point, ...]
    limits: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """For a page, as JSON has it: records as lists, in the order of their fields."""
        return {
            "now_ms": self.now_ms,
            "tiers": [row._asdict() for row in self.tiers],
            "picture": {
                "begins_s": self.begins_s,
                "lines": self.lines,
                "partitions": self.partitions,
                "strips": {name: _plain(blocks) for name, blocks in self.strips.items()},
                "moved": _plain(self.moved),
            },
            "entropy": {"hot": _plain(self.hot), "away": _plain(self.away)},
            "limits": self.limits,
        }


def view_of(files: TierFiles, hot: Hot, rules: Configuration, now_ms: int, partitions: int) -> TierView:
    """All of it. partitions: of the ledger."""
    lines = min(partitions, LINES_MAX)
    strips: dict[str, list[Block]] = {_HOT: [_of_hour(hour, partitions) for hour in hot.hours]}
    for tier in Tier:
        some = [_of_file(file, partitions) for file in files.files.values() if file.tier is tier]
        if some or tier in (Tier.HISTORICAL, Tier.DEEP):
            strips[tier.value] = some
    begins_s = min((block.start_s for some in strips.values() for block in some), default=now_ms // MS_PER_S)
    ageing = rules.ageing
    score = {
        (hour.partition, hour.end_ms): entropy(
            hour.end_ms * US_PER_MS, hour.heat, now_ms * US_PER_MS, ageing.half_life_us
        )
        for hour in hot.hours
    }
    away = sorted(
        (entropy(hour.end_ms * US_PER_MS, hour.heat, now_ms * US_PER_MS, ageing.half_life_us), hour.end_ms)
        for hour in hot.away
        if hour.heat > COLD
    )[:POINTS_MAX]
    moved = [*files.moved(), *_hours_moved(hot)]
    return TierView(
        now_ms,
        tuple(_tiers(files.files.values(), hot, score, rules, now_ms)),
        begins_s,
        lines,
        -(-partitions // lines) if lines else 0,
        _fitted(strips, now_ms // MS_PER_S, begins_s),
        tuple(sorted(moved, key=lambda one: (one.at_ms, one.move))),
        _points([(end_ms, bits) for (_, end_ms), bits in score.items()]),
        _points([(end_ms, bits) for bits, end_ms in away]),
        {
            "leave_bits": ageing.limit,
            "return_bits": ageing.limit - ageing.hysteresis,
            "half_life_s": ageing.half_life_us // 1_000_000,
            "recent_days": rules.ages.recent_days,
            "monthly_days": rules.ages.monthly_days,
            "yearly_days": rules.ages.yearly_days,
            "deep_days": rules.ages.deep_days,
            "archives_days": rules.archives_days,
        },
    )


def place(at_s: int, now_s: int, begins_s: int) -> float:
    """Where an instant stands on the axis of age: 0 is now, 1 where it begins."""
    span = math.log1p(max(now_s - begins_s, 1) / 3_600)
    return math.log1p(max(now_s - at_s, 0) / 3_600) / span


def joined(blocks: Iterable[Block], now_s: int, begins_s: int, most: int) -> tuple[Block, ...]:
    """Neighbours of a line and a grain as one, where there would be more than so many; at least one each stays."""
    found = _runs(sorted(blocks, key=_order), now_s, begins_s, 0.0)
    width = _DOT
    while len(found) > most and width < _WHOLE:
        found = _runs(found, now_s, begins_s, width)
        width *= 2
    return tuple(found)


# -------------------------------------------------------------------------------------------------------------- details


def _tiers(
    files: Collection[File], hot: Hot, score: dict[tuple[int, int], float], rules: Configuration, now_ms: int
) -> Iterable[TierRow]:
    hours: dict[Tier, list[HotHour]] = {Tier.LIVE: [], Tier.RECENT: []}
    for hour in hot.hours:
        hours[hot_tier(hour.end_ms, now_ms, rules.ages)].append(hour)
    for tier, some in hours.items():
        row = _row(tier, _HOT, some, Counter({Grain.HOURLY: len(some)}), now_ms)
        bits = [round(score[hour.partition, hour.end_ms], 2) for hour in some]
        yield row._replace(
            newest_ms=min(row.newest_ms, now_ms),
            entropy_min=min(bits, default=None),
            entropy_max=max(bits, default=None),
        )
    for tier in Tier:
        some_files = [file for file in files if file.tier is tier]
        if some_files or tier in (Tier.HISTORICAL, Tier.DEEP):
            yield _row(tier, _ARCHIVE, some_files, Counter(file.grain for file in some_files), now_ms)


def _row(tier: Tier, store: str, segments: Collection[Lying], grains: Counter[Grain], now_ms: int) -> TierRow:
    if not segments:
        return TierRow(tier, store, 0, 0, 0, now_ms, now_ms, {})
    found = sum_of(segments)
    counts = {grain.value: grains[grain] for grain in Grain if grains[grain]}
    return TierRow(tier, store, found.segments, found.rows, found.size_bytes, found.first_ms, found.last_ms, counts)


def _line(partition: int, partitions: int) -> int:
    return partition if partitions <= LINES_MAX else partition * LINES_MAX // partitions


def _of_hour(hour: HotHour, partitions: int) -> Block:
    end_s = hour.end_ms // MS_PER_S
    line = _line(hour.partition, partitions)
    return Block(line, end_s - MS_PER_HOUR // MS_PER_S, end_s, 0, 1, hour.rows, hour.size_bytes)


def _of_file(file: File, partitions: int) -> Block:
    span = file.start_ms // MS_PER_S, file.end_ms // MS_PER_S
    return Block(_line(file.partition, partitions), *span, _GRAINS.index(file.grain), 1, file.rows, file.size_bytes)


def _order(block: Block) -> tuple[int, int, int]:
    return block.line, block.grain, block.start_s


def _runs(blocks: Iterable[Block], now_s: int, begins_s: int, width: float) -> list[Block]:
    """Neighbours as one, up to that part of the axis; what overlaps is one whatever its width. In order."""
    found: list[Block] = []
    for _, group in groupby(blocks, lambda block: (block.line, block.grain)):
        last: Block | None = None
        for block in group:
            near = last is not None and _near(last, block, now_s, begins_s, width)
            if last is not None and near:
                last = last._replace(
                    end_s=max(last.end_s, block.end_s),
                    segments=last.segments + block.segments,
                    rows=last.rows + block.rows,
                    size_bytes=last.size_bytes + block.size_bytes,
                )
                found[-1] = last
            else:
                last = block
                found.append(last)
    return found


def _near(last: Block, block: Block, now_s: int, begins_s: int, width: float) -> bool:
    if block.start_s < last.end_s:
        return True
    return bool(width) and place(last.start_s, now_s, begins_s) - place(block.end_s, now_s, begins_s) <= width


def _hours_moved(hot: Hot) -> Iterable[Moved]:
    """Hours that left, or came back, by the hour in which they did; of those nobody wrote a commit."""
    sums: dict[tuple[str, int], list[int]] = {}
    moves = [("demote", hour.moved_us, 0, 0) for hour in hot.away if hour.moved_us]
    moves += [
        ("promote", hour.moved_us, hour.rows, hour.size_bytes)
        for hour in hot.hours
        if hour.moved_us > hour.end_ms * US_PER_MS  # one that never was has the end of its hour
    ]
    for move, moved_us, rows, size_bytes in moves:
        at_ms = moved_us // US_PER_MS
        total = sums.setdefault((move, at_ms - at_ms % _stretch_ms(len(moves))), [0, 0, 0])
        total[0] += 1
        total[1] += rows
        total[2] += size_bytes
    return [Moved(move, at_ms, hours, hours, rows, size) for (move, at_ms), (hours, rows, size) in sums.items()]


def _stretch_ms(moves: int) -> int:
    """What hours that moved are summed over: of many, days."""
    return MS_PER_HOUR if moves <= POINTS_MAX else MS_PER_DAY


def _points(scored: Sequence[tuple[int, float]]) -> tuple[Point, ...]:
    """By the end of the hour, ascending; where there are too many, neighbours are one."""
    by_end: dict[int, list[float]] = {}
    for end_ms, bits in scored:
        by_end.setdefault(end_ms, []).append(bits)
    ends = sorted(by_end)
    step = -(-len(ends) // POINTS_MAX) or 1
    points = []
    for first in range(0, len(ends), step):
        some = [bits for end_ms in ends[first : first + step] for bits in by_end[end_ms]]
        points.append(Point(ends[first] // MS_PER_S, round(min(some), 2), round(max(some), 2), len(some)))
    return tuple(points)


def _fitted(strips: dict[str, list[Block]], now_s: int, begins_s: int) -> dict[str, tuple[Block, ...]]:
    """All strips, BLOCKS_MAX together: who has few keeps all of them, the others share what is left."""
    found: dict[str, tuple[Block, ...]] = {}
    left, waiting = BLOCKS_MAX, len(strips)
    for name in sorted(strips, key=lambda name: len(strips[name])):
        found[name] = joined(strips[name], now_s, begins_s, left // waiting)
        left, waiting = left - len(found[name]), waiting - 1
    return {name: found[name] for name in strips}


def _plain(records: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(record) for record in records]
