"""Why an event's times lie apart: the clock of its source, or the way it came.

Problem: local minus authority is the error of a clock less the delay of a message. A threshold on it cannot tell a slow
clock from a slow network, and whoever is woken by it looks in the wrong place.

With the estimate of the source's clock (see `estimate`) the two come apart: the clock is off by the estimate, and the
event was under way for what is left, estimate minus (local minus authority). Each is held against the limits of
`severity` by itself:

    what is known                                  clock is off by    cause      under way for
    no estimate yet, event stamped after arrival   local - authority  AHEAD      nobody knows: 0
    no estimate yet, stamped before arrival        local - authority  UNKNOWN    nobody knows: 0
    event stamped later than the estimate allows   local - authority  see below  0
    else                                           the estimate       see below  estimate - (local - authority)

    off by a step that was seen, or is seen now, and within the limit without it     STEP
    else off to the front                                                            AHEAD
    else                                                                             BEHIND

AHEAD is proved: nothing arrives before it was made, so a clock whose events do is ahead, by that at least. A delay
beyond the limit is a BACKLOG. An event has the cause of the larger of the two.

GUARANTEE a function of the source's readings up to this event.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from schemas.memory import kernel
from streams.clock_columns import DISTURBANCES, STEP_US
from streams.estimate_kernel import Place
from streams.severity import GREEN
from streams.severity_kernel import rounded_ms, severity_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Cause(enum.IntEnum):
    """Why; names as in the records of the alerts topic. AUTHORITY: the broker's clock is off, not the source's."""

    NONE = 0
    UNKNOWN = 1
    AHEAD = 2
    BEHIND = 3
    BACKLOG = 4
    STEP = 5
    AUTHORITY = 6


_NONE, _UNKNOWN, _AHEAD, _BEHIND, _BACKLOG, _STEP, _ = (int(cause) for cause in Cause)
_ABOVE: Final = int(Place.ABOVE)


@kernel
def blame(
    clocks: NDArray[np.int64], slot: int, known: bool, place: int, delta_ms: int, offset_us: int, watched: bool,  # noqa: FBT001
) -> tuple[int, int, int]:  # fmt: skip
    """By how many ms the clock is off, its Cause if that is beyond the limit, and how many ms the event was under way.

    known, offset_us: of the estimate after this event; place: of its reading; watched: whether the cause matters though
    nothing is beyond the limit.
    """
    if not known:
        return delta_ms, (_AHEAD if delta_ms > 0 else _UNKNOWN), 0
    offset_ms = rounded_ms(offset_us)
    value_ms, step_ms = offset_ms, 0
    if place == _ABOVE and delta_ms > offset_ms:
        value_ms, step_ms = delta_ms, delta_ms - offset_ms
    elif (watched or severity_of(value_ms) != GREEN or severity_of(delta_ms) != GREEN) and (
        clocks[slot, DISTURBANCES] > 0
    ):
        step_ms = rounded_ms(clocks[slot, STEP_US])
    cause = _AHEAD if value_ms > 0 else _BEHIND
    if step_ms != 0 and severity_of(value_ms - step_ms) == GREEN:
        cause = _STEP
    return value_ms, cause, max(0, value_ms - delta_ms)


@kernel
def cause_of(severity: int, value_ms: int, clock_cause: int, delay_ms: int) -> int:
    """The Cause of one event, from its severity and what `blame` says; NONE where nothing is beyond a limit."""
    if severity == GREEN and severity_of(value_ms) == GREEN and severity_of(delay_ms) == GREEN:
        return _NONE
    return _BACKLOG if delay_ms > abs(value_ms) else clock_cause
