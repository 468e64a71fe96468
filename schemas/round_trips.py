"""Acknowledged round trips of a source, told in later events of it: the clock from both sides, for nothing.

Problem: how far a clock is ahead can be told from one event (no event arrives before it was made), how far it is behind
cannot, for the event may have been under way for as long. But the broker dates a record when it takes it and says so in
the acknowledgement. With the local clock read before the record left and after the acknowledgement came,

    sent - appended <= the clock's offset <= acknowledged - appended

so the source alone knows its offset from both sides, and tells it in the `exchange` field of an event it sends anyway.

GUARANTEE a round trip is told once, of the same source, not more often than each EXCHANGE_EVERY_US of its clock, unless
that was set back or the source was forgotten meanwhile; of those that were not told it is the narrowest since the last
one. GUARANTEE at most SOURCES_MAX sources are kept; the one that was longest without an acknowledgement goes first, and
its next event tells nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Offsets change by microseconds in that time; each costs an event some thirty bytes.
EXCHANGE_EVERY_US: Final = 10_000_000
SOURCES_MAX: Final = 10_000


class RoundTrip(NamedTuple):
    """Of one record: where it is, the local clock before it left and after its acknowledgement, its append time."""

    partition: int
    offset: int
    sent_us: int
    acked_us: int
    appended_ms: int

    @property
    def width_us(self) -> int:
        """How far apart the two bounds are."""
        return self.acked_us - self.sent_us


@dataclass(slots=True)
class _Known:
    """Of a source: the narrowest that was not told, and when one was told last."""

    best: RoundTrip | None = None
    told_us: int | None = None


class RoundTrips:
    """The round trips of a producer's sources. Not for two threads at once."""

    def __init__(self) -> None:
        self._sources: OrderedDict[str, _Known] = OrderedDict()

    def acknowledged(self, source: str, trip: RoundTrip) -> None:
        """Note one. One whose clock went back meanwhile is of no use and passed over."""
        if trip.width_us < 0:
            return
        known = self._sources.setdefault(source, _Known())
        self._sources.move_to_end(source)
        if known.best is None or trip.width_us <= known.best.width_us:
            known.best = trip
        if len(self._sources) > SOURCES_MAX:
            self._sources.popitem(last=False)

    def to_tell(self, source: str, now_us: int) -> dict[str, int] | None:
        """What an event of the source that is made now should carry: the fields of `exchange`; it counts as told.

        Whoever cannot send that event has lost no more than one of many.
        """
        known = self._sources.get(source)
        if known is None or known.best is None:
            return None
        if known.told_us is not None and 0 <= now_us - known.told_us < EXCHANGE_EVERY_US:
            return None
        trip, known.best, known.told_us = known.best, None, now_us
        return trip._asdict()
