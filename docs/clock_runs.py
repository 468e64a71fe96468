"""Clocks told in a few lines, and what judge learns of them: the pictures of clocks.md are drawn from these runs.

Seconds are from START_MS on, offsets and delays in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from docs.histories import START_MS, columns_of
from schemas.codec import encode
from schemas.instants import MS_PER_S, US_PER_MS
from streams.judge import Judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: As the producer does.
_EXCHANGE_EVERY_S: Final = 10.0


class Clock(NamedTuple):
    """Events of one source: when each was made, appended and acknowledged, and how far its clock was off then."""

    made_s: Floats
    appended_s: Floats
    acked_s: Floats
    off_ms: Floats


class Learnt(NamedTuple):
    """What judge said of each event. reading_ms: local minus authority; bound_ms: NaN before there is an estimate.

    severity: of the reading, by the plain rule.
    """

    appended_s: Floats
    off_ms: Floats
    reading_ms: Floats
    offset_ms: Floats
    bound_ms: Floats
    severity: Floats


def clock(
    rows: int, gap_s: float, *, off_ms: float, ppm: float = 0, least_ms: float = 5, step: tuple[float, float] = (0, 0)
) -> Clock:
    """A source that sends every gap_s; its events take least_ms and some more. step: when in s, and by how many ms."""
    draw = np.random.default_rng(1)
    made_s = np.arange(rows, dtype=np.float64) * gap_s
    delay_s = (least_ms + draw.exponential(4, rows)) / MS_PER_S
    back_s = (least_ms + draw.exponential(4, rows)) / MS_PER_S
    off = off_ms + ppm * made_s / 1_000 + step[1] * (made_s >= step[0])
    appended_s: Floats = np.maximum.accumulate(made_s + delay_s)
    return Clock(made_s, appended_s, appended_s + back_s, off)


def cut(source: Clock, from_s: float, to_s: float, rate_per_s: float) -> Clock:
    """The same, with its path cut for a while: what waited is drained at that rate."""
    waiting = (source.made_s >= from_s) & (source.appended_s < to_s + 60)
    drained_s = to_s + np.arange(int(waiting.sum())) / rate_per_s
    appended_s = source.appended_s.copy()
    appended_s[waiting] = np.maximum(drained_s, appended_s[waiting])
    appended_s = np.maximum.accumulate(appended_s)
    return source._replace(appended_s=appended_s, acked_s=appended_s + (source.acked_s - source.appended_s))


def learn(source: Clock, *, two_way: bool = False) -> Learnt:
    """Judge over the events of one source; two_way: with an acknowledged round trip each ten seconds."""
    local_us = np.round(source.made_s * 1e6 + source.off_ms * US_PER_MS).astype(np.int64) + START_MS * US_PER_MS
    appended_ms = np.floor(source.appended_s * MS_PER_S).astype(np.int64) + START_MS
    acked_us = np.round(source.acked_s * 1e6 + source.off_ms * US_PER_MS).astype(np.int64) + START_MS * US_PER_MS
    values, told_s = [], -_EXCHANGE_EVERY_S
    for row, made_s in enumerate(source.made_s.tolist()):
        exchange = None
        if two_way and row and made_s >= told_s + _EXCHANGE_EVERY_S and source.acked_s[row - 1] <= made_s:
            told_s, before = made_s, row - 1
            exchange = {
                "partition": 0, "offset": before, "sent_us": int(local_us[before]), "acked_us": int(acked_us[before]),
                "appended_ms": int(appended_ms[before]),
            }  # fmt: skip
        event = {"event_id": f"e{row}", "source": "pump-7", "local_timestamp": int(local_us[row]), "kind": "pressure"}
        values.append(encode("Event", event | {"exchange": exchange}))
    entries, memory = columns_of(values, np.ones(len(values), np.bool_), appended_ms)
    judge = Judge()
    verdicts = judge.step(judge.new_state(0), entries).verdicts
    del memory
    bound_ms = np.where(verdicts.bound_us < 0, np.nan, verdicts.bound_us / US_PER_MS)
    reading_ms, offset_ms = local_us / US_PER_MS - appended_ms, verdicts.offset_us / US_PER_MS
    return Learnt(
        source.appended_s, source.off_ms, reading_ms, offset_ms, bound_ms, verdicts.severity.astype(np.float64)
    )
