"""The archive as it is shown: its files, small, and what moved, from the commits of the manifest one after another.

Problem: a page looks at the archive each second, and at what became of it over years. The manifest's own tree holds
the hashes that commits are checked by, kilobytes a file; who only shows files needs a part of that, and must know what
was moved when, which no tree says.

GUARANTEE memory: some 600 bytes a file, and of what was moved a sum for each kind of move and hour, day or month, the
longer ago the longer: fewer than a thousand in ten years.
HAZARD commits are taken as they come: whether the manifest may hold them is checked by who keeps its tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle.manifest import ManifestError, Move
from lifecycle.tier_sums import Place, by_place, sum_of
from lifecycle.tiers import MS_PER_DAY, MS_PER_HOUR, Grain, Tier, bounds_of
from schemas.instants import US_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lifecycle.manifest import Commit, Segment
    from lifecycle.tier_sums import Sum

#: Sums of moves are of an hour where they are younger than the first, of a day where than the second, else of 30 days.
_HOURS_FOR_MS: Final = 2 * MS_PER_DAY
_DAYS_FOR_MS: Final = 62 * MS_PER_DAY
_LONGEST_MS: Final = 30 * MS_PER_DAY
#: How many sums there may be before they are joined.
_SUMS_MAX: Final = 1_000


class File(NamedTuple):
    """A file of the archive. start_ms, end_ms: of its period; first_ms, last_ms: authority time of its entries."""

    partition: int
    tier: Tier
    grain: Grain
    start_ms: int
    end_ms: int
    first_ms: int
    last_ms: int
    first_sequence: int
    last_sequence: int
    rows: int
    size_bytes: int


class Moved(NamedTuple):
    """What was moved, summed. move: a name of Move; at_ms: since when; files: or hours, of the hot tier."""

    move: str
    at_ms: int
    commits: int
    files: int
    rows: int
    size_bytes: int


class TierFiles:
    """Files by path, as of the last commit that was applied."""

    def __init__(self) -> None:
        self.commit = 0
        self.files: dict[str, File] = {}
        self._moved: dict[tuple[Move, int], Moved] = {}

    def apply(self, record: Commit) -> None:
        """One more. Raises ManifestError for one that does not follow."""
        if record.commit != self.commit + 1:
            raise ManifestError(f"commit {record.commit} does not follow {self.commit}")
        gone = [self.files.pop(path) for path in record.drops if path in self.files]
        came = [file_of(segment) for segment in record.adds]
        self.files.update(zip((segment.path for segment in record.adds), came, strict=True))
        self.commit = record.commit
        moved = came or gone
        at_ms = record.at_us // US_PER_MS
        at_ms -= at_ms % MS_PER_HOUR
        sums = 1, len(moved), sum(file.rows for file in moved), sum(file.size_bytes for file in moved)
        self._add(self._moved, Moved(record.move, at_ms, *sums))
        if len(self._moved) > _SUMS_MAX:
            self._join()

    def moved(self) -> list[Moved]:
        """What was moved, the oldest first."""
        self._join()
        return sorted(self._moved.values(), key=lambda moved: (moved.at_ms, moved.move))

    def _join(self) -> None:
        newest_ms = max((moved.at_ms for moved in self._moved.values()), default=0)
        joined: dict[tuple[Move, int], Moved] = {}
        for moved in self._moved.values():
            self._add(joined, moved._replace(at_ms=_begin_ms(moved.at_ms, newest_ms)))
        self._moved = joined

    @staticmethod
    def _add(sums: dict[tuple[Move, int], Moved], moved: Moved) -> None:
        key = Move(moved.move), moved.at_ms
        before = sums.get(key)
        sums[key] = moved if before is None else _sum(before, moved)


def file_of(segment: Segment) -> File:
    """What is shown of a file."""
    facts = segment.facts
    start_ms, end_ms = bounds_of(max(facts.order_ms, facts.authority_ms_max), segment.grain)
    return File(
        facts.partition,
        segment.tier,
        segment.grain,
        start_ms,
        end_ms,
        facts.authority_ms_min,
        facts.authority_ms_max,
        facts.first_sequence,
        facts.last_sequence,
        facts.rows,
        segment.size_bytes,
    )


class Group(NamedTuple):
    """The files of a tier, a grain and a partition, summed; instants in ms."""

    tier: Tier
    grain: Grain
    partition: int
    files: int
    rows: int
    size_bytes: int
    first_sequence: int
    last_sequence: int
    first_ms: int
    last_ms: int


def groups_of(files: Iterable[File]) -> list[Group]:
    """By tier, grain and partition, in this order."""
    found = by_place((Place(file.tier, file.grain, file.partition), file) for file in files)
    return [_group(place, sum_of(some)) for place, some in found]


def _group(place: Place, of_files: Sum) -> Group:
    return Group(
        *place,
        of_files.segments,
        of_files.rows,
        of_files.size_bytes,
        of_files.first_sequence,
        of_files.last_sequence,
        of_files.first_ms,
        of_files.last_ms,
    )


def _begin_ms(at_ms: int, newest_ms: int) -> int:
    """Of the stretch that an instant is summed in; one lies within the next longer."""
    age_ms = newest_ms - at_ms
    if age_ms < _HOURS_FOR_MS:
        return at_ms
    length_ms = MS_PER_DAY if age_ms < _DAYS_FOR_MS else _LONGEST_MS
    return at_ms - at_ms % length_ms


def _sum(one: Moved, other: Moved) -> Moved:
    return Moved(
        one.move,
        one.at_ms,
        one.commits + other.commits,
        one.files + other.files,
        one.rows + other.rows,
        one.size_bytes + other.size_bytes,
    )
