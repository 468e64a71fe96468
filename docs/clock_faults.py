"""Clocks that are wrong, and logs that are: each as a history, beside the same history without the fault."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from docs.histories import SECOND, START_MS, Event, Held, Plain, Run, beats, fold, plain, read
from streams.windows import Late, WindowDefinition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docs.histories import Step

MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
HONEST: Final = ("pump-1", "pump-2", "pump-3", "pump-4")
#: Ten seconds of each source, by its clock, with every default; late events go to the dead letters, so they are seen.
DEFINITION: Final = WindowDefinition("source_10s", size_us=10_000_000, late=Late.SIDE)
#: All clocks slow needs a frontier that stays further behind.
PATIENT: Final = replace(DEFINITION, max_behind_us=900_000_000)


@dataclass(frozen=True)
class Case:
    """A fault. steps: with it; sound: without it. until_ms: windows that end by then are compared with sound's."""

    name: str
    title: str
    steps: tuple[Step, ...]
    sound: tuple[Step, ...]
    honest: tuple[str, ...]
    until_ms: int
    definition: WindowDefinition = DEFINITION

    def here(self) -> Run:
        """What derive makes of it."""
        return _fold(self.steps, self.definition)

    def sound_here(self) -> Run:
        """What derive makes of the history without the fault."""
        return _fold(self.sound, self.definition)

    def elsewhere(self, *, timer: bool = False) -> Plain:
        """What a plain engine makes of it; with a timer, that stays as far behind as the definition's max_behind."""
        return plain(self.steps, self.definition, self.definition.max_behind_us // 1_000 if timer else None)

    def is_honest(self, number: int) -> bool:
        """Whether a step is an event of a source with a good clock."""
        said = self.steps[number].said
        return isinstance(said, Event) and said.source in self.honest

    def events(self, *, honest: bool) -> list[int]:
        """Steps that are events of such sources, or of the others."""
        numbers = (number for number, step in enumerate(self.steps) if isinstance(step.said, Event))
        return [number for number in numbers if self.is_honest(number) is honest]


@cache
def _fold(steps: tuple[Step, ...], definition: WindowDefinition) -> Run:
    return fold(steps, definition)


def speaks(sources: Iterable[str], from_ms: int, to_ms: int, every_ms: int, fast_ms: int = 0) -> list[Event]:
    """Events at a steady pace: on the way for up to half a second, by clocks that are up to 300 ms wrong, or more."""
    found = []
    for place, source in enumerate(sources):
        error_ms = fast_ms + (-300, 250, 40, -120)[place % 4]
        for number, made_ms in enumerate(range(from_ms + place * every_ms // 5, to_ms, every_ms)):
            way_ms = 20 + (number * 7_919 + place * 104_729) % 480
            value = 20 + (number * 31 + place * 17) % 50 / 4
            found.append(Event(made_ms + way_ms, made_ms + error_ms, source, value))
    return found


def _beside(name: str, title: str, faulty: list[Event], definition: WindowDefinition = DEFINITION) -> Case:
    """A minute of honest sources with another one beside them; then two of heartbeats alone."""
    honest = speaks(HONEST, 0, MINUTE, 2 * SECOND)
    steps, sound = (
        tuple(read(events, beats(events, 3 * MINUTE, 2 * SECOND)))
        for events in (sorted(honest + faulty), sorted(honest))
    )
    return Case(name, title, steps, sound, HONEST, 3 * MINUTE, definition)


@cache
def day_ahead() -> Case:
    """One clock is a day fast."""
    return _beside("day_ahead", "One source a day ahead", speaks(["ahead"], 0, MINUTE, 2 * SECOND, DAY))


@cache
def half_minute_ahead() -> Case:
    """One clock is half a minute fast: within max_ahead, so its events are taken."""
    faulty = speaks(["ahead"], 0, MINUTE, 2 * SECOND, 30 * SECOND)
    return _beside("half_minute_ahead", "One source 30 s ahead", faulty)


@cache
def slow() -> Case:
    """One clock is ten seconds slow, where five are waited for."""
    return _beside("slow", "One source 10 s slow", speaks(["slow"], 0, MINUTE, 2 * SECOND, -10 * SECOND))


@cache
def backlog() -> Case:
    """A minute live, an hour in which nothing is read, then all of it at once; the heart beats throughout."""
    sources = HONEST[:2]
    events = sorted(speaks(sources, 0, HOUR + 2 * MINUTE, MINUTE))
    heartbeats = beats(events, HOUR + 5 * MINUTE, 20 * SECOND)
    held = read(events, heartbeats, Held(MINUTE, HOUR + MINUTE))
    return Case(
        "backlog", "An hour's backlog", tuple(held), tuple(read(events, heartbeats)), sources, HOUR + 5 * MINUTE
    )


@cache
def silent() -> Case:
    """Half a minute of events, then heartbeats alone; without the fault the sources speak on after ten seconds."""
    events = sorted(speaks(HONEST, 0, MINUTE // 2, 2 * SECOND))
    longer = events + sorted(speaks(HONEST, 40 * SECOND, 2 * MINUTE, 2 * SECOND))
    steps, sound = (tuple(read(some, beats(some, 2 * MINUTE))) for some in (events, longer))
    return Case("silent", "A partition falls silent", steps, sound, HONEST, MINUTE // 2)


def _all_slow(name: str, title: str, definition: WindowDefinition) -> Case:
    """Two minutes of sources whose clocks are all ten minutes slow, then heartbeats until all of it has closed."""
    events = sorted(speaks(HONEST, 0, 2 * MINUTE, 4 * SECOND, -10 * MINUTE))
    steps = tuple(read(events, beats(events, 8 * MINUTE, 5 * SECOND)))
    return Case(name, title, steps, steps, (), 8 * MINUTE, definition)


@cache
def all_slow() -> Case:
    """With every default."""
    return _all_slow("all_slow", "All sources ten minutes slow", DEFINITION)


@cache
def all_slow_patient() -> Case:
    """With a frontier that stays a quarter of an hour behind."""
    return _all_slow("all_slow_patient", "The same, max_behind_ms = 900_000", PATIENT)


def cases() -> list[Case]:
    """All of them."""
    return [day_ahead(), half_minute_ahead(), slow(), backlog(), silent(), all_slow(), all_slow_patient()]


class Measured(NamedTuple):
    """Numbers of a case: events, those that are late, windows that have events and never close.

    plain, timed: by a plain engine, and by one with a timer. here: by derive; late or AHEAD.
    """

    honest: int
    honest_plain: int
    honest_timed: int
    honest_here: int
    faulty: int
    faulty_plain: int
    faulty_timed: int
    faulty_here: int
    open_plain: int
    open_timed: int
    open_here: int


def measure(case: Case) -> Measured:
    """What the table of windows.md says of a case."""
    here, alone, timed = case.here(), case.elsewhere(), case.elsewhere(timer=True)
    aside = (alone.late, timed.late, list(here.aside))
    closed = {(r["key"], r["window_start_us"]) for r in here.results if r["final"]}
    honest, faulty = (
        [len(case.events(honest=which)), *(sum(case.is_honest(number) is which for number in late) for late in aside)]
        for which in (True, False)
    )
    return Measured._make(
        [*honest, *faulty, len(alone.unclosed), len(timed.unclosed), len(_windows(case, here) - closed)]
    )


def _windows(case: Case, here: Run) -> set[tuple[str, int]]:
    """Key and start of the windows that took an event."""
    size_us = case.definition.size_us
    taken = [step.said for number, step in enumerate(case.steps) if number not in here.aside]
    return {
        (said.source, (START_MS + said.local_ms) * 1_000 // size_us * size_us)
        for said in taken
        if isinstance(said, Event)
    }
