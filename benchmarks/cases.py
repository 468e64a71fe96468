"""What is measured: the cases, and which of them a run holds.

A preloaded case is catch-up: all events lie in the input, out of sight, and become visible at once to lanes that are
open and warm. A paced case is the steady state: events come at a rate, and what counts is how soon each can be read.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
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
    PACED = "paced"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Preloaded:
    """Catch-up over so many events."""

    name: str
    subject: Subject
    judged: bool
    sources: int
    batch_events: int
    events: int


@dataclass(frozen=True, slots=True)
class Paced:
    """Events at a rate, for warm_s (discarded) and then for seconds."""

    name: str
    rate: int
    seconds: int
    warm_s: int
    sources: int = SOURCES
    batch_events: int = PACED_BATCH_EVENTS

    @property
    def events(self) -> int:
        """All that will be sent."""
        return self.rate * (self.warm_s + self.seconds)


_PRELOADED: Final = {
    Name.SEQUENCE: (Subject.LANES, False, SOURCES),
    Name.LANES: (Subject.LANES, True, SOURCES),
    Name.WORKER: (Subject.WORKER, True, SOURCES),
    Name.SOURCES: (Subject.WORKER, True, SOURCES_MAX),
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
) -> list[Preloaded | Paced]:
    """The cases of a run, in order; no names: all of them, "memory" where memory_minutes are given.

    Raises BadInputError for what cannot be measured.
    """
    if events < EVENTS_MIN:
        raise BadInputError(f"--events {events} are too few to tell a rate. Give {EVENTS_MIN} or more")
    if Name.MEMORY in names and not memory_minutes:
        raise BadInputError("--case memory needs its length. Give --memory-minutes, 10 for a soak")
    chosen = set(names) or set(Name)
    cases: list[Preloaded | Paced] = [
        Preloaded(str(name), subject, judged, sources, batch, events)
        for name, (subject, judged, sources) in _PRELOADED.items()
        if name in chosen
        for batch in batches
    ]
    if Name.PACED in chosen:
        cases.append(Paced(str(Name.PACED), rate, seconds, warm_s))
    if Name.MEMORY in chosen and memory_minutes:
        cases.append(Paced(str(Name.MEMORY), rate, 60 * memory_minutes, warm_s))
    return cases
