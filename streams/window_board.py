"""The windows that closed last, and whose events were left out of them, from the records of the aggregates topic.

Problem: a ledger may close a hundred thousand windows a minute, and somebody looks on. So of each definition over all
of a partition the last closed window is kept, and those by source or kind are passed over; what is kept is bounded.

GUARANTEE late events are counted by source for as long as it looks on, not for what stood in the topic before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

#: Sources counted one by one; of more than that, nobody reads a list.
LATE_SOURCES_MAX: Final = 10_000
#: What is shown of a window's functions, and can be told of several windows together.
_TELLING: Final = ("mean", "min", "max")


class ClosedWindow(NamedTuple):
    """A window's last result in one partition. numbers: what is shown of it, by name, in order."""

    definition: str
    partition: int
    start_us: int
    end_us: int
    events: int
    values: int
    numbers: dict[str, float | None]


class LateSource(NamedTuple):
    """A source whose events were not all in their windows: late, too far ahead, or doubtful."""

    definition: str
    source: str
    late: int
    ahead: int
    doubtful: int


class WindowBoard:
    """The windows that closed last, and who was left out of them, from the records of the aggregates topic."""

    def __init__(self) -> None:
        self._closed: dict[str, dict[int, ClosedWindow]] = {}
        self._late: dict[tuple[str, str], LateSource] = {}
        self._suspended: dict[tuple[str, int], tuple[int, str]] = {}

    def apply(self, record: Mapping[str, Any], *, fresh: bool) -> None:
        """Take one record as a listing has it. fresh: it was not there when one began to look."""
        where = record["definition"], record["partition"]
        if "suspended" in record:
            self._suspended[where] = record["version"], record["suspended"]
        elif "late" in record:
            if fresh:
                self._count_late(record)
        else:
            if self._suspended.get(where, (0, ""))[0] < record["version"]:
                self._suspended.pop(where, None)
            if record["final"] and record["key"] is None:
                self._close(record)

    def closed(self, in_force: Collection[str] = ()) -> list[ClosedWindow]:
        """The last of each partition, of the definition whose name is first; of those in force, if any are known."""
        first = min((name for name in self._closed if not in_force or name in in_force), default="")
        return [window for _, window in sorted(self._closed.get(first, {}).items())]

    def late_sources(self) -> list[LateSource]:
        """Most events first."""
        return sorted(self._late.values(), key=lambda late: (-sum(late[2:]), late.source, late.definition))

    def suspended(self) -> list[tuple[str, int, str]]:
        """Definition, partition, and why it gives no results there."""
        return [(name, partition, why) for (name, partition), (_, why) in sorted(self._suspended.items())]

    def _close(self, record: Mapping[str, Any]) -> None:
        of_partition = self._closed.setdefault(record["definition"], {})
        before = of_partition.get(record["partition"])
        if before is not None and record["window_start_us"] < before.start_us:  # a late event's doing
            return
        numbers = {name: record[name] for name in _TELLING if name in record}
        numbers |= {f"p{percent}": number for percent, number in (record["percentiles"] or {}).items()}
        of_partition[record["partition"]] = ClosedWindow(
            record["definition"], record["partition"], record["window_start_us"], record["window_end_us"],
            record["count"], record["values"], numbers,
        )  # fmt: skip

    def _count_late(self, record: Mapping[str, Any]) -> None:
        name, source = record["definition"], record["source"]
        before = self._late.get((name, source))
        if before is not None or len(self._late) < LATE_SOURCES_MAX:
            late, ahead, doubtful = (0, 0, 0) if before is None else before[2:]
            late, ahead = late + record["late"], ahead + record["ahead"]
            self._late[name, source] = LateSource(name, source, late, ahead, doubtful + (record.get("doubtful") or 0))


class Merged(NamedTuple):
    """The newest window of several partitions as one. apart: numbers that cannot be merged, by name and partition."""

    definition: str
    start_us: int
    partitions: int
    events: int
    numbers: dict[str, float | None]
    apart: dict[str, list[float | None]]


def merged(windows: Sequence[ClosedWindow]) -> Merged | None:
    """Those windows that start as late as the last of them, as one; None for none.

    The mean is that of all their values, as exact as the partitions' means are.
    """
    if not windows:
        return None
    start_us = max(window.start_us for window in windows)
    same = [window for window in windows if window.start_us == start_us]
    names = [name for name in same[0].numbers if all(name in window.numbers for window in same)]
    together = {name: _merged(name, same) for name in names if name in _TELLING}
    apart = {name: [window.numbers[name] for window in same] for name in names if name not in _TELLING}
    events = sum(window.events for window in same)
    return Merged(same[0].definition, start_us, len(same), events, together, apart)


def _merged(name: str, windows: Sequence[ClosedWindow]) -> float | None:
    known = [(number, window.values) for window in windows if (number := window.numbers[name]) is not None]
    if not known:
        return None
    if name == "mean":
        return sum(mean * values for mean, values in known) / sum(values for _, values in known)
    return (min if name == "min" else max)(number for number, _ in known)
