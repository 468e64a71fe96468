"""Whether many sources moved together: then it was the broker's clock that moved, and not theirs.

Problem: append times are the broker's. Where the clock of a partition's leader steps, every source seems to step, or to
be late, and hundreds of alerts say of hundreds of right clocks that they are wrong. One source cannot tell; all of a
partition together can: a delay differs from source to source and from second to second, the step of the one clock that
stamps them all does not.

How. Two readings that lie elsewhere by a second or more raise the question, low ones if they are a second apart (what
a queue gives back together looks alike for a moment); so does a step that is confirmed. Of the sources that were known
and have been heard of since:

    moved   its readings lie elsewhere, or it stepped, within the same stretch of time, by the same amount to 250 ms
    not     it was heard where it was expected, or its readings lie elsewhere by another amount

Where at least 8 moved, and 4 in 5 of all, the authority is taken to have moved by the mean of them, the other way. From
then on `shift_ms` is taken off append times before a clock is estimated, a cause is found or an alert opened; what was
learnt of a clock that seemed to step is undone. The plain severity stays what it is; its cause then is AUTHORITY.

GUARANTEE a function of the partition's entries: the question is asked when entries say so, at most once a second of
authority time, and once for each quarter as many events as there are sources, so that its cost is bounded.
HAZARD a way to the broker that becomes longer for all sources by the same amount, and stays so to within their jitter,
looks like a broker's clock that went ahead. A partition of fewer than 8 sources says nothing of its broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.memory import kernel
from streams.alert_kernel import (
    AT_OPEN,
    CAUSE,
    EVENTS,
    FIRST,
    FIRST_MS,
    LAST,
    OPENED_MS,
    QUESTION_COLUMNS,
    READ_COLUMNS,
    READ_SEQUENCE,
    READ_VALUE_MS,
    REVISION,
    WORST,
    AlertState,
)
from streams.causes import Cause, rounded_ms
from streams.clock_columns import (
    BEST_MS,
    DISTURBANCES,
    GOOD_MS,
    LAST_STEP_US,
    LINE_MS,
    OFF_COUNT,
    OFF_FIRST_MS,
    OFF_FIRST_SEQUENCE,
    OFF_MAX_US,
    SAMPLES,
    STEP_MS,
    STEP_US,
    instant_of,
)
from streams.estimate_kernel import CONFIRM_READINGS, move
from streams.severity import GREEN
from streams.severity_kernel import severity_of
from streams.sources import COUNT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streams.sources import Sources

# Columns of what is known of a partition's authority, after those of the alert about it (see alert_kernel).
#: By how much it is ahead.
SHIFT_MS: Final = QUESTION_COLUMNS
#: When that was found: round trips from before say nothing any more.
SHIFTED_MS: Final = QUESTION_COLUMNS + 1
#: The second and the sequence at which was asked last.
ASKED_S: Final = QUESTION_COLUMNS + 2
ASKED_SEQUENCE: Final = QUESTION_COLUMNS + 3
#: How many sources moved when it was found, and of how many.
MOVED: Final = QUESTION_COLUMNS + 4
OF: Final = QUESTION_COLUMNS + 5
AUTHORITY_COLUMNS: Final = QUESTION_COLUMNS + 6

MOVED_MIN: Final = 8
_MOVED_SHARE: Final = 0.8
_STEP_MIN_US: Final = 1_000_000
_RUN_MIN_MS: Final = 1_000
_TOLERANCE_US: Final = 250_000
_SPAN_MIN_MS: Final = 10_000
_EVENTS_SHARE: Final = 4
_MS_PER_S: Final = 1_000
_OPENED, _CHANGED, _CLOSED = (int(state) for state in AlertState)
_CAUSE_AUTHORITY: Final = int(Cause.AUTHORITY)


@kernel
def true_ms_of(authority_ms: int, shift_ms: int) -> int:
    """What an append time should have been, of an authority that is so much ahead."""
    return authority_ms if shift_ms == 0 else instant_of(authority_ms) - shift_ms


@kernel
def _at(clocks: NDArray[np.int64], slot: int, at_ms: int) -> int:
    """An instant as the source's estimate reckons it."""
    return int(max(instant_of(at_ms), clocks[slot, LINE_MS], clocks[slot, GOOD_MS], clocks[slot, BEST_MS]))


@kernel
def _amount(clocks: NDArray[np.int64], slot: int, at_ms: int, first_ms: int, span_ms: int) -> tuple[bool, int]:
    """Whether a source lies elsewhere since about first_ms, and by how many us."""
    if clocks[slot, OFF_COUNT] > 0 and abs(clocks[slot, OFF_FIRST_MS] - first_ms) <= span_ms:
        return True, int(clocks[slot, OFF_MAX_US])
    if clocks[slot, LAST_STEP_US] != 0 and first_ms - span_ms <= clocks[slot, STEP_MS] <= _at(clocks, slot, at_ms):
        return True, int(clocks[slot, LAST_STEP_US])
    return False, 0


