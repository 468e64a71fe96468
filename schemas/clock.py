"""The one place where time is read.

Problem: a product that judges clocks must not depend on one by accident. A stray clock call inside the logic makes a
replay differ from the live run, and a test that patches the clock of the standard library tests the patch. So time is
one small interface, `TimeSource`; the system form reads the machine, the simulated form is moved by hand, and a lint
rule bans every other clock call.

Wall and monotonic time are kept apart: `now_us` and `now_ns` say what the clock on the wall shows (it may be stepped,
also backwards), `monotonic_ns` measures how long something took and has no date. Instants are integers with their unit
in the name. A float never holds an instant; only `sleep_s` takes one, because a duration to wait for is not recorded.

GUARANTEE a simulated clock is a pure function of true time: it reads `true + offset.at(true)`, in integers, however
often and in whatever order it is read. Two runs of one simulation read the same instants, bit for bit.
HAZARD `SimulatedTime.sleep_s` moves time for everybody who shares the source: with several threads the order of their
sleeps is the scheduler's, so a simulation that must repeat runs in one thread or moves time with `advance_simulation`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from .errors import BadInputError
from .instants import NS_PER_MS, NS_PER_S, NS_PER_US

if TYPE_CHECKING:
    from collections.abc import Iterator

#: One part per million in the unit of `Linear.rate_ppb`.
PPM: Final = 1_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Both clocks of one source, read together."""

    wall_ns: int
    monotonic_ns: int

    def elapsed_ns(self, later: Checkpoint) -> int:
        """Time that passed until a later checkpoint of the same source, by the monotonic clock."""
        return later.monotonic_ns - self.monotonic_ns

    def stepped_ns(self, later: Checkpoint) -> int:
        """How much more the wall clock moved than the monotonic one: what it was set forward (or, negative, back)."""
        return later.wall_ns - self.wall_ns - self.elapsed_ns(later)


class TimeSource(Protocol):
    """What reads clocks. For shells only: pure code is handed instants."""

    def now_us(self) -> int:
        """Wall clock, microseconds since 1970-01-01 UTC."""
        ...

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic_ns(self) -> int:
        """A clock that never goes back, from an arbitrary zero: for durations and deadlines."""
        ...

    def sleep_s(self, duration_s: float) -> None:
        """Return when duration_s have passed on this source."""
        ...

    def create_checkpoint(self) -> Checkpoint:
        """Both clocks, read together."""
        ...

    def advance_simulation(self, duration_ns: int) -> None:
        """Let simulated time pass. Raises BadInputError on real time and on a negative duration."""
        ...


