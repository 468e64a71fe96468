"""The estimator of clocks, the slow and obvious way: one object a source, points in a list, absolute numbers.

The rules are those of `streams.estimate`; nothing here is bounded by columns, packed, or counted from a base. The hull
is found by trying every pair of points.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field

PATH_US = 50_000
NEVER_FIT_PPB = 500_000
#: Later than any end.
NO_END_US = 2**80
#: 71 years; a generation; 285,000 years: beyond them instants are taken to be there.
OFFSET_MAX_US, ELAPSED_MAX_MS, INSTANT_MAX_MS = 2**51, 10**12, 2**53


def clamped(value: int, most: int) -> int:
    """At most that far from zero."""
    return max(min(value, most), -most)


def delta_us(local_us: int, authority_ms: int) -> int:
    """Exact within 71 years, counted in whole milliseconds."""
    exact = local_us - clamped(authority_ms, 2**62) * 1_000
    if abs(exact // 1_000) >= OFFSET_MAX_US // 1_000:
        return OFFSET_MAX_US if exact > 0 else -OFFSET_MAX_US
    return exact


@dataclass
class Point:
    """The best reading of a stretch, and the narrowest exchange moved to its time."""

    at_ms: int
    low_us: int
    middle_us: int | None
    half_us: int


@dataclass
class Off:
    """Readings elsewhere that agree with one another."""

    first_ms: int
    sequence: int
    offs: list[int]


@dataclass
class Clock:
    """One source."""

    samples: int = 0
    begun_ms: int = 0
    line_ms: int = 0
    line_us: int = 0
    skew_ppb: int = 0
    error_ppb: int = NEVER_FIT_PPB
    good_ms: int = 0
    jitter_us: int = 0
    stretch_ms: int = 4_000
    stretch: int = 0
    best: tuple[int, int] | None = None
    best_ms: int = 0
    exchange: tuple[int, int, int] | None = None
    rise_us: int = 0
    reach_us: int | None = None
    points: list[Point] = field(default_factory=list)
    off: Off | None = None
    disturbances: int = 0
    step_ms: int = 0
    step_sequence: int = 0
    step_us: int = 0
    told: int | None = None
    last_step_us: int = 0
    last_step_ms: int = 0

    def moved(self, ppb: int, ms: int) -> int:
        """In us."""
        return ppb * clamped(ms, ELAPSED_MAX_MS) // 1_000_000

    def line(self, at_ms: int) -> int:
        """The line at an instant."""
        return self.line_us + self.moved(self.skew_ppb, at_ms - self.line_ms)

    def offset(self, at_ms: int) -> tuple[int, int]:
        """Offset and bound."""
        at_ms = max(clamped(at_ms, INSTANT_MAX_MS), self.line_ms, self.good_ms)
        rise, reach = (PATH_US, PATH_US) if self.reach_us is None else (self.rise_us, self.reach_us)
        above = 0 if self.off is None else max(0, *self.off.offs)
        return self.line(at_ms) + rise, reach + 1_000 + self.moved(NEVER_FIT_PPB, at_ms - self.good_ms) + above

    def known_offset(self, at_ms: int) -> tuple[int, int]:
        """Offset and bound; (0, -1) before three readings over five seconds are near."""
        known = self.samples >= 3 and clamped(at_ms, INSTANT_MAX_MS) - self.begun_ms >= 5_000
        return self.offset(at_ms) if known else (0, -1)

    def doubt(self, at_ms: int) -> int:
        """What the line may be off by since the last good reading."""
        return self.moved(max(self.error_ppb, 1_000), at_ms - self.good_ms)

    def begin(self, at_ms: int, low_us: int) -> str:
        """Forget all but the disturbances."""
        fresh = Clock(
            samples=1, begun_ms=at_ms, line_ms=at_ms, line_us=low_us, good_ms=at_ms,
            jitter_us=self.jitter_us or 5_000, stretch=at_ms // 4_000, best=(at_ms, low_us), best_ms=at_ms,
            disturbances=self.disturbances, step_ms=self.step_ms, step_sequence=self.step_sequence,
            step_us=self.step_us, last_step_us=self.last_step_us, last_step_ms=self.last_step_ms,
        )  # fmt: skip
        self.__dict__.update(fresh.__dict__)
        return "BEGAN"

    def step(self, at_ms: int, by_us: int, first_ms: int, sequence: int) -> None:
        """All that was learnt moves along."""
        if not (abs(abs(by_us) - 1_000_000) <= PATH_US and leap_between(self.good_ms, first_ms)):
            if self.disturbances == 0 or at_ms - self.step_ms > 2 * 3_600_000:
                self.disturbances += 1
                self.step_sequence, self.step_us = sequence, 0
            self.step_ms, self.last_step_us, self.last_step_ms = at_ms, by_us, first_ms
            self.step_us = clamped(self.step_us + by_us, 2**53)
        self.move(by_us)
        self.good_ms = at_ms

    def turn_back(self, now_ms: int) -> None:
        """Nothing is of an instant after now."""
        at_ms = max(now_ms, self.line_ms, self.good_ms, self.best_ms)
        if at_ms == now_ms:
            return
        self.line_us, self.line_ms = self.line(at_ms), now_ms
        for name in ("begun_ms", "good_ms", "best_ms", "step_ms", "last_step_ms"):
            setattr(self, name, min(getattr(self, name), now_ms))
        self.best = None if self.best is None else (min(self.best[0], now_ms), self.best[1])
        self.exchange = None if self.exchange is None else (min(self.exchange[0], now_ms), *self.exchange[1:])
        self.stretch = min(self.stretch, now_ms // self.stretch_ms)
        late_ms = max(0, self.points[-1].at_ms - now_ms) if self.points else 0
        self.points = [Point(p.at_ms - late_ms, p.low_us, p.middle_us, p.half_us) for p in self.points]

    def move(self, by_us: int) -> None:
        """The line and all that it rests on."""
        self.line_us += by_us
        self.points = [
            Point(p.at_ms, p.low_us + by_us, None if p.middle_us is None else p.middle_us + by_us, p.half_us)
            for p in self.points
        ]
        self.best = None if self.best is None else (self.best[0], self.best[1] + by_us)
        if self.exchange is not None:
            self.exchange = (self.exchange[0], self.exchange[1] + by_us, self.exchange[2])
        self.off = None

    def is_over(self, at_ms: int) -> bool:
        """Whether the stretch is; of a clock that is known a little it holds four readings, or two minutes."""
        if len(self.points) >= 4 and self.samples % 4 != 0 and at_ms - self.stretch * self.stretch_ms < 128_000:
            return False
        return at_ms // self.stretch_ms != self.stretch

    def end_stretch(self, at_ms: int) -> None:
        """Make a point of the stretch and fit."""
        if self.best is not None:
            if len(self.points) == 32:
                if self.stretch_ms < 128_000:
                    self.points = [self.better(*pair) for pair in zip(self.points[::2], self.points[1::2], strict=True)]
                    self.stretch_ms *= 2
                else:
                    del self.points[0]
            best_ms, low_us = self.best
            self.points = [p for p in self.points if best_ms - p.at_ms <= 86_400_000]
            middle_us, half_us = None, -1
            if self.exchange is not None:
                middle_ms, middle_us, half_us = self.exchange
                middle_us += self.moved(self.skew_ppb, best_ms - middle_ms)
                if half_us >= 2**29 or abs(middle_us - low_us) >= 2**29:
                    middle_us, half_us = None, -1
            point = Point(best_ms, low_us, middle_us, half_us)
            if self.points and self.points[-1].at_ms == best_ms:
                before = self.points.pop()
                point.low_us = max(low_us, before.low_us)
                if middle_us is None or (before.middle_us is not None and before.half_us < half_us):
                    point.middle_us, point.half_us = before.middle_us, before.half_us
            self.points.append(point)
            self.fit_skew()
            self.fit_line(at_ms)
        self.stretch = at_ms // self.stretch_ms
        self.best = self.exchange = None

    def better(self, one: Point, two: Point) -> Point:
        """The higher reading along the slope, the narrower exchange; equal ones: the earlier, and the later."""
        rise = self.moved(self.skew_ppb, two.at_ms - one.at_ms)
        low = two if two.low_us - one.low_us > rise else one
        at = one if two.middle_us is None or (one.middle_us is not None and one.half_us < two.half_us) else two
        if at.middle_us is None or at is low:
            return Point(low.at_ms, low.low_us, at.middle_us, at.half_us)
        return Point(low.at_ms, low.low_us, at.middle_us + (rise if low is two else -rise), at.half_us)

    def fit_skew(self) -> None:
        """Of the hull and the exchanges what is known better."""
        if len(self.points) < 3:
            return
        slope, away = self.hull_slope()
        doubt = 3.0 * (away + 500) / (self.points[-1].at_ms - self.points[0].at_ms)
        two = [(p.at_ms, p.middle_us) for p in self.points if p.middle_us is not None]
        if len(two) >= 3:
            slope_two, away_two = least_squares([(float(ms - two[0][0]), float(us - two[0][1])) for ms, us in two])
            doubt_two = 3.0 * (away_two + 500) / (two[-1][0] - two[0][0])
            if doubt_two < doubt:
                slope, doubt = slope_two, doubt_two
        error = math.ceil(min(doubt * 1e6, 5e5))
        if error <= 100_000:
            self.skew_ppb = math.floor(min(max(slope * 1e6, -5e5), 5e5) + 0.5)
            self.error_ppb = error

    def hull_slope(self) -> tuple[float, float]:
        """Of all lines through two points that no point is above, the one over the mean time."""
        start = self.points[0].at_ms
        mean = sum(p.at_ms - start for p in self.points) // len(self.points)
        corners = [
            p for p in self.points
            if not any(
                (b.low_us - a.low_us) * (p.at_ms - a.at_ms) >= (p.low_us - a.low_us) * (b.at_ms - a.at_ms)
                for a in self.points for b in self.points if a.at_ms < p.at_ms < b.at_ms
            )
        ]  # fmt: skip
        after = next(i for i in range(1, len(corners)) if corners[i].at_ms - start >= mean or i == len(corners) - 1)
        one, two = corners[after - 1], corners[after]
        slope = float(two.low_us - one.low_us) / float(two.at_ms - one.at_ms)
        away = 0.0
        for p in self.points:
            away += slope * float(p.at_ms - one.at_ms) - float(p.low_us - one.low_us)
        return slope, away / len(self.points)

    def fit_line(self, at_ms: int) -> None:
        """The highest of the readings, brought to now; round trips say what is above it."""
        error = self.error_ppb if self.error_ppb <= 100_000 else 0
        intervals, middles = [], []
        for p in self.points:
            age = at_ms - p.at_ms
            slack, drift = self.moved(error, age), self.moved(self.skew_ppb, age)
            high = NO_END_US if p.middle_us is None else p.middle_us + p.half_us + drift + slack
            intervals.append((p.low_us + drift - slack, high))
            if p.middle_us is not None:
                middles.append((p.middle_us + drift, float(1_000 + slack)))
        low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
        if high < low:
            intervals = [(min(pair), max(pair)) for pair in intervals]  # a point may contradict itself
            places = sorted({low for low, _ in intervals})
            counts = [sum(a <= place <= b for a, b in intervals) for place in places]
            low = places[counts.index(max(counts))]
            ends = [b for a, b in intervals if a <= low <= b] + [a for a, _ in intervals if a > low]
            high = min(ends)
        self.reach_us = None
        if middles and high < NO_END_US:
            rises = weights = 0.0
            for middle, weight in middles:
                rises += float(middle - low) / weight
                weights += 1 / weight
            self.rise_us = min(max(math.floor(rises / weights), 0), high - low)
            self.reach_us = max(self.rise_us, high - low - self.rise_us)
        self.line_ms, self.line_us = at_ms, low

    def take_exchange(self, sequence: int, at_ms: int, appended_ms: int, low_us: int, high_us: int) -> None:
        """Whether the clock fell, else where it is."""
        half = (high_us - low_us) // 2
        middle = low_us + half + self.moved(self.skew_ppb, at_ms - appended_ms)
        expected, highest = self.line(at_ms), middle + half
        if highest < expected - 10_000 - self.doubt(at_ms):
            if self.reach_us is None:
                self.rise_us = 0
            above = min(half, PATH_US)
            self.step(at_ms, highest - above - self.rise_us - expected, appended_ms, sequence)
            self.reach_us = max(self.reach_us or 0, high_us - low_us - above)
            return
        if self.off is not None and highest - (high_us - low_us) > expected + 10_000 + self.doubt(at_ms):
            return
        if self.off is not None and max(self.off.offs) < 0 and appended_ms >= self.off.first_ms:
            self.off = None
        if self.exchange is None or half < self.exchange[2]:
            self.exchange = (at_ms, middle, half)
        if self.reach_us is None:
            self.rise_us = max(middle - expected, 0)
            self.reach_us = max(self.rise_us, highest - expected - self.rise_us)

    def read(
        self, sequence: int, authority_ms: int, local_us: int, exchange: tuple[int, int, int] | None = None
    ) -> str:
        """One reading; the name of its Place."""
        low_us = delta_us(local_us, authority_ms) - 1_000
        authority_ms = clamped(authority_ms, INSTANT_MAX_MS)
        if self.samples == 0:
            return self.begin(authority_ms, low_us)
        at_ms = max(authority_ms, self.line_ms, self.good_ms, self.best_ms)
        if self.off is None and self.is_over(at_ms) and abs(low_us - self.line(at_ms)) < 1_000_000:
            self.end_stretch(at_ms)
        if exchange is not None:
            self.round_trip(sequence, at_ms, *exchange)
        off_us = low_us - self.line(at_ms)
        doubt = self.doubt(at_ms)
        above = max(10_000, 2 * self.jitter_us) + doubt
        below = max(10_000, 8 * self.jitter_us) + doubt
        young = self.samples < 16 or at_ms - self.begun_ms < 60_000
        if young:
            above, below = max(above, 2 * PATH_US), max(below, 2 * PATH_US)
        if -below <= off_us <= above:
            if young and off_us > 0 and self.is_draining(at_ms, off_us):
                return self.begin(at_ms, low_us)
            self.near(at_ms, low_us, off_us)
            return "NEAR"
        return self.elsewhere(sequence, at_ms, authority_ms, low_us, off_us, below)

    def is_draining(self, at_ms: int, off_us: int) -> bool:
        """Whether readings have raised the line by more than a clock gains since the first."""
        slack = 2 * PATH_US + self.moved(50_000_000, at_ms - self.begun_ms)
        return self.reach_us is None and self.rise_us + off_us > slack

    def elsewhere(self, sequence: int, at_ms: int, authority_ms: int, low_us: int, off_us: int, below: int) -> str:
        """A reading that is not where the clock was expected; the name of its Place."""
        before = self.off
        since = authority_ms if before is None else before.first_ms
        together = [off_us] if before is None else [*before.offs, off_us]
        one_side = min(together) > 0 or max(together) < 0
        if (
            before is None
            or not one_side
            or max(together) - min(together) > below + self.moved(500_000, abs(authority_ms - since))
        ):
            self.off = Off(authority_ms, sequence, [off_us])
            if before is not None and one_side and off_us > 0 and self.samples < 16:
                return self.begin(at_ms, low_us)
            return "ABOVE" if off_us > 0 else "BELOW"
        before.offs.append(off_us)
        hold_ms = 25_000 if off_us < 0 and self.reach_us is not None else 5_000
        if len(before.offs) >= 3 and authority_ms - before.first_ms >= hold_ms:
            if self.samples < 3:
                return self.begin(at_ms, low_us)
            self.step(at_ms, max(before.offs), before.first_ms, before.sequence)
            self.turn_back(authority_ms)
            return "STEPPED"
        return "ABOVE" if off_us > 0 else "BELOW"

    def round_trip(self, sequence: int, at_ms: int, sent_us: int, acked_us: int, appended_ms: int) -> None:
        """Left out where it cannot be what it says."""
        earliest = max(self.begun_ms, self.step_ms, at_ms - 86_400_000)
        if sent_us <= acked_us and earliest <= appended_ms <= at_ms:
            lowest = delta_us(sent_us, appended_ms) - 1_000
            self.take_exchange(sequence, at_ms, appended_ms, lowest, delta_us(acked_us, appended_ms))

    def near(self, at_ms: int, low_us: int, off_us: int) -> None:
        """Where it was expected."""
        self.off = None
        self.samples += 1
        if off_us >= -min(max(10_000, 2 * self.jitter_us), PATH_US):
            self.good_ms = at_ms
        below = min(max(-off_us, 0), 4 * self.jitter_us + 1_000)
        self.jitter_us = min(self.jitter_us + (below - self.jitter_us) // 16, 1_000_000)
        if off_us > 0:
            self.line_us += off_us
            self.rise_us = self.rise_us + off_us if self.reach_us is None else max(self.rise_us - off_us, 0)
        if self.best is None or low_us - self.best[1] > self.moved(self.skew_ppb, at_ms - self.best[0]):
            self.best, self.best_ms = (at_ms, low_us), at_ms


def least_squares(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope and mean distance."""
    mean_x = mean_y = 0.0
    for x, y in points:
        mean_x += x
        mean_y += y
    mean_x, mean_y = mean_x / len(points), mean_y / len(points)
    both = square = away = 0.0
    for x, y in points:
        both += (x - mean_x) * (y - mean_y)
        square += (x - mean_x) * (x - mean_x)
    slope = both / square
    for x, y in points:
        away += abs(y - mean_y - slope * (x - mean_x))
    return slope, away / len(points)


def leap_between(first_ms: int, last_ms: int) -> bool:
    """By the calendar of the standard library; years that it has."""
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    year = (epoch + dt.timedelta(milliseconds=last_ms)).year
    for start in ((y, month) for y in (year - 1, year, year + 1) for month in (1, 7)):
        at = (dt.datetime(*start, 1, tzinfo=dt.UTC) - epoch) // dt.timedelta(milliseconds=1)
        if first_ms - 2_000 <= at <= last_ms + 2_000:
            return True
    return False
