"""Frame corrected: when an event was by its source's clock put right, how sure that is, and near which edges it lies.

Problem: a window by local time is wrong by as much as its sources' clocks are, one by authority time by as much as
events were under way. Judge knows the offset of each source's clock, and how far the truth may be from it (see
`estimate`): local time less that offset is right to within a bound of some ten milliseconds. What a bound means for a
window is this: an event within it of an edge may belong to the neighbour. So each result says how many these are.

    estimate known, clock not RED      local - offset, with its bound
    clock RED                          as the definition's `red` says
    no estimate known                  as its `unknown` says

An event that is dated by the broker instead lies near both edges, for nobody knows how long it was under way.
"""

from __future__ import annotations

from typing import Final

from schemas.memory import kernel
from streams.severity import RED
from streams.severity_kernel import rounded_ms, severity_of
from streams.windows import Doubtful

#: What a definition does with an event: correct it, date it by authority, or leave it out.
TO_CORRECTED, TO_AUTHORITY, TO_NOTHING = 0, 1, 2
WAYS: Final = {
    Doubtful.CORRECT: TO_CORRECTED,
    Doubtful.AUTHORITY: TO_AUTHORITY,
    Doubtful.EXCLUDE: TO_NOTHING,
    Doubtful.SIDE: TO_NOTHING,
}
#: In place of a bound: the event is dated by authority; it is left out, RED or UNKNOWN.
BY_AUTHORITY: Final = -1
RED_OUT: Final = -2
UNKNOWN_OUT: Final = -3
#: Local times beyond it, of either sign, are of no clock: they stay as they are.
_LOCAL_MAX_US: Final = 1 << 62


@kernel
def corrected(
    local_us: int, authority_us: int, offset_us: int, bound_us: int, red: int, unknown: int
) -> tuple[int, int]:
    """The event's time, and its bound or one of the numbers above. bound_us: below 0 where there is no estimate."""
    way, out = TO_CORRECTED, RED_OUT
    if bound_us < 0:
        way, out = unknown, UNKNOWN_OUT
    elif severity_of(rounded_ms(offset_us)) == RED:
        way = red
    if way == TO_AUTHORITY:
        return authority_us, BY_AUTHORITY
    if way == TO_NOTHING:
        return local_us, out
    if -_LOCAL_MAX_US <= local_us <= _LOCAL_MAX_US:
        return local_us - offset_us, bound_us
    return local_us, bound_us


@kernel
def is_near(time_us: int, bound_us: int, start_us: int, end_us: int) -> bool:
    """Whether an event of the window [start_us, end_us) may belong to another one. bound_us: as above."""
    return bool(bound_us < 0 or time_us - start_us < bound_us or end_us - time_us <= bound_us)