class SystemTime:
    """The clocks of this machine."""

    def now_us(self) -> int:
        """Wall clock, microseconds since 1970-01-01 UTC."""
        return time.time_ns() // NS_PER_US

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """The operating system's monotonic clock."""
        return time.monotonic_ns()

    def sleep_s(self, duration_s: float) -> None:
        """Block this thread."""
        time.sleep(duration_s)

    def create_checkpoint(self) -> Checkpoint:
        """Both clocks; the wall clock is read between two readings of the other, whose middle is taken."""
        before = time.monotonic_ns()
        wall = time.time_ns()
        return Checkpoint(wall, (before + time.monotonic_ns()) // 2)

    def advance_simulation(self, duration_ns: int) -> None:
        """Refused: real time passes by itself."""
        raise BadInputError(f"real time cannot be advanced (by {duration_ns} ns): use SimulatedTime")


class SimulatedTime:
    """Time that moves only when told to. Reads are safe from any thread.

    It shows true time. The clock of a source that is wrong is a `SkewedTime` over it.
    """

    def __init__(self, start_ns: int = 0, monotonic_ns: int = 0) -> None:
        self._start_ns = start_ns
        self._start_monotonic_ns = monotonic_ns
        self._passed_ns = 0
        self._lock = threading.Lock()

    @classmethod
    def resume(cls, checkpoint: Checkpoint) -> SimulatedTime:
        """Go on where a checkpoint was taken."""
        return cls(checkpoint.wall_ns, checkpoint.monotonic_ns)

    def now_us(self) -> int:
        """Simulated wall clock, microseconds since 1970-01-01 UTC."""
        return self.now_ns() // NS_PER_US

    def now_ns(self) -> int:
        """Simulated wall clock, nanoseconds since 1970-01-01 UTC."""
        return self._start_ns + self._passed_ns

    def monotonic_ns(self) -> int:
        """Simulated monotonic clock."""
        return self._start_monotonic_ns + self._passed_ns

    def sleep_s(self, duration_s: float) -> None:
        """Move the simulation on by the duration and return at once."""
        self.advance_simulation(round(duration_s * NS_PER_S))

    def create_checkpoint(self) -> Checkpoint:
        """Both clocks at one moment of the simulation."""
        passed = self._passed_ns
        return Checkpoint(self._start_ns + passed, self._start_monotonic_ns + passed)

    def advance_simulation(self, duration_ns: int) -> None:
        """Let simulated time pass. Raises BadInputError when duration_ns is negative."""
        if duration_ns < 0:
            raise BadInputError(
                f"time cannot go back (by {-duration_ns} ns): give a source's clock a Step offset instead"
            )
        with self._lock:
            self._passed_ns += duration_ns


class Offset(Protocol):
    """How far a clock is off, as a pure function of true time. Positive: it is ahead."""

    def at(self, true_ns: int) -> int:
        """Offset in nanoseconds when true time is true_ns."""
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """A clock that runs fast (or, with a negative rate, slow) by rate_ppb parts per 10^9 since since_ns."""

    rate_ppb: int
    since_ns: int = 0

    def at(self, true_ns: int) -> int:
        """Rate times elapsed time, rounded down."""
        return self.rate_ppb * (true_ns - self.since_ns) // NS_PER_S


@dataclass(frozen=True, slots=True)
class Periodic:
    """A clock that sways between +amplitude and -amplitude, as one does whose room warms by day and cools by night.

    The wave is Bhaskara's rational approximation of the sine (within 0.2 % of the amplitude), because the sine of
    the C library differs between machines in its last bits and a simulation must not.
    """

    amplitude_ns: int
    period_ns: int
    since_ns: int = 0

    def __post_init__(self) -> None:
        """Refuse a period that has no half."""
        if self.period_ns < 2:  # noqa: PLR2004 - two halves
            raise BadInputError(f"period_ns is {self.period_ns}: a period is at least 2 ns")

    def at(self, true_ns: int) -> int:
        """0 at since_ns, the amplitude a quarter period later."""
        half = self.period_ns // 2
        position = (true_ns - self.since_ns) % self.period_ns
        side = self.amplitude_ns if position < half else -self.amplitude_ns
        within = position if position < half else min(position - half, half)
        parabola = within * (half - within)
        return side * 16 * parabola // (5 * half * half - 4 * parabola)


@dataclass(frozen=True, slots=True)
class Step:
    """A clock that is right until from_ns and off by by_ns from then on; without from_ns it was always off."""

    by_ns: int
    from_ns: int | None = None

    def at(self, true_ns: int) -> int:
        """Zero or by_ns."""
        return self.by_ns if self.from_ns is None or true_ns >= self.from_ns else 0


@dataclass(frozen=True, slots=True)
class Noisy:
    """A clock that jitters: every interval_ns a new offset, uniform between -amplitude and +amplitude.

    The offset is a hash (splitmix64) of the seed and the number of the interval, so that it does not depend on how
    often the clock was read. HAZARD an amplitude larger than the interval makes the clock go back: that is meant.
    """

    amplitude_ns: int
    seed: int
    interval_ns: int = NS_PER_MS

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.amplitude_ns < 0 or self.interval_ns < 1:
            raise BadInputError(
                f"amplitude_ns {self.amplitude_ns} must be at least 0 and interval_ns {self.interval_ns} at least 1"
            )

    def at(self, true_ns: int) -> int:
        """Jitter of the interval that true_ns lies in."""
        draw = _splitmix64(_splitmix64(self.seed & _MASK_64) ^ (true_ns // self.interval_ns & _MASK_64))
        return (draw * (2 * self.amplitude_ns + 1) >> 64) - self.amplitude_ns


@dataclass(frozen=True, slots=True)
class Together:
    """The sum of several offsets."""

    offsets: tuple[Offset, ...]

    def at(self, true_ns: int) -> int:
        """All offsets at this true time, added."""
        return sum(offset.at(true_ns) for offset in self.offsets)


class SkewedTime:
    """The clock of a source that is off: it reads true time plus an offset.

    Its monotonic clock and its sleep are those of true time: an offset is an error about the date.
    """

    def __init__(self, true: TimeSource, offset: Offset) -> None:
        self._true = true
        self._offset = offset

    def now_us(self) -> int:
        """What this clock shows, microseconds."""
        return self.now_ns() // NS_PER_US

    def now_ns(self) -> int:
        """What this clock shows, nanoseconds."""
        true_ns = self._true.now_ns()
        return true_ns + self._offset.at(true_ns)

    def monotonic_ns(self) -> int:
        """True monotonic time."""
        return self._true.monotonic_ns()

    def sleep_s(self, duration_s: float) -> None:
        """Sleep in true time."""
        self._true.sleep_s(duration_s)

    def create_checkpoint(self) -> Checkpoint:
        """The date of this clock with true monotonic time."""
        true = self._true.create_checkpoint()
        return Checkpoint(true.wall_ns + self._offset.at(true.wall_ns), true.monotonic_ns)

    def advance_simulation(self, duration_ns: int) -> None:
        """Move the true time under this clock."""
        self._true.advance_simulation(duration_ns)


class _Global:
    """The source of this process, behind one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.chosen: TimeSource | None = None
        self.fallback: TimeSource = SystemTime()


_GLOBAL = _Global()


def use(time_source: TimeSource) -> None:
    """Choose the time source of this process, once, before anything reads it.

    Raises BadInputError when another one was chosen: half a process in another time is worse than no simulation.
    """
    with _GLOBAL.lock:
        if _GLOBAL.chosen is not None and _GLOBAL.chosen is not time_source:
            raise BadInputError(
                "the time source of this process is already chosen: choose once at start, or use `using` in a test"
            )
        _GLOBAL.chosen = time_source


def source() -> TimeSource:
    """The time source of this process: the one chosen with `use`, else the machine's."""
    return _GLOBAL.chosen or _GLOBAL.fallback


@contextlib.contextmanager
def using(time_source: TimeSource) -> Iterator[TimeSource]:
    """Let `source` answer with another time source for the length of a block, for the whole process."""
    with _GLOBAL.lock:
        previous, _GLOBAL.chosen = _GLOBAL.chosen, time_source
    try:
        yield time_source
    finally:
        with _GLOBAL.lock:
            _GLOBAL.chosen = previous


_MASK_64 = 2**64 - 1


def _splitmix64(value: int) -> int:
    """Steele, Lea and Flood, Fast splittable pseudorandom number generators (2014): one step of the generator."""
    value = (value + 0x9E37_79B9_7F4A_7C15) & _MASK_64
    value = (value ^ value >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK_64
    value = (value ^ value >> 27) * 0x94D0_49BB_1331_11EB & _MASK_64
    return value ^ value >> 31
