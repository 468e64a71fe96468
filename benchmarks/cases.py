"""What is measured: the cases, and which of them a run holds.

A preloaded case is catch-up: all events lie in the input, out of sight, and become visible at once to lanes that are
open and warm. A paced case is the steady state: events come at a rate, and what counts is how soon each can be read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from schemas.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTITIONS: Final = 4
#: As named in the events ("sensor-00000"): five digits.
SOURCES_MAX: Final = 100_000
SOURCES: Final = 1_000
#: Of a preloaded case, the share of events whose clock is off.
OFF_PERCENT: Final = 5
#: What a paced run discards: the broker's JVM compiles what this load uses, for most of a minute and on a fourth of a
#: core, before it runs as it does from then on.
WARM_S: Final = 60
PACED_BATCH_EVENTS: Final = 5_000
QUICK_EVENTS: Final = 200_000
QUICK_SECONDS: Final = 5
QUICK_WARM_S: Final = 5
FULL_SECONDS: Final = 120
#: Fewer events than this a lane would take in one or two batches: no rate can be told from that.
EVENTS_MIN: Final = 100_000
#: Windows of the cases with everything on, and of the one that measures how soon they close.
WINDOW_MS: Final = 10_000
CLOSING_WINDOW_MS: Final = 1_000
#: Rows of the hot store that is asked, and events that are put.
HOT_ROWS: Final = 2_000_000
#: What local times span in the cases with everything on, in a full run: ten minutes.
FULL_SPREAD_S: Final = 600


class Subject(enum.StrEnum):
    """What is measured."""

    #: The product: `driftledger worker`, a process of its own.
    WORKER = "worker"
    #: Its lanes alone, in threads of one process: no Faust, no event loop, no heartbeats, no health.
    LANES = "lanes"


class Name(enum.StrEnum):
    """The cases by name."""

    SEQUENCE = "sequence"
    LANES = "lanes"
    WORKER = "worker"
    SOURCES = "sources"
    WHOLE = "whole"
    WHOLE_SOURCES = "whole-sources"
    BACKFILL = "backfill"
    PACED = "paced"
    CLOSINGS = "closings"
    QUERIES = "queries"
    PUT = "put"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Preloaded:
    """Catch-up over so many events.

    window_ms: of the tumbling windows by source, 0 for none and no hot store. spread_s: how long the input takes to
    fill, and so what the local times span; 0 for as fast as it goes. lanes: that the partitions are shared between.
    """

    name: str
    subject: Subject
    judged: bool
    sources: int
    batch_events: int
    events: int
    window_ms: int = 0
    spread_s: int = 0
    lanes: int = PARTITIONS


@dataclass(frozen=True, slots=True)
class Paced:
    """Events at a rate, for warm_s (discarded) and then for seconds.

    window_ms, lanes: as of Preloaded. closings: what is measured is how soon the results of closed windows can be read.
    """

    name: str
    rate: int
    seconds: int
    warm_s: int
    sources: int = SOURCES
    batch_events: int = PACED_BATCH_EVENTS
    window_ms: int = 0
    closings: bool = False
    lanes: int = PARTITIONS

    @property
    def events(self) -> int:
        """All that will be sent."""
        return self.rate * (self.warm_s + self.seconds)


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions of one kind, one after the other: to a hot store of so many rows, or events put through the API.

    warm_s: events are put for so long before any counts; questions need no warming.
    """

    name: str
    events: int
    warm_s: int = 0


Case = Preloaded | Paced | Asked

_PRELOADED: Final = {
    Name.SEQUENCE: (Subject.LANES, False, SOURCES, 0),
    Name.LANES: (Subject.LANES, True, SOURCES, 0),
    Name.WORKER: (Subject.WORKER, True, SOURCES, 0),
    Name.SOURCES: (Subject.WORKER, True, SOURCES_MAX, 0),
    Name.WHOLE: (Subject.WORKER, True, SOURCES, WINDOW_MS),
    Name.WHOLE_SOURCES: (Subject.WORKER, True, SOURCES_MAX, WINDOW_MS),
    Name.BACKFILL: (Subject.LANES, True, SOURCES, WINDOW_MS),
}


def plan(
    names: Sequence[Name],
    *,
    events: int,
    batches: Sequence[int],
    rate: int,
    seconds: int,
    warm_s: int,
    memory_minutes: int,
    spread_s: int = 0,
    asked: int = HOT_ROWS,
    lanes: int = PARTITIONS,
) -> list[Case]:
    """The cases of a run, in order; no names: all of them, "memory" where memory_minutes are given.

    Raises BadInputError for what cannot be measured.
    """
    if events < EVENTS_MIN:
        raise BadInputError(f"--events {events} are too few to tell a rate. Give {EVENTS_MIN} or more")
    if Name.MEMORY in names and not memory_minutes:
        raise BadInputError("--case memory needs its length. Give --memory-minutes, 10 for a soak")
    chosen = set(names) or set(Name)
    cases: list[Case] = [
        Preloaded(str(name), subject, judged, sources, batch, events, window_ms, spread_s if window_ms else 0, lanes)
        for name, (subject, judged, sources, window_ms) in _PRELOADED.items()
        if name in chosen
        for batch in batches
    ]
    paced = partial(Paced, rate=rate, warm_s=warm_s, lanes=lanes)
    if Name.PACED in chosen:
        cases.append(paced(str(Name.PACED), seconds=seconds))
    if Name.CLOSINGS in chosen:
        cases.append(paced(str(Name.CLOSINGS), seconds=seconds, window_ms=CLOSING_WINDOW_MS, closings=True))
    cases += [Asked(str(name), asked, warm_s) for name in (Name.QUERIES, Name.PUT) if name in chosen]
    if Name.MEMORY in chosen and memory_minutes:
        cases.append(paced(str(Name.MEMORY), seconds=60 * memory_minutes, window_ms=CLOSING_WINDOW_MS))
    return cases