@kernel
def _question(clocks: NDArray[np.int64], slot: int, at_ms: int, stepped: bool) -> tuple[int, int]:  # noqa: FBT001
    """Since when, and by how much, a source moved that raises the question; an amount of 0 where it does not."""
    if stepped and abs(clocks[slot, LAST_STEP_US]) >= _STEP_MIN_US:
        return int(clocks[slot, STEP_MS]), int(clocks[slot, LAST_STEP_US])
    off_us = clocks[slot, OFF_MAX_US]
    lasts = off_us > 0 or _at(clocks, slot, at_ms) - clocks[slot, OFF_FIRST_MS] >= _RUN_MIN_MS
    if clocks[slot, OFF_COUNT] > 1 and lasts and abs(off_us) >= _STEP_MIN_US:
        return int(clocks[slot, OFF_FIRST_MS]), int(clocks[slot, OFF_MAX_US])
    return 0, 0


@kernel
def _shift_of(
    clocks: NDArray[np.int64], count: int, at_ms: int, first_ms: int, span_ms: int, amount_us: int
) -> tuple[int, int, int]:
    """How many sources moved by that amount, of how many, and the mean in us."""
    moved = of = total_us = 0
    for slot in range(count):
        if clocks[slot, SAMPLES] < CONFIRM_READINGS:
            continue
        elsewhere, by_us = _amount(clocks, slot, at_ms, first_ms, span_ms)
        if elsewhere and abs(by_us - amount_us) <= _TOLERANCE_US:
            moved += 1
            total_us += by_us
            of += 1
        elif elsewhere or clocks[slot, GOOD_MS] >= first_ms:
            of += 1
    return moved, of, total_us // moved if moved > 0 else 0


@kernel
def _undo(
    clocks: NDArray[np.int64], count: int, at_ms: int, first_ms: int, span_ms: int, amount_us: int
) -> None:  # fmt: skip
    """Of the sources that moved: what was learnt of it."""
    for slot in range(count):
        elsewhere, by_us = _amount(clocks, slot, at_ms, first_ms, span_ms)
        if clocks[slot, SAMPLES] < CONFIRM_READINGS or not elsewhere or abs(by_us - amount_us) > _TOLERANCE_US:
            continue
        if clocks[slot, OFF_COUNT] > 0 and abs(clocks[slot, OFF_FIRST_MS] - first_ms) <= span_ms:
            clocks[slot, OFF_COUNT] = 0
            continue
        move(clocks, slot, -by_us)
        clocks[slot, STEP_US] -= by_us
        clocks[slot, LAST_STEP_US] = 0
        if clocks[slot, STEP_US] == 0:
            clocks[slot, DISTURBANCES] -= 1


@kernel
def authority_moved(
    sources: Sources, authority: NDArray[np.int64], slot: int, authority_ms: int, stepped: bool,  # noqa: FBT001
    reading: NDArray[np.int64],
) -> tuple[bool, int, int, int]:  # fmt: skip
    """Ask, after an event of the source in a slot that lay elsewhere, or stepped, whether the authority moved.

    authority: int64[AUTHORITY_COLUMNS], moved along. reading: of the event. Returns whether it did; the AlertState to
    record, 0 for none; the severity of its alert before and after.
    """
    clocks, count = sources.clocks, sources.used[COUNT]
    sequence = reading[READ_SEQUENCE]
    at_ms = true_ms_of(authority_ms, authority[SHIFT_MS])
    first_ms, amount_us = _question(clocks, slot, at_ms, stepped)
    second = authority_ms // _MS_PER_S
    if amount_us == 0 or second == authority[ASKED_S] or sequence - authority[ASKED_SEQUENCE] < count // _EVENTS_SHARE:
        return False, 0, GREEN, GREEN
    authority[ASKED_S], authority[ASKED_SEQUENCE] = second, sequence
    span_ms = max(_SPAN_MIN_MS, _at(clocks, slot, at_ms) - first_ms)
    moved, of, mean_us = _shift_of(clocks, count, at_ms, first_ms, span_ms, amount_us)
    if moved < MOVED_MIN or moved < _MOVED_SHARE * of:
        return False, 0, GREEN, GREEN
    first = clocks[slot, OFF_FIRST_SEQUENCE] if clocks[slot, OFF_COUNT] > 0 else sequence
    _undo(clocks, count, at_ms, first_ms, span_ms, amount_us)
    before = severity_of(authority[SHIFT_MS])
    shift_ms = authority[SHIFT_MS] - rounded_ms(mean_us)
    if abs(shift_ms) <= rounded_ms(_TOLERANCE_US):
        shift_ms = 0
    after = severity_of(shift_ms)
    authority[SHIFT_MS], authority[SHIFTED_MS], authority[MOVED], authority[OF] = shift_ms, authority_ms, moved, of
    reading[READ_VALUE_MS] = shift_ms
    if before == GREEN and after == GREEN:
        return True, 0, GREEN, GREEN
    authority[REVISION] += 1
    authority[CAUSE] = _CAUSE_AUTHORITY
    if before == GREEN:
        authority[FIRST], authority[FIRST_MS], authority[OPENED_MS] = first, authority_ms, authority_ms
        _note(authority, AT_OPEN, reading)
    if before == GREEN or abs(shift_ms) > abs(authority[WORST + READ_VALUE_MS]):
        _note(authority, WORST, reading)
    authority[LAST] = sequence
    authority[EVENTS] = sequence - authority[FIRST] + 1
    return True, _OPENED if before == GREEN else _CLOSED if after == GREEN else _CHANGED, before, after


@kernel
def _note(authority: NDArray[np.int64], at: int, reading: NDArray[np.int64]) -> None:
    for column in range(READ_COLUMNS):
        authority[at + column] = reading[column]
