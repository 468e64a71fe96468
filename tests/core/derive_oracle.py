"""Derive, plainly: what windows are, entry by entry, in dictionaries and lists and Python integers.

The fold under test works with packed tables, one definition at a time over a whole batch; this twin does what the rules
say, in the order in which they say it, and keeps every value. It is to be read as the rules.

It is fed with facts: what an entry is, and what judge found in it. It gives the records in order, each as its key and
the object that its JSON is, and the reasons of the dead letters.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from streams.quantiles import RELATIVE_ERROR, SKETCH_BINS_MAX, bin_of, value_of
from streams.windows import By, Frame, Function, Kind, Late, WindowDefinition, percentile_text

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Late events are reported when the clock crosses a multiple of it.
REPORT_US = 10_000_000
#: Values of a window that are kept one by one for percentiles; with more they are counted in bins.
EXACT_VALUES = 256
#: What is before it is in no window, and late.
TIME_MIN_US = -(1 << 62)
#: Open windows of a definition; an event that could open more suspends it.
WINDOWS_MAX = 250_000
#: Before any instant, by more than any length of time.
NEVER = -(1 << 80)

#: Key and object of a record.
Output = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Data:
    """A DATA entry. counted: read, and neither a duplicate nor a conflict; the fields after it hold only then."""

    index: int
    authority_ms: int
    counted: bool = False
    local_us: int = 0
    source: str = ""
    kind: str = ""
    value: float | None = None
    #: Of its source's clock, as judge says after the event; None where there is no estimate.
    offset_us: int | None = None
    bound_us: int | None = None


@dataclass(frozen=True)
class Heartbeat:
    """A HEARTBEAT entry."""

    index: int
    predecessor_appended_ms: int | None
    #: Of the entry itself: no predecessor was appended after it, whatever it says.
    authority_ms: int = (1 << 63) - 1


@dataclass(frozen=True)
class Change:
    """The DEFINITION entry of a window; definition None withdraws it."""

    index: int
    name: str
    definition: WindowDefinition | None


@dataclass
class Window:
    """The events of one key in one window, in sequence order."""

    key: str | None
    start_us: int
    end_us: int
    first_index: int
    count: int = 0
    near_edge: int = 0
    values: list[float] = field(default_factory=list)
    revision: int = 0
    changed: bool = False
    closed: bool = False

    def take(self, event: Data) -> None:
        """Every event counts; what is not finite is no value, and -0.0 is 0.0."""
        self.count += 1
        self.changed = True
        if event.value is not None and math.isfinite(event.value):
            self.values.append(event.value + 0.0)


def window_starts(definition: WindowDefinition, t_us: int) -> list[int]:
    """Starts of the windows that hold an event of that time, ascending; sliding: of the one that ends with it."""
    if definition.kind is Kind.SLIDING:
        return [t_us - definition.size_us + 1]
    slide = definition.slide_us
    first = ((t_us - definition.size_us) // slide + 1) * slide
    return list(range(first, t_us + 1, slide))


def functions_of(values: list[float]) -> dict[Function, float | None]:
    """Of the values of a window; null where there is none, or where doubles do not reach."""
    if not values:
        return dict.fromkeys(Function)
    total = mean = m2 = 0.0
    for count, value in enumerate(values, 1):
        total += value
        distance = value - mean
        mean += distance / count
        m2 += distance * (value - mean)
    found = {
        Function.SUM: total,
        Function.MIN: min(values),
        Function.MAX: max(values),
        Function.MEAN: total / len(values),
        Function.VARIANCE: m2 / len(values),
        Function.FIRST: values[0],
        Function.LAST: values[-1],
    }
    return {function: value if math.isfinite(value) else None for function, value in found.items()}


def percentiles_of(values: list[float], percentiles: Iterable[int]) -> dict[str, Any]:
    """By nearest rank: of the values themselves while they are few, then of the bins of a sketch."""
    method, ordered = "exact", sorted(values)
    if len(values) > EXACT_VALUES:
        bins = sorted(map(bin_of, values))
        method, ordered = "ddsketch", [value_of(number) for number in bins]
        if len(set(bins)) > SKETCH_BINS_MAX:
            method, ordered = "none", []
    ranks = {p: math.ceil(Fraction(p, 100_000) * len(ordered)) for p in percentiles}
    return {
        "percentiles": {percentile_text(p): ordered[rank - 1] if rank else None for p, rank in ranks.items()},
        "method": method,
        "relative_error": {"exact": 0, "ddsketch": RELATIVE_ERROR, "none": None}[method],
    }


class Running:
    """One definition of one partition, from the entry that put it in force on."""

    def __init__(self, partition: int, version: int, definition: WindowDefinition) -> None:
        self.partition = partition
        self.version = version
        self.definition = definition
        self.watermark_us = NEVER
        self.suspended = False
        self.windows: dict[tuple[str | None, int], Window] = {}
        self.taken: list[tuple[str | None, int, Data]] = []  # for sliding windows: key, time, event
        self.aside: dict[str, Counter[str]] = {}
        self.letters: list[tuple[int, str]] = []
        self.counts: Counter[str] = Counter()

    def step(self, entry: Data | Heartbeat, clock: Clock) -> list[Output]:
        """All records of one entry, in order. clock: as it is after the entry, and was before."""
        definition, index = self.definition, entry.index
        records: list[Output] = []
        if clock.crossed(REPORT_US):
            records += self.late_records(index)
        if definition.early_us and clock.crossed(definition.early_us):
            changed = [window for window in self._ordered() if window.changed and not window.closed]
            records += [self._result(window, index, final=False) for window in changed]

        event = entry if isinstance(entry, Data) and entry.counted else None
        if event is not None and (doubt := self._doubt(event)) is not None and doubt[1] in ("exclude", "side"):
            records += self._closings(index)
            self._leave_out(event, *doubt)
            return records
        time_us = 0 if event is None else self._time_us(event)
        ahead = event is not None and time_us > clock.authority_us + definition.max_ahead_us
        if isinstance(entry, Heartbeat):
            if entry.predecessor_appended_ms is not None:
                self.watermark_us = max(self.watermark_us, clock.frontier_us - definition.max_behind_us)
        elif event is not None and not ahead and time_us >= TIME_MIN_US:
            candidate_us = min(time_us, clock.authority_us) - definition.lateness_us
            self.watermark_us = max(self.watermark_us, candidate_us)
        records += self._closings(index)

        if event is not None:
            if ahead:
                self._set_aside(event, "AHEAD")
            else:
                records += self._put(event, time_us)
        return records

    def _time_us(self, event: Data) -> int:
        doubt = self._doubt(event)
        if self.definition.frame is Frame.AUTHORITY or (doubt is not None and doubt[1] == "authority"):
            return event.authority_ms * 1000
        if self.definition.frame is Frame.LOCAL or abs(event.local_us) > 1 << 62:
            return event.local_us
        return event.local_us - (event.offset_us or 0)

    def _doubt(self, event: Data) -> tuple[str, str] | None:
        """In frame corrected why an event is doubtful, and what becomes of it for that; None where it is not."""
        if self.definition.frame is not Frame.CORRECTED:
            return None
        if event.offset_us is None:
            return "UNKNOWN", str(self.definition.unknown)
        if abs(event.offset_us) >= 4_999_500:  # rounded to milliseconds it is 5 s
            return "RED", str(self.definition.red)
        return None

    def _is_near(self, event: Data, time_us: int, window: Window) -> bool:
        """Whether some instant that the event may be of is outside the window; any, for one dated by authority."""
        doubt = self._doubt(event)
        if event.bound_us is None or (doubt is not None and doubt[1] == "authority"):
            return True
        return time_us - event.bound_us < window.start_us or time_us + event.bound_us >= window.end_us

    def _key(self, event: Data) -> str | None:
        return {By.SOURCE: event.source, By.KIND: event.kind, By.ALL: None}[self.definition.by]

    def _ordered(self) -> list[Window]:
        return sorted(self.windows.values(), key=lambda window: (window.start_us, window.first_index))

    def _closings(self, index: int) -> list[Output]:
        """The final results of windows that end at the watermark or before; then old ones go."""
        records = []
        for window in self._ordered():
            if not window.closed and window.end_us <= self.watermark_us:
                if self.definition.kind is Kind.SLIDING:
                    self._fill(window)
                records.append(self._result(window, index, final=True))
                window.closed = True
        kept_from_us = self.watermark_us - self.definition.update_us
        self.windows = {at: window for at, window in self.windows.items() if window.end_us > kept_from_us}
        return records

    def _put(self, event: Data, time_us: int) -> list[Output]:
        """The event goes into each window that holds its time and is open, or that still takes late events."""
        definition, key = self.definition, self._key(event)
        records: list[Output] = []
        starts = window_starts(definition, time_us) if time_us >= TIME_MIN_US else []
        late = not starts or starts[0] + definition.size_us <= self.watermark_us
        starts = [s for s in starts if s + definition.size_us + definition.update_us > self.watermark_us]
        if starts and len(self.windows) + definition.windows_per_event > WINDOWS_MAX:
            return self._suspend(event.index)
        self.counts["taken"] += bool(starts)
        for start_us in starts:
            end_us = start_us + definition.size_us
            window = self.windows.setdefault((key, start_us), Window(key, start_us, end_us, event.index))
            if definition.kind is Kind.SLIDING:
                self.taken.append((key, time_us, event))
            else:
                window.take(event)
                if definition.frame is Frame.CORRECTED:
                    window.near_edge += self._is_near(event, time_us, window)
            if end_us <= self.watermark_us:
                window.closed = True
                records.append(self._result(window, event.index, final=True))
        if late:
            self._set_aside(event, "LATE")
        return records

    def _suspend(self, index: int) -> list[Output]:
        """It is out of force from this entry on, with all it has but for what was late."""
        self.suspended = True
        return [
            *self.late_records(index),
            (f"{self.definition.name}/suspended", {**self._common(), "suspended": "", "at_index": index}),
        ]

    def _common(self) -> dict[str, Any]:
        return {"definition": self.definition.name, "version": self.version, "partition": self.partition}

    def _fill(self, window: Window) -> None:
        """A sliding window holds all taken events of its key up to the event that it ends with."""
        for key, time_us, event in self.taken:
            if key == window.key and window.start_us <= time_us < window.end_us:
                window.take(event)

    def _set_aside(self, event: Data, reason: str) -> None:
        """Counted by source once, however many windows it was late for; a dead letter if the definition says side."""
        self.counts[reason.lower()] += 1
        self.aside.setdefault(event.source, Counter())[reason] += 1
        if self.definition.late is Late.SIDE:
            self.letters.append((event.index, f"{reason} {self.definition.name}"))

    def _leave_out(self, event: Data, why: str, way: str) -> None:
        self.counts["doubtful"] += 1
        self.aside.setdefault(event.source, Counter())["DOUBTFUL"] += 1
        if way == "side":
            self.letters.append((event.index, f"{why} {self.definition.name}"))

    def late_records(self, index: int) -> list[Output]:
        """Of the sources with events left out since the last time."""
        records = []
        reasons = ("LATE", "AHEAD", "DOUBTFUL") if self.definition.frame is Frame.CORRECTED else ("LATE", "AHEAD")
        for source in sorted(self.aside, key=str.encode):
            counts = {name.lower(): self.aside[source][name] for name in reasons}
            record = {**self._common(), "source": source, **counts, "at_index": index}
            records.append((f"{self.definition.name}/late/{source}", record))
        self.aside = {}
        return records

    def _result(self, window: Window, index: int, *, final: bool) -> Output:
        self.counts["results"] += 1
        window.revision += 1
        window.changed = False
        definition = self.definition
        found = functions_of(window.values)
        asked = [function for function in definition.functions if function is not Function.COUNT]
        percentiles = percentiles_of(window.values, definition.percentiles) if definition.percentiles else {}
        return f"{definition.name}/{window.start_us}/{window.key or ''}", {
            **self._common(),
            "frame": str(definition.frame),
            "key": window.key,
            "window_start_us": window.start_us,
            "window_end_us": window.end_us,
            "revision": window.revision,
            "final": final,
            "at_index": index,
            "count": window.count,
            "values": len(window.values),
            **({"near_edge": window.near_edge} if definition.frame is Frame.CORRECTED else {}),
            **{str(function): found[function] for function in asked},
            **percentiles,
        }


@dataclass
class Clock:
    """Of a partition: the running maxima of authority time and of the frontier that heartbeats prove."""

    authority_us: int = NEVER
    frontier_us: int = NEVER
    before_us: int = NEVER

    def now_us(self) -> int:
        """The greater of the two."""
        return max(self.authority_us, self.frontier_us)

    def take(self, entry: Data | Heartbeat) -> None:
        """All DATA entries move authority time, also those that cannot be read."""
        self.before_us = self.now_us()
        if isinstance(entry, Data):
            self.authority_us = max(self.authority_us, entry.authority_ms * 1000)
        elif entry.predecessor_appended_ms is not None:
            proved_ms = min(entry.predecessor_appended_ms, entry.authority_ms)
            self.frontier_us = max(self.frontier_us, proved_ms * 1000)

    def crossed(self, grid_us: int) -> bool:
        """Whether this entry brought it over a multiple of that; the first entry of all brings it over none."""
        return self.before_us > NEVER and self.before_us // grid_us < self.now_us() // grid_us


class DeriveOracle:
    """One partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.clock = Clock()
        self.running: dict[str, Running] = {}
        self.records: list[Output] = []
        self.letters: list[tuple[int, str]] = []
        self.counts: dict[str, Counter[str]] = {}

    def take(self, entry: Data | Heartbeat | Change) -> None:
        """The next entry; what is none of the three changes nothing and need not be told.

        A definition that is replaced or withdrawn ends with all it has, and reports its late events. The records of an
        entry stand in order of the definitions' names.
        """
        if isinstance(entry, Change):
            if entry.name in self.running:
                self.records += self.running.pop(entry.name).late_records(entry.index)
            if entry.definition is not None:
                self.running[entry.name] = Running(self.partition, entry.index, entry.definition)
            return
        self.clock.take(entry)
        for _, running in sorted(self.running.items()):
            self.records += running.step(entry, self.clock)
            self.letters += running.letters
            self.counts.setdefault(running.definition.name, Counter()).update(+running.counts)
            running.letters.clear()
            running.counts.clear()
        self.running = {name: running for name, running in self.running.items() if not running.suspended}
